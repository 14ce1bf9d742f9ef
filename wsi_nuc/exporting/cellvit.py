"""CellViT's and CellViT++'s cells.json: one cell per nucleus, with its box, centroid, contour and type.

Contours are written as they are, in level-0 pixels from the corner of the first pixel: programs that take this
file, such as QuPath and `wsi-nuc import`, read it so. (CellViT's own contours run through the middles of the
outermost pixels and name each pixel by whole numbers. On top of those, ours lie half a pixel right and down.)
Boxes have rows before columns, as CellViT's do. Types have the numbers of the classes plus 1, since 0 is the
background. `type_prob` is the score of the nucleus, as this program reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from wsi_nuc.exporting.columns import number_texts, ring_texts, write_items
from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

SUFFIX = ".cells.json"
COLUMNS = ("class_id", "score")
_DECIMALS = 4
# What microns per pixel times magnification is, about: 0.25 at 40x.
_MPP_AT_1X = 10.0
_OBJECTIVES = (1.25, 2.5, 5, 10, 20, 40, 60, 100)


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    power = magnification(about.mpp)
    head = {
        "wsi_metadata": {
            "base_mpp": about.mpp,
            "base_magnification": power,
            "target_patch_mpp": about.mpp,
            "magnification": power,
            "downsampling": 1,
            "level": 0,
        },
        "type_map": types(about.classes),
    }
    output.write(json.dumps(head)[:-1].encode() + b',"cells":[')
    write_items(nuclei, output, cells)
    output.write(b"\n]}\n")


def types(classes: Iterable[str]) -> dict[str, str]:
    """The name of each number of a type."""
    return {"0": "Background"} | {str(number): name for number, name in enumerate(classes, 1)}


def magnification(mpp: float) -> float:
    """The usual objective that is nearest to the resolution."""
    return min(_OBJECTIVES, key=lambda power: abs(np.log(_MPP_AT_1X / mpp / power)))


def cells(rows: NucleiRows) -> Any:
    """The text of each nucleus, as an Arrow array: box, centroid, contour, probability and type.

    HoVer-Net gives them the same names.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    left, top, right, bottom = number_texts(rows.rings.bounds(), _DECIMALS)
    x, y = number_texts(rows.rings.areas_and_centres()[1], _DECIMALS)
    (score,) = number_texts(rows.columns["score"][:, None], _DECIMALS)
    kinds = pa.array(rows.columns["class_id"].astype(np.int64) + 1)
    return pc.binary_join_element_wise(
        *('{"bbox":[[', top, ",", left, "],[", bottom, ",", right, "]]"),
        *(',"centroid":[', x, ",", y, "]"),
        *(',"contour":[[', ring_texts(rows.rings, _DECIMALS), "]]"),
        *(',"type_prob":', score, ',"type":', kinds.cast(pa.string()), "}"),
        "",
    )
