"""Files that nobody else may read, and that live as long as their run; the next removes those of killed ones."""

from __future__ import annotations

import os
import re
import uuid
from functools import partial
from pathlib import Path

from wsi_nuc.store.durable import make_dir, remove_file
from wsi_nuc.store.locks import Held, discard_dead, try_lock
from wsi_nuc.store.oserror import storage_error
from wsi_nuc.store.place import Place

_MADE_HERE = re.compile(r"[0-9a-f]{32}\.pem")


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
    for name in filter(_MADE_HERE.fullmatch, folder.names()):
        discard_dead(_lock(folder / name), partial(_remove, folder / name))


def _remove(place: Place) -> bool:
    remove_file(place)
    return place.stat() is None


def _lock(place: Place) -> Place:
    return place.parent / f"{place.name.removesuffix('.pem')}.lock"
