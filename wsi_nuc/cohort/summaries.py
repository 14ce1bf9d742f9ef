"""One file of figures a slide, made once when the slide is done: collecting ten thousand reads only these."""

from __future__ import annotations

import json
import math
import sys

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.records import read_json
from wsi_nuc.features.summary import slide_summary

Figures = dict[str, float | int | str]


def summarise(folder: CohortFolder, slide_id: str, digest: str) -> None:
    """Leave the figures of a published slide. What is unknown (NaN) has no entry in the file."""
    if read(folder, slide_id, digest) is not None:
        return
    figures = {key: value for key, value in slide_summary(folder.store(slide_id)).items() if _known(value)}
    document = {"digest": digest, "figures": figures}
    folder.write(folder.summary(slide_id), json.dumps(document, allow_nan=False).encode() + b"\n")


def _known(value: float | int | str) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def read(folder: CohortFolder, slide_id: str, digest: str) -> Figures | None:
    """The figures of the result with this digest; None where they are those of another, or not there."""
    document = read_json(folder.summary(slide_id))
    if document is None or document.get("digest") != digest:
        return None
    # One string for each name, not one for each slide: that is a third of what ten thousand slides hold.
    return {sys.intern(name): value for name, value in document["figures"].items()}
