"""Nuclei and stores for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store import layout
from wsi_nuc.store.commit import Acceptable, Published, Staging, accept_all, publish
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Accounting, Json, Origin, build, identity_key
from wsi_nuc.store.nuclei_columns import NucleiWriter, Summary
from wsi_nuc.store.place import Place
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import Float64, Int64, TileCounts

CLASSES = ("tumour", "stroma", "immune")
CORE_PX = 256


def nuclei(count: int, seed: int = 0, classes: int = len(CLASSES), size: int = 4096) -> NucleiTable:
    """Star-shaped rings of 8 to 32 vertices around random centres, on half pixels as masks give them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 33, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    row = np.repeat(np.arange(count), lengths)
    angle = 2 * np.pi * (np.arange(offsets[-1]) - offsets[row]) / np.maximum(lengths[row], 1)
    centre = rng.integers(20, size - 20, (count, 2)).astype(np.float64)
    # A strictly increasing radius direction keeps every ring simple; half pixels would merge vertices below 6 px.
    radius = rng.uniform(8, 16, count)[row]
    xy = centre[row] + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    probs = rng.dirichlet(np.ones(classes), count).astype(np.float32).reshape(count, classes)
    score = rng.random(count).astype(np.float32)
    iou = np.where(np.arange(count) % 2, score, np.float32(np.nan)).astype(np.float32)
    tile = (centre[:, 1] // CORE_PX * (size // CORE_PX) + centre[:, 0] // CORE_PX).astype(np.int64)
    return NucleiTable(xy, offsets, centre, score, score, iou, probs, tile)


def core_boxes_l0(tile: Int64, size: int = 4096) -> Float64:
    columns = size // CORE_PX
    low = np.column_stack([tile % columns, tile // columns]) * float(CORE_PX)
    return np.hstack([low, low + CORE_PX])


def origin(slide: str = "a" * 64, **config: object) -> Origin:
    key = identity_key(slide, "b" * 64, {"model": "classical", **config}, {"pipeline": 1})
    return Origin(key, {"width": 4096, "height": 4096}, {"wsi_nuc": "0.1"})


def write_nuclei(folder: ZarrFolder, tables: list[NucleiTable]) -> Summary:
    with NucleiWriter(folder, CLASSES, 0.25, core_boxes_l0) as writer:
        for table in tables:
            writer.append(table)
        return writer.finish(1.0)


def write_store(root: Place, tables: list[NucleiTable], made: Origin | None = None) -> Summary:
    folder = ZarrFolder(root)
    summary = write_nuclei(folder, tables)
    layout.seal(folder, (made or origin()).key, summary.class_figures)
    return summary


def publish_store(
    out_dir: Path,
    count: int = 50,
    name: str = "x.svs.zarr",
    made: Origin | None = None,
    overwrite: bool = False,
    failed: int = 0,
    acceptable: Acceptable = accept_all,
) -> Published:
    made = made or origin()
    with Staging(made_folder(out_dir), name) as staging:
        summary = write_store(staging.root, [nuclei(count)], made)
        accounting = Accounting(TileCounts(processed=256 - failed, failed=failed))
        counts = {"nuclei": summary.nuclei, "classes": summary.counts}

        def finish(root: Path) -> Json:
            return build(root, made, accounting, counts, {"seconds": 1.0})

        return publish(staging, made, finish, overwrite, acceptable=acceptable)
