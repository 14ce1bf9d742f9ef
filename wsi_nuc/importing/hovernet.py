"""HoVer-Net's JSON: contour, type and probability of every nucleus. Types have numbers, and rarely names.

Its pixels are those of the magnification `mag`; `--scale` says how many level-0 pixels one of them has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wsi_nuc.datasets.jsonstream import members, value_of
from wsi_nuc.errors import UsageError
from wsi_nuc.importing.record import Cells, Wanted, batches, certainty, head, polygon, type_name

ENOUGH_BYTES = 1 << 20


def recognises(path: Path) -> bool:
    """Whether the file begins as an object that has nuclei under `nuc`, and their contours."""
    if head(path).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return False
    start = head(path, ENOUGH_BYTES)
    return b'"nuc"' in start and (b'"mag"' in start or b'"contour"' in start)


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    return batches(_cells(path))


def _cells(path: Path) -> Iterator[tuple[Any, str, float]]:
    names = value_of(path, "type_map")
    for _, nucleus in members(path, "nuc"):
        if not isinstance(nucleus, Mapping) or "contour" not in nucleus:
            raise UsageError(path, "holds a nucleus without a contour", "use the JSON that HoVer-Net wrote")
        name, score = type_name(nucleus.get("type"), names), certainty(nucleus.get("type_prob"))
        yield polygon([nucleus["contour"]]), name, score
