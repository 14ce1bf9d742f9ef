"""The folders that a call writes to: opened once, checked, and never reached through a link that is swapped in."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from wsi_nuc.errors import StorageError
from wsi_nuc.events import Emit, Warned
from wsi_nuc.store import durable
from wsi_nuc.store.commit import clean_up
from wsi_nuc.store.oserror import free_bytes, storage_error
from wsi_nuc.store.place import Place, forgiving, open_folder
from wsi_nuc.store.private import FOLDER

# Levels of folders whose names the program relies on: .wsi-nuc/parts/SLIDE/SETTINGS.
_DEEPEST = 3


def output_folder(path: Path, needed: int = 0) -> Place:
    """The folder at `path`, which may be a link to it. It is made if need be, and held open from now on.

    Fails early, before a model is loaded: it creates, writes, syncs, renames and deletes a probe file.
    """
    return checked(made_folder(path), needed)


def checked(out: Place, needed: int = 0) -> Place:
    """The same open folder; an error if results cannot be written there."""
    refuse_links(out)
    folder = out / FOLDER
    durable.make_dir(folder)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        durable.atomic_write(probe, b"probe")
    finally:
        probe.unlink()
    free = free_bytes(out.path)
    if free < needed:
        raise StorageError(
            out, f"about {needed:,} bytes are needed, {free:,} are free", "free space or choose another --out"
        )
    return out


def made_folder(path: Path) -> Place:
    """Open the folder at `path`. If it does not exist, it is made, together with the folders above it."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise StorageError(path, "is not a folder", "choose another output folder with --out")
    if path.is_symlink() and not path.exists():
        cause = f"is a link to {str(path.readlink())!r}, which is not there"
        raise StorageError(path, cause, "make that folder, or choose another output folder with --out")
    missing = list(takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    try:
        if missing:
            if durable.before is not None:
                durable.before("mkdir", path)
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    for folder in missing:
        # Without this, a power cut could lose the folder itself, with all results in it.
        durable.sync(open_folder(folder.parent))
    return open_folder(path)


def place_of(store: Path, emit: Emit) -> Place:
    """The place of a store that a command is going to replace.

    Its folder is refused if links lead out of it, and what killed commands have left there is removed.
    """
    store = Path(os.path.abspath(store))
    out = open_folder(store.parent)
    refuse_links(out)
    tell_of_strangers(clean_up(out), emit)
    return out / store.name


def refuse_links(out: Place) -> None:
    """Refuse links in the places below `out` where the program works: they would lead out of the folder."""
    folders = [out / FOLDER] if (out / FOLDER).exists() else []
    for _ in range(_DEEPEST):
        inner: list[Place] = []
        for folder in folders:
            # A folder that this user may not look into is a folder that this run does not use.
            with forgiving():
                inner += folder.folders()
        folders = inner


def tell_of_strangers(strangers: Iterable[Place], emit: Emit) -> None:
    """Warn of files in places where only the program should have left something."""
    for stranger in strangers:
        emit(Warned(str(stranger), "was not made by wsi-nuc, so it stays; move it away"))
