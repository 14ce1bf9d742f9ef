"""Places below a folder that is held open: no link is followed on the way to them.

A folder that a user names may be a link; it is opened once. From there, each step down opens the next folder
itself and refuses a link. A name is made, replaced or removed relative to the open folder that it lies in. So
nothing outside is reached, whatever somebody puts or swaps in below. Reading may go by `path`, since it changes
nothing.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, NoReturn

from wsi_nuc.errors import StorageError
from wsi_nuc.store.oserror import storage_error

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_STEP = _FOLDER | os.O_NOFOLLOW


@lru_cache(maxsize=1)
def _machine() -> str:
    """The machine since its start: within it, a device keeps its number."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text()}"
    return socket.gethostname()


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that a user named, and its identity when it was opened."""

    path: str
    device: int
    inode: int
    machine: str
    """Where `device` and `inode` are valid."""

    def refuse_other(self, now: os.stat_result) -> None:
        """Raise if `now` is of another folder. Other machines have other numbers of devices, and some of files."""
        if self.machine == _machine() and (now.st_dev, now.st_ino) != (self.device, self.inode):
            raise StorageError(
                self.path, "was replaced by another folder during the run", "repeat the same command"
            )


class IsLink(StorageError):
    """There is a link where the program works, which must never be ignored."""


@contextmanager
def forgiving() -> Iterator[None]:
    """Ignore what the system refuses: files in a shared folder may be another user's. A link is still an error."""
    try:
        yield
    except IsLink:
        raise
    except (OSError, StorageError):
        pass


class _Opened:
    """The descriptor of a folder. It closes when nothing refers to it, since a thread may outlive its run."""

    __slots__ = ("fd", "parts", "root")

    def __init__(self, fd: int, root: Root, parts: tuple[str, ...]) -> None:
        self.fd, self.root, self.parts = fd, root, parts

    def __del__(self) -> None:
        os.close(self.fd)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open folder stays in its process; send `Place.ref` instead")


class _Entry(NamedTuple):
    name: str
    is_link: bool
    is_dir: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder, or the place for one."""

    base: _Opened
    """The folder that was opened."""
    parts: tuple[str, ...] = ()
    """The names from there on."""

    def __truediv__(self, relative: str) -> Place:
        """The place at `relative`: names with `/` between them, without `.` and `..`."""
        parts = tuple(relative.split("/"))
        if not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"{relative!r} is not below {self}")
        return Place(self.base, self.parts + parts)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """For messages, and for code that only reads."""
        return Path(self.base.root.path, *self.base.parts, *self.parts)

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def parent(self) -> Place:
        return Place(self.base, self.parts[:-1])

    def ref(self) -> PlaceRef:
        return PlaceRef(self.base.root, self.base.parts + self.parts)

    @contextmanager
    def above(self, make: bool = False) -> Iterator[int]:
        """The descriptor of the folder that it lies in. FileNotFoundError if there is none; with `make`, it is
        made."""
        fd = self.base.fd
        try:
            for depth, name in enumerate(self.parts[:-1], 1):
                try:
                    below = os.open(name, _STEP, dir_fd=fd)
                except OSError:
                    below = Place(self.base, self.parts[:depth])._folder_in(fd, make)
                if fd != self.base.fd:
                    os.close(fd)
                fd = below
            yield fd
        finally:
            if fd != self.base.fd:
                os.close(fd)

    def _folder_in(self, fd: int, make: bool) -> int:
        try:
            return self._open_in(fd, _FOLDER)
        except FileNotFoundError:
            if not make:
                raise
        with suppress(FileExistsError):
            os.mkdir(self.name, dir_fd=fd)
        return self._open_in(fd, _FOLDER)

    def _open_in(self, fd: int, flags: int) -> int:
        try:
            return os.open(self.name, flags | os.O_NOFOLLOW, 0o666, dir_fd=fd)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            self._refuse_link(fd)
            raise storage_error(self.path, error) from error

    def _refuse_link(self, fd: int) -> None:
        try:
            target = os.readlink(self.name, dir_fd=fd)
        except OSError:
            return
        remedy = "remove the link; only the folder that a command is given may be one"
        raise IsLink(self.path, f"is a symbolic link to {target!r}", remedy)

    def open(self, flags: int, make: bool = False) -> int:
        """A descriptor of the file or folder itself. A new file has the usual mode. `make`: as in `above`."""
        if not self.parts:
            return os.open(".", flags, dir_fd=self.base.fd)
        with self.above(make) as fd:
            return self._open_in(fd, flags)

    def opened(self) -> Place:
        """This folder, held open from now on."""
        try:
            fd = self.open(_FOLDER)
        except FileNotFoundError as error:
            raise storage_error(self.path, error) from error
        return Place(_Opened(fd, self.base.root, self.base.parts + self.parts))

    def stat(self) -> os.stat_result | None:
        """None if there is nothing. A link is refused."""
        if not self.parts:
            return os.fstat(self.base.fd)
        try:
            with self.above() as fd:
                here = os.stat(self.name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISLNK(here.st_mode):
                    self._refuse_link(fd)
                return here
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(self.path, error) from error

    def reader(self) -> BufferedReader:
        return os.fdopen(self.open(os.O_RDONLY), "rb")

    def exists(self) -> bool:
        return self.stat() is not None

    def is_dir(self) -> bool:
        here = self.stat()
        return here is not None and stat.S_ISDIR(here.st_mode)

    def names(self) -> list[str]:
        """The names in the folder, sorted; none if there is no folder."""
        return sorted(entry.name for entry in self._entries())

    def folders(self) -> list[Place]:
        """The folders in the folder. A link beside them is refused."""
        entries = self._entries()
        for link in (entry.name for entry in entries if entry.is_link):
            (self / link).stat()
        return [self / entry.name for entry in entries if entry.is_dir]

    def _entries(self) -> list[_Entry]:
        try:
            fd = self.open(_FOLDER)
        except FileNotFoundError:
            return []
        try:
            with os.scandir(fd) as entries:
                return [
                    _Entry(entry.name, entry.is_symlink(), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                ]
        finally:
            os.close(fd)

    def make(self) -> None:
        """Make the folder, and the folders between it and the open one, if they do not exist."""
        with self.above(make=True) as fd, suppress(FileExistsError):
            os.mkdir(self.name, dir_fd=fd)

    def rename(self, target: Place) -> None:
        """Rename in one step. An existing `target` is replaced."""
        with self.above() as from_fd, target.above() as to_fd:
            os.rename(self.name, target.name, src_dir_fd=from_fd, dst_dir_fd=to_fd)

    def unlink(self) -> None:
        """Remove a file or a link, if it exists."""
        with suppress(FileNotFoundError), self.above() as fd:
            os.unlink(self.name, dir_fd=fd)

    def rmdir(self) -> None:
        """Remove the folder if it is empty."""
        with suppress(OSError), self.above() as fd:
            os.rmdir(self.name, dir_fd=fd)

    def refuse_swap(self) -> None:
        """Raise if the path that the user gave leads to another folder than the one that was opened."""
        root = self.base.root
        try:
            now = Path(root.path).stat()
        except OSError as error:
            raise storage_error(Path(root.path), error) from error
        root.refuse_other(now)


@dataclass(frozen=True, slots=True)
class PlaceRef:
    """A place that is sent to a worker, maybe on another machine."""

    root: Root
    parts: tuple[str, ...]

    def opened(self) -> Place:
        """The folder, opened again. Nothing is made on the way: if a step is missing, this is another place."""
        top = open_folder(Path(self.root.path))
        self.root.refuse_other(os.fstat(top.base.fd))
        return Place(top.base, self.parts).opened()


def open_folder(path: Path) -> Place:
    """The folder at `path`, which may be a link to it."""
    path = Path(os.path.abspath(path))
    try:
        fd = os.open(path, _FOLDER)
    except OSError as error:
        raise storage_error(path, error) from error
    here = os.fstat(fd)
    return Place(_Opened(fd, Root(str(path), here.st_dev, here.st_ino, _machine()), ()))
