"""The names of results: readable, and never shared by two slides of different content."""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from wsi_nuc.errors import StorageError
from wsi_nuc.safezip import other_form
from wsi_nuc.store.durable import remove_file
from wsi_nuc.store.locks import hold, relock, try_lock
from wsi_nuc.store.manifest import owner_of
from wsi_nuc.store.oserror import storage_error
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import FOLDER, Private, private

_LONGEST_BYTES = 200
_URL = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Control, format, surrogate and line-separating characters: neither a terminal nor a JSON file should get them.
_ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
_SHA256_CHARACTERS = 64


def _file_name(slide: str) -> str:
    if _URL.match(slide):
        slide = unquote(urlsplit(slide).path)
    return slide.rstrip("/").rpartition("/")[2] or "slide"


def _escape(character: str) -> str:
    plain = character == " " or unicodedata.category(character) not in _ESCAPED
    if plain and character not in "/\\":
        return character
    raw = character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in raw)


def plain_name(slide: str) -> str:
    """The slide's file name, with everything unprintable percent-escaped, not too long for any file system."""
    # Joiners build emoji ("family"), and are the only format character that belongs into a name.
    name = "".join(character if character == "\u200d" else _escape(character) for character in _file_name(slide))
    return name.encode()[:_LONGEST_BYTES].decode("utf-8", "ignore") or "slide"


class NameClaim:
    """The claim of a name. `name` is the store's name in the output folder. It lasts until `close` or the process
    ends."""

    def __init__(self, out: Place, name: str, fd: int) -> None:
        self.name = f"{name}.zarr"
        self._names_lock, self._file, self._fd = _names_lock(out), _claim_file(out, name), fd

    def close(self) -> None:
        """Give the name back. From now on, only a store that was published under this name keeps it."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        # The claim file is not needed any more. If somebody removed its folder, it is not made again.
        with suppress(StorageError):
            if self._names_lock.exists():
                with hold(self._names_lock) as locked:
                    if locked and relock(fd, shared=False):
                        remove_file(self._file)
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def _names_lock(out: Place) -> Place:
    return out / FOLDER / "names.lock"


def _claim_file(out: Place, name: str) -> Place:
    return private(out, Private.NAMES) / f"{name}.sha256"


def _owner(out: Place, name: str) -> str:
    """The content hash of the store with this name, packed or not."""
    folder = (out / f"{name}.zarr").path
    return owner_of(folder) or owner_of(folder.with_name(other_form(folder.name)))


def _take(out: Place, name: str, content_sha256: str) -> int | None:
    """A descriptor that keeps `name` for this content; None if another slide has it. The caller holds the lock of
    names."""
    file = _claim_file(out, name)
    owner = _owner(out, name)
    if owner not in ("", content_sha256):
        return None
    fd, unclaimed = try_lock(file)
    if unclaimed:
        # The earlier claimant is gone, and has left no store or the store of this slide.
        _write(fd, file, content_sha256)
        relock(fd, shared=True)
        return fd
    claimant = owner or os.pread(fd, _SHA256_CHARACTERS, 0).decode("ascii", "replace")
    if unclaimed is None and not claimant:
        # This file system has no locks: the file itself is the claim, and stays.
        _write(fd, file, content_sha256)
        claimant = content_sha256
    if claimant != content_sha256:
        os.close(fd)
        return None
    relock(fd, shared=True)
    return fd


def _write(fd: int, file: Place, content_sha256: str) -> None:
    """Write in place: replacing the file would leave the lock on a file that nobody finds any more."""
    try:
        os.pwrite(fd, content_sha256.encode(), 0)
    except OSError as error:
        os.close(fd)
        raise storage_error(file.path, error, len(content_sha256)) from error


def claim_name(slide: str, out: Place, content_sha256: str) -> NameClaim:
    """Claim the name for the result of `slide` (a path or URL) below `out`, against all threads and processes.

    The first content that asks gets the plain name, for as long as it holds the claim or has a store of that name.
    Any other content gets eight digits of its hash appended, and keeps that name once a store has it. Claim the
    name only with the slide's own lock: an earlier holder of this lock may have published under either name.
    """
    plain = plain_name(slide)
    own = f"{plain}-{content_sha256[:8]}"
    with hold(_names_lock(out)):
        published = _owner(out, own) == content_sha256
        for name in (own, plain) if published else (plain, own):
            fd = _take(out, name, content_sha256)
            if fd is not None:
                return NameClaim(out, name, fd)
    raise StorageError(
        out / f"{own}.zarr",
        "belongs to another slide",
        "move it away or choose another output folder with --out",
    )
