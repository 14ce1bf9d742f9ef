"""QuPath's GeoJSON: one detection per nucleus, with its class, its scores and its area.

Both programs count from the corner of the first level-0 pixel, so coordinates are written as they are.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

SUFFIX = ".geojson"
COLUMNS = ("class", "class_id", "score", "prompt_score", "predicted_iou", "area_um2")
MEASUREMENTS = {
    "score": "Detection probability",
    "prompt_score": "Prompt score",
    "predicted_iou": "Predicted IoU",
    "area_um2": "Area um^2",
}
_DECIMALS = 4
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    output.write(b'{"type":"FeatureCollection","features":[')
    separator = b"\n"
    for rows in nuclei:
        for feature in features(rows, about):
            output.write(separator + _ENCODER.encode(feature).encode())
            separator = b",\n"
    output.write(b"\n]}\n")


def features(rows: NucleiRows, about: About) -> Iterator[dict[str, Any]]:
    space = uuid.uuid5(uuid.NAMESPACE_OID, about.slide_sha256)
    names, number, colours = rows.columns["class"], rows.columns["class_id"], about.colours
    measured = {label: np.round(rows.columns[name].astype(np.float64), _DECIMALS).tolist()
                for name, label in MEASUREMENTS.items()}  # fmt: skip
    closed = rows.rings.closed()
    starts, xy = closed.offsets.tolist(), np.round(closed.xy, _DECIMALS).tolist()
    for i, nucleus in enumerate(rows.rings.ids.tolist()):
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(space, str(nucleus))),
            "geometry": {"type": "Polygon", "coordinates": [xy[starts[i] : starts[i + 1]]]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": names[i], "color": colours[int(number[i])]},
                # Not every model predicts an IoU, and JSON has no NaN.
                "measurements": {label: values[i] for label, values in measured.items() if values[i] == values[i]},
            },
        }
