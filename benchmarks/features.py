"""Features: nuclei per second on one core, the same against HistomicsTK, and memory at four times the area.

The picture is a square millimetre at 0.5 um with a jittered lattice of 5,700 nuclei. It is in memory, so reading
and decoding are left out on both sides; one row includes them, on a drawn slide. Rates are per second of CPU time
of the one thread, best of a few runs.

HistomicsTK does not install beside this project (it needs an older Dask, and GDAL). Where WSI_NUC_HISTOMICSTK
names a Python that has it, its `compute_nuclei_features` gets the labels and both stains of a quarter of the
nuclei, none at the edge. Without it the ratio is against scikit-image's regionprops in a plain loop, which does
less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import shapely

from benchmarks.child import peak_mib
from benchmarks.stitching import CORE, GEOMETRY, REGION, regions
from benchmarks.table import Row, print_rows
from wsi_nuc import RunConfig, run_slides
from wsi_nuc.features import measure as measuring
from wsi_nuc.features.border import Analysed, border_features
from wsi_nuc.features.job import GroupJob
from wsi_nuc.features.neighbourhood import Scene, neighbourhood_features
from wsi_nuc.features.pixels import OD, feature_scale, unmixed
from wsi_nuc.features.shape import shape_features
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.stitch import stitch
from wsi_nuc.store import layout
from wsi_nuc.store.column_record import Column
from wsi_nuc.store.commit import Staging, publish
from wsi_nuc.store.durable import remove_tree
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Accounting, Origin, build, identity_key
from wsi_nuc.store.nuclei_columns import NucleiWriter
from wsi_nuc.store.place import open_folder
from wsi_nuc.store.reading import NucleiFile, StoredRings, class_names
from wsi_nuc.store.tables import write_columns
from wsi_nuc.store.tissue import write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.types import Box, Level, PixelBlock, SlideInfo, SlideRef, TileCounts, UInt8

MPP, EDGE_PX, CLASSES = 0.5, 2048, ("a", "b", "c", "d", "e")
THEIRS = """
import json, sys, time
import numpy as np
from histomicstk.features import compute_nuclei_features
got = np.load(sys.argv[1])
best = 1e9
for _ in range(2):
    start = time.process_time()
    table = compute_nuclei_features(got["label"], got["haematoxylin"], got["eosin"], cyto_width=4)
    best = min(best, time.process_time() - start)
print(json.dumps([len(table), best, table.shape[1]]))
"""


# A piece with a wavy outline of 2,000 vertices and a hole, whose border crosses the picture.
_TURN = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
_REACH = EDGE_PX / 2 * (1.3 + 0.1 * np.sin(40 * _TURN))
_WAVY = EDGE_PX / 2 + np.column_stack([np.cos(_TURN), np.sin(_TURN)]) * _REACH[:, None]
TISSUE = np.array([shapely.Polygon(_WAVY, [shapely.box(900, 900, 1200, 1200).exterior.coords])])


class _InMemory:
    """A slide source over one array."""

    def __init__(self, rgb: UInt8) -> None:
        level = Level(rgb.shape[1], rgb.shape[0], 1.0)
        self.rgb, self.info = rgb, SlideInfo("memory", "", level.width, level.height, (level,), MPP, "header")

    def read(self, level: int, box: Box) -> PixelBlock:
        out = np.full((box.height, box.width, 3), 255, np.uint8)
        inside = box.intersect(self.info.box_l0)
        pixels = self.rgb[inside.y0 : inside.y1, inside.x0 : inside.x1]
        out[inside.y0 - box.y0 : inside.y1 - box.y0, inside.x0 - box.x0 : inside.x1 - box.x0] = pixels
        return PixelBlock(out)

    def block_px(self, level: int) -> tuple[int, int]:
        return self.info.width, self.info.height

    def close(self) -> None:
        """Nothing is open."""


def scene() -> tuple[StoredRings, UInt8]:
    """Nuclei of a stitching benchmark's region, halved to 0.5 um, and a noisy picture of them."""
    table = NucleiTable.concat(list(stitch(regions(1, 1), GEOMETRY)))
    half = Rings(table.xy * (EDGE_PX / REGION), table.offsets)
    rings = StoredRings(half.xy, half.offsets, np.arange(1, len(table) + 1), half.bounds())
    label = rings.fill(rings.ids, Box(0, 0, EDGE_PX, EDGE_PX))
    noise = np.random.default_rng(0).normal(0, 60, (*label.shape, 3)).astype(np.float32)
    colour = np.where(label[..., None] > 0, (110, 80, 150), (225, 190, 215))
    return rings, np.clip(colour + cv2.GaussianBlur(noise, (0, 0), 1), 1, 255).astype(np.uint8)


def best_of(call: Callable[[], object], runs: int) -> float:
    """Least seconds of CPU time."""
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def everything(source: _InMemory, rings: StoredRings, none: StoredRings) -> None:
    scale = feature_scale(source.info, MPP)
    shape_features(Rings(rings.xy * MPP, rings.offsets))
    centres = (rings.bounds_l0[:, :2] + rings.bounds_l0[:, 2:]) / 2 * MPP
    label = np.arange(len(rings)) % len(CLASSES)
    nuclei = Scene(centres, label, centres[:, 0], len(rings), np.zeros(0, np.bool_))
    counts = neighbourhood_features(nuclei, CLASSES)
    border_features(nuclei, Analysed(TISSUE, np.zeros((0, 4)), source.info.box_l0, MPP), counts)
    list(measuring.pixel_features(source, scale, rings, none))


def rates(runs: int) -> tuple[float, float]:
    """Nuclei per second, for shape, stain and neighbourhood alone and for all families."""
    rings, rgb = scene()
    source, none = _InMemory(rgb), rings.select(np.zeros(0, np.int64))
    whole = best_of(lambda: everything(source, rings, none), runs)
    with ExitStack() as without:
        for name in ("texture_features", "boundary_features"):
            without.enter_context(mock.patch.object(measuring, name, return_value={}))
        part = best_of(lambda: everything(source, rings, none), runs)
    return len(rings) / part, len(rings) / whole


def with_reading(small: bool) -> float:
    """Nuclei per second of the task that workers do, on a drawn slide: reading and decoding, and all features."""
    with tempfile.TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
        slide = Path(folder) / "x.svs"
        write_slide(slide, SynthSpec(size=1024 if small else 6144, mpp=0.25, seed=5))
        config = RunConfig(out=Path(folder) / "out", model="classical", scheduler="serial")
        (result,) = run_slides(config, [str(slide)])
        store = Path(result.store)
        with NucleiFile(store) as file:
            nuclei, groups = file.rows, file.groups
        jobs = [GroupJob(str(store), SlideRef(str(slide)), i, 0.25, class_names(store)) for i in range(groups)]
        return nuclei / best_of(lambda: [measuring.measure(job) for job in jobs], 1 if small else 3)


def theirs() -> tuple[str, float]:
    """The name of the program that this one is compared with, and its nuclei per second."""
    rings, rgb = scene()
    half, bounds = EDGE_PX // 2, rings.bounds_l0
    inner = (bounds[:, :2] > 12).all(axis=1) & (bounds[:, 2:] < half - 12).all(axis=1)
    rings = rings.select(np.flatnonzero(inner))
    label = rings.fill(rings.ids, Box(0, 0, half, half))
    haematoxylin, eosin = (255 * 10.0 ** -(plane[:half, :half] * OD) for plane in unmixed(rgb))
    python = os.environ.get("WSI_NUC_HISTOMICSTK")
    if python is None:
        return "regionprops in a plain loop (no HistomicsTK here)", _plain_loop(label, haematoxylin)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nuclei.npz")
        pictures: dict[str, Any] = {"haematoxylin": haematoxylin.clip(0, 255).astype(np.uint8)}
        np.savez(path, label=label, eosin=eosin.clip(0, 255).astype(np.uint8), **pictures)
        command = [python, "-c", THEIRS, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, seconds, columns = json.loads(done.stdout.splitlines()[-1])
    return f"HistomicsTK's compute_nuclei_features ({columns} columns)", count / seconds


def _plain_loop(label: Any, haematoxylin: Any) -> float:
    from skimage.measure import regionprops

    names = ("area", "perimeter", "axis_major_length", "axis_minor_length", "solidity", "intensity_mean")
    regions_of_label = regionprops(label, haematoxylin)
    seconds = best_of(lambda: [[getattr(region, name) for name in names] for region in regions_of_label], 1)
    return len(regions_of_label) / seconds


def main(deed: str, folder: Path, edge: int) -> None:
    """In a process of its own: write a store of `edge` x `edge` regions and its white slide, or measure it."""
    from wsi_nuc.executors.base import SerialExecutor
    from wsi_nuc.features.running import add_features

    slide, store = folder / "x.zarr", folder / "out" / "x.zarr"
    if deed == "write":
        print(write_store(store, white_slide(slide, edge * REGION), edge))
    else:
        add_features(
            open_folder(store.parent) / store.name, SlideRef(str(slide)), SerialExecutor(lambda: None).run
        )
        print(peak_mib())


def white_slide(path: Path, edge_px: int) -> SlideRef:
    """A white slide whose chunks are files of a few bytes, however large they are."""
    import zarr

    group = zarr.create_group(path)
    array = group.create_array("0", shape=(edge_px, edge_px, 3), chunks=(REGION, REGION, 3), dtype="uint8")
    for y in range(0, edge_px, REGION):
        for x in range(0, edge_px, REGION):
            array[y : y + REGION, x : x + REGION] = 230
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [MPP / 2, MPP / 2, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscale = {"axes": [*axes, {"name": "c", "type": "channel"}], "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return SlideRef(str(path))


def write_store(
    store: Path, slide: SlideRef, edge: int, tables: Iterable[NucleiTable] | None = None, features: int = 0
) -> int:
    """Publishes the stitched nuclei of `edge` x `edge` regions, or those of the tables, as a run does. Returns how
    many nuclei there are. `features`: how many random ones they get."""
    sha256, edge_px = content_sha256(slide), edge * REGION
    facts = {"file": "x.zarr", "sha256": sha256, "mpp": MPP / 2, "width_px": edge_px, "height_px": edge_px}
    origin = Origin(identity_key(sha256, "", {}, {}), facts, {})
    with Staging(made_folder(store.parent), store.name) as staging:
        folder = ZarrFolder(staging.root)
        with NucleiWriter(folder, CLASSES, MPP / 2, lambda tile: np.zeros((len(tile), 4))) as writer:
            for table in tables or stitch(regions(edge, edge), GEOMETRY):
                writer.append(table)
            summary = writer.finish(1.0)
        if features:
            write_random(folder, summary.nuclei, features)
        write_tissue(folder, shapely.box(0, 0, edge * REGION, edge * REGION), MPP / 2)
        layout.seal(folder, origin.key)
        counts, run = {"nuclei": summary.nuclei}, {"tile_l0": CORE}
        publish(staging, origin, lambda root: build(root, origin, Accounting(TileCounts()), counts, run))
        return summary.nuclei


def write_random(folder: ZarrFolder, nuclei: int, features: int) -> None:
    """Replaces the table of nuclei by one with random features."""
    columns = [Column(f"feature_{i}", "um", "a random number", "0 to 1", family="shape") for i in range(features)]
    dice = np.random.default_rng(0)
    for part in ("X", "var"):
        remove_tree(folder.root / layout.NUCLEI_TABLE / part)
    sizes = [min(16_384, nuclei - start) for start in range(0, nuclei, 16_384)]
    write_columns(folder, CLASSES, columns, (dice.random((n, len(CLASSES) + features), np.float32) for n in sizes))


def peak(edge: int) -> tuple[int, float]:
    """Number of nuclei, and MiB of the process that measures them."""
    with tempfile.TemporaryDirectory(prefix="wsi-nuc-bench-") as folder:
        answers = []
        for deed in ("write", "measure"):
            command = [sys.executable, "-m", "benchmarks.features", deed, folder, str(edge)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            answers.append(done.stdout.splitlines()[-1])
    return int(answers[0]), float(answers[1])


def measure(small: bool = False) -> list[Row]:
    cv2.setNumThreads(1)
    part, whole = rates(runs=1 if small else 5)
    read = with_reading(small)
    name, peer = theirs()
    (few, low), (many, high) = peak(1 if small else 3), peak(2 if small else 6)
    return [
        Row("shape, stain and neighbourhood", part, "nuclei/s", ">= 20 k per core", part >= 2e4),
        Row("all features without embedding", whole, "nuclei/s"),
        Row("the same with reading the slide", read, "nuclei/s", ">= 4 k per core", read >= 4e3),
        Row(f"all, over {name}", whole / peer, "x", ">= 10", whole >= 10 * peer),
        Row(f"peak memory, {few:,} nuclei", low, "MiB"),
        Row(f"the same, {many:,} on four times the area", high / low, "x", "<= 1.1", high <= 1.1 * low),
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print_rows(measure())
