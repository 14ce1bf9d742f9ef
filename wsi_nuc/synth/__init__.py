"""Drawn slides that look like H&E, with the exact outline and class of every nucleus."""

from wsi_nuc.synth.spec import CLASSES, SynthSpec, SynthTruth
from wsi_nuc.synth.write import synth_slide, truth_path, write_slide

__all__ = ["CLASSES", "SynthSpec", "SynthTruth", "synth_slide", "truth_path", "write_slide"]
