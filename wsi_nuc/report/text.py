"""Templates of pages, and how values read on them."""

from __future__ import annotations

import math
from typing import Any


def environment(package: str) -> Any:
    """The templates of a package, with the common style. Every value is escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("wsi_nuc.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": number, "count": count}
    return made


def number(value: float | None) -> str:
    """The value in short: three digits below a thousand, whole numbers above, "" if it is unknown."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def count(value: int | None) -> str:
    return f"{value:,}" if value is not None else ""
