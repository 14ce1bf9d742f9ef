"""One HTML file about a cohort: what became of it, how its figures spread, which slides to look at."""

from wsi_nuc.cohort.report.page import write_report

__all__ = ["write_report"]
