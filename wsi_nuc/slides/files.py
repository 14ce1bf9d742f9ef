"""Which files a slide consists of: every file that its pixels come from, decided before a reader opens it.

The content of a file decides, not its name. Each format with several files has its rule here; everything else is
one file, and no reader may go beyond it. Names that lead out of the slide's folder are refused, because a copy of
the slide could not hold what they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides import hamamatsu, mirax
from wsi_nuc.slides.dicom import header_of, is_dicom
from wsi_nuc.slides.keyfile import TOGETHER
from wsi_nuc.slides.localfile import CHECK_PATH, COPY_AGAIN, refuse_special

ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")
DATABASE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a slide and how they were chosen."""

    rule: str
    """The format's rule: file, zarr, dicom, mirax or hamamatsu."""
    files: tuple[Path, ...]
    """Sorted by their path."""


def contents(path: str) -> Contents:
    """The files of a local slide by the rule of its format; SlideError where they cannot be known."""
    refuse_special(path)
    slide = Path(path)
    if slide.is_dir():
        return _of_folder(slide)
    if is_dicom(slide):
        return Contents("dicom", _series(slide.parent, slide))
    if (companion := mirax.folder_of(slide)) is not None:
        mirax.check_names(companion)
        return _contents("mirax", [slide, *_below(companion)])
    if hamamatsu.is_index(slide):
        return _contents("hamamatsu", hamamatsu.files_of(slide))
    _check_database(slide)
    return Contents("file", (slide,))


def content_files(path: str) -> tuple[Path, ...]:
    """All files that a local slide consists of, sorted by their path."""
    return contents(path).files


def _contents(rule: str, files: Iterable[Path]) -> Contents:
    return Contents(rule, tuple(sorted(set(files))))


def _of_folder(folder: Path) -> Contents:
    if any((folder / name).is_file() for name in ZARR_FILES):
        return _contents("zarr", _below(folder))
    first = next((path for path in sorted(_files_in(folder)) if is_dicom(path)), None)
    if first is None:
        raise SlideError(folder, "is a folder without DICOM files", CHECK_PATH)
    return Contents("dicom", _series(folder, first))


def _files_in(folder: Path) -> Iterator[Path]:
    """The files directly in a folder. A pipe among them is refused, since opening it would block."""
    for path in folder.iterdir():
        refuse_special(str(path))
        if path.is_file():
            yield path


def _below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Links are followed, as readers follow them, but not to a folder twice."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            raise SlideError(folder, f"reaches {place} a second time through links", TOGETHER)
        seen.add((status.st_dev, status.st_ino))
        yield from _files_in(place)
        waiting += [path for path in place.iterdir() if path.is_dir()]


def _series(folder: Path, first: Path) -> tuple[Path, ...]:
    """The files of one DICOM series in a folder, and those whose header is too broken to tell."""
    wanted = header_of(first).series
    if not wanted:
        raise SlideError(first, header_of(first).problem or "its DICOM header names no series", COPY_AGAIN)
    files = []
    for path in sorted(filter(is_dicom, _files_in(folder))):
        header = header_of(path)
        if header.hostile:
            # libdicom parses all files of a folder, whichever of them is opened.
            raise SlideError(path, header.problem, "move it out of the slide's folder")
        if header.series in (wanted, ""):
            files.append(path)
    return tuple(files)


def _check_database(slide: Path) -> None:
    """Refuse a database that is not closed: it has pixels in a second file, and a reader would write beside it."""
    with slide.open("rb") as file:
        if file.read(len(DATABASE)) != DATABASE:
            return
    for open_file in (slide.with_name(slide.name + ending) for ending in ("-wal", "-journal")):
        if open_file.exists():
            remedy = "close the program that writes it, and copy the slide again"
            raise SlideError(slide, f"was not closed: {open_file.name} lies beside it", remedy)
