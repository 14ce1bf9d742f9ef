"""CellViT's and CellViT++'s cells.json: every cell's contour, type and probability, and the names of the types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_nuc.datasets.jsonstream import objects, value_of
from wsi_nuc.errors import UsageError
from wsi_nuc.importing.record import Cells, Wanted, batches, certainty, head, polygon, type_name

# Files without a map of types use the numbers of PanNuke.
PANNUKE = {1: "Neoplastic", 2: "Inflammatory", 3: "Connective", 4: "Dead", 5: "Epithelial"}
ENOUGH_BYTES = 1 << 20


def recognises(path: Path) -> bool:
    """Whether the first megabyte has the keys of a cell or of the file. Other long lists may come before them."""
    start = head(path)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{" or b'"Feature' in start:
        return False
    start = head(path, ENOUGH_BYTES)
    return b'"cells"' in start and (b'"type_map"' in start or b'"contour"' in start)


def cells(path: Path, wanted: Wanted) -> Iterator[Cells]:
    return batches(_cells(path))


def _cells(path: Path) -> Iterator[tuple[Any, str, float]]:
    names = value_of(path, "type_map")
    for cell in objects(path, "cells"):
        if "contour" not in cell:
            remedy = "use cells.json, not cell_detection.json, which holds points only"
            raise UsageError(path, "holds a cell without a contour", remedy)
        name, score = _name(cell.get("type"), names), certainty(cell.get("type_prob"))
        yield polygon([cell["contour"]]), name, score


def _name(kind: Any, names: Any) -> str:
    return PANNUKE[kind] if names is None and kind in PANNUKE else type_name(kind, names)
