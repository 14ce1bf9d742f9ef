"""What a call says of each slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wsi_nuc.errors import OK, SlideError, WsiNucError
from wsi_nuc.slides.address import shown, without_secrets
from wsi_nuc.store.commit import Published


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What became of one slide."""

    slide: str
    """As the user named it."""
    status: str
    """published, empty (published, without a nucleus), verified (it was there already), failed or interrupted."""
    store: str = ""
    """Path of the result."""
    nuclei: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    """Nuclei of each class."""
    area_mm2: float = 0.0
    """Of the area in which nuclei are kept."""
    usable_mm2: float = 0.0
    """Of that area, what could be looked at."""
    tiles: dict[str, int] = field(default_factory=dict)
    """How many were processed, background, missing and failed."""
    seconds: float = 0.0
    error: str = ""
    exit_code: int = OK
    """0 unless it failed or was interrupted."""

    def as_json(self) -> dict[str, Any]:
        first = ("slide", "store", "status", "nuclei", "classes", "area_mm2", "usable_mm2")
        return {name: getattr(self, name) for name in (*first, "tiles", "seconds", "error")}


def success(slide: str, published: Published, seconds: float) -> SlideResult:
    counts, tiles = published.manifest["counts"], published.manifest["tiles"]
    return SlideResult(
        slide=slide,
        status=_status(published),
        store=str(published.path),
        nuclei=counts["nuclei"],
        classes=counts["classes"],
        area_mm2=counts["area_mm2"],
        usable_mm2=counts.get("usable_mm2", counts["area_mm2"]),
        tiles={key: tiles[key] for key in ("processed", "background", "missing", "failed")},
        seconds=round(seconds, 3),
    )


def _status(published: Published) -> str:
    if not published.new:
        return "verified"
    return "published" if published.manifest["counts"]["nuclei"] else "empty"


def failure(slide: str, error: Exception, seconds: float) -> SlideResult:
    """Every failure names its slide; one that nobody foresaw also says of what kind it is."""
    known = error if isinstance(error, WsiNucError) else _unforeseen(slide, error)
    text = str(known) if shown(slide) in str(known) else f"{shown(slide)}: {known}"
    return SlideResult(slide, "failed", error=text, seconds=round(seconds, 3), exit_code=known.exit_code)


def _unforeseen(slide: str, error: Exception) -> SlideError:
    remedy = "try the slide alone with --scheduler serial, and report this message if it comes again"
    return SlideError(shown(slide), f"{type(error).__name__}: {without_secrets(str(error))}", remedy)
