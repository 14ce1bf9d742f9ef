"""Small files whose headers ask for the impossible: a maker writes a file into a folder and returns its path."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.slides.make import ome, picture, tiny_tiff
from tests.slides.multifile import EDGE, dicom, element, hamamatsu, jpeg, mirax, nested, ngr, vms, vmu

TILED = [(258, 3, 8), (259, 3, 7), (262, 3, 2), (277, 3, 1), (284, 3, 1)]
MILLION, LARGE = 1_000_000, 400_000


def tiff(*tags: tuple[int, int, int], next_ifd: int = 0) -> Callable[[Path], Path]:
    return written("a.svs", lambda: tiny_tiff([*tags, *TILED], next_ifd))


def written(name: str, data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data())
        return folder / name

    return make


def size(width: int, height: int) -> list[tuple[int, int, int]]:
    return [(256, 4, width), (257, 4, height)]


def tiles(edge: int) -> list[tuple[int, int, int]]:
    return [(322, 4, edge), (323, 4, edge), (324, 4, 8), (325, 4, 8)]


def many_entries() -> bytes:
    return struct.pack("<2sHIH", b"II", 42, 8, 65535) + bytes(2000)


def shared_arrays() -> bytes:
    """A thousand directories that all point at the same megabyte of tile offsets."""
    count, pages, entries = 2**18, 1000, 4
    step = 2 + 12 * entries + 4
    start = 8 + pages * step
    directories = b""
    for page in range(pages):
        following = 8 + (page + 1) * step if page + 1 < pages else 0
        fields = [(256, 4, 1, 64), (257, 4, 1, 64), (324, 4, count, start), (325, 4, count, start)]
        body = b"".join(struct.pack("<HHII", *field) for field in fields)
        directories += struct.pack("<H", entries) + body + struct.pack("<I", following)
    return struct.pack("<2sHI", b"II", 42, 8) + directories + bytes(4 * count)


def described(tag: int, text: str) -> Callable[[Path], Path]:
    """An OME-TIFF with another text in place of its description (tag 270), or in an XMP tag (700)."""
    import tifffile

    def make(folder: Path) -> Path:
        path = ome(folder / "a.ome.tif")
        with tifffile.TiffFile(path) as tiff:
            at = tiff.pages[0].tags[270 if tag == 270 else 305].offset
        data = path.read_bytes()
        entry = struct.pack("<HHQQ", tag, 2, len(text) + 1, len(data))
        path.write_bytes(data[:at] + entry + data[at + 20 :] + text.encode() + b"\0")
        return path

    return make


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><OME>&b;</OME>'
DEEP = "<OME>" + "<a>" * 5000 + "</a>" * 5000 + "</OME>"


def png(width: int, height: int, colours: int) -> bytes:
    """All black: a few hundred kilobytes. `colours`: 0 grey, 2 RGB, 6 RGBA."""
    packer = zlib.compressobj(1)
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colours])
    rows = max(1, 2**20 // len(row))
    data = b"".join(packer.compress(row * min(rows, height - y)) for y in range(0, height, rows))
    return png_of(struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0), data + packer.flush())


def png_of(head: bytes, data: bytes) -> bytes:
    parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def many_scans(folder: Path) -> Path:
    """A progressive JPEG whose last scan comes 300 times."""
    from PIL import Image

    path = folder / "a.jpg"
    Image.new("RGB", (4000, 4000)).save(path, progressive=True)
    data = path.read_bytes()
    path.write_bytes(data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 300 + b"\xff\xd9")
    return path


def claiming_jpegs(folder: Path) -> Path:
    slide = vms(folder)
    for name in ("left.jpg", "right.jpg", "map.jpg"):
        data = bytearray((folder / name).read_bytes())
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 65472, 65472)
        struct.pack_into(">H", data, data.index(b"\xff\xdd") + 4, 1)
        (folder / name).write_bytes(data)
    return slide


def many_jpegs(folder: Path) -> Path:
    jpeg(folder / "a.jpg", picture(EDGE, EDGE))
    jpeg(folder / "map.jpg", picture(EDGE, EDGE)[::4, ::4])
    images = [f"ImageFile({number},0)=a.jpg" for number in range(1000)]
    return hamamatsu(folder / "a.vms", "", ["NoJpegColumns=46000", "NoJpegRows=46000", *images, "MapFile=map.jpg"])


def claiming_ngr(width: int, height: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        slide = vmu(folder)
        ngr(folder / "base.ngr", picture(EDGE, EDGE), (width, height, width))
        return slide

    return make


def nested_neighbour(folder: Path) -> Path:
    dicom(folder / "b.dcm", series="4.5.6", before=nested(20_000))
    return dicom(folder / "a.dcm")


def zstd_bomb() -> bytes:
    """32 kB that decompress to a gigabyte of zeros."""
    block = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (2**17 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\xe0" + (2**30).to_bytes(8, "little") + block * (2**13 - 1) + last


BYTES, ZSTD = {"name": "bytes"}, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}


def zarr(
    shape: list[int], chunk: list[int], codecs: list[Any], levels: int = 1, data: bytes = b"x"
) -> Callable[[Path], Path]:
    """A picture in OME-Zarr 0.5 that has only its metadata and its first chunk."""

    def make(folder: Path) -> Path:
        space = {"type": "space", "unit": "micrometer"}
        axes = [{"name": "c", "type": "channel"}, *(space | {"name": axis} for axis in "yx")]
        scale = {"type": "scale", "scale": [1, 0.5, 0.5]}
        datasets = [{"path": "0", "coordinateTransformations": [scale]}] * levels
        ome_part = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome_part}}
        grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
        keys = {"name": "default", "configuration": {"separator": "/"}}
        array = {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "uint8", "chunk_grid": grid}
        array |= {"chunk_key_encoding": keys, "fill_value": 0, "codecs": codecs, "attributes": {}}
        first = folder / "a.zarr" / "0" / "c" / "0" / "0"
        first.mkdir(parents=True)
        (first / "0").write_bytes(data)
        (folder / "a.zarr" / "zarr.json").write_text(json.dumps(document))
        (folder / "a.zarr" / "0" / "zarr.json").write_text(json.dumps(array))
        return folder / "a.zarr"

    return make


def shard(inner: list[int]) -> list[Any]:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}]
    inside = {"chunk_shape": inner, "codecs": [BYTES, ZSTD], "index_codecs": index}
    return [{"name": "sharding_indexed", "configuration": inside}]


def of_dicom(**options: Any) -> Callable[[Path], Path]:
    return lambda folder: dicom(folder / "a.dcm", **options)


def of_mirax(**changes: str) -> Callable[[Path], Path]:
    return lambda folder: mirax(folder, changes)


INDEXED = zstd_bomb() + struct.pack("<QQ", 0, len(zstd_bomb()))
# The maker of each file, and what its error says.
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "tiff, one huge tile": (tiff(*size(LARGE, LARGE), *tiles(LARGE)), "tiles of 400000 x 400000 px"),
    "tiff, tiles that are not there": (tiff(*size(LARGE, LARGE), *tiles(256)), "need 2442969 tiles"),
    "tiff, tiles of a pixel": (tiff(*size(64, 64), *tiles(1)), "tiles of 1 x 1 px"),
    "tiff, strips": (tiff(*size(MILLION, MILLION), (273, 4, 8), (278, 4, MILLION), (279, 4, 8)), "1000000 px"),
    "tiff, beyond 31 bits": (tiff(*size(2**31 + 1, 2**31 + 1), (273, 4, 8), (279, 4, 8)), "2147483649 px"),
    "tiff, a loop": (tiff(*size(64, 64), next_ifd=8), "loop"),
    "tiff, many entries": (written("a.tif", many_entries), "65535 entries"),
    "tiff, pages that share arrays": (written("a.tif", shared_arrays), "share and repeat"),
    "xml, a bomb": (described(270, BOMB), "DOCTYPE"),
    "xml, deep": (described(270, DEEP), "nested deeper"),
    "xmp, a bomb": (described(700, BOMB), "DOCTYPE"),
    "png, a million": (
        written("a.png", lambda: png_of(struct.pack(">IIBBBBB", MILLION, MILLION, 8, 2, 0, 0, 0), bytes(9))),
        "1000000000000 pixels",
    ),
    "png, black": (written("a.png", lambda: png(12_000, 12_000, 2)), "need 1,008 MB"),
    "png, one column": (written("a.png", lambda: png(1, 60_000_000, 0)), "need 720 MB"),
    "jpeg, scans": (many_scans, "scans, over 64"),
    "dicom, a million": (of_dicom(size=(MILLION, MILLION)), "1000000 x 1000000 px"),
    "dicom, more than it holds": (of_dicom(size=(LARGE, EDGE)), "need 12500 frames"),
    "dicom, many frames": (of_dicom(frames="2147483647"), "states 2147483647 frames"),
    "dicom, frames below zero": (of_dicom(frames="-1"), "states 0 frames"),
    "dicom, a frame of a pixel": (of_dicom(tile=(1, 1)), "tiles of 1 x 1 px"),
    "dicom, huge frames": (of_dicom(tile=(65535, 65535)), "tiles of 65535 x 65535 px"),
    "dicom, sparse": (of_dicom(layout="TILED_SPARSE"), "does not list its frames"),
    "dicom, nested": (of_dicom(before=nested(20_000)), "nested deeper"),
    "dicom, a nested neighbour": (nested_neighbour, "b.dcm: its DICOM header is nested deeper"),
    "dicom, much text": (of_dicom(before=element(0x00102180, b"LT", "x" * 60_000) * 40), "bytes of text"),
    "dicom, a long value": (of_dicom(before=element(0x00282000, b"OB", b"", 2**32 - 16)), "truncated"),
    "dicom, implicit": (of_dicom(syntax="1.2.840.10008.1.2"), "implicit value representation"),
    "vms, large images": (claiming_jpegs, "65472 x 65472 px need"),
    "vms, many images": (many_jpegs, "states 46000 x 46000 images"),
    "vmu, a wide column": (claiming_ngr(10**8, 8), "tiles of 100000000 x 8 px"),
    "vmu, a large image": (claiming_ngr(200_000, 200_000), "tiles of 200000 x 64 px|truncated"),
    "mirax, many images": (of_mirax(IMAGENUMBER_X="30000", IMAGENUMBER_Y="30000"), "states 30000 x 30000 images"),
    "mirax, many files": (of_mirax(FILE_COUNT="2000000000"), "counts more entries"),
    "mirax, large images": (of_mirax(DIGITIZER_WIDTH="200000", DIGITIZER_HEIGHT="200000"), "tiles of 200000"),
    "mirax, many tiles": (
        of_mirax(IMAGENUMBER_X="1448", IMAGENUMBER_Y="1448", IMAGE_CONCAT_FACTOR="11", OVERLAP_X="1"),
        "cuts 4 images into",
    ),
    "zarr, a million": (zarr([3, MILLION, MILLION], [3, 256, 256], [BYTES, ZSTD]), "are 15264649 tiles"),
    "zarr, many levels": (zarr([3, 64, 64], [3, 64, 64], [BYTES, ZSTD], levels=20_000), "20000 levels"),
    "zarr, many axes": (zarr([1] * 10**5, [1] * 10**5, [BYTES, ZSTD]), "not those of an array"),
    "zarr, chunks of a pixel": (zarr([3, 4096, 4096], [3, 1, 1], [BYTES, ZSTD]), "tiles of 1 x 1 px"),
    "zarr, a bomb": (zarr([3, 512, 512], [3, 512, 512], [BYTES, ZSTD], data=zstd_bomb()), "be decoded"),
    "zarr, a bomb in a shard": (zarr([3, 64, 64], [3, 64, 64], shard([3, 64, 64]), data=INDEXED), "be decoded"),
    "zarr, a huge chunk in a shard": (
        zarr([3, 20_000, 20_000], [3, 20_000, 20_000], shard([3, 20_000, 20_000]), data=INDEXED),
        "larger than",
    ),
}
