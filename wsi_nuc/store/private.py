"""The private folders in `.wsi-nuc` beside the results, files that nobody else may read, and what dead runs left.

Everything private has a lock that ends with its run. So the next run can tell the remains of killed runs from
everything else, and removes them.
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

FOLDER = ".wsi-nuc"
_SECRET = re.compile(r"[0-9a-f]{32}\.pem")
_MADE_HERE = re.compile(r"[0-9a-f]{32}")
_SLIDE_LOCK = re.compile(r"[0-9a-f]{16}\.lock")
# What NFS calls a file that was unlinked while a process has it open.
_UNLINKED = ".nfs"
_COMMIT_LOCK = re.compile(r".+\.zarr\.lock", re.DOTALL)


class SecretFile:
    """The file at `path` holds the text until `close` or, if this process is killed, until `remove_abandoned`."""

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
    """Remove the secret files of dead runs. Other users' files stay; all stay if the file system has no locks."""
    for name in filter(_SECRET.fullmatch, folder.names()):
        discard_dead(_lock(folder / name), partial(_remove, folder / name))


def _remove(place: Place) -> bool:
    remove_file(place)
    return place.stat() is None


def _lock(place: Place) -> Place:
    return place.parent / f"{place.name.removesuffix('.pem')}.lock"


class Private(StrEnum):
    """The private folders, by what they hold."""

    BACKUP = "backup"
    COMMIT = "commit"
    NAMES = "names"
    PARTS = "parts"
    RUNS = "runs"
    SLIDES = "slides"
    SLURM = "slurm"
    STAGING = "staging"


def private(out: Place, kind: Private) -> Place:
    """The private folder of this kind below an output, scratch or stage folder."""
    return out / FOLDER / kind


def slide_lock(out: Place, key: str) -> Place:
    """The lock of the process that computes the slide with this key: one process per output folder."""
    return private(out, Private.RUNS) / f"{key[:16]}.lock"


def sweep_locks(out: Place) -> list[Place]:
    """Remove the locks of dead runs. Returns what lies there and was not made by wsi-nuc."""
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
    """Remove the trees whose makers are dead. Returns what lies there and was not made by wsi-nuc: it stays.

    A tree of wsi-nuc has a name of 32 random digits and `suffix`, and a lock beside it, which is made first and
    removed last.
    """
    names = set(folder.names())
    locks = {name for name in names if name.endswith(".lock") and _MADE_HERE.fullmatch(name[:-5])}
    trees = {f"{name[:-5]}{suffix}": folder / name for name in locks}
    for tree, lock in sorted(trees.items()):
        discard_dead(lock, partial(durable.remove_tree, folder / tree))
    # A tree may have been removed together with its lock meanwhile; it is not a stranger.
    strangers = [folder / name for name in sorted(names - locks - trees.keys())]
    return [stranger for stranger in strangers if stranger.exists()]
