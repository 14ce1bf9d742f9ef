"""The slide that belongs to a result: where it is now, and whether it still is the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.slides.address import is_url, shown
from wsi_nuc.slides.files import content_files
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.slides.registry import READERS, open_slide
from wsi_nuc.store.manifest import Json
from wsi_nuc.store.reading import slides_beside
from wsi_nuc.types import SlideRef, SlideSource

# A slide of more bytes is compared while it is already shown.
AT_ONCE_BYTES = 64 * 2**20
SAME, CHECKING, UNCHECKED, OTHER, MISSING = "same", "checking", "unchecked", "other", "missing"
GIVE_PATH = "give its path with --slide, or a folder with --slides"


@dataclass
class FoundSlide:
    """What is known about the slide of a result."""

    state: str
    """"same": its content is what the result was made from. "checking": its size is, and its content is being
    compared. "unchecked": it is at an address, so only its size was compared. "other" and "missing": it is not
    shown."""
    why: str = ""
    source: SlideSource | None = None

    @property
    def usable(self) -> bool:
        return self.state in (SAME, CHECKING, UNCHECKED)


def find(store: Path, manifest: Json, given: str | None, folders: Iterable[Path]) -> FoundSlide:
    """The slide of a result, opened, if it can be found and looks the same. `given`: where the user or the plan of
    a cohort says that it is; `folders`: where slides lie that have moved."""
    name = str(manifest["slide"].get("file", ""))
    problem = FoundSlide(MISSING, f"{shown(name) or 'the slide'} is not where it was: {GIVE_PATH}")
    for path in (*([given] if given else []), *map(str, slides_beside(store, name, folders))):
        try:
            return _opened(path, manifest)
        except SlideError as error:
            state = OTHER if error.remedy == OTHER else MISSING
            problem = FoundSlide(state, str(SlideError(error.subject, error.cause, GIVE_PATH)))
    return problem


def _opened(path: str, manifest: Json) -> FoundSlide:
    reader = str(manifest["slide"].get("reader", "auto"))
    ref = SlideRef(path, reader if reader in READERS and not is_url(path) else "auto")
    if not is_url(path) and not Path(path).exists():
        raise SlideError(path, "is not there")
    source = open_slide(ref)
    info, stated = source.info, manifest["slide"]
    if (info.width, info.height) != (stated["width_px"], stated["height_px"]):
        source.close()
        size = f"{info.width} x {info.height} px, not {stated['width_px']} x {stated['height_px']}"
        raise SlideError(shown(path), f"is another slide: it has {size}", OTHER)
    if is_url(path):
        return FoundSlide(
            UNCHECKED, "the slide is at an address: its size fits, its content was not compared", source
        )
    slide = FoundSlide(CHECKING, "the slide's content is being compared", source)
    wanted = str(manifest["made_from"]["slide_sha256"])
    if sum(file.stat().st_size for file in content_files(path)) <= AT_ONCE_BYTES:
        _compare(slide, ref, wanted)
    else:
        threading.Thread(target=_compare, args=(slide, ref, wanted), daemon=True).start()
    return slide


def _compare(slide: FoundSlide, ref: SlideRef, wanted: str) -> None:
    try:
        same = content_sha256(ref) == wanted
    except SlideError as error:
        slide.state, slide.why = UNCHECKED, f"the slide's content could not be compared: {error.cause}"
        return
    if same:
        slide.state, slide.why = SAME, ""
    else:
        slide.state = OTHER
        slide.why = f"{ref.path} has other content than the slide that the nuclei were found on: {GIVE_PATH}"


def refuse_nonsense(slide: str | None, folder: Path | None) -> None:
    """Raise for a path on the command line where nothing is."""
    if slide and not is_url(slide) and not Path(slide).exists():
        raise UsageError(f"--slide {slide}", "there is nothing at this path")
    if folder and not folder.is_dir():
        raise UsageError(f"--slides {folder}", "is not a folder")
