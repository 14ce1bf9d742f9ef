"""The one way into a packed store, `SLIDE.zarr.zip`: nothing of it is read before its directory was checked.

A packed store is a Zip archive whose members are stored as they are, one behind the other, nothing between them.
So each is a run of bytes of the file, which is read without unpacking anything, and no member can be larger than
it says, lie in another one, or lie outside of the folder that it is unpacked into.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wsi_nuc.errors import StorageError

SUFFIX = ".zarr.zip"
MAX_DIRECTORY_BYTES = 64 * 2**20
_END, _LOCATOR, _END_64, _LOCAL = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06", b"PK\x03\x04"
_END_BYTES, _LOCATOR_BYTES, _END_64_BYTES, _LOCAL_BYTES = 22, 20, 56, 30
_UTF8 = 0x800
_REMEDY = "run the slide again, or pack its store again"


class Run(NamedTuple):
    """Where the bytes of a member lie in the file."""

    start: int
    size: int


class Size(NamedTuple):
    """What `Member.stat` knows."""

    st_size: int


class Packed:
    """A packed store, open as long as somebody refers to it. `members`: by their names in the store."""

    def __init__(self, path: Path) -> None:
        self.path, self._fd = path, -1
        try:
            self._fd = os.open(path, os.O_RDONLY)
            self.members = _members(path, self._fd)
        except OSError as error:
            raise StorageError(path, f"cannot be read ({error.strerror})", _REMEDY) from error

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes of the file; fewer if it is cut off."""
        parts = []
        while size > 0 and (part := os.pread(self._fd, min(size, 1 << 30), start)):
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder in a packed store, with what of a path its readers need."""

    packed: Packed
    relative: str = ""
    """Names with `/` between them; "" is the store itself."""

    def __truediv__(self, name: str) -> Member:
        return Member(self.packed, f"{self.relative}/{name}" if self.relative else name)

    def joinpath(self, *names: str) -> Member:
        return self / "/".join(names)

    def __str__(self) -> str:
        return f"{self.packed.path}/{self.relative}" if self.relative else str(self.packed.path)

    @property
    def name(self) -> str:
        return self.relative.rpartition("/")[2]

    def is_file(self) -> bool:
        return self.relative in self.packed.members

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> Size:
        return Size(self.run().size)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(_Section(self.packed, self.run()))

    def read_bytes(self) -> bytes:
        return self.packed.read(*self.run())

    def run(self) -> Run:
        """Where its bytes lie in the file of the store."""
        try:
            return self.packed.members[self.relative]
        except KeyError:
            raise FileNotFoundError(2, "is not in the packed store", str(self)) from None


Folder = Path | Member


def contents(store: Path) -> Folder:
    """The folder of a store, or what stands for it in a packed one. StorageError if it is damaged."""
    path = Path(store)
    return Member(Packed(path)) if is_packed(path) else path


def other_form(name: str) -> str:
    """The name of the same store packed, or of a packed one unpacked."""
    return name.removesuffix(".zip") if name.endswith(SUFFIX) else f"{name}.zip"


def names_in(folder: Folder) -> list[str]:
    """The names of the files and folders in a folder, sorted; none if there is no such folder."""
    if isinstance(folder, Path):
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    start = f"{folder.relative}/" if folder.relative else ""
    inside = (name[len(start) :] for name in folder.packed.members if name.startswith(start))
    return sorted({name.partition("/")[0] for name in inside})


def is_packed(path: Path) -> bool:
    """By its name, and that it is a file; it may be damaged."""
    return path.name.endswith(SUFFIX) and os.path.isfile(path)  # noqa: PTH113 - False where nobody may look


def flaw_of(path: Path) -> str:
    """Why a packed store cannot be opened; "" if it can, and for anything that is not packed."""
    try:
        contents(path)
    except StorageError as error:
        return error.cause
    return ""


def mentions(path: Path, text: bytes) -> bool:
    """Whether the bytes of a file hold a text, whether or not the file is damaged."""
    before = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if text in before + block:
                return True
            before = block[-len(text) :]
    return False


def for_arrow(file: Folder) -> Any:
    """A file as pyarrow takes it."""
    return file.open() if isinstance(file, Member) else file


class _Section(io.RawIOBase):
    """The bytes of a member as a file of its own. Threads may read several of one store at once."""

    def __init__(self, packed: Packed, run: Run) -> None:
        self._packed, self._run, self._at = packed, run, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._run.size}[whence]
        if base + offset < 0:
            raise ValueError("there is nothing before the start of a file")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._packed.read(self._run.start + self._at, min(len(view), max(0, self._run.size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _members(path: Path, fd: int) -> dict[str, Run]:
    """Every member where it lies. StorageError if `wsi-nuc pack` cannot have written the file."""
    size = os.fstat(fd).st_size
    if _directory_bytes(path, fd, size) > MAX_DIRECTORY_BYTES:
        raise _refused(path, f"has a directory of more than {MAX_DIRECTORY_BYTES:,} bytes")
    try:
        with os.fdopen(os.dup(fd), "rb") as file, zipfile.ZipFile(file) as archive:
            entries, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise _refused(path, f"is not a Zip archive as `wsi-nuc pack` writes it ({error})") from error
    members: dict[str, Run] = {}
    at = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.orig_filename
        if flaw := _flaw(entry):
            raise _refused(path, f"has a member {name[:64]!r} that {flaw}")
        if name in members:
            raise _refused(path, f"has two members of the name {name[:64]!r}")
        start = _start(path, fd, entry)
        if entry.header_offset != at or start + entry.file_size > end:
            raise _refused(path, f"has a member {name[:64]!r} that does not begin where another ends")
        members[name], at = Run(start, entry.file_size), start + entry.file_size
    if at != end:
        raise _refused(path, "has bytes that belong to no member")
    _refuse_files_as_folders(path, members.keys())
    return members


def _directory_bytes(path: Path, fd: int, size: int) -> int:
    """What the end of the archive says, before anything is read that is as large."""
    length = _END_BYTES + _LOCATOR_BYTES + _END_64_BYTES
    tail = os.pread(fd, length, max(0, size - length)).rjust(length, b"\0")
    end, locator, end_64 = tail[-22:], tail[-42:-22], tail[-98:-42]
    if end[:4] != _END or end[-2:] != b"\0\0":
        raise _refused(path, "is cut off, or is not a Zip archive as `wsi-nuc pack` writes it")
    (stated,) = struct.unpack_from("<L", end, 12)
    if locator[:4] == _LOCATOR and end_64[:4] == _END_64:
        (stated,) = struct.unpack_from("<Q", end_64, 40)
    elif locator[:4] == _LOCATOR:
        raise _refused(path, "has a directory that is not where its end says")
    return int(stated)


def _flaw(entry: zipfile.ZipInfo) -> str:
    name, mode = entry.orig_filename, entry.external_attr >> 16
    if {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
        return "has a name that is not a place in a store"
    if mode and not stat.S_ISREG(mode):
        return "is a link or a folder, not a file"
    if entry.flag_bits & ~_UTF8:
        return "is encrypted, or is not described before its bytes"
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        return "is compressed"
    return ""


def _start(path: Path, fd: int, entry: zipfile.ZipInfo) -> int:
    """Where its bytes begin. What stands before them must say the same as the directory."""
    head = os.pread(fd, _LOCAL_BYTES, entry.header_offset).ljust(_LOCAL_BYTES, b"\0")
    signature, _, flags, method, *_, name_bytes, extra_bytes = struct.unpack("<4s5H3L2H", head)
    name = os.pread(fd, name_bytes, entry.header_offset + _LOCAL_BYTES)
    expected = entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437")
    if (signature, flags, method, name) != (_LOCAL, entry.flag_bits, entry.compress_type, expected):
        raise _refused(
            path, f"has a member {entry.orig_filename[:64]!r} that has another name or kind in its header"
        )
    return int(entry.header_offset) + _LOCAL_BYTES + int(name_bytes) + int(extra_bytes)


def _refuse_files_as_folders(path: Path, names: Sequence[str] | Any) -> None:
    folders = {name[:i] for name in names for i, character in enumerate(name) if character == "/"}
    if both := folders & set(names):
        raise _refused(path, f"has a member {min(both)[:64]!r} that is a file and a folder")


def _refused(path: Path, cause: str) -> StorageError:
    return StorageError(path, cause, _REMEDY)
