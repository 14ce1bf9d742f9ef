"""Is a published result still what was published? Names every file that is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_nuc.errors import StorageError
from wsi_nuc.store import manifest as manifests


@dataclass(frozen=True, slots=True)
class Damage:
    """`files` are those that have to be written again; `identity` is empty where even that is lost."""

    problems: tuple[str, ...]
    files: tuple[str, ...]
    identity: str

    def __bool__(self) -> bool:
        return bool(self.problems)


def _file_problem(path: Path, expected: dict[str, Any]) -> str:
    if path.is_symlink():
        return "is a symbolic link"
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != expected.get("size"):
        return f"has {size:,} bytes instead of {expected.get('size'):,}"
    if manifests.hash_file(path) != expected.get("sha256"):
        return "has other content than was published"
    return ""


def _parquet_problem(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        return f"does not open as Parquet ({error})"
    return ""


def _examine(store: Path, name: str, expected: dict[str, Any]) -> str:
    try:
        problem = _file_problem(store / name, expected)
        if not problem and name.endswith(".parquet"):
            problem = _parquet_problem(store / name)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    return problem


def damage(store: Path) -> Damage:
    """What is wrong with a published store. It needs no other file than the store itself."""
    store = Path(store)
    made_from = manifests.made_from(store)
    identity = manifests.Origin(made_from, {}, {}).identity if made_from else ""
    try:
        manifest = manifests.read(store)
    except StorageError as error:
        return Damage((str(error),), (manifests.MANIFEST,), identity)
    found = {name: _examine(store, name, entry) for name, entry in sorted(manifest["files"].items())}
    found |= {name: "is not part of the result" for name in manifests.walk(store) if name not in manifest["files"]}
    if manifests.digest(manifest) != manifest.get("digest"):
        found[manifests.MANIFEST] = "was changed: its digest does not match its content"
    bad = {name: problem for name, problem in found.items() if problem}
    return Damage(tuple(f"{name} {problem}" for name, problem in bad.items()), tuple(bad), identity)


def verify(store: Path) -> list[str]:
    """Problems of a published store, one line each; an empty list means it is intact."""
    return list(damage(store).problems)
