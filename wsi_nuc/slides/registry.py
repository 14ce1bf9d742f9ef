"""The readers, and which reader opens a slide: its content decides, never its name.

A new reader is a file with ``open_slide(ref) -> SlideSource``, which raises SlideError for what it does not read,
a line here, and an entry in the shared tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from wsi_nuc.errors import SlideError, UsageError, choices
from wsi_nuc.slides.address import shown
from wsi_nuc.slides.sniff import check
from wsi_nuc.types import SlideRef, SlideSource

Open = Callable[[SlideRef], SlideSource]

# In the order in which they are tried: the fast path first, the most tolerant last.
READERS: dict[str, str] = {
    "jpegtiff": "wsi_nuc.slides.jpegtiff:open_slide",
    "openslide": "wsi_nuc.slides.openslide_:open_slide",
    "tiffslide": "wsi_nuc.slides.tiffslide_:open_slide",
    "zarr": "wsi_nuc.slides.omezarr:open_slide",
    "image": "wsi_nuc.slides.image:open_slide",
}
# Readers that cannot open a kind of content are not asked, which keeps the error short.
BY_KIND: dict[str, tuple[str, ...]] = {
    "url": ("tiffslide",),
    "tiff": ("jpegtiff", "openslide", "tiffslide", "image"),
    "zarr": ("zarr",),
    "png": ("image",),
    "jpeg": ("image",),
    "dicom": ("openslide",),
    "hamamatsu": ("openslide",),
    "mirax": ("openslide",),
    "folder": ("openslide",),
}
OTHER = "use a slide format that OpenSlide or tifffile reads, or convert it to a tiled TIFF"


def load(name: str) -> Open:
    """The reader's function; its module is imported now."""
    if name not in READERS:
        raise UsageError(
            f"--reader {name}", "no such reader", choices(name, ("auto", *READERS), "the readers are")
        )
    module, function = READERS[name].split(":")
    reader: Open = getattr(importlib.import_module(module), function)
    return reader


def open_slide(ref: SlideRef) -> SlideSource:
    """The slide, opened by the reader that was asked for or by the first that understands its content."""
    forced = None if ref.reader == "auto" else load(ref.reader)
    kind = check(ref.path)
    if forced is not None:
        return forced(ref)
    causes = []
    for name in BY_KIND.get(kind, tuple(READERS)):
        try:
            return load(name)(ref)
        except SlideError as error:
            causes.append(f"{name}: {error.cause[:200]}")
            remedy = error.remedy
    if len(causes) == 1:
        raise SlideError(shown(ref.path), causes[0].partition(": ")[2], remedy)
    raise SlideError(shown(ref.path), "no reader opens it; " + "; ".join(causes), OTHER)
