"""OME-Zarr labels (version 0.5): two pyramids, `nuclei` with the id of the nucleus at each pixel, `classes` with
the number of its class.

The folder is what lies at `labels` in an image's OME-Zarr, and opens as it is, too. Pixels are those of level 0,
scaled to micrometres. A pixel belongs to the nucleus that covers its centre, which is at (column + 0.5, row + 0.5)
in the store; where nuclei overlap, to the later one. Ids are those of the store; classes have their numbers plus
1, with names and colours under `image-label`, since 0 is the background. Coarser levels take every fourth pixel.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.exporting.registry import About
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.labels import RingGroups, write_pyramid
from wsi_nuc.store.nuclei_rows import NucleiRows
from wsi_nuc.store.reading import StoredRings
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Float64

SUFFIX, KIND, MARK = ".labels.zarr", "folder", "classes/zarr.json"
COLUMNS = ("class_id",)
_VERSION = "0.5"
# Below the folder that is made, so that it disappears together with it, even after a kill.
_SPOOL = ".rows"


def write_path(nuclei: Iterable[NucleiRows], about: About, path: Path) -> None:
    folder, spool = ZarrFolder(made_folder(path)), path / _SPOOL
    spool.mkdir()
    boxes = _spooled(nuclei, spool)
    size = (about.slide["width_px"], about.slide["height_px"])
    for name in ("nuclei", "classes"):

        def load(group: int, name: str = name) -> StoredRings:
            with np.load(spool / f"{group}.npz") as held:
                return StoredRings(held["xy"], held["offsets"], held[name], held["bounds"])

        factors = write_pyramid(folder, name, RingGroups(boxes, load).fill, *size)
        folder.group(name, {"ome": _multiscales(name, about, factors)})
    shutil.rmtree(spool)
    folder.seal({"ome": {"version": _VERSION, "labels": ["nuclei", "classes"]}})


def _spooled(nuclei: Iterable[NucleiRows], spool: Path) -> Float64:
    """Writes each group of rows to a file; gives the boxes of the groups, G x 4."""
    boxes: list[list[float]] = []
    for rows in nuclei:
        if len(rows):
            rings, classes = rows.rings, rows.columns["class_id"].astype(np.int64) + 1
            arrays: Any = {"xy": rings.xy, "offsets": rings.offsets, "bounds": rings.bounds_l0}
            np.savez(spool / f"{len(boxes)}.npz", nuclei=rings.ids, classes=classes, **arrays)
            boxes.append([*rings.bounds_l0[:, :2].min(axis=0), *rings.bounds_l0[:, 2:].max(axis=0)])
    return np.array(boxes, np.float64).reshape(-1, 4)


def _multiscales(name: str, about: About, factors: list[float]) -> dict[str, Any]:
    datasets = [
        {
            "path": f"s{level}",
            "coordinateTransformations": [{"type": "scale", "scale": [about.mpp * factor] * 2}],
        }
        for level, factor in enumerate(factors)
    ]
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    kinds = list(enumerate(zip(about.classes, about.colours, strict=True), 1)) if name == "classes" else []
    about_labels = {
        "colors": [{"label-value": number, "rgba": [*colour, 255]} for number, (_, colour) in kinds],
        "properties": [{"label-value": number, "class": name} for number, (name, _) in kinds],
    }
    return {
        "version": _VERSION,
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        "image-label": about_labels if kinds else {},
    }
