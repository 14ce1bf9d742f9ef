"""The slides below a folder, told by their content. What is none is counted, not passed over in silence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from wsi_nuc.errors import SlideError
from wsi_nuc.safezip import is_packed
from wsi_nuc.slides import mirax
from wsi_nuc.slides.files import content_files
from wsi_nuc.slides.sniff import kind_of
from wsi_nuc.store.verify import is_result

MOST_NAMED = 5
# Kinds of files that stand for others beside them.
MANY_FILES = ("dicom", "hamamatsu")


def is_slide(path: Path) -> bool:
    """True for what a reader may open: an image file or an OME-Zarr folder."""
    try:
        return kind_of(str(path)) not in ("other", "folder")
    except SlideError:
        return False


def slides_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Sorted paths, and notes of what was left out. Of a slide of several files one stands for all."""
    slides: list[Path] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        inner = [here / name for name in sorted(folders)]
        slides += [path for path in inner if _whole(path)]
        folders[:] = [path.name for path in inner if not (_whole(path) or _part(path))]
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        found, rest = _files([file for file in files if not (is_packed(file) and is_result(file))])
        slides += found
        others += [str(path.relative_to(folder)) for path in rest]
    named = ", ".join(sorted(others)[:MOST_NAMED]) + (", ..." if len(others) > MOST_NAMED else "")
    return sorted(slides), [f"{len(others)} files are no slides ({named})"] if others else []


def _whole(folder: Path) -> bool:
    """An OME-Zarr slide; a result of this program is none."""
    return not is_result(folder) and is_slide(folder)


def _part(folder: Path) -> bool:
    return folder.name.startswith(".") or is_result(folder) or (folder / mirax.INDEX).is_file()


def _files(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Slides and other files. One that cannot even be looked at is listed as a slide: its reason belongs told."""
    kinds = {file: _kind(file) for file in files}
    parts: set[Path] = set()
    for file in files:
        if kinds[file] in MANY_FILES and file not in parts:
            with contextlib.suppress(SlideError, OSError):
                parts |= {*content_files(str(file))} - {file}
    whole = [file for file in files if file not in parts]
    return [file for file in whole if kinds[file] != "other"], [file for file in whole if kinds[file] == "other"]


def _kind(file: Path) -> str:
    try:
        return kind_of(str(file))
    except SlideError:
        return "unknown"
