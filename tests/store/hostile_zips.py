"""Archives that cannot be a packed store, each made from a real packed store."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

Entry = tuple[zipfile.ZipInfo, bytes]


def _rewritten(path: Path, change: Callable[[list[Entry]], list[Entry]]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in change(entries):
            archive.writestr(entry, data)


def _named(name: str) -> Callable[[Path], None]:
    return lambda path: _rewritten(path, lambda entries: [*entries, (zipfile.ZipInfo(name), b"x")])


def _link(path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    _rewritten(path, lambda entries: [*entries, (entry, b"/etc/passwd")])


def _compressed(path: Path) -> None:
    def change(entries: list[Entry]) -> list[Entry]:
        entries[0][0].compress_type = zipfile.ZIP_DEFLATED
        return entries

    _rewritten(path, change)


def _twice(path: Path) -> None:
    _rewritten(path, lambda entries: [*entries, entries[-1]])


def _edited(edit: Callable[[bytearray], bytearray]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_bytes(edit(bytearray(path.read_bytes())))

    return apply


def _directory(data: bytearray) -> int:
    return int(struct.unpack_from("<L", data, len(data) - 6)[0])


def _overlapping(data: bytearray) -> bytearray:
    """The second member begins at the same byte as the first."""
    first = _directory(data)
    second = first + 46 + sum(struct.unpack_from("<3H", data, first + 28))
    struct.pack_into("<L", data, second + 42, 0)
    return data


def _larger(data: bytearray) -> bytearray:
    """The first member claims more bytes than the file has."""
    struct.pack_into("<2L", data, _directory(data) + 20, 1 << 31, 1 << 31)
    return data


def _gap(data: bytearray) -> bytearray:
    at = _directory(data)
    data[at:at] = b"hidden"
    struct.pack_into("<L", data, len(data) - 6, at + len(b"hidden"))
    return data


def _other_name_in_header(data: bytearray) -> bytearray:
    data[30] ^= 1
    return data


def _flagged(data: bytearray) -> bytearray:
    """The first member says that it is encrypted."""
    data[_directory(data) + 8] |= 1
    data[6] |= 1
    return data


HOSTILE: dict[str, Callable[[Path], None]] = {
    "above the folder": _named("../escaped"),
    "inside above": _named("tables/../../escaped"),
    "absolute": _named("/escaped"),
    "backslash": _named("..\\escaped"),
    "folder": _named("folder/"),
    "file as folder": _named("zarr.json/below"),
    "link": _link,
    "compressed": _compressed,
    "two of one name": _twice,
    "overlapping": _edited(_overlapping),
    "larger than the file": _edited(_larger),
    "hidden bytes": _edited(_gap),
    "bytes before": _edited(lambda data: bytearray(b"#!/bin/sh\n") + data),
    "bytes after": _edited(lambda data: data + b"more"),
    "another name in its header": _edited(_other_name_in_header),
    "encrypted": _edited(_flagged),
    "cut off": _edited(lambda data: data[:-1]),
    "half of it": _edited(lambda data: data[: len(data) // 2]),
    "empty": _edited(lambda data: bytearray()),
}
