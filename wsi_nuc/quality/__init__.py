"""Whether a slide and its result can be trusted: the check of the resolution by a sample of nuclei."""

from wsi_nuc.quality.resolution import MppVerdict, check_mpp

__all__ = ["MppVerdict", "check_mpp"]
