"""Labelled images in every published layout, read into the same record, and their check.

`load_dataset(folder)` returns a `Dataset` of `LabelledImage`; `check_dataset(folder)` returns a `Report` about it.
"""

from wsi_nuc.datasets.check import Report, check_dataset
from wsi_nuc.datasets.record import DataError, Dataset, LabelledImage
from wsi_nuc.datasets.registry import load_dataset

__all__ = ["DataError", "Dataset", "LabelledImage", "Report", "check_dataset", "load_dataset"]
