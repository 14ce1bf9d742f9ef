"""What must be known about a data set beside its files: classes, resolution, licence, and whether released weights
may be trained on it. For your own data, a `dataset.json` in the folder says it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_nuc.errors import UsageError

_PANNUKE = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
_CONSEP = ("other", "inflammatory", "epithelial", "spindle")
_NUCLS = ("sTIL", "nonTIL_stromal", "tumor_any", "other_nucleus")
_NC = "CC BY-NC-SA 4.0"
_EVALUATE = "evaluation only, never in a package"


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about a data set."""

    name: str
    licence: str = "unknown"
    trains_released: bool | None = None
    """Whether weights that others get may be trained on it. None if nobody has read the licence: counts as no."""
    classes: tuple[str, ...] = ()
    """Names of the types; the first is value 1 of a type image."""
    point_classes: tuple[str, ...] = ()
    """Names in point files, if they differ."""
    mpp: float | None = None
    """Microns per pixel of all images. None if the files say it, or if nobody knows."""
    reader: str = ""
    """A name in the registry; "" to decide by content."""
    note: str = ""
    """A remark for the report of the check."""


KNOWN: dict[str, Card] = {
    card.name: card
    for card in (
        Card("consep", "Apache-2.0 as relisted", True, _CONSEP, mpp=0.25),
        Card(
            "nucls15",
            "CC0",
            True,
            ("non-tumour", "tumour"),
            _NUCLS,
            0.25,
            note="half of the dotted lymphocytes have type tumour: trust the points, not the types",
        ),
        Card("dsb2018_colour", "CC0", True, note="resolution unknown, about 0.3-0.45 um/px; not typical H&E"),
        Card(
            "brca_m2c",
            "BSD-3-Clause",
            True,
            point_classes=("lymphocyte", "epithelial", "stromal"),
            mpp=0.5,
            note="points only",
        ),
        Card("nuinsseg_binary", "CC BY 4.0", True, mpp=0.25, note="foreground only; mpp nominal for 40x"),
        Card("monuseg", _NC, False, mpp=0.25, note=_EVALUATE),
        Card("kumar", _NC, False, mpp=0.25, note=_EVALUATE),
        Card("cpm17", "not stated", False, mpp=0.25, note=_EVALUATE),
        Card("pannuke", _NC, False, _PANNUKE, mpp=0.25, reader="pannuke", note=_EVALUATE),
        Card("tnbc", "not checked", None, mpp=0.25, reader="tnbc"),
    )
}


def card_of(root: Path, name: str = "") -> Card:
    """The card of the given name, else of `dataset.json`, else of the name of the folder, else a blank card."""
    if name:
        if name not in KNOWN:
            raise UsageError(
                name, "is not a known data set", f"use one of {', '.join(KNOWN)}, or write a dataset.json"
            )
        return KNOWN[name]
    path = root / "dataset.json"
    if path.is_file():
        return _read(path)
    plain = root.name.lower().replace("-", "")
    return KNOWN.get(plain, Card(root.name))


def _read(path: Path) -> Card:
    known = [field.name for field in dataclasses.fields(Card)]
    remedy = f"write an object with some of {', '.join(known)}"
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(path, f"is not JSON ({error})", remedy) from error
    if not isinstance(document, dict) or set(document) - set(known):
        extra = sorted(set(document) - set(known)) if isinstance(document, dict) else type(document).__name__
        raise UsageError(path, f"has unknown entries {extra}", remedy)
    for key in ("classes", "point_classes"):
        names = document.get(key, [])
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or len(set(names)) != len(names)
        ):
            raise UsageError(path, f"{key} is {names!r}", "give a list of different names")
        document[key] = tuple(names)
    mpp = document.get("mpp")
    if mpp is not None and not (isinstance(mpp, int | float) and 0.01 < mpp < 100):
        raise UsageError(path, f"mpp is {mpp!r}", "give microns per pixel, such as 0.25")
    return Card(**{"name": path.parent.name, **document})
