"""Compose one call: slides in, verified results out."""

from wsi_nuc.run.session import run_session
from wsi_nuc.run.success_or_failure import SlideResult

__all__ = ["SlideResult", "run_session"]
