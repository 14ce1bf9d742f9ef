"""Compose one call: slides in, verified results out."""

from wsi_nuc.run.result import SlideResult
from wsi_nuc.run.session import run_slides

__all__ = ["SlideResult", "run_slides"]
