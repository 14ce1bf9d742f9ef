"""Makers of small slides of every kind, all from one picture that has no two equal places."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

WIDTH, HEIGHT, TILE = 701, 501, 128
APERIO = "Aperio Image Library v12.0.0\n701x501 [0,0 701x501] (128x128) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"


def picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth colours, so that JPEG keeps them, with a gradient in each direction that tells every place apart."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    red = 120 + 90 * np.sin(x / 23) * np.cos(y / 31)
    green = 40 + 180 * x / width
    blue = 40 + 180 * y / height
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def pyramid(levels: int = 3) -> list[np.ndarray]:
    """Level 0 and its 2-fold decimations, sizes rounded down."""
    base = picture()
    return [base[:: 2**k, :: 2**k][: HEIGHT // 2**k, : WIDTH // 2**k] for k in range(levels)]


def jpeg_options(photometric: str) -> dict[str, Any]:
    return {
        "tile": (TILE, TILE),
        "compression": "jpeg",
        "compressionargs": {"level": 90},
        "photometric": photometric,
        "metadata": None,
    }


def rgb_jpegs(pixels: np.ndarray) -> Iterator[bytes]:
    """The tiles of a picture as JPEG without a change of colour space, as Aperio's scanners store them."""
    from imagecodecs import jpeg8_encode

    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % TILE), (0, -width % TILE), (0, 0)), mode="edge")
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = np.ascontiguousarray(padded[y : y + TILE, x : x + TILE])
            yield jpeg8_encode(tile, level=90, colorspace="RGB", outcolorspace="RGB", subsampling="444")


def svs(path: Path, description: str = APERIO) -> Path:
    """Level 0, thumbnail, the other levels, label and macro: the order of Aperio's files."""
    side = picture(200, 143)
    extra = {"photometric": "rgb", "rowsperstrip": 16, "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        for level, pixels in enumerate(pyramid()):
            text = description if level == 0 else description.splitlines()[0]
            shape = {"shape": pixels.shape, "dtype": pixels.dtype}
            writer.write(rgb_jpegs(pixels), description=text, **shape, **jpeg_options("rgb"))
            if level == 0:
                writer.write(side, description=text.splitlines()[0], **extra)
        for kind, name in ((1, "label"), (9, "macro")):
            writer.write(side[::-1], description=f"Aperio\n{name} 200x143", subfiletype=kind, **extra)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags[262].overwrite(2)
    return path


def generic(path: Path, compression: str = "jpeg") -> Path:
    """A BigTIFF pyramid as ImageMagick or vips write it, with resolution tags of 0.25 um."""
    options = jpeg_options("rgb")
    if compression != "jpeg":
        options |= {"compression": compression, "compressionargs": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level, pixels in enumerate(pyramid()):
            resolution = (40000 / 2**level, 40000 / 2**level)
            kind = {"subfiletype": 1} if level else {}
            writer.write(pixels, resolution=resolution, resolutionunit="CENTIMETER", **options, **kind)
    return path


def ome(path: Path, size_x: str = "0.5", size_y: str = "0.5", unit: str = "µm") -> Path:
    """An OME-TIFF whose levels are sub-IFDs of the only page."""
    first, *rest = pyramid()
    pixels = (
        f'PhysicalSizeX="{size_x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{size_y}" PhysicalSizeYUnit="{unit}"'
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{WIDTH}" '
        f'SizeY="{HEIGHT}" SizeC="3" SizeZ="1" SizeT="1" Interleaved="true" {pixels}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(first, subifds=len(rest), description=text.encode(), **jpeg_options("rgb"))
        for level in rest:
            writer.write(level, subfiletype=1, **jpeg_options("rgb"))
    return path


def zarr_folder(path: Path, version: str = "0.5", unit: str = "micrometer", dtype: str = "uint8") -> Path:
    import zarr

    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for level, pixels in enumerate(pyramid()):
        planes = np.moveaxis(pixels, -1, 0).astype(dtype) << (8 if dtype == "uint16" else 0)
        array = group.create_array(str(level), shape=planes.shape, chunks=(3, TILE, TILE), dtype=dtype)
        array[:] = planes
        scale = [1.0, 0.5 * 2**level, 0.5 * 2**level]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": unit} for name in "yx"]
    multiscales = [{"version": version, "axes": axes, "datasets": datasets}]
    group.attrs.update({"multiscales": multiscales} if version == "0.4" else {"ome": {"multiscales": multiscales}})
    return path


def plain(path: Path) -> Path:
    from PIL import Image

    Image.fromarray(picture()).save(path, format=path.suffix[1:].upper().replace("JPG", "JPEG"), dpi=(96, 96))
    return path


def strips(path: Path) -> Path:
    tifffile.imwrite(path, picture(), photometric="rgb", rowsperstrip=32, metadata=None)
    return path


@dataclass(frozen=True)
class Sample:
    """A slide that the tests make."""

    readers: tuple[str, ...]
    """All readers that open it, first the one that is chosen if the user names none."""
    make: Callable[[Path], Path]
    lossless: bool = False


SAMPLES: dict[str, Sample] = {
    "aperio.svs": Sample(("jpegtiff", "openslide", "tiffslide", "image"), svs),
    "generic.tif": Sample(("jpegtiff", "openslide", "tiffslide", "image"), generic),
    "deflate.tif": Sample(
        ("openslide", "tiffslide", "image"), lambda path: generic(path, "deflate"), lossless=True
    ),
    "pyramid.ome.tif": Sample(("jpegtiff", "openslide", "tiffslide", "image"), ome),
    "v04.zarr": Sample(("zarr",), lambda path: zarr_folder(path, "0.4"), lossless=True),
    "v05.zarr": Sample(("zarr",), lambda path: zarr_folder(path, "0.5"), lossless=True),
    "plain.png": Sample(("image",), plain, lossless=True),
    "plain.jpg": Sample(("image",), plain),
    "strips.tif": Sample(("image",), strips, lossless=True),
}


def tiny_tiff(tags: Sequence[tuple[int, int, int]], next_ifd: int = 0, tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; each tag is (code, type 3 or 4, value)."""
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + struct.pack("<I", next_ifd) + tail


def tail_at(tags: int) -> int:
    return 10 + 12 * tags + 4


def tile_entry(path: Path, page: int, tile: int) -> tuple[int, int, int]:
    """Offset and length of a tile's data, and where the file keeps that length."""
    with tifffile.TiffFile(path) as tiff:
        directory = tiff.pages[page]
        tag = directory.tags[325]
        return (
            directory.dataoffsets[tile],
            directory.databytecounts[tile],
            tag.valueoffset + tile * (tag.valuebytecount // tag.count),
        )


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flips(path: Path, page: int, tile: int, seed: int, times: int) -> Iterator[None]:
    """Flip twenty bits of a tile's data, different ones at each turn."""
    offset, count, _ = tile_entry(path, page, tile)
    original, draw = path.read_bytes()[offset : offset + count], random.Random(seed)
    for _ in range(times):
        data = bytearray(original)
        for _ in range(20):
            data[draw.randrange(count)] ^= 1 << draw.randrange(8)
        patch(path, offset, bytes(data))
        yield


def drop_tile(path: Path, page: int, tile: int) -> None:
    """Set a tile's byte count to zero."""
    _, _, at = tile_entry(path, page, tile)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[page].tags[325]
        width = tag.valuebytecount // tag.count
    patch(path, at, bytes(width))


def structure_offsets(path: Path) -> list[int]:
    """Where each directory, tag value and tile of a TIFF starts and ends."""
    offsets: set[int] = {4, 8}
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            offsets |= {page.offset, page.offset + 2}
            for tag in page.tags:
                offsets |= {tag.offset, tag.valueoffset, tag.valueoffset + tag.valuebytecount}
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                offsets |= {offset, offset + count}
    return sorted(offsets)
