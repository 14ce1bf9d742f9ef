"""Stitching: from the candidates of overlapping tiles to each nucleus of the slide, once. See DESIGN.md."""

from wsi_nuc.stitch.candidates import RegionCandidates
from wsi_nuc.stitch.geometry import StitchGeometry
from wsi_nuc.stitch.rivals import StitchRule
from wsi_nuc.stitch.stitcher import StitchStats, stitch

__all__ = ["RegionCandidates", "StitchGeometry", "StitchRule", "StitchStats", "stitch"]
