"""COCO's JSON: one annotation per nucleus with its polygon, box, area and score; the slide is its one image.

COCO counts from the corner of the first pixel, as this program does, so coordinates are written as they are.
Categories have the numbers of the classes plus 1, since 0 is the background. Areas are in square pixels.
Outlines are always polygons. pycocotools makes masks or RLE of them for slides of less than 2^32 pixels.
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

SUFFIX = ".coco.json"
COLUMNS = ("class_id", "score")
_DECIMALS = 4


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    size = {"width": about.slide["width_px"], "height": about.slide["height_px"]}
    head = {
        "info": {"description": "nuclei, in level-0 pixels", "mpp": about.mpp},
        "images": [{"id": 1, "file_name": about.slide["file"], **size}],
        "categories": [
            {"id": number, "name": name, "supercategory": "nucleus"}
            for number, name in enumerate(about.classes, 1)
        ],
    }
    output.write(json.dumps(head)[:-1].encode() + b',"annotations":[')
    write_items(nuclei, output, _annotations)
    output.write(b"\n]}\n")


def _annotations(rows: NucleiRows) -> Any:
    """The text of each annotation, as an Arrow array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    low, high = np.hsplit(rows.rings.bounds(), 2)
    left, top, width, height = number_texts(np.hstack([low, high - low]), _DECIMALS)
    area, score = number_texts(
        np.column_stack([rows.rings.areas_and_centres()[0], rows.columns["score"]]), _DECIMALS
    )
    ids, categories = rows.rings.ids, rows.columns["class_id"].astype(np.int64) + 1
    return pc.binary_join_element_wise(
        *('{"id":', pa.array(ids).cast(pa.string()), ',"image_id":1,"iscrowd":0'),
        *(',"category_id":', pa.array(categories).cast(pa.string())),
        *(',"segmentation":[[', ring_texts(rows.rings, _DECIMALS, between=","), "]]"),
        *(',"bbox":[', left, ",", top, ",", width, ",", height, "]"),
        *(',"area":', area, ',"score":', score, "}"),
        "",
    )
