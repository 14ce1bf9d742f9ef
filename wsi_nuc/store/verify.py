"""Checks whether a result is as it was published, and names every file that is not. A repair replaces them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsi_nuc.errors import StorageError
from wsi_nuc.safezip import Folder, contents, flaw_of, for_arrow
from wsi_nuc.store import manifest as manifests

RESTORE = "run the same `wsi-nuc run` again to restore it"


def _file_problem(path: Folder, expected: dict[str, Any]) -> str:
    if path.is_symlink():
        return "is a symbolic link"
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != expected["size"]:
        return f"has {size:,} bytes instead of {expected['size']:,}"
    if manifests.hash_file(path) != expected["sha256"]:
        return "has other content than was published"
    return ""


def _parquet_problem(path: Folder) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(for_arrow(path))
    except (pa.ArrowException, OSError) as error:
        return f"does not open as Parquet ({error})"
    return ""


def _examine(store: Folder, name: str, expected: dict[str, Any]) -> str:
    try:
        problem = _file_problem(store / name, expected)
        if not problem and name.endswith(".parquet"):
            problem = _parquet_problem(store / name)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    return problem


def refuse_damaged(store: Path, manifest: manifests.Json, below: Sequence[str]) -> None:
    """Raise unless all files below these folders of the store are as the manifest says."""
    inside = contents(store)
    for name, entry in manifest["files"].items():
        if name.startswith(tuple(f"{folder}/" for folder in below)) and (problem := _examine(inside, name, entry)):
            raise StorageError(f"{store}/{name}", problem, RESTORE)


def is_result(path: Path) -> bool:
    """Whether `path` is a result of wsi-nuc, intact or not."""
    return manifests.is_ours(path)


def _no_result(path: Path) -> str:
    if path.is_dir():
        why = f"this folder has neither the {manifests.MANIFEST} nor the {manifests.ROOT} of one"
    else:
        why = (
            "it is a file, and a result is a folder or a .zarr.zip"
            if path.exists()
            else "there is nothing at this path"
        )
    return f"is not a result of wsi-nuc: {why}"


def problems_of(store: Path) -> dict[str, str]:
    """The broken files of a result, and what is wrong with each. Only files of the store itself are read."""
    if flaw := flaw_of(store):
        return {Path(store).name: flaw}
    (manifest, flaw), inside = manifests.load(store), contents(store)
    if not manifest:
        return {manifests.MANIFEST: flaw}
    files = manifest["files"]
    problems = {name: _examine(inside, name, entry) for name, entry in sorted(files.items())}
    problems |= {name: "is not part of the result" for name in manifests.walk(inside) if name not in files}
    problems[manifests.MANIFEST] = flaw
    return {name: problem for name, problem in problems.items() if problem}


def verify(store: Path) -> list[str]:
    """Problems of a published store, one per line. An empty list means that it is intact.

    A path that is not a result has one problem, which says so. `is_result` tells both cases apart.
    """
    if not is_result(store) and not flaw_of(store):
        return [_no_result(Path(store))]
    return [f"{name} {problem}" for name, problem in problems_of(store).items()]


def verified_manifest(store: Path) -> manifests.Json:
    """The manifest of a store that is intact; StorageError for any other."""
    if problems := verify(store):
        raise StorageError(store, "; ".join(problems), RESTORE)
    return manifests.read(store)
