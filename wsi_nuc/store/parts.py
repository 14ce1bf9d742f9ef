"""Region parts: what a worker leaves behind, so that a killed run costs minutes. Written twice, they are one."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.store import durable
from wsi_nuc.store.locks import private_dir
from wsi_nuc.types import Bool, NucleiTable

_NAME = re.compile(r"^region-(\d+)\.([0-9a-f]{16})\.arrow$")
_SCALARS = ("score", "prompt_score", "predicted_iou", "tile")


@dataclass(frozen=True, slots=True)
class PartRef:
    """What travels through the scheduler instead of the rows."""

    path: str
    sha256: str
    rows: int


def parts_dir(out_dir: Path, identity: str) -> Path:
    return private_dir(out_dir) / identity[:16] / "parts"


def _encode(table: NucleiTable, own: Bool, report: dict[str, Any]) -> bytes:
    import pyarrow as pa

    def fixed(values: Any, width: int) -> Any:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, width)

    # Region parts stay far below the 2^31 vertices that 32-bit offsets allow; large lists cost nothing here.
    columns = {
        "xy": pa.LargeListArray.from_arrays(pa.array(table.offsets), fixed(table.xy, 2)),
        "prompt_xy": fixed(table.prompt_xy, 2),
        "class_probs": fixed(table.class_probs, table.class_probs.shape[1]),
        **{name: pa.array(getattr(table, name)) for name in _SCALARS},
        "own": pa.array(own),
    }
    batch = pa.record_batch(columns).replace_schema_metadata({"report": json.dumps(report, sort_keys=True)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _decode(data: bytes) -> tuple[NucleiTable, Bool, dict[str, Any]]:
    import pyarrow as pa

    reader = pa.ipc.open_file(pa.BufferReader(data))
    batch = reader.get_batch(0)

    def column(name: str) -> Any:
        return batch.column(batch.schema.get_field_index(name))

    def fixed(array: Any) -> Any:
        return np.asarray(array.flatten()).reshape(-1, array.type.list_size)

    xy = column("xy")
    table = NucleiTable(
        xy=fixed(xy.values),
        offsets=np.asarray(xy.offsets),
        prompt_xy=fixed(column("prompt_xy")),
        class_probs=fixed(column("class_probs")),
        **{name: np.asarray(column(name)) for name in _SCALARS},
    )
    own = column("own").to_numpy(zero_copy_only=False).astype(np.bool_)
    return table, own, json.loads((reader.schema.metadata or {})[b"report"])


def write_part(folder: Path, region: int, table: NucleiTable, own: Bool, report: dict[str, Any]) -> PartRef:
    """Leave the rows of one region; durable when it returns. Two writers of the same rows write the same file."""
    data = _encode(table, own, report)
    sha256 = hashlib.sha256(data).hexdigest()
    path = Path(folder) / f"region-{region}.{sha256[:16]}.arrow"
    if not (path.is_file() and _intact(path)):
        durable.atomic_write(path, data)
    return PartRef(str(path), sha256, len(table))


def _expected(path: Path) -> str:
    match = _NAME.match(path.name)
    return match[2] if match else ""


def _intact(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16] == _expected(path)


def read_part(path: str | Path) -> tuple[NucleiTable, Bool, dict[str, Any]]:
    """Rows, `own` and report of a part, after its content was checked against the hash in its name."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise durable.storage_error(path, error) from error
    if hashlib.sha256(data).hexdigest()[:16] != _expected(path):
        raise StorageError(
            path, "is damaged: its content does not match its name", "repeat the same command: it resumes"
        )
    return _decode(data)


def find_parts(folder: Path) -> dict[int, Path]:
    """The intact parts by region. Damaged ones and half-written files of dead workers are deleted."""
    found: dict[int, Path] = {}
    for path in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
        match = _NAME.match(path.name)
        if match and path.is_file() and _intact(path):
            found.setdefault(int(match[1]), path)
        elif match or path.name.startswith(".tmp-"):
            path.unlink(missing_ok=True)
    return found
