"""Positioned reads of a local or remote file: all that the TIFF parser and the readers need."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path
from typing import Any, Protocol

from wsi_nuc.errors import SlideError
from wsi_nuc.slides.address import is_url, reaching, shown

CHECK_PATH = "check the path and its permissions"
COPY_AGAIN = "copy the slide again from its source"
SLIDES_ARE = "pass a slide file, an OME-Zarr folder or a folder of one DICOM series"


class RandomAccess(Protocol):
    """A file that any thread may read at any place."""

    name: str
    """Its path, or its address without secrets."""
    size: int
    """In bytes."""

    def read_at(self, offset: int, count: int) -> bytes: ...

    def close(self) -> None: ...


def refuse_url(path: str) -> None:
    if is_url(path):
        raise SlideError(shown(path), "this reader opens local files only", "use --reader tiffslide for URLs")


def refuse_special(path: str) -> None:
    """Refuse all but files and folders: opening a pipe would block, and a device never ends."""
    place = Path(path)
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise SlideError(path, "is not a regular file", SLIDES_ARE)


class LocalFile:
    """`pread` needs no lock and no seek, so threads share one descriptor. It closes with the object."""

    def __init__(self, path: str) -> None:
        self._fd = -1
        refuse_url(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SlideError(path, f"cannot be opened ({error.strerror})", CHECK_PATH) from error
        status = os.fstat(self._fd)
        if stat.S_ISDIR(status.st_mode):
            raise SlideError(path, "is a folder, not a file", CHECK_PATH)
        self.name, self.size = path, status.st_size

    def read_at(self, offset: int, count: int) -> bytes:
        try:
            return os.pread(self._fd, count, offset)
        except OSError as error:
            raise SlideError(self.name, f"cannot be read ({error.strerror})", CHECK_PATH) from error

    def close(self) -> None:
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # An evicted slide may still be read by another thread; the last reference closes it.
        with contextlib.suppress(OSError):
            self.close()


class RemoteFile:
    """The same for an fsspec file. Threads share its position, so a lock guards it."""

    def __init__(self, url: str) -> None:
        import fsspec

        with reaching(url, "cannot be opened"):
            self._file: Any = fsspec.open(url, "rb").open()
            self.size = int(self._file.size)
        self._url, self.name, self._lock = url, shown(url), threading.Lock()

    def read_at(self, offset: int, count: int) -> bytes:
        with self._lock, reaching(self._url):
            self._file.seek(offset)
            return bytes(self._file.read(count))

    def close(self) -> None:
        self._file.close()


def open_file(path: str) -> RandomAccess:
    return RemoteFile(path) if is_url(path) else LocalFile(path)
