"""Region parts: results of workers on disk, so that a kill costs minutes. Writing a part twice does no harm."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from typing import Any

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.store import durable
from wsi_nuc.store.locks import Held, discard_dead, try_lock
from wsi_nuc.store.oserror import storage_error
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import Private, private
from wsi_nuc.store.tables import to_arrow, to_numpy
from wsi_nuc.types import Bool

_NAME = re.compile(r"^region-(\d+)\.([0-9a-f]{16})\.arrow$")
_HALF_WRITTEN = re.compile(r"^\.tmp-[0-9a-f]{32}$")
# A `parts_key`, maybe with its lock. Those of older versions have no size of regions.
_KEY = re.compile(r"^([0-9a-f]{16}(?:-\d+)?)(\.lock)?$")
_SCALARS = ("score", "prompt_score", "predicted_iou", "tile")


def _slide_dir(root: Place, slide_sha256: str) -> Place:
    return private(root, Private.PARTS) / slide_sha256[:16]


def parts_key(work_key: str, tiles_per_region: int) -> str:
    """The name for one set of settings and one size of regions."""
    return f"{work_key[:16]}-{tiles_per_region}"


def parts_dir(root: Place, slide_sha256: str, key: str) -> Place:
    """The folder for the parts of a slide with one `parts_key`, below the output or the scratch folder."""
    return _slide_dir(root, slide_sha256) / key


def begun(root: Place, slide_sha256: str, work_key: str) -> int | None:
    """How many tiles an edge of a region has, for the regions in which most of the slide was computed. None if
    nothing was."""
    done: dict[int, int] = {}
    for folder in _slide_dir(root, slide_sha256).folders():
        key, _, edge = folder.name.partition("-")
        if key == work_key[:16] and edge.isdecimal():
            done[int(edge)] = int(edge) ** 2 * sum(1 for name in folder.names() if _NAME.match(name))
    return max(sorted(done), key=lambda edge: done[edge], default=None) if any(done.values()) else None


def hold_parts(root: Place, slide_sha256: str, key: str) -> Held:
    """Make the folder of these parts, and keep `remove_parts` of other runs away from it until the returned handle
    is closed. Many may hold it at once.

    This is not the lock of the run: runs into other output folders may share a scratch folder and thus its parts.
    """
    folder = parts_dir(root, slide_sha256, key)
    held = Held(try_lock(_lock(folder), shared=True, waiting=_no_matter)[0])
    try:
        durable.make_dir(folder)
    except StorageError:
        held.close()
        raise
    return held


def _no_matter() -> None:
    """Parts are removed quickly, so nobody is told about the waiting."""


def _lock(folder: Place) -> Place:
    return folder.parent / f"{folder.name}.lock"


def remove_parts(root: Place, slide_sha256: str, own_key: str = "") -> list[Place]:
    """Remove the parts of a slide, with any settings, except those that somebody holds. Returns what lies there
    and was not made by wsi-nuc: it stays.

    If the file system has no locks, nobody knows what is held, and only the parts of `own_key` are removed.
    """
    folder = _slide_dir(root, slide_sha256)
    names = folder.names()
    strangers = [folder / name for name in names if not _KEY.match(name)]
    for key in sorted({match[1] for match in map(_KEY.match, names) if match}):
        parts = folder / key
        dead = discard_dead(_lock(parts), partial(_remove, parts, strangers))
        if dead is None and key == own_key:
            _remove(parts, strangers)
    folder.rmdir()
    return strangers


def _remove(folder: Place, strangers: list[Place]) -> bool:
    """Remove the parts and then the folder. Anything else that lies there is added to `strangers`."""
    for name in folder.names():
        if _NAME.match(name) or _HALF_WRITTEN.match(name):
            durable.remove_file(folder / name)
        else:
            strangers.append(folder / name)
    folder.rmdir()
    return not folder.exists()


def _encode(table: NucleiTable, own: Bool, report: dict[str, Any]) -> bytes:
    import pyarrow as pa

    def fixed(values: Any, width: int) -> Any:
        flat = to_arrow(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, width)

    # Region parts stay far below the 2^31 vertices of 32-bit offsets, but large lists cost nothing here.
    columns = {
        "xy": pa.LargeListArray.from_arrays(to_arrow(table.offsets), fixed(table.xy, 2)),
        "prompt_xy": fixed(table.prompt_xy, 2),
        "class_probs": fixed(table.class_probs, table.class_probs.shape[1]),
        **{name: to_arrow(getattr(table, name)) for name in _SCALARS},
        "own": to_arrow(own),
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
        return to_numpy(array.flatten()).reshape(-1, array.type.list_size)

    xy = column("xy")
    table = NucleiTable(
        xy=fixed(xy.values),
        offsets=to_numpy(xy.offsets),
        prompt_xy=fixed(column("prompt_xy")),
        class_probs=fixed(column("class_probs")),
        **{name: to_numpy(column(name)) for name in _SCALARS},
    )
    own = to_numpy(column("own"))
    return table, own, json.loads((reader.schema.metadata or {})[b"report"])


def write_part(folder: Place, region: int, table: NucleiTable, own: Bool, report: dict[str, Any]) -> str:
    """Write the rows of a region and return the name of their file. They are durable when this returns. Two
    writers of the same rows write the same file."""
    data = _encode(table, own, report)
    sha256 = hashlib.sha256(data).hexdigest()
    part = folder / f"region-{region}.{sha256[:16]}.arrow"
    if not (part.exists() and _intact(part)):
        durable.atomic_write(part, data)
    return part.name


def _expected(name: str) -> str:
    match = _NAME.match(name)
    return match[2] if match else ""


def _intact(part: Place) -> bool:
    with part.reader() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16] == _expected(part.name)


def read_part(part: Place) -> tuple[NucleiTable, Bool, dict[str, Any]]:
    """Rows, `own` and report of a part, whose content is checked against the hash in its name."""
    try:
        with part.reader() as file:
            data = file.read()
    except OSError as error:
        raise storage_error(part.path, error) from error
    if hashlib.sha256(data).hexdigest()[:16] != _expected(part.name):
        raise StorageError(
            part, "is damaged: its content does not match its name", "repeat the same command: it resumes"
        )
    return _decode(data)


def find_parts(folder: Place) -> dict[int, Place]:
    """The intact parts by region. Damaged parts and half-written files of dead workers are deleted."""
    parts: dict[int, Place] = {}
    for name in folder.names():
        part, match = folder / name, _NAME.match(name)
        if match and _intact(part):
            parts.setdefault(int(match[1]), part)
        elif match or _HALF_WRITTEN.match(name):
            durable.remove_file(part)
    return parts
