"""Looks at a sample of a slide's nuclei before anything is run: can what the header says be true?"""

from wsi_nuc.doctor.mpp import MppVerdict, check_mpp

__all__ = ["MppVerdict", "check_mpp"]
