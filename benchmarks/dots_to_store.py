"""From dots that people set to a finished store: how long it takes, and how good it is where nobody set a dot.

Images of BRCA-M2C are laid out as one slide, with the dots that their annotators set, each image in a region of
its own. Twelve images of its training split keep their dots. Four of its validation split, of other patients, keep
none: there the store is compared with the dots that were held back. The default model has learned from the same
training images, but not from the four. WSI_NUC_REAL_DATA names the folder of the data sets.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from benchmarks.command import cost_of
from benchmarks.table import Row, print_rows
from wsi_nuc.evaluation.detection import detection
from wsi_nuc.store.nuclei_rows import NucleiReader
from wsi_nuc.types import Float64

DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "brca_m2c"
MPP, CELL_PX, COLUMNS = 0.5, 512, 4
DOTTED, HELD_BACK = 12, 4
RADIUS_PX = 6.0
STEPS = 450


def measure(small: bool = False) -> list[Row]:
    if not DATA.is_dir():
        return [Row(f"dots to store: no data at {DATA}", 0.0, "", "BRCA-M2C", False)]
    with tempfile.TemporaryDirectory() as folder:
        return rows(Path(folder), small)


def rows(folder: Path, small: bool) -> list[Row]:
    held_back = laid_out(folder, 4 if small else DOTTED, 1 if small else HELD_BACK)
    steps = ["--set", f"steps={1 if small else STEPS}", *(["--set", "batch=1"] if small else [])]
    start = time.perf_counter()
    cost_of("train", "instasam", "--points", folder / "dots.geojson", "--slide", folder / "slide.tiff",
                "--out", folder / "model", "--quiet", *steps)  # fmt: skip
    trained = time.perf_counter()
    table = [Row("from dots to model", (trained - start) / 60, "min")]
    for name, model in (("from the dots", folder / "model/model.safetensors"), ("default", "default")):
        begun = time.perf_counter()
        cost_of("run", folder / "slide.tiff", "--out", folder / "results" / name, "--model", model, "--quiet")
        if name != "default":
            minutes = (time.perf_counter() - begun + trained - start) / 60
            table.append(Row("from dots to store", minutes, "min", "< 60", minutes < 60))
        scores = [f1(folder / "results" / name / "slide.tiff.zarr", xy, corner) for xy, corner in held_back]
        table.append(Row(f"F1 at {RADIUS_PX:g} px where no dot was given, {name}", float(np.mean(scores))))
    return table


def laid_out(folder: Path, dotted: int, held_back: int) -> list[tuple[Float64, tuple[int, int]]]:
    """Write slide and dots. Returned are dots and corner of each image whose dots are held back."""
    with (DATA / "manifest.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    train = [row["id"] for row in listed if row["split"] == "train"]
    chosen = train[:: len(train) // dotted][:dotted]
    chosen += [row["id"] for row in listed if row["split"] == "val"][:held_back]
    canvas = np.full((-(-len(chosen) // COLUMNS) * CELL_PX, COLUMNS * CELL_PX, 3), 255, np.uint8)
    features: list[dict[str, Any]] = []
    kept_back = []
    for number, name in enumerate(chosen):
        rgb = cv2.cvtColor(cv2.imread(str(DATA / "images" / f"{name}.png")), cv2.COLOR_BGR2RGB)
        x, y = number % COLUMNS * CELL_PX, number // COLUMNS * CELL_PX
        canvas[y : y + len(rgb), x : x + rgb.shape[1]] = rgb
        with (DATA / "points" / f"{name}.csv").open(newline="") as file:
            dots = [(float(row["x"]), float(row["y"]), row["class"]) for row in csv.DictReader(file)]
        if number < dotted:
            features.append(_region(x, y, rgb.shape[1], rgb.shape[0]))
            features += [_dot(x + dot[0], y + dot[1], dot[2]) for dot in dots]
        else:
            kept_back.append((np.array([dot[:2] for dot in dots]), (x, y)))
    resolution = 10_000 / MPP
    with tifffile.TiffWriter(folder / "slide.tiff") as file:
        file.write(canvas, photometric="rgb", tile=(256, 256), resolution=(resolution, resolution),
                   resolutionunit="CENTIMETER")  # fmt: skip
    (folder / "dots.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return kept_back


def _region(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [corners]}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}


def _dot(x: float, y: float, name: str) -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": name}}
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [x, y]}, "properties": properties}


def f1(store: Path, dots: Float64, corner: tuple[int, int]) -> float:
    """Of the nuclei in one image against the dots that were held back."""
    with NucleiReader(store, ["x", "y", "score"]) as reader:
        nuclei = [rows.columns for rows in reader.each()]
    xy = np.concatenate([np.column_stack([part["x"], part["y"]]) for part in nuclei]) - corner
    score = np.concatenate([part["score"] for part in nuclei])
    inside = ((xy >= 0) & (xy < CELL_PX)).all(1)
    return detection(dots, xy[inside], score[inside], RADIUS_PX).f1


if __name__ == "__main__":
    print_rows(measure())
