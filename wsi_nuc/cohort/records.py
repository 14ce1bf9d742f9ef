"""One small durable file per slide that says what became of it.

A kill leaves the old file or the new one, whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.errors import OK

DONE, FAILED = "done", "failed"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one slide."""

    id: str
    key: str
    """That of the plan's row: see `Plan.key`."""
    state: str
    """`DONE` or `FAILED`."""
    digest: str = ""
    """Of the verified manifest, if the slide is done."""
    nuclei: int = 0
    area_mm2: float = 0.0
    """Of its tissue."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """Number of nuclei by class."""
    seconds: float = 0.0
    error: str = ""
    exit_code: int = OK


def write(folder: CohortFolder, record: Record) -> None:
    folder.write(folder.record(record.id), json.dumps(asdict(record), sort_keys=True).encode() + b"\n")


def read(folder: CohortFolder, ids: Iterable[str]) -> dict[str, Record]:
    """The records that exist, by id. One that cannot be read counts as missing, so its slide runs again."""
    known = {}
    for slide_id in ids:
        document = read_json(folder.record(slide_id))
        with suppress(TypeError):
            if document is not None:
                known[slide_id] = Record(**document)
    return known


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - ten thousand times, and Path.open costs a third more
            document = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
