"""The two forms of a store, a folder and one file: making each from the other. `wsi_nuc.safezip` reads both."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Iterable

from wsi_nuc.safezip import Folder, other_form
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.place import Place

_COPIED_AT_ONCE = 1 << 20
# The first day of Zip archives, so that equal stores have equal bytes.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = (stat.S_IFREG | 0o644) << 16
_UNIX = 3


def forms(final: Place) -> tuple[Place, Place]:
    """Where a store may lie: in the wanted form, packed or not, and in the other form."""
    return final, final.parent / other_form(final.name)


def present(final: Place) -> Place:
    """The store in the form that exists; in the wanted form if both or none exist."""
    wanted, other = forms(final)
    return other if other.exists() and not wanted.exists() else wanted


class _ArchiveFile(durable.DurableFile):
    """Seekable, because the size of a member stands before its bytes and is only known after them."""

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._fd, offset, whence)


def pack_into(store: Folder, target: Place) -> None:
    """Write the new file `target` with all files of a store, and flush it."""
    names = sorted([*manifests.walk(store), manifests.MANIFEST])
    with _ArchiveFile(target) as file, zipfile.ZipFile(file, "w") as archive:  # type: ignore[call-overload]
        for name in names:
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            entry.file_size = (store / name).stat().st_size
            with (store / name).open("rb") as source, archive.open(entry, "w") as member:
                shutil.copyfileobj(source, member, _COPIED_AT_ONCE)
    durable.sync(target)


def unpack_into(store: Folder, names: Iterable[str], root: Place) -> None:
    """Copy files of a store into the open folder `root`, without a flush."""
    for name in names:
        with (store / name).open("rb") as source, durable.DurableFile(root / name) as target:
            while block := source.read(_COPIED_AT_ONCE):
                target.write(block)
