"""From a private folder to a published result: complete, synced, verified, and visible in one step."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.safezip import SUFFIX, Folder
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.flat import remove_class_table
from wsi_nuc.store.locks import hold, try_lock
from wsi_nuc.store.manifest import Json, Origin
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import Private, private, remove_abandoned, sweep_locks, sweep_trees
from wsi_nuc.store.verify import is_result, problems_of, verify
from wsi_nuc.store.zipping import forms, pack_into

Acceptable = Callable[[Json], bool]
_TREE = ".zarr"


def accept_all(manifest: Json) -> bool:
    """The usual judgement of a manifest: every intact result is good enough."""
    return True


@dataclass(frozen=True, slots=True)
class Published:
    """A published result."""

    path: Path
    manifest: Json
    new: bool
    """False if a verified result of the same identity existed already."""


class Staging:
    """A private folder on the file system of the result, open as `root`. It vanishes unless it is published.

    `name` says what is published: the folder itself as `SLIDE.zarr`, or the folder as one file, `SLIDE.zarr.zip`.

    The folder's lock is held as long as this process lives. Whoever gets the lock knows that the folder is
    abandoned.
    """

    def __init__(self, out: Place, name: str) -> None:
        self.out, self.name = out, name
        self.refuse_swaps()
        stem = uuid.uuid4().hex
        self.tree = private(out, Private.STAGING) / f"{stem}{_TREE}"
        self._lock_file = self.tree.parent / f"{stem}.lock"
        self._lock, _ = try_lock(self._lock_file)
        try:
            durable.make_dir(self.tree)
            self.root = self.tree.opened()
        except StorageError:
            self._let_go()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._let_go()
        if isinstance(error, Exception):
            # If the folder was taken away, readers fail in many ways. The user must know of the real cause.
            self.refuse_swaps()

    def _let_go(self) -> None:
        try:
            if durable.remove_tree(self.tree):
                durable.remove_file(self._lock_file)
        finally:
            os.close(self._lock)

    @property
    def final(self) -> Place:
        return self.out / self.name

    def refuse_swaps(self) -> None:
        """Raise unless the output folder is the one that was opened at the start, without a link as the target."""
        self.out.refuse_swap()
        self.final.exists()

    def packed(self, store: Folder) -> Place:
        """The store as one file, written and flushed in the private folder."""
        target = self.root / f"packed{SUFFIX}"
        pack_into(store, target)
        return target

    def refuse_broken(self, written: Place) -> None:
        """Raise if the folder or packed store that was written does not read back."""
        if broken := problems_of(written.path):
            self.refuse_swaps()
            lines = "; ".join(f"{file} {problem}" for file, problem in broken.items())
            raise StorageError(written, f"did not read back as written: {lines}", "check the disk")

    def refuse_other_tree(self) -> None:
        """Raise unless the folder that is about to be published is the one that was written."""
        now = self.tree.stat()
        if now is None or not os.path.samestat(now, os.fstat(self.root.base.fd)):
            raise StorageError(self.tree, "was replaced during the run", "repeat the same command")


def clean_up(out: Place) -> list[Place]:
    """Delete what dead runs left behind (staging folders, keys and locks), and put back what a killed overwrite
    had moved away. Returns what lies there and was not made by wsi-nuc: it stays."""
    remove_abandoned(private(out, Private.SLURM))
    strangers = sweep_trees(private(out, Private.STAGING), _TREE) + sweep_locks(out)
    for name in private(out, Private.BACKUP).names():
        if not _is_backup(_backup(out, name)):
            strangers.append(_backup(out, name))
            continue
        with commit_lock(out, name):
            recover(out, name)
    return strangers


@contextmanager
def commit_lock(out: Place, name: str) -> Iterator[None]:
    """Hold the lock of a store, which is the same for both of its forms."""
    lock = private(out, Private.COMMIT) / f"{name.removesuffix('.zip')}.lock"
    with hold(lock) as held:
        try:
            yield
        finally:
            if held:
                # Unlinked while it is held: whoever waits for it notices this, and makes another.
                durable.remove_file(lock)


def _backup(out: Place, name: str) -> Place:
    return private(out, Private.BACKUP) / name


def _is_backup(place: Place) -> bool:
    """Whether it is a result of wsi-nuc: nothing else is ever moved there."""
    return place.exists() and is_result(place.path)


def recover(out: Place, name: str) -> None:
    """Clean up after a kill while a result was replaced: the old one comes back, or its remains are removed."""
    for final in forms(out / name):
        backup = _backup(out, final.name)
        if not _is_backup(backup):
            continue
        if any(place.exists() for place in forms(final)):
            durable.remove_tree(backup)
        else:
            durable.rename(backup, final)
            durable.sync(out)


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """`key: old -> new` for every leaf in which two JSON documents differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix}: {old!r} -> {new!r}"]
    lines = []
    for key in sorted(old.keys() | new.keys()):
        inner = f"{prefix}.{key}" if prefix else str(key)
        lines += differences(old.get(key), new.get(key), inner)
    return lines


def check_target(
    out: Place, name: str, key: Json, overwrite: bool = False, acceptable: Acceptable = accept_all
) -> Published | None:
    """Look at the place of a result before computing it.

    Returns the result if it exists, is intact, was made from the same `key`, and is `acceptable` by its manifest.
    Returns None if there is work to do: there is no result, or the same one is damaged or not acceptable, or
    another one may be overwritten. Raises UsageError if it may not. An existing result stays visible, damaged or
    not, until `publish` replaces it as a whole.
    """
    out.refuse_swap()
    with commit_lock(out, name):
        recover(out, name)
        return _look_at(out / name, key, overwrite, acceptable)


def _look_at(final: Place, key: Json, overwrite: bool, acceptable: Acceptable) -> Published | None:
    for place in forms(final):
        if (published := _look_at_form(place, key, overwrite, acceptable)) is not None:
            return published
    return None


def _look_at_form(final: Place, key: Json, overwrite: bool, acceptable: Acceptable) -> Published | None:
    if not final.exists():
        return None
    if not is_result(final.path):
        raise StorageError(final, "exists and is not a result of wsi-nuc", "move it away or choose another --out")
    made_from = manifests.made_from(final.path)
    if made_from == key:
        return _intact(final.path, acceptable)
    if overwrite:
        return None
    remedy = "choose another --out, or pass --overwrite to replace it"
    raise UsageError(final, f"holds a result {_how_other(made_from, key)}", remedy)


def _how_other(made_from: Json | None, key: Json) -> str:
    if made_from is None:
        return "so damaged that it does not say what it was made from"
    if "results" not in made_from:
        made_by = f"of wsi-nuc {made_from.get('version')}, which did not number its results"
        return f"{made_by}: nobody knows whether this version gives the same"
    return f"made with other settings ({'; '.join(differences(made_from, key))})"


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
    """Sync, describe, verify and rename the staging folder. Whatever fails, there is the old or the new result.

    If a result of the same origin appeared meanwhile, it is kept if it is intact and `acceptable`, as in
    `check_target`. Otherwise the new one replaces it as a whole.

    `finish` gets the synced folder and returns its manifest. `check` is called right before anything becomes
    visible, and raises to stop it (because the slide changed, or the run was interrupted).
    """
    durable.sync_tree(staging.root)
    manifest = finish(staging.root.path)
    durable.atomic_write(staging.root / manifests.MANIFEST, _readable(manifest))
    written = staging.packed(staging.root.path) if staging.name.endswith(SUFFIX) else staging.root
    staging.refuse_broken(written)
    with commit_lock(staging.out, staging.name):
        staging.refuse_swaps()
        recover(staging.out, staging.name)
        published = _look_at(staging.final, origin.key, overwrite, acceptable)
        if published is not None:
            return published
        check()
        staging.refuse_other_tree()
        remove_class_table(staging.final)
        make_visible(staging)
    return Published(staging.final.path, manifest, new=True)


def _readable(manifest: Json) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def make_visible(staging: Staging, keep_other: bool = False) -> None:
    """Give the store its name. It replaces a result of this name and, without `keep_other`, its other form."""
    final, other = forms(staging.final)
    written = staging.root / f"packed{SUFFIX}" if final.name.endswith(SUFFIX) else staging.tree
    away = [other] if other.exists() and not keep_other else []
    for place in away:
        move_away(place)
    if not final.exists():
        durable.rename_new(written, final)
    elif not final.is_dir():
        durable.rename(written, final)
    elif not durable.exchange(written, final):
        # A kill in between leaves a backup that `recover` puts back.
        move_away(final)
        durable.rename(written, final)
        away.append(final)
    durable.sync(staging.out)
    durable.sync(staging.tree.parent)
    for place in away:
        durable.remove_tree(_backup(staging.out, place.name))


def move_away(final: Place) -> Place:
    """Move a result to where `recover` finds it after a kill. Returns this place."""
    backup = _backup(final.parent, final.name)
    durable.make_dir(backup.parent)
    durable.rename(final, backup)
    durable.sync(backup.parent)
    durable.sync(final.parent)
    return backup
