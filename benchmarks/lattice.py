"""A slide with a pattern of drawn tissue, and a result with a lattice of nuclei on it: large ones in seconds.

Tiles with the same pixels are stored once, so that a slide of 50,000 px is a file of a megabyte. The nuclei are
jittered ellipses with 25 vertices and five classes, which lie in patches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from benchmarks.stitching import ellipses, noise
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store import layout
from wsi_nuc.store.commit import Staging, publish
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.manifest import Accounting, Origin, build, identity_key
from wsi_nuc.store.nuclei_columns import NucleiWriter
from wsi_nuc.store.tissue import write_thumbnail, write_tissue
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.synth.pyramid import jpeg
from wsi_nuc.synth.tiff import SHORT, TiffFile, entry, rational
from wsi_nuc.types import Box, Float64, Int64, SlideRef, TileCounts, UInt8

MPP, PITCH, CORE, BLOCK, PATTERN, TILE = 0.25, 49, 1024, 4096, 1024, 256
CLASSES = ("epithelial", "inflammatory", "connective", "necrotic", "other")


def pattern(folder: Path) -> UInt8:
    """A square of drawn tissue that is repeated all over the slide."""
    small = folder / "pattern.svs"
    write_slide(small, SynthSpec(size=PATTERN, mpp=MPP, seed=2))
    source = open_slide(SlideRef(str(small)))
    rgb = source.read(0, Box(0, 0, PATTERN, PATTERN)).rgb
    source.close()
    return rgb


def write_pattern(path: Path, rgb: UInt8, size: int) -> None:
    """A pyramid of `size` x `size` px in which equal tiles are stored once."""
    resolution = [rational(282, 1e4 / MPP), rational(283, 1e4 / MPP), entry(296, SHORT, [3])]
    with path.open("wb") as stream:
        tiff = TiffFile(stream, big=True)
        pages = []
        for factor in (1, 4, 16, 64):
            if size // factor < TILE and factor > 1:
                break
            small = rgb.reshape(PATTERN // factor, factor, PATTERN // factor, factor, 3).mean(axis=(1, 3))
            wide = np.tile(small.astype(np.uint8), (-(-TILE * factor // PATTERN) + 1,) * 2 + (1,))
            period = max(1, PATTERN // factor // TILE)
            stored = {
                (y, x): tiff.add(jpeg(np.ascontiguousarray(wide[y * TILE :, x * TILE :][:TILE, :TILE]), 80))
                for y in range(period)
                for x in range(period)
            }
            image = tiff.image(size // factor, size // factor, TILE, (0, 0))
            for (y, x), (offset, count) in stored.items():
                image.offset[y::period, x::period], image.count[y::period, x::period] = offset, count
            pages.append([*tiff.tiled_entries(image, (2, 2)), *resolution])
        tiff.finish(pages)


def nuclei(x0: int, y0: int, size: int) -> NucleiTable:
    """The lattice in a block of the slide."""
    columns, rows = (np.arange(-(-low // PITCH), -(-min(low + BLOCK, size - PITCH) // PITCH)) for low in (x0, y0))
    column, row = (side.ravel() for side in np.meshgrid(columns, rows))
    key = (column + row * 2**20).astype(np.uint64) * np.uint64(64)
    xy = np.column_stack([(side + 0.3 + 0.4 * noise(key, i)) * PITCH for i, side in ((1, column), (2, row))])
    long = 10 + 8 * noise(key, 3)
    short, turn = long * (0.5 + 0.5 * noise(key, 4)), np.pi * noise(key, 5)
    rings = ellipses(xy, long, short, turn)
    score = (0.3 + 0.7 * noise(key, 6)).astype(np.float32)
    # Classes in large patches with some mixture, so that a density map has something to show.
    ways = [np.array([np.cos(k), np.sin(k)]) / (900 + 400 * k) for k in range(len(CLASSES))]
    waves = [np.sin(xy @ way + k) + noise(key, 7 + k) for k, way in enumerate(ways)]
    probs = np.exp(4 * np.column_stack(waves))
    tiles = -(-size // CORE)
    tile = (xy[:, 1] // CORE).astype(np.int64) * tiles + (xy[:, 0] // CORE).astype(np.int64)
    return NucleiTable(
        xy=rings.xy,
        offsets=rings.offsets,
        prompt_xy=xy,
        score=score,
        prompt_score=score,
        predicted_iou=score,
        class_probs=(probs / probs.sum(axis=1, keepdims=True)).astype(np.float32),
        tile=tile,
    )


def make(folder: Path, size: int) -> tuple[Path, Path]:
    """A slide of `size` px, and the result for it."""
    slide, rgb = folder / f"pattern-{size}.tif", pattern(folder)
    write_pattern(slide, rgb, size)
    tiles = -(-size // CORE)

    def cores(tile: Int64) -> Float64:
        low = np.column_stack([tile % tiles, tile // tiles]) * float(CORE)
        return np.hstack([low, low + CORE])

    key = identity_key(content_sha256(SlideRef(str(slide))), "0" * 64, {"model": "lattice"}, {"pipeline": 1})
    stated = {"file": slide.name, "width_px": size, "height_px": size, "mpp": MPP, "mpp_source": "resolution tags"}
    origin = Origin(key, {**stated, "reader": "jpegtiff"}, {"wsi-nuc": "benchmark"})
    with Staging(made_folder(folder), f"{slide.name}.zarr") as staging:
        zarr = ZarrFolder(staging.root)
        area = shapely.box(0, 0, size, size)
        with NucleiWriter(zarr, CLASSES, MPP, cores) as writer:
            for y0 in range(0, size, BLOCK):
                for x0 in range(0, size, BLOCK):
                    writer.append(nuclei(x0, y0, size))
            summary = writer.finish((size * MPP / 1000) ** 2)
        write_tissue(zarr, area, MPP)
        repeated = np.tile(rgb[::32, ::32], (-(-size // PATTERN),) * 2 + (1,))
        write_thumbnail(zarr, repeated[: size // 32, : size // 32], 32.0)
        layout.seal(zarr, origin.key, summary.class_figures)
        counts = {"nuclei": summary.nuclei, "classes": summary.counts, "area_mm2": summary.tissue_mm2}
        accounting = Accounting(TileCounts(processed=tiles * tiles))
        made = publish(
            staging, origin, lambda root: build(root, origin, accounting, counts, {"seconds": {}}), True
        )
    return slide, Path(made.path)
