"""Files that are broken, hostile or not slides: a SlideError that says why, quickly and in little memory."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.slides.make import (
    APERIO,
    TILE,
    flips,
    patch,
    picture,
    svs,
    tail_at,
    tile_entry,
    zarr_folder,
)
from wsi_nuc.errors import DamagedPixels, SlideError
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import Box, SlideRef

Find = Callable[[str], Path]

# The reader or the error of every file in the folder of edge cases. A new file there fails until it is listed.
EDGE = {
    "boxes.tiff": "openslide",
    "boxes_0.dcm": "openslide",
    "broken.svs": "no reader opens it",
    "small.svs": "jpegtiff",
    "unopenable.tiff": "tiffslide",  # its tiles cannot be decoded, which shows only when it is read
    "unreadable.svs": "jpegtiff",
    "yb10kx5k.zstd.tiff": "openslide",
}


def fails(path: Path, match: str) -> SlideError:
    with pytest.raises(SlideError, match=match) as caught:
        open_slide(SlideRef(str(path)))
    assert str(path) in caught.value.subject
    assert caught.value.remedy
    return caught.value


@pytest.mark.real_data
def test_every_edge_file_opens_or_says_why(wsi: Path) -> None:
    outcomes, named = {}, []
    for path in sorted((wsi / "edge").iterdir()):
        try:
            outcomes[path.name] = open_slide(SlideRef(str(path))).info.reader
        except SlideError as error:
            outcomes[path.name] = error.cause.split(";")[0]
            named.append(path.name in str(error))
    assert all(named)
    assert outcomes == EDGE


@pytest.mark.real_data
def test_a_slide_whose_only_tile_is_bad_says_so_again_and_again(wsi: Path) -> None:
    for reader in ("jpegtiff", "openslide"):
        source = open_slide(SlideRef(str(wsi / "edge" / "unreadable.svs"), reader))
        for _ in range(2):
            with pytest.raises(DamagedPixels, match="Bogus marker length"):
                source.read(0, Box(0, 0, 16, 16))


def test_flipped_bits_in_a_tile_never_spread_to_other_tiles(slide: Find, tmp_path: Path) -> None:
    path = shutil.copyfile(slide("aperio.svs"), tmp_path / "flipped.svs")
    healthy = open_slide(SlideRef(str(path))).read(0, Box(TILE, 0, 3 * TILE, TILE)).rgb
    damaged: list[str] = []
    for _ in flips(path, 0, 0, seed=7, times=60):
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


def test_what_is_not_a_slide_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_free_text_of_a_slide_never_reaches_its_info(tmp_path: Path) -> None:
    secret = "Jane-Doe-1970"
    text = f"{APERIO}|User = {secret}|Filename = {secret}"
    path = svs(tmp_path / "named.svs", text)
    for reader in ("jpegtiff", "openslide", "tiffslide"):
        info = open_slide(SlideRef(str(path), reader)).info
        assert secret not in repr(info)
        assert [(level.width, level.height) for level in info.levels] == [(701, 501), (350, 250), (175, 125)]


def test_tiff_of_a_palette_is_not_taken_for_colours(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, picture()[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    fails(path, "photometric interpretation 3")
    assert tail_at(1) == 26


@pytest.mark.parametrize(
    ("compression", "marker", "size_at"), [("jpeg", b"\xff\xc0", 5), ("jpeg2000", b"\xff\x4f\xff\x51", 8)]
)
def test_a_tile_that_claims_more_pixels_than_its_directory_is_never_decoded(
    compression: str, marker: bytes, size_at: int, tmp_path: Path
) -> None:
    """65,000 px square would be 12 GB."""
    path, rgb = tmp_path / "claims.tif", np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    tifffile.imwrite(path, rgb, tile=(256, 256), photometric="rgb", compression=compression)
    with tifffile.TiffFile(path) as file:
        second = file.pages[0].dataoffsets[1]
    data = bytearray(path.read_bytes())
    at = data.index(marker, second) + size_at
    wide = struct.pack(">HH" if compression == "jpeg" else ">II", 65_000, 65_000)
    data[at : at + len(wide)] = wide
    path.write_bytes(data)
    source = open_slide(SlideRef(str(path), "tiffslide", 0.25))
    assert source.read(0, Box(0, 0, 256, 256)).rgb.std() > 0
    with pytest.raises(DamagedPixels, match="claims 65000 x 65000 px"):
        source.read(0, Box(256, 0, 512, 256))


@pytest.mark.parametrize("depth", ["float32", "int8"])
@pytest.mark.parametrize("reader", ["tiffslide", "image"])
def test_pixels_that_are_no_colours_of_8_or_16_bits_are_refused_by_name(
    reader: str, depth: str, tmp_path: Path
) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, picture().astype(depth), tile=(256, 256), photometric="rgb")
    with pytest.raises(SlideError, match=f"type {depth} are not supported|have .* bits") as caught:
        open_slide(SlideRef(str(path), reader, 0.25)).read(0, Box(0, 0, 64, 64))
    assert str(path) in caught.value.subject
    assert not isinstance(caught.value, DamagedPixels)


@pytest.mark.parametrize(
    ("module", "name"), [("omezarr", "v05.zarr"), ("tiffslide_", "generic.tif"), ("image", "plain.png")]
)
def test_a_fault_of_the_program_does_not_read_as_damage_of_the_file(
    module: str, name: str, slide: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        raise TypeError("a slip in our own code")

    monkeypatch.setattr(f"wsi_nuc.slides.{module}.to_rgb8", faulty)
    reader = {"omezarr": "zarr"}.get(module, module.rstrip("_"))
    with pytest.raises(TypeError, match="our own code"):
        open_slide(SlideRef(str(slide(name)), reader)).read(0, Box(0, 0, 64, 64))
