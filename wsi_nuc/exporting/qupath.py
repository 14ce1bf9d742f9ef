"""QuPath's GeoJSON: one detection per nucleus, with its class, colour, scores and everything that was measured.

Both programs count from the corner of the first level-0 pixel, so coordinates are written as they are, to 1/10,000
of a pixel. Without a value, as for an IoU that the model does not predict, a measurement is left out. QuPath takes
a class `a: b` for class a with the addition b. A script for QuPath's script editor comes along, which adds the
nuclei to the open image, also from a compressed file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from wsi_nuc.exporting.columns import classes, keys, labels, members, ring_texts, write_items
from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import MEASURED, About
from wsi_nuc.store.nuclei_rows import NucleiRows

COLUMNS = ("score", "prompt_score", "predicted_iou", "area_um2", MEASURED, "class", "class_id")
SUFFIX = ".geojson"
BESIDE = (".groovy",)
# The names that QuPath gives them. Others have the names of the columns.
MEASUREMENTS = {
    "score": "Detection probability",
    "prompt_score": "Prompt score",
    "predicted_iou": "Predicted IoU",
    "area_um2": "Area um^2",
}
_DECIMALS = 4
_SCRIPT = """\
// Adds the nuclei of {name} to the image that is open in QuPath (0.5 or later).
// Open this file in the script editor, and run it. The nuclei are looked for in the folder of the project;
// if they are not there, QuPath asks where they are.
import java.util.zip.GZIPInputStream
import qupath.fx.dialogs.FileChoosers
import qupath.lib.io.PathIO

def name = {text}
def folder = getProject()?.getPath()?.getParent()?.toString() ?: "."
def file = new File(folder, name)
if (!file.exists())
    file = FileChoosers.promptForFile("Where is " + name + "?")
if (file == null)
    return
def objects = file.withInputStream {{ stream ->
    PathIO.readObjectsFromGeoJSON(file.name.endsWith(".gz") ? new GZIPInputStream(stream) : stream)
}}
addObjects(objects)
println objects.size() + " nuclei were added"
"""


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    styles = [
        json.dumps({"name": name, "color": list(colour)}, separators=(",", ":"))
        for name, colour in zip(about.classes, about.colours, strict=True)
    ]
    output.write(b'{"type":"FeatureCollection","features":[')
    write_items(nuclei, output, lambda rows: _features(rows, about, styles))
    output.write(b"\n]}\n")


def holds(name: str) -> bool:
    """QuPath refuses other names of classes."""
    return bool(name.strip()) and "\n" not in name


def beside(about: About, name: str) -> list[bytes]:
    text = json.dumps(name).replace("$", "\\$")
    return [_SCRIPT.format(name=json.dumps(name)[1:-1], text=text).encode()]


def _features(rows: NucleiRows, about: About, styles: list[str]) -> Any:
    """The text of each feature, as an Arrow array."""
    import pyarrow.compute as pc

    measured = {
        MEASUREMENTS.get(name, label): rows.columns[name]
        for name, label in labels(about).items()
        if name not in ("class", "class_id")
    }
    return pc.binary_join_element_wise(
        '{"type":"Feature","id":"',
        keys(rows, about),
        '","geometry":{"type":"Polygon","coordinates":[[[',
        ring_texts(rows.rings.closed(), _DECIMALS),
        ']]]},"properties":{"objectType":"detection","classification":',
        classes(rows, styles),
        ',"measurements":{',
        *members(measured),
        "}}}",
        "",
    )
