"""One small durable file a slide that says what became of it. A kill leaves the old or the new one, whole."""

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
    """`key` is that of the plan's row; `digest` of the verified manifest, where `state` is done."""

    id: str
    key: str
    state: str
    digest: str = ""
    nuclei: int = 0
    area_mm2: float = 0.0
    classes: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    exit_code: int = OK


def write(folder: CohortFolder, record: Record) -> None:
    folder.write(folder.record(record.id), json.dumps(asdict(record), sort_keys=True).encode() + b"\n")


def read(folder: CohortFolder, ids: Iterable[str]) -> dict[str, Record]:
    """The records that there are. One that cannot be read counts as none: the slide is looked at again."""
    found = {}
    for slide_id in ids:
        document = read_json(folder.record(slide_id))
        with suppress(TypeError):
            if document is not None:
                found[slide_id] = Record(**document)
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - ten thousand times; Path.open costs a third more
            document = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
