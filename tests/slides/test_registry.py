"""Which reader opens what, identity, and the cache of open slides."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.slides.make import SAMPLES, picture, zarr_folder
from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.slides import cache, jpegtiff
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.localfile import LocalFile
from wsi_nuc.slides.pyramid import downsample, select_levels
from wsi_nuc.slides.registry import READERS, open_slide
from wsi_nuc.slides.tiff import read_structure
from wsi_nuc.slides.tilecache import TileCache
from wsi_nuc.types import Box, SlideRef

Find = Callable[[str], Path]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_content_decides_and_the_name_does_not(slide: Find, name: str, tmp_path: Path) -> None:
    copy = tmp_path / "scan 1 ü\n.txt"
    path = slide(name)
    shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
    assert open_slide(SlideRef(str(copy))).info.reader == SAMPLES[name].readers[0]


def test_an_unknown_reader_is_a_usage_error_that_names_the_nearest(slide: Find) -> None:
    with pytest.raises(UsageError, match=rf"id you mean openslide\?.*auto, {next(iter(READERS))}, "):
        open_slide(SlideRef(str(slide("plain.png")), "opensilde"))


@pytest.mark.parametrize("name", sorted(SAMPLES))
@pytest.mark.parametrize("reader", sorted(READERS))
def test_a_forced_reader_opens_or_says_why(slide: Find, name: str, reader: str) -> None:
    ref = SlideRef(str(slide(name)), reader)
    if reader in SAMPLES[name].readers:
        assert open_slide(ref).info.reader == reader
        return
    with pytest.raises(SlideError) as caught:
        open_slide(ref)
    assert name in caught.value.subject


def test_addresses_are_read_like_files(slide: Find) -> None:
    import fsspec

    url = f"memory://{uuid.uuid4().hex}/slide.svs"
    with fsspec.open(url, "wb") as file:
        file.write(slide("aperio.svs").read_bytes())
    remote, local = open_slide(SlideRef(url)), open_slide(SlideRef(str(slide("aperio.svs"))))
    assert (remote.info.mpp, remote.info.levels) == (local.info.mpp, local.info.levels)
    box = Box(-10, 200, 300, 600)
    np.testing.assert_array_equal(remote.read(0, box).rgb, local.read(0, box).rgb)
    assert content_sha256(SlideRef(url)) == content_sha256(SlideRef(str(slide("aperio.svs"))))
    assert stat_signature(SlideRef(url)) == stat_signature(SlideRef(url))


def test_sixteen_bits_and_grey_become_rgb_of_eight(tmp_path: Path) -> None:
    from PIL import Image

    grey = picture()[..., 1].astype(np.uint16)
    Image.fromarray(grey << 8).save(tmp_path / "deep.png")
    Image.fromarray(picture()[..., 1]).save(tmp_path / "grey.png")
    alpha = np.dstack([picture(), np.where(np.arange(701) < 300, 0, 255)[None, :].repeat(501, 0)]).astype(np.uint8)
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    whole = Box(0, 0, 701, 501)
    for name in ("deep.png", "grey.png"):
        block = open_slide(SlideRef(str(tmp_path / name))).read(0, whole)
        assert np.abs(block.rgb.astype(int) - grey[..., None]).max() == 0
    shown = open_slide(SlideRef(str(tmp_path / "alpha.png"))).read(0, whole).rgb
    assert (shown[:, :300] == 255).all()
    np.testing.assert_array_equal(shown[:, 300:], picture()[:, 300:])
    deep = open_slide(SlideRef(str(zarr_folder(tmp_path / "deep.zarr", dtype="uint16"))))
    np.testing.assert_array_equal(deep.read(0, whole).rgb, picture())


def test_whole_factors_are_told_from_rounded_sizes_and_others_kept() -> None:
    assert downsample((4443, 3567), (2221, 1783)) == 2.0
    assert downsample((300, 250), (37, 31)) == 8.0
    assert downsample((100_001, 80_001), (50_001, 40_001)) == 2.0
    assert downsample((1000, 800), (998, 799)) == pytest.approx(1.0016, abs=1e-4)
    assert downsample((1000, 800), (333, 267)) == 3.0
    assert downsample((10_000, 8_000), (2_490, 1_992)) == pytest.approx(4.016, abs=1e-3)


def test_pictures_of_another_shape_are_not_levels() -> None:
    kept, levels = select_levels("a.svs", [(4000, 3000), (1280, 431), (1000, 750), (2000, 1500), (387, 463)])
    assert kept == [0, 3, 2]
    assert [level.downsample for level in levels] == [1.0, 2.0, 4.0]


def test_the_hash_of_one_file_is_sha256sum(slide: Find) -> None:
    path = slide("aperio.svs")
    assert content_sha256(SlideRef(str(path))) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_file_of_a_slide_counts(tmp_path: Path) -> None:
    path = zarr_folder(tmp_path / "a.zarr")
    first = content_sha256(SlideRef(str(path)))
    moved = shutil.copytree(path, tmp_path / "b.zarr")
    assert content_sha256(SlideRef(str(moved))) == first
    chunk = next(p for p in sorted((moved / "0").rglob("*")) if p.is_file() and p.name.isdigit())
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    second = content_sha256(SlideRef(str(moved)))
    chunk.write_bytes(data)
    chunk.rename(chunk.with_name("77"))
    assert len({first, second, content_sha256(SlideRef(str(moved)))}) == 3


def test_mirax_folders_and_dicom_series_are_hashed_whole(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Slidedat.ini").write_text("[GENERAL]")

    def dicom(name: str, series: bytes, body: bytes) -> Path:
        field = b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + field + body)
        return tmp_path / name

    first = dicom("x.dcm", b"1.2.3\0", b"one")
    second = dicom("y.dcm", b"1.2.3\0", b"two")
    other = dicom("z.dcm", b"9.9.9\0", b"three")
    refs = [SlideRef(str(tmp_path / name)) for name in ("a.mrxs", "x.dcm", "y.dcm", "z.dcm")]
    before = [content_sha256(ref) for ref in refs]
    assert before[1] == before[2] != before[3]
    assert before[3] == hashlib.sha256(other.read_bytes()).hexdigest()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"pixels")
    dicom(second.name, b"1.2.3\0", b"TWO")
    after = [content_sha256(ref) for ref in refs]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, True, True, False]
    assert [name for name, *_ in stat_signature(SlideRef(str(first)))] == ["x.dcm", "y.dcm"]


def test_a_changed_file_has_another_signature(slide: Find, tmp_path: Path) -> None:
    path = shutil.copyfile(slide("plain.png"), tmp_path / "a.png")
    ref = SlideRef(str(path))
    first = stat_signature(ref)
    assert stat_signature(ref) == first
    status = path.stat()
    replacement = shutil.copyfile(path, tmp_path / "new.png")
    os.utime(replacement, ns=(status.st_atime_ns, status.st_mtime_ns))
    replacement.replace(path)
    assert stat_signature(ref) != first
    path.unlink()
    with pytest.raises(SlideError, match="cannot be read"):
        stat_signature(ref)


def test_the_cache_opens_once_notices_change_and_stays_small(slide: Find, tmp_path: Path) -> None:
    cache._open.clear()
    refs = [
        SlideRef(str(shutil.copyfile(slide("aperio.svs"), tmp_path / f"{i}.svs")))
        for i in range(cache.CAPACITY + 2)
    ]
    first = cache.cached_slide(refs[0])
    assert cache.cached_slide(refs[0]) is first
    os.utime(refs[0].path, ns=(1, 1))
    assert cache.cached_slide(refs[0]) is not first
    for ref in refs:
        cache.cached_slide(ref)
    assert len(cache._open) == cache.CAPACITY
    # Evicted sources that are still held can be read; their descriptors go with the last reference.
    assert first.read(0, Box(0, 0, 20, 20)).rgb.shape == (20, 20, 3)


def test_descriptors_do_not_leak(slide: Find, tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(slide("aperio.svs").read_bytes()[:5000])
    listing = Path("/proc/self/fd")
    before = len(list(listing.iterdir())) if listing.exists() else 0
    for _ in range(30):
        open_slide(SlideRef(str(slide("aperio.svs")))).close()
        with pytest.raises(SlideError):
            open_slide(SlideRef(str(broken)))
    after = len(list(listing.iterdir())) if listing.exists() else 0
    assert after <= before + 2


def test_the_tile_cache_stays_within_its_bytes_and_reuses_its_buffers() -> None:
    tile = 32 * 32 * 3
    store = TileCache(max_bytes=4 * tile)
    seen = set()
    for at in range(40):
        buffer = store.take(32, 32)
        buffer[:] = at
        seen.add(buffer.__array_interface__["data"][0])
        store.put((1, 0, 0, at), buffer)
    target = np.zeros((32, 32, 3), np.uint8)
    window = (slice(0, 32), slice(0, 32))
    kept = [at for at in range(40) if store.copy((1, 0, 0, at), window, target) and (target == at).all()]
    assert kept == [36, 37, 38, 39]
    assert len(seen) <= 6
    store.put((1, 0, 0, 39), store.take(32, 32))
    assert store.copy((1, 0, 0, 36), window, target)
    store.put((2, 0, 0, 0), store.take(32, 32))
    store.forget(1)
    assert not store.copy((1, 0, 0, 39), window, target)
    assert store.copy((2, 0, 0, 0), window, target)
    again = [store.take(32, 32).__array_interface__["data"][0] for _ in range(3)]
    assert seen.issuperset(again)


def test_slides_share_one_cache_and_never_each_others_tiles(slide: Find) -> None:
    aperio = jpegtiff.open_slide(SlideRef(str(slide("aperio.svs"))))
    generic = jpegtiff.open_slide(SlideRef(str(slide("generic.tif"))))
    box = Box(0, 0, 300, 300)
    alone = [source.read(0, box).rgb.copy() for source in (aperio, generic)]
    for _ in range(2):
        for source, before in zip((aperio, generic), alone, strict=True):
            np.testing.assert_array_equal(source.read(0, box).rgb, before)
    aperio.close()
    np.testing.assert_array_equal(generic.read(0, box).rgb, alone[1])


@pytest.mark.parametrize("name", ["aperio.svs", "generic.tif", "pyramid.ome.tif"])
def test_a_grid_of_regions_decodes_each_tile_once(slide: Find, name: str) -> None:
    source = jpegtiff.open_slide(SlideRef(str(slide(name))))
    for y in range(0, 501, 200):
        for x in range(0, 701, 200):
            source.read(0, Box(x, y, x + 200, y + 200).grow(32))
    assert source.tiles_decoded == 6 * 4


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["cmu", "tcga", "os1"])
def test_the_structure_is_what_tifffile_finds(slide: Find, name: str) -> None:
    file = LocalFile(str(slide(name)))
    pages = read_structure(file).pages
    with tifffile.TiffFile(slide(name)) as tiff:
        assert len(pages) == len(tiff.pages)
        for ours, theirs in zip(pages, tiff.pages, strict=True):
            assert (ours.height, ours.width) == theirs.shape[:2]
            assert tuple(ours.offsets) == theirs.dataoffsets
            assert tuple(ours.byte_counts) == theirs.databytecounts
