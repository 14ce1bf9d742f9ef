"""Files that are broken, hostile or no slides at all: a SlideError that says why, quickly and in little memory."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.slides.make import (
    APERIO,
    TILE,
    ome,
    patch,
    picture,
    structure_offsets,
    svs,
    tail_at,
    tile_entry,
    tiny_tiff,
    zarr_folder,
)
from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import Box, SlideRef

Find = Callable[[str], Path]

# What every file of the folder of edge cases does; a new file there fails until it is listed.
EDGE = {
    "boxes.tiff": "openslide",
    "boxes_0.dcm": "openslide",
    "broken.svs": "no reader opens it",
    "small.svs": "jpegtiff",
    "unopenable.tiff": "no reader opens it",
    "unreadable.svs": "jpegtiff",
    "yb10kx5k.zstd.tiff": "openslide",
}
TILED = [(258, 3, 8), (259, 3, 7), (262, 3, 2), (277, 3, 1), (284, 3, 1)]


def fails(path: Path, match: str) -> SlideError:
    with pytest.raises(SlideError, match=match) as caught:
        open_slide(SlideRef(str(path)))
    assert str(path) in caught.value.subject
    assert caught.value.remedy
    return caught.value


@pytest.mark.real_data
def test_every_edge_file_opens_or_says_why(wsi: Path) -> None:
    found, named = {}, []
    for path in sorted((wsi / "edge").iterdir()):
        try:
            found[path.name] = open_slide(SlideRef(str(path))).info.reader
        except SlideError as error:
            found[path.name] = error.cause.split(";")[0]
            named.append(path.name in str(error))
    assert all(named)
    assert found == EDGE


@pytest.mark.real_data
def test_a_slide_whose_only_tile_is_bad_says_so_again_and_again(wsi: Path) -> None:
    for reader in ("jpegtiff", "openslide"):
        source = open_slide(SlideRef(str(wsi / "edge" / "unreadable.svs"), reader))
        for _ in range(2):
            with pytest.raises(DamagedPixels, match="Bogus marker length"):
                source.read(0, Box(0, 0, 16, 16))


@pytest.mark.parametrize("name", ["aperio.svs", "generic.tif", "pyramid.ome.tif"])
def test_truncation_at_every_structure_is_an_error(slide: Find, name: str, tmp_path: Path) -> None:
    whole = slide(name).read_bytes()
    path = tmp_path / name
    cuts = {cut + near for cut in structure_offsets(slide(name)) for near in (-1, 0, 1)}
    assert len(cuts) > 100
    for cut in sorted(cuts):
        if cut < len(whole):
            path.write_bytes(whole[:cut])
            with pytest.raises(SlideError) as caught:
                open_slide(SlideRef(str(path)))
            assert name in str(caught.value), cut


def test_flipped_bits_in_a_tile_never_spread_to_other_tiles(slide: Find, tmp_path: Path) -> None:
    path = shutil.copyfile(slide("aperio.svs"), tmp_path / "flipped.svs")
    offset, count, _ = tile_entry(path, 0, 0)
    healthy = open_slide(SlideRef(str(path))).read(0, Box(TILE, 0, 3 * TILE, TILE)).rgb
    original = path.read_bytes()[offset : offset + count]
    draw = random.Random(7)
    damaged: list[str] = []
    for _ in range(60):
        data = bytearray(original)
        for _ in range(20):
            data[draw.randrange(count)] ^= 1 << draw.randrange(8)
        patch(path, offset, bytes(data))
        source = open_slide(SlideRef(str(path)))
        try:
            assert source.read(0, Box(0, 0, TILE, TILE)).rgb.shape == (TILE, TILE, 3)
        except DamagedPixels as error:
            damaged.append(error.subject)
        np.testing.assert_array_equal(source.read(0, Box(TILE, 0, 3 * TILE, TILE)).rgb, healthy)
    assert damaged
    assert all("tile row 0 column 0" in subject for subject in damaged)


def test_a_tile_cut_short_is_damage_though_the_decoder_accepts_it(slide: Find, tmp_path: Path) -> None:
    path = shutil.copyfile(slide("aperio.svs"), tmp_path / "cut.svs")
    offset, count, _ = tile_entry(path, 0, 0)
    patch(path, offset + count // 2, bytes(count - count // 2))
    with pytest.raises(DamagedPixels, match="no beginning or no end"):
        open_slide(SlideRef(str(path))).read(0, Box(0, 0, 8, 8))


def test_what_is_no_slide_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.svs").write_text("This is not a slide.\n" * 30)
    (tmp_path / "empty.svs").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("a")
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
    )
    os.mkfifo(tmp_path / "pipe.svs")
    fails(tmp_path / "notes.svs", "no reader opens it")
    fails(tmp_path / "empty.svs", "is empty")
    fails(tmp_path / "missing.svs", "does not exist")
    fails(tmp_path / "folder", "folder without files")
    fails(tmp_path / "papers", "folder without DICOM files")
    fails(tmp_path / "other.zarr", "without OME multiscales")
    fails(tmp_path / "pipe.svs", "not a regular file")
    fails(tmp_path / ("x" * 300), "cannot be opened|does not exist")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "permissions" in fails(tmp_path / "notes.svs", "Permission denied").remedy


@pytest.mark.timeout(20)
@pytest.mark.parametrize("tell", [content_sha256, stat_signature], ids=lambda tell: tell.__name__)
def test_a_pipe_is_refused_before_anything_waits_for_it(
    tell: Callable[[SlideRef], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.svs")
    for path in (tmp_path / "pipe.svs", Path("/dev/zero")):
        with pytest.raises(SlideError, match="not a regular file"):
            tell(SlideRef(str(path)))


def test_addresses_that_lead_nowhere_are_slide_errors() -> None:
    for url in ("memory://nothing/here.svs", "nosuchscheme://slide.svs"):
        with pytest.raises(SlideError, match="cannot be opened"):
            open_slide(SlideRef(url))


@pytest.mark.parametrize(
    ("mutilate", "match"),
    [
        (lambda d: d["ome"]["multiscales"].clear(), "without OME multiscales"),
        (lambda d: d["ome"]["multiscales"][0].pop("axes"), "metadata are unusable"),
        (lambda d: d["ome"]["multiscales"][0]["datasets"].append({"path": "9"}), "metadata are unusable"),
        (lambda d: d["ome"]["multiscales"][0]["axes"].pop(0), "pixels are|metadata are unusable"),
    ],
)
def test_zarr_with_unusable_metadata_says_so(
    mutilate: Callable[[dict], object], match: str, tmp_path: Path
) -> None:
    import json

    path = zarr_folder(tmp_path / "bad.zarr")
    document = json.loads((path / "zarr.json").read_text())
    mutilate(document["attributes"])
    document.pop("consolidated_metadata", None)
    (path / "zarr.json").write_text(json.dumps(document))
    fails(path, match)


def test_zarr_arrays_of_objects_are_refused_unread(tmp_path: Path) -> None:
    import json

    path = zarr_folder(tmp_path / "pickled.zarr", "0.4")
    document = json.loads((path / "0" / ".zarray").read_text())
    document["filters"] = [{"id": "pickle"}]
    (path / "0" / ".zarray").write_text(json.dumps(document))
    fails(path, "pickle.* is not allowed|metadata are unusable")


def hostile(folder: Path) -> dict[str, Path]:
    """Headers that ask for the impossible."""
    million = 1_000_000
    large = 400_000
    one_tile = [
        (256, 4, large),
        (257, 4, large),
        (322, 4, large),
        (323, 4, large),
        (324, 4, 8),
        (325, 4, 8),
    ]
    small_tiles = [(256, 4, large), (257, 4, large), (322, 4, 256), (323, 4, 256), (324, 4, 8), (325, 4, 8)]
    strips = [(256, 4, million), (257, 4, million), (273, 4, 8), (278, 4, million), (279, 4, 8)]
    beyond = [(256, 4, 2**31 + 1), (257, 4, 2**31 + 1), (273, 4, 8), (279, 4, 8)]
    png = struct.pack(">II", million, million) + bytes([8, 2, 0, 0, 0])
    import zlib

    header = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + png + struct.pack(">I", zlib.crc32(b"IHDR" + png))
    )
    loop = tiny_tiff([(256, 4, 64), (257, 4, 64), *TILED], next_ifd=8)
    many = struct.pack("<2sHIH", b"II", 42, 8, 65535)
    files = {
        "one_tile.tif": tiny_tiff(one_tile + TILED),
        "small_tiles.svs": tiny_tiff(small_tiles + TILED),
        "strips.tif": tiny_tiff(strips + TILED),
        "beyond.tif": tiny_tiff(beyond + TILED),
        "loop.svs": loop,
        "entries.tif": many + bytes(2000),
        "pixels.png": header + struct.pack(">I", 10) + b"IDAT" + bytes(14),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    entities = '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><OME>&b;</OME>'
    deep = "<OME>" + "<a>" * 5000 + "</a>" * 5000 + "</OME>"
    ome_path = ome(folder / "plain.ome.tif")
    for name, text in (("bomb.tif", bomb), ("deep.tif", deep)):
        (folder / name).write_bytes(described(ome_path, text.encode()))
    ome_path.unlink()
    return {path.name: path for path in folder.iterdir()}


def described(path: Path, text: bytes) -> bytes:
    """The BigTIFF at `path` with another description, appended to it."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags[270].offset
    data = path.read_bytes()
    entry = struct.pack("<HHQQ", 270, 2, len(text) + 1, len(data))
    return data[:at] + entry + data[at + 20 :] + text + b"\0"


PROBE = """
import re, sys
from pathlib import Path
from wsi_nuc.errors import SlideError
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import SlideRef
for path in sys.argv[1:]:
    try:
        open_slide(SlideRef(path))
        print("OPENED", path)
    except SlideError as error:
        print(error.cause)
# ru_maxrss would begin with the size of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_hostile_headers_are_refused_in_little_memory(tmp_path: Path) -> None:
    paths = hostile(tmp_path)
    command = [sys.executable, "-c", PROBE, *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *causes, peak_mib = done.stdout.splitlines()
    assert len(causes) == len(paths), done.stdout
    assert not [cause for cause in causes if cause.startswith("OPENED")]
    assert int(peak_mib) < 512
    said = dict(zip(paths, causes, strict=True))
    assert "loop" in said["loop.svs"]
    assert "DOCTYPE" in said["bomb.tif"]
    assert "nested" in said["deep.tif"]
    assert "need" in said["small_tiles.svs"]
    assert "tiles of 400000" in said["one_tile.tif"]
    assert "the header says 1000000 x 1000000 px" in said["strips.tif"]


def test_free_text_of_a_slide_never_reaches_its_info(tmp_path: Path) -> None:
    secret = "Jane-Doe-1970"
    text = f"{APERIO}|User = {secret}|Filename = {secret}"
    path = svs(tmp_path / "named.svs", text)
    for reader in ("jpegtiff", "openslide", "tiffslide"):
        info = open_slide(SlideRef(str(path), reader)).info
        assert secret not in repr(info)
        assert [(level.width, level.height) for level in info.levels] == [(701, 501), (350, 250), (175, 125)]


def test_pages_that_repeat_one_large_array_do_not_multiply_memory(tmp_path: Path) -> None:
    """A thousand directories that all point at the same megabyte of tile offsets."""
    count, pages = 2**18, 1000
    tags = 4
    step = 2 + 12 * tags + 4
    start = 8 + pages * step
    directories = b""
    for page in range(pages):
        following = 8 + (page + 1) * step if page + 1 < pages else 0
        entries = [(256, 4, 1, 64), (257, 4, 1, 64), (324, 4, count, start), (325, 4, count, start)]
        body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        directories += struct.pack("<H", tags) + body + struct.pack("<I", following)
    path = tmp_path / "shared.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + directories + bytes(4 * count))
    fails(path, "share and repeat")


def test_tiff_of_a_palette_is_not_taken_for_colours(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, picture()[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    fails(path, "photometric interpretation 3")
    assert tail_at(1) == 26
