"""COCO's JSON: one annotation per nucleus with its polygon, box, area and score; the slide is its one image.

COCO counts from the corner of the first pixel, as this program does, so coordinates are written as they are.
Categories have the numbers of the classes plus 1, since 0 is the background. Areas are in square pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

SUFFIX = ".coco.json"
COLUMNS = ("class_id", "score")
_DECIMALS = 4
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


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
    output.write(_ENCODER.encode(head)[:-1].encode() + b',"annotations":[')
    separator = b"\n"
    for rows in nuclei:
        for annotation in _annotations(rows):
            output.write(separator + _ENCODER.encode(annotation).encode())
            separator = b",\n"
    output.write(b"\n]}\n")


def _annotations(rows: NucleiRows) -> Iterator[dict[str, Any]]:
    starts = (rows.rings.offsets * 2).tolist()
    xy = np.round(rows.rings.xy, _DECIMALS).ravel().tolist()
    bounds = rows.rings.bounds()
    boxes = np.round(np.hstack([bounds[:, :2], bounds[:, 2:] - bounds[:, :2]]), _DECIMALS).tolist()
    areas = np.round(rows.rings.areas_and_centres()[0], _DECIMALS).tolist()
    scores = np.round(rows.columns["score"].astype(np.float64), _DECIMALS).tolist()
    categories = (rows.columns["class_id"].astype(np.int64) + 1).tolist()
    for i, nucleus in enumerate(rows.rings.ids.tolist()):
        yield {
            "id": nucleus,
            "image_id": 1,
            "category_id": categories[i],
            "segmentation": [xy[starts[i] : starts[i + 1]]],
            "area": areas[i],
            "bbox": boxes[i],
            "iscrowd": 0,
            "score": scores[i],
        }
