"""The readers, and which reader opens a slide: its content decides, never its name.

A new reader is a file with ``open_slide(ref) -> SlideSource``, which raises SlideError for what it does not read,
a line here, and an entry in the shared tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from wsi_nuc.errors import SlideError, UsageError, choices
from wsi_nuc.slides.address import shown
from wsi_nuc.slides.sniff import check
from wsi_nuc.types import SlideRef, SlideSource

Open = Callable[[SlideRef], SlideSource]
OTHER = "use a slide format that OpenSlide or tifffile reads, or convert it to a tiled TIFF"


@dataclass(frozen=True, slots=True)
class Reader:
    """Where a reader is, and what it is asked to open."""

    function: str
    """Its module and the name of its `open_slide`; imported when it is asked."""
    kinds: tuple[str, ...] = ()
    """The kinds of content (`sniff.check`) that it may open. It is not asked for others, which keeps errors short.
    Every reader is asked for content of the kind "other"."""


# In the order in which they are tried: the fast path first, the most tolerant last.
READERS: dict[str, Reader] = {
    "jpegtiff": Reader("wsi_nuc.slides.jpegtiff:open_slide", ("tiff",)),
    "openslide": Reader("wsi_nuc.slides.openslide_:open_slide", ("tiff", "dicom", "hamamatsu", "mirax", "folder")),
    "tiffslide": Reader("wsi_nuc.slides.tiffslide_:open_slide", ("tiff", "url")),
    "zarr": Reader("wsi_nuc.slides.omezarr:open_slide", ("zarr",)),
    "image": Reader("wsi_nuc.slides.image:open_slide", ("tiff", "png", "jpeg")),
}


def load(name: str) -> Open:
    """The reader's function; its module is imported now."""
    if name not in READERS:
        raise UsageError(
            f"--reader {name}", "no such reader", choices(name, ("auto", *READERS), "the readers are")
        )
    module, function = READERS[name].function.split(":")
    opener: Open = getattr(importlib.import_module(module), function)
    return opener


def open_slide(ref: SlideRef) -> SlideSource:
    """The slide, opened by the reader that was asked for or by the first that understands its content."""
    forced = None if ref.reader == "auto" else load(ref.reader)
    kind = check(ref.path)
    if forced is not None:
        return forced(ref)
    causes = []
    for name, reader in READERS.items():
        if kind != "other" and kind not in reader.kinds:
            continue
        try:
            return load(name)(ref)
        except SlideError as error:
            causes.append(f"{name}: {error.cause[:200]}")
            remedy = error.remedy
    if len(causes) == 1:
        raise SlideError(shown(ref.path), causes[0].partition(": ")[2], remedy)
    raise SlideError(shown(ref.path), "no reader opens it; " + "; ".join(causes), OTHER)
