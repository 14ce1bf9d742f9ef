"""Which files a slide consists of: every file with its pixels is part of its identity, or the slide is refused."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.slides import multifile
from tests.slides.make import picture, zarr_folder
from tests.slides.multifile import EDGE, SETS, dicom, hamamatsu, jpeg, mirax, ngr, ome_set, vms
from wsi_nuc.cohort.sheet import slides_below
from wsi_nuc.errors import SlideError
from wsi_nuc.run.slide_copy import StagedSlide
from wsi_nuc.slides.files import contents
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.folders import made_folder
from wsi_nuc.types import Box, SlideRef

PIXELS_IN = {
    "dicom": {"base.dcm", "half.dcm"},
    "mirax": {"Data0.dat", "Data1.dat"},
    "vms": {"left.jpg", "right.jpg", "map.jpg"},
    "vmu": {"base.ngr", "map.ngr"},
}
Make = Callable[[Path], Path]


def pixels(slide: Path) -> bytes:
    """All pixels of all levels."""
    source = open_slide(SlideRef(str(slide)))
    levels = enumerate(source.info.levels)
    return b"".join(source.read(i, Box(0, 0, level.width, level.height)).rgb.tobytes() for i, level in levels)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("name", sorted(SETS))
def test_whatever_changes_pixels_changes_the_identity(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = SETS[name](folder(tmp_path / "slide"))
    ref = SlideRef(str(slide))
    with monkeypatch.context() as other_colours:
        other_colours.setattr(multifile, "picture", lambda *size: 255 - picture(*size))
        SETS[name](folder(tmp_path / "other"))
    before, sha256, signature = pixels(slide), content_sha256(ref), stat_signature(ref)
    changed = set()
    for source in (path for path in (tmp_path / "other").rglob("*") if path.is_file()):
        place = slide.parent / source.relative_to(tmp_path / "other")
        data = place.read_bytes()
        place.write_bytes(source.read_bytes())
        if pixels(slide) != before:
            changed.add(place.name)
            assert content_sha256(ref) != sha256, place
            assert stat_signature(ref) != signature, place
        place.write_bytes(data)
    assert changed == PIXELS_IN[name]
    assert content_sha256(ref) == sha256


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_file_that_only_lies_beside_a_slide_does_not_count(name: str, tmp_path: Path) -> None:
    ref = SlideRef(str(SETS[name](tmp_path)))
    before = content_sha256(ref), stat_signature(ref)
    dicom(tmp_path / "another.dcm", series="9.9.9")
    (tmp_path / "notes.txt").write_text("a neighbour")
    assert (content_sha256(ref), stat_signature(ref)) == before


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_files_found_are_enough_to_read_the_slide(name: str, tmp_path: Path) -> None:
    slide = SETS[name](folder(tmp_path / "slide"))
    ref = SlideRef(str(slide))
    with StagedSlide(ref, made_folder(tmp_path / "stage"), content_sha256(ref), lambda: None) as copy:
        assert pixels(Path(copy.ref.path)) == pixels(slide)


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_cohort_lists_the_slide_and_none_of_its_parts(name: str, tmp_path: Path) -> None:
    slide = SETS[name](tmp_path)
    slides, notes = slides_below(tmp_path)
    assert [path.name for path in slides] == [slide.name]
    assert notes == []


def test_a_folder_of_one_series_is_the_series(tmp_path: Path) -> None:
    slide = multifile.dicom_series(folder(tmp_path / "case"))
    assert contents(str(slide.parent)).files == contents(str(slide)).files
    assert pixels(slide.parent) == pixels(slide)


def test_a_broken_neighbour_counts_but_does_not_hinder(tmp_path: Path) -> None:
    slide = dicom(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(slide.read_bytes()[:300])
    assert [path.name for path in contents(str(slide)).files] == ["a.dcm", "b.dcm"]


def test_a_picture_file_inside_does_not_hide_the_rest_of_a_zarr_slide(tmp_path: Path) -> None:
    slide = zarr_folder(tmp_path / "a.zarr")
    plain = contents(str(slide)).files
    dicom(slide / "decoy.dcm")
    assert set(contents(str(slide)).files) == {*plain, slide / "decoy.dcm"}


def test_linked_folders_of_a_zarr_slide_count_and_circles_are_refused(tmp_path: Path) -> None:
    slide = zarr_folder(tmp_path / "a.zarr")
    ref = SlideRef(str(slide))
    whole = content_sha256(ref)
    shutil.move(slide / "0", tmp_path / "elsewhere")
    (slide / "0").symlink_to(tmp_path / "elsewhere")
    assert content_sha256(ref) == whole
    chunk = next(path for path in sorted((tmp_path / "elsewhere" / "c").rglob("*")) if path.is_file())
    chunk.write_bytes(b"other")
    assert content_sha256(ref) != whole
    (slide / "1" / "again").symlink_to(slide)
    with pytest.raises(SlideError, match="second time through links"):
        content_sha256(ref)


def outside_vms(place: Path) -> Path:
    return hamamatsu(
        place / "a.vms", "", ["NoJpegColumns=1", "NoJpegRows=1", "ImageFile=../b.jpg", "MapFile=m.jpg"]
    )


def escaped_vms(place: Path) -> Path:
    return hamamatsu(place / "a.vms", "", ["ImageFile=b\\sc.jpg", "MapFile=m.jpg"])


def outside_mirax(place: Path) -> Path:
    return mirax(place, {"FILE_1": "/etc/passwd"})


def pipe_beside_dicom(place: Path) -> Path:
    os.mkfifo(place / "pipe")
    return dicom(place / "a.dcm")


def pipe_in_vms(place: Path) -> Path:
    slide = vms(place)
    (place / "rows.opt").unlink()
    os.mkfifo(place / "rows.opt")
    return slide


def pipe_in_zarr(place: Path) -> Path:
    slide = zarr_folder(place / "a.zarr")
    os.mkfifo(slide / "0" / "pipe")
    return slide


def open_database(place: Path) -> Path:
    (place / "a.svslide").write_bytes(b"SQLite format 3\0" + bytes(1000))
    (place / "a.svslide-wal").touch()
    return place / "a.svslide"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (outside_vms, "not the name of a file beside it"),
        (escaped_vms, "not the name of a file beside it"),
        (outside_mirax, "not the name of a file beside it"),
        (pipe_beside_dicom, "not a regular file"),
        (pipe_in_vms, "not a regular file"),
        (pipe_in_zarr, "not a regular file"),
        (open_database, "was not closed"),
    ],
)
def test_files_that_cannot_belong_to_a_slide_are_refused(make: Make, match: str, tmp_path: Path) -> None:
    slide = make(tmp_path)
    for tell in (content_sha256, stat_signature):
        with pytest.raises(SlideError, match=match):
            tell(SlideRef(str(slide)))


def test_a_format_that_only_openslide_recognises_is_refused(tmp_path: Path) -> None:
    """GLib takes lines of zero bytes for comments, and so this index does not look like text."""
    slide = vms(tmp_path)
    slide.write_bytes(b"#" + bytes(300) + b"\n" + slide.read_bytes())
    assert contents(str(slide)).rule == "file"
    with pytest.raises(SlideError, match="which files such a slide consists of is not known"):
        open_slide(SlideRef(str(slide), "openslide"))


def test_a_picture_spread_over_several_tiffs_is_refused_and_never_followed(tmp_path: Path) -> None:
    slide = ome_set(tmp_path)
    with pytest.raises(SlideError, match=r"spreads the picture over several files\. Convert it to one"):
        open_slide(SlideRef(str(slide), "tiffslide"))
    # The other readers show this file's own picture, whatever the description names.
    alone = pixels(slide)
    (tmp_path / "1.ome.tif").unlink()
    os.mkfifo(tmp_path / "1.ome.tif")
    assert pixels(slide) == alone


def test_an_address_is_one_file_too(tmp_path: Path) -> None:
    import fsspec

    url = f"memory://{uuid.uuid4().hex}/0.ome.tif"
    with fsspec.open(url, "wb") as file:
        file.write(ome_set(tmp_path).read_bytes())
    with pytest.raises(SlideError, match="over several files"):
        open_slide(SlideRef(url))


def test_the_parts_of_a_slide_may_lie_nowhere_else(tmp_path: Path) -> None:
    """A missing image file is an error, and the pixels of its neighbour are not taken instead."""
    slide = vms(tmp_path)
    (tmp_path / "right.jpg").unlink()
    with pytest.raises(SlideError, match="states 2 x 1 images and names 2 files"):
        open_slide(SlideRef(str(slide)))
    jpeg(tmp_path / "right.jpg", picture(EDGE, EDGE)[:, EDGE // 2 :])
    assert open_slide(SlideRef(str(slide))).info.width == EDGE
    ngr(tmp_path / "right.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SlideError):
        open_slide(SlideRef(str(slide)))
