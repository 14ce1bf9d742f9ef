"""From a private folder to a published result: complete, synced, verified, and visible in one step."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.locks import discard_dead, hold, private_dir, slide_lock_path, try_lock
from wsi_nuc.store.manifest import Json, Origin
from wsi_nuc.store.paths import refuse_links
from wsi_nuc.store.verify import is_result, problems_of, verify

Acceptable = Callable[[Json], bool]


def accept_all(manifest: Json) -> bool:
    """The usual judgement of a manifest: what is intact will do."""
    return True


@dataclass(frozen=True, slots=True)
class Published:
    """`new` is False where a verified result of the same identity was there already."""

    path: Path
    manifest: Json
    new: bool


class Staging:
    """A private folder on the file system of the result. It vanishes unless it is published.

    Its lock is held as long as this process lives, so whoever gets the lock knows that the folder is abandoned.
    """

    def __init__(self, out_dir: Path, name: str) -> None:
        self.out_dir, self.name = Path(out_dir), name
        durable.make_dir(self.out_dir)
        folder = private_dir(self.out_dir) / "staging"
        self.root = folder / f"{uuid.uuid4().hex}.zarr"
        refuse_links(self.out_dir, self.root)
        self._out_stat = self.out_dir.stat()
        self._lock_path = self.root.with_suffix(".lock")
        self._lock, _ = try_lock(self._lock_path)
        try:
            durable.make_dir(self.root)
        except StorageError:
            self._let_go()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        durable.remove_tree(self.root)
        self._let_go()

    def _let_go(self) -> None:
        durable.remove_file(self._lock_path)
        os.close(self._lock)

    @property
    def final(self) -> Path:
        return self.out_dir / self.name

    def refuse_swaps(self) -> None:
        """The folder that we are about to publish into must be the one that we checked at the start."""
        refuse_links(self.out_dir, self.final)
        refuse_links(self.out_dir, self.root)
        if not self.out_dir.is_dir() or not os.path.samestat(self.out_dir.stat(), self._out_stat):
            raise StorageError(
                self.out_dir, "was replaced by another folder during the run", "repeat the same command"
            )


def clean_up(out_dir: Path) -> int:
    """Delete what dead runs left behind, their staging folders and locks, and put back what a killed overwrite
    had moved away. Returns the number of staging folders."""
    folder = private_dir(out_dir) / "staging"
    stems = {path.stem for path in folder.glob("*") if path.suffix in (".zarr", ".lock")}
    removed = 0
    for stem in sorted(stems):
        tree = folder / f"{stem}.zarr"
        removed += bool(discard_dead(folder / f"{stem}.lock", partial(durable.remove_tree, tree)))
    for lock in sorted(slide_lock_path(out_dir, "any").parent.glob("*.lock")):
        discard_dead(lock)
    for backup in sorted((private_dir(out_dir) / "backup").glob("*")):
        with _commit_lock(out_dir, backup.name):
            _recover(out_dir, backup.name)
    return removed


def _commit_lock(out_dir: Path, name: str) -> Any:
    return hold(private_dir(out_dir) / "commit" / f"{name}.lock")


def _backup(out_dir: Path, name: str) -> Path:
    return private_dir(out_dir) / "backup" / name


def _recover(out_dir: Path, name: str) -> None:
    """After a kill inside of `_replace_in_two_steps`: the old result comes back, or its remains go."""
    backup, final = _backup(out_dir, name), out_dir / name
    if not backup.exists():
        return
    if final.exists():
        durable.remove_tree(backup)
    else:
        durable.rename(backup, final)
        durable.sync(out_dir)


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """`key: old -> new` for every leaf in which two JSON documents differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]
    found = []
    for key in sorted(old.keys() | new.keys()):
        inner = f"{prefix}.{key}" if prefix else str(key)
        found += differences(old.get(key), new.get(key), inner)
    return found


def check_target(
    out_dir: Path, name: str, key: Json, overwrite: bool = False, acceptable: Acceptable = accept_all
) -> Published | None:
    """Look at the place of a result before computing it.

    Returns the result if it is there, intact, made from the same `key`, and `acceptable` by its manifest; None if
    there is work to do: nothing there, the same result damaged or not acceptable, or another one that may be
    overwritten. Raises UsageError if it may not. What is there stays visible, damaged or not, until `publish`
    replaces the whole of it.
    """
    out_dir, final = Path(out_dir), Path(out_dir) / name
    if not out_dir.is_dir():
        return None
    refuse_links(out_dir, final)
    with _commit_lock(out_dir, name):
        _recover(out_dir, name)
        return _look_at(final, key, overwrite, acceptable)


def _look_at(final: Path, key: Json, overwrite: bool, acceptable: Acceptable) -> Published | None:
    if not final.exists():
        return None
    if not is_result(final):
        raise StorageError(final, "exists and is no result of wsi-nuc", "move it away or choose another --out")
    there = manifests.made_from(final)
    if there == key:
        return _intact(final, acceptable)
    if overwrite:
        return None
    other = f"made with other settings ({'; '.join(differences(there, key))})"
    lost = "so damaged that it does not say what it was made from"
    raise UsageError(
        final,
        f"holds a result {lost if there is None else other}",
        "choose another --out, or pass --overwrite to replace it",
    )


def _intact(final: Path, acceptable: Acceptable) -> Published | None:
    if verify(final):
        return None
    manifest = manifests.read(final)
    return Published(final, manifest, new=False) if acceptable(manifest) else None


def publish(
    staging: Staging,
    origin: Origin,
    finish: Callable[[Path], Json],
    overwrite: bool = False,
    check: Callable[[], None] = lambda: None,
    acceptable: Acceptable = accept_all,
) -> Published:
    """Sync, describe, verify and rename the staging folder. Afterwards there is the old or the new result.

    A result of the same origin that appeared meanwhile is kept if it is intact and `acceptable`, as in
    `check_target`; otherwise the new one takes its place as a whole.

    `finish` gets the synced folder and returns its manifest; `check` is called last before anything becomes
    visible and raises to stop it (the slide changed, the run was interrupted).
    """
    durable.sync_tree(staging.root)
    manifest = finish(staging.root)
    durable.atomic_write(staging.root / manifests.MANIFEST, _readable(manifest))
    broken = problems_of(staging.root)
    if broken:
        lines = "; ".join(f"{file} {problem}" for file, problem in broken.items())
        raise StorageError(staging.root, f"did not read back as written: {lines}", "check the disk")
    durable.make_dir(private_dir(staging.out_dir) / "commit")
    with _commit_lock(staging.out_dir, staging.name):
        staging.refuse_swaps()
        _recover(staging.out_dir, staging.name)
        there = _look_at(staging.final, origin.key, overwrite, acceptable)
        if there is not None:
            return there
        check()
        _make_visible(staging)
    return Published(staging.final, manifest, new=True)


def _readable(manifest: Json) -> bytes:
    import json

    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _make_visible(staging: Staging) -> None:
    if not staging.final.exists():
        durable.rename(staging.root, staging.final)
    elif not durable.exchange(staging.root, staging.final):
        _replace_in_two_steps(staging)
    durable.sync(staging.out_dir)
    durable.sync(staging.root.parent)


def _replace_in_two_steps(staging: Staging) -> None:
    """For file systems without an atomic exchange: a kill in between leaves a backup that `_recover` puts back."""
    backup = _backup(staging.out_dir, staging.name)
    durable.make_dir(backup.parent)
    durable.rename(staging.final, backup)
    durable.sync(backup.parent)
    durable.rename(staging.root, staging.final)
    durable.sync(staging.out_dir)
    durable.remove_tree(backup)
