"""What lies in `.wsi-nuc` beside the results, and how the remains of dead runs are told from anything else."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import partial

from wsi_nuc.store import durable
from wsi_nuc.store.locks import discard_dead
from wsi_nuc.store.place import Place

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
