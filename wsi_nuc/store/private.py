"""What lies in `.wsi-nuc` beside the results, and how the remains of dead runs are told from anything else.

Files that nobody else may read, and that live as long as their run; the next removes those of killed ones.
"""

from __future__ import annotations

import os
import re
import uuid
from enum import StrEnum
from functools import partial
from pathlib import Path

from wsi_nuc.store import durable
from wsi_nuc.store.durable import make_dir, remove_file
from wsi_nuc.store.locks import Held, discard_dead, try_lock
from wsi_nuc.store.oserror import storage_error
from wsi_nuc.store.place import Place

_SECRET = re.compile(r"[0-9a-f]{32}\.pem")


class SecretFile:
    """`path` holds the text until `close`, or until `remove_abandoned` after this process was killed."""

    def __init__(self, folder: Place, text: str) -> None:
        make_dir(folder)
        self._place = folder / f"{uuid.uuid4().hex}.pem"
        self._held = Held(try_lock(_lock(self._place))[0])
        try:
            with self._place.above() as parent:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                fd = os.open(self._place.name, flags, 0o600, dir_fd=parent)
            with open(fd, "w") as file:  # noqa: PTH123 - of a descriptor
                file.write(text)
        except OSError as error:
            self.close()
            raise storage_error(self.path, error) from error

    @property
    def path(self) -> Path:
        return self._place.path

    def close(self) -> None:
        _remove(self._place)
        remove_file(_lock(self._place))
        self._held.close()


def remove_abandoned(folder: Place) -> None:
    """Where the file system has no locks nobody can tell, and all stay; so do those of another user."""
    for name in filter(_SECRET.fullmatch, folder.names()):
        discard_dead(_lock(folder / name), partial(_remove, folder / name))


def _remove(place: Place) -> bool:
    remove_file(place)
    return place.stat() is None


def _lock(place: Place) -> Place:
    return place.parent / f"{place.name.removesuffix('.pem')}.lock"


FOLDER = ".wsi-nuc"
_MADE_HERE = re.compile(r"[0-9a-f]{32}")
_SLIDE_LOCK = re.compile(r"[0-9a-f]{16}\.lock")
# What NFS calls a file that was unlinked while a process has it open.
_UNLINKED = ".nfs"
_COMMIT_LOCK = re.compile(r".+\.zarr\.lock", re.DOTALL)


class Private(StrEnum):
    """Every folder in which something private lies, by what it holds."""

    BACKUP = "backup"
    COMMIT = "commit"
    NAMES = "names"
    PARTS = "parts"
    RUNS = "runs"
    SLIDES = "slides"
    SLURM = "slurm"
    STAGING = "staging"


def private(out: Place, kind: Private) -> Place:
    """That folder below an output, scratch or stage folder."""
    return out / FOLDER / kind


def slide_lock(out: Place, key: str) -> Place:
    """The lock of whoever computes the slide with this key, for `try_lock`: one process an output folder."""
    return private(out, Private.RUNS) / f"{key[:16]}.lock"


def sweep_locks(out: Place) -> list[Place]:
    """Remove the locks of dead runs. Returns what lies there and is none of ours."""
    strangers = []
    for kind, ours in ((Private.RUNS, _SLIDE_LOCK), (Private.COMMIT, _COMMIT_LOCK)):
        folder = private(out, kind)
        for name in folder.names():
            if ours.fullmatch(name):
                discard_dead(folder / name)
            elif not name.startswith(_UNLINKED):
                strangers.append(folder / name)
    return strangers


def sweep_trees(folder: Place, suffix: str = "") -> list[Place]:
    """Remove the trees whose makers are dead. Returns what lies there and is none of ours: it stays.

    Ours has a random name of 32 digits and `suffix`, and a lock beside it: that is made first and removed last.
    """
    names = set(folder.names())
    locks = {name for name in names if name.endswith(".lock") and _MADE_HERE.fullmatch(name[:-5])}
    trees = {f"{name[:-5]}{suffix}": folder / name for name in locks}
    for tree, lock in sorted(trees.items()):
        discard_dead(lock, partial(durable.remove_tree, folder / tree))
    # A tree that was removed together with its lock while we looked is no stranger.
    strangers = [folder / name for name in sorted(names - locks - trees.keys())]
    return [stranger for stranger in strangers if stranger.exists()]
