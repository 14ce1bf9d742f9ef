"""The slides below a folder, told by their content. What is none is counted, not passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.identity import MIRAX_INDEX, dicom_series
from wsi_nuc.slides.sniff import kind_of
from wsi_nuc.store.verify import is_result

MOST_NAMED = 5


def is_slide(path: Path) -> bool:
    """True for what a reader may open: an image file or an OME-Zarr folder."""
    try:
        return kind_of(str(path)) not in ("other", "folder")
    except SlideError:
        return False


def slides_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Sorted paths, and notes of what was left out. Of a DICOM series the first file stands for all."""
    slides: list[Path] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        inner = [here / name for name in sorted(folders)]
        slides += [path for path in inner if _whole(path)]
        folders[:] = [path.name for path in inner if not (_whole(path) or _part(path))]
        found, rest = _files([here / name for name in sorted(names) if not name.startswith(".")])
        slides += found
        others += [str(path.relative_to(folder)) for path in rest]
    named = ", ".join(sorted(others)[:MOST_NAMED]) + (", ..." if len(others) > MOST_NAMED else "")
    return sorted(slides), [f"{len(others)} files are no slides ({named})"] if others else []


def _whole(folder: Path) -> bool:
    """An OME-Zarr slide; a result of this program is none."""
    return not is_result(folder) and is_slide(folder)


def _part(folder: Path) -> bool:
    return folder.name.startswith(".") or is_result(folder) or (folder / MIRAX_INDEX).is_file()


def _files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Slides and other files. One that cannot even be looked at is listed as a slide: its reason belongs told."""
    slides: list[Path] = []
    others: list[Path] = []
    series: set[bytes | None] = set()
    for file in files:
        try:
            kind = kind_of(str(file))
        except SlideError:
            kind = "unknown"
        if kind == "dicom":
            uid = dicom_series(file)
            if uid in series:
                continue
            series.add(uid)
        (others if kind == "other" else slides).append(file)
    return slides, others
