"""One HTML file about a cohort: the state of its slides, how their figures spread, and which to look at."""

from wsi_nuc.cohort.report.page import write_report

__all__ = ["write_report"]
