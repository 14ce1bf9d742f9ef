"""The figures of a patient from those of the slides: sums, and means with the weight that makes them exact.

A density is pooled by usable tissue, a share by nuclei, a mean area by the nuclei of its class: each is then what
one slide with all of the tissue would have. Quantiles, enrichments and measures of spread cannot be pooled
exactly; their mean by nuclei stands for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

SUMMED = ("nuclei", "tissue_mm2", "usable_mm2", "squares_in_tissue")
SUMMED_FIRST = ("count_", "tiles_")
BY_TISSUE = ("nuclei_per_mm2", "nuclei_area_share")
BY_TISSUE_FIRST = ("per_mm2_", "area_share_of_tissue_")
OF_ONE_SLIDE = ("width_px", "height_px", "slide_sha256", "unlike_training_images")


def pooled(slides: Sequence[Row]) -> Row:
    """`slides`: the figures of each done slide by name. Unknown ones are left out of a mean, not taken for 0."""
    names = dict.fromkeys(name for row in slides for name in row if name not in OF_ONE_SLIDE)
    return {name: _pool(name, slides) for name in names}


def _pool(name: str, slides: Sequence[Row]) -> Any:
    known = [row for row in slides if row.get(name) is not None]
    values = [row[name] for row in known]
    if name == "mpp" or any(isinstance(value, str) for value in values):
        return values[0] if len(known) == len(slides) and len(set(values)) == 1 else None
    if name in SUMMED or name.startswith(SUMMED_FIRST):
        return sum(values) if all(isinstance(value, int) for value in values) else math.fsum(values)
    weights = [float(row.get(_weight_of(name, row)) or 0.0) for row in known]
    total = math.fsum(weights)
    if not total:
        return None
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _weight_of(name: str, row: Row) -> str:
    """The column whose values weigh those of `name`."""
    if name in BY_TISSUE or name.startswith(BY_TISSUE_FIRST):
        return "usable_mm2"
    if name.startswith("area_um2_"):
        # area_um2_STATISTIC_CLASS, and a class may have underscores of its own.
        counted = f"count_{name.removeprefix('area_um2_').partition('_')[2]}"
        if counted in row:
            return counted
    return "nuclei"
