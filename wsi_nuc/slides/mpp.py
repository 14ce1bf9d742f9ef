"""Microns per pixel: where it is written, what is believed, and the remedy where nothing is.

Every threshold of the models is in microns, so a wrong value is worse than none. What a header states but is
unusable ends the search: falling back to a guess would contradict the file silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wsi_nuc.errors import SlideError, UsageError
from wsi_nuc.types import Level, SlideInfo

SMALLEST_UM, LARGEST_UM = 0.02, 100.0
# Resolution tags coarser than this are print resolutions: 600 dpi is 42 um a pixel.
COARSEST_TAG_UM = 16.0
LARGEST_DIFFERENCE = 0.02
OBJECTIVE_UM = 10.0
UM_PER = {"": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "micrometer": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3}
UM_PER |= {
    "nanometer": 1e-3,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "cm": 1e4,
    "m": 1e6,
    "in": 25400.0,
}
TAG_UNIT_UM = {2: 25400.0, 3: 10000.0}


@dataclass(frozen=True, slots=True)
class Mpp:
    """`value` in microns per level-0 pixel with its source, or None and the problem."""

    value: float | None
    source: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file says: header values and objective as text, resolution tags in microns per pixel."""

    header: tuple[str, str] = ("", "")
    tags_um: tuple[float, float] = (0.0, 0.0)
    objective: str = ""


def number(text: str) -> float:
    """The value of a header field, NaN where it is not a plain decimal number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def in_um(value: str, unit: str) -> str:
    """A length with its unit as text in microns; unchanged where the unit is not a length (pixel)."""
    factor = UM_PER.get(unit.strip().lower(), math.nan)
    return repr(number(value) * factor) if value else ""


def tags_um(resolution: tuple[float, float, int]) -> tuple[float, float]:
    """Microns per pixel of TIFF resolution tags (x, y, unit); 0 where they have no unit."""
    unit = TAG_UNIT_UM.get(resolution[2], 0.0)
    x, y = (unit / value if value > 0 else 0.0 for value in resolution[:2])
    return x, y


def _flaw(x: float, y: float) -> str:
    if not all(math.isfinite(v) and SMALLEST_UM <= v <= LARGEST_UM for v in (x, y)):
        return f"not between {SMALLEST_UM} and {LARGEST_UM:g} um"
    if abs(x - y) > LARGEST_DIFFERENCE * max(x, y):
        return "x and y differ by more than 2 %"
    return ""


def objective_power(text: str) -> float | None:
    """The objective's magnification, None where it is absent or impossible."""
    power = number(text)
    return power if math.isfinite(power) and 1 <= power <= 150 else None


def resolve(user_mpp: float | None, stated: Stated) -> Mpp:
    """The user's value, else the header's, else the resolution tags', else the objective's."""
    if user_mpp is not None:
        if flaw := _flaw(user_mpp, user_mpp):
            raise UsageError("--mpp", f"{user_mpp:g} is {flaw}", "pass microns per pixel, for instance --mpp 0.25")
        return Mpp(float(user_mpp), "--mpp")
    if any(stated.header):
        x, y = (number(text) for text in stated.header)
        if flaw := _flaw(x, y):
            said = " x ".join(repr(text[:24]) for text in stated.header)
            return Mpp(None, "", f"the header's microns per pixel are {said}: {flaw}")
        return Mpp((x + y) / 2, "header")
    x, y = stated.tags_um
    if 0 < max(x, y) <= COARSEST_TAG_UM:
        if flaw := _flaw(x, y):
            return Mpp(None, "", f"the resolution tags say {x:.4g} x {y:.4g} um a pixel: {flaw}")
        return Mpp((x + y) / 2, "resolution tags")
    if power := objective_power(stated.objective):
        return Mpp(OBJECTIVE_UM / power, "objective")
    return Mpp(None, "", "the file does not state its microns per pixel")


def describe(
    reader: str, vendor: str, levels: tuple[Level, ...], user_mpp: float | None, stated: Stated
) -> SlideInfo:
    """What every reader says of its slide, with the microns per pixel that are believed."""
    found = resolve(user_mpp, stated)
    return SlideInfo(
        reader=reader,
        vendor=vendor,
        width=levels[0].width,
        height=levels[0].height,
        levels=levels,
        mpp=found.value,
        mpp_source=found.source,
        mpp_problem=found.problem,
        objective=objective_power(stated.objective),
    )


def require_mpp(info: SlideInfo) -> float:
    """Microns per level-0 pixel, or SlideError with the remedy."""
    if info.mpp is None:
        raise SlideError("", info.mpp_problem or "its microns per pixel are unknown", "pass --mpp")
    return info.mpp


def aperio_fields(description: str) -> Mapping[str, str]:
    """The `MPP` and `AppMag` of an Aperio description; its other fields may name the patient and stay unread."""
    fields = (part.split("=", 1) for part in description.split("|")[1:] if "=" in part)
    pairs = {key.strip(): value.strip() for key, value in fields}
    return {key: pairs[key] for key in ("MPP", "AppMag") if key in pairs}
