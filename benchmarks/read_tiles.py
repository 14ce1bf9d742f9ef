"""Reading a JPEG slide by regions: against the bare decoder on the same tiles, and against OpenSlide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.table import Row, interleaved, print_rows
from wsi_nuc.slides import jpegtiff, openslide_
from wsi_nuc.slides.localfile import LocalFile
from wsi_nuc.slides.tiff import Page, read_structure
from wsi_nuc.types import Box, SlideRef, SlideSource, UInt8

SIDE_PX, SMALL_SIDE_PX, TILE_PX = 8192, 2304, 256
CORE_PX, HALO_PX = 2048, 64
DESCRIPTION = "Aperio Image Library v12\n{side}x{side} (256x256) JPEG/RGB Q=80|AppMag = 40|MPP = 0.25"


def tissue(random: np.random.Generator) -> UInt8:
    """One tile of coloured blobs with grain, which compresses about as stained tissue does."""
    y, x = np.mgrid[:TILE_PX, :TILE_PX]
    waves = [np.sin(x / a + b) * np.cos(y / c + d) for a, b, c, d in random.uniform(5, 25, (3, 4))]
    colour = np.stack([200 + 25 * waves[0], 140 + 50 * waves[1], 180 + 30 * waves[2]], -1)
    return np.clip(colour + random.normal(0, 6, colour.shape), 0, 255).astype(np.uint8)


def write_slide(path: Path, side: int) -> Path:
    """An Aperio-like slide of one level. Its tiles repeat a few pictures, each tile with bytes of its own."""
    import imagecodecs
    import tifffile

    random = np.random.default_rng(0)
    tiles = [imagecodecs.jpeg8_encode(tissue(random), level=80) for _ in range(64)]
    count = (side // TILE_PX) ** 2
    data = (tiles[i % len(tiles)] for i in random.permutation(count))
    options = {
        "tile": (TILE_PX, TILE_PX),
        "compression": "jpeg",
        "metadata": None,
        "description": DESCRIPTION.format(side=side),
    }
    tifffile.imwrite(path, data, shape=(side, side, 3), dtype=np.uint8, photometric="rgb", **options)
    return path


def regions(side: int) -> Iterator[Box]:
    """Cores with their halo in row order, cut at the slide's edge."""
    whole = Box(0, 0, side, side)
    for y in range(0, side, CORE_PX):
        for x in range(0, side, CORE_PX):
            yield Box(x, y, x + CORE_PX, y + CORE_PX).grow(HALO_PX).intersect(whole)


def read_all(source: SlideSource) -> None:
    for box in regions(source.info.width):
        source.read(0, box)


def read_cold(path: Path) -> jpegtiff.JpegTiff:
    """All regions through a fresh reader, so that no tile is cached from the round before."""
    source = jpegtiff.open_slide(SlideRef(str(path)))
    read_all(source)
    source.close()
    return source


def decode_all(file: LocalFile, page: Page) -> None:
    """The bare decoder: each tile read and decoded once, and dropped."""
    from imagecodecs import jpeg8_decode

    tables = page.jpeg_tables or None
    for offset, count in zip(page.offsets.tolist(), page.byte_counts.tolist(), strict=True):
        jpeg8_decode(file.read_at(offset, count), tables=tables, colorspace="YCBCR", outcolorspace="RGB")


def measure(small: bool = False) -> list[Row]:
    side = SMALL_SIDE_PX if small else SIDE_PX
    with tempfile.TemporaryDirectory() as folder:
        path = write_slide(Path(folder) / "slide.svs", side)
        file = LocalFile(str(path))
        page = read_structure(file).pages[0]
        decoded = read_cold(path).tiles_decoded
        by_openslide = openslide_.open_slide(SlideRef(str(path)))
        direct, bare, openslide = interleaved(
            lambda: read_cold(path),
            lambda: decode_all(file, page),
            lambda: read_all(by_openslide),
            rounds=1 if small else 5,
        )
        by_openslide.close()
        file.close()
    tiles = len(page.offsets)
    return [
        Row("direct reader / bare decoder, same tiles", bare / direct, "x", ">= 0.85", bare / direct >= 0.85),
        Row("decoded / unique pixels", decoded / tiles, "x", "<= 1.05", decoded / tiles <= 1.05, always=True),
        Row("direct reader / OpenSlide, one thread", openslide / direct, "x", ">= 3", openslide / direct >= 3),
        Row("direct reader, one thread", tiles / direct, "tiles/s"),
    ]


if __name__ == "__main__":
    print_rows(measure())
