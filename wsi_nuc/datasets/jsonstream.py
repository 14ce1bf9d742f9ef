"""The objects of a list inside a large JSON file, one by one: memory holds the largest object, not the file.

ijson parses. `_Source` checks the bytes before and refuses what would fill the memory: the memory of ijson grows
with the square of the depth, and ijson holds names and numbers of any length.
"""

from __future__ import annotations

import gzip
import re
import string
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from wsi_nuc.errors import UsageError

CHUNK = 1 << 16
LARGEST_OBJECT = 256 << 20
DEEPEST = 256
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_FINITE = re.compile(_STRING.pattern + rb"|NaN|-?Infinity", re.DOTALL)
_WORD = (string.ascii_letters + string.digits + "+-.").encode()
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def objects(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """The objects of the top-level list `key`, or of a file that is a list itself.

    If the file is a single object without that list, this object is the only one.
    """
    empty = True
    with _opened(path) as source:
        for value in _items(source, "item" if source.starts_with(b"[") else f"{key}.item"):
            if not isinstance(value, dict):
                source.refuse(f"holds a {type(value).__name__} where an object is expected")
            empty, source.pending = False, 0
            yield value
    if empty:
        with _opened(path) as source:
            for document in _items(source, ""):
                if isinstance(document, dict) and document and not isinstance(document.get(key), list):
                    yield document


def value_of(path: Path, key: str) -> Any:
    """The top-level value `key`; None if there is no such value."""
    with _opened(path) as source:
        source.pending_from = b'"%s"' % key.encode()
        return next(_items(source, key), None)


def members(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    """The names and values of the top-level object `key`, one by one; none if there is no such object."""
    with _opened(path) as source:
        for name, value in _items(source, key, "kvitems"):
            source.pending = 0
            yield name, value


def _items(source: _Source, prefix: str, kind: str = "items") -> Iterator[Any]:
    """The values at `prefix`, or with "kvitems" the names and values in the objects there."""
    import ijson

    values = getattr(ijson, kind)(source, prefix, use_float=True, buf_size=CHUNK)
    try:
        for value in values:  # noqa: UP028 - yield from would close the parser
            yield value
    except (ijson.JSONError, ValueError) as error:
        cause = str(error).removeprefix("b'").partition("\n")[0].partition("\\n")[0][:80]
        source.refuse(source.refusal or f"is not valid JSON, or was cut off ({cause}, near byte {source.at:,})")
    finally:
        # ijson's parser without C prints a traceback unless it reaches its end.
        source.ended = True
        with suppress(ijson.JSONError, ValueError):
            deque(values, maxlen=0)
    if source.refusal:
        source.refuse(source.refusal)


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield _Source(path, gzip.GzipFile(fileobj=raw) if packed else raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(path, f"cannot be read ({error})", "check the file, or export it again") from error


class _Source:
    """The bytes of a file as ijson asks for them, cut where neither a string nor a word is open.

    NaN and infinities are not JSON, but older QuPath and Python write them. They become null.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self._held = file.read(CHUNK).removeprefix(b"\xef\xbb\xbf")
        self._brackets = b""
        self.at = 0
        """How many bytes ijson got."""
        self.pending = 0
        """How many of these came after the last whole object."""
        self.pending_from = b""
        """The name from which on `pending` counts."""
        self.refusal = ""
        """Why ijson gets nothing more."""
        self.ended = False
        """Whether the caller wants nothing more."""

    def starts_with(self, start: bytes) -> bool:
        return bool(self._held.lstrip().startswith(start))

    def read(self, size: int) -> bytes:
        """The next bytes; none after a refusal, so that the parser ends and the caller raises `refusal`."""
        if not size or self.ended or self.refusal:
            return b""
        data, outside = self._whole(size)
        self.at += len(data)
        if self.pending or self.pending_from in data:
            self.pending += len(data)
        if self.pending > LARGEST_OBJECT:
            self.refusal = f"holds an object of more than {LARGEST_OBJECT >> 20} MiB"
        if not self._shallow(outside):
            self.refusal = "is nested too deeply"
        if self.refusal:
            return b""
        if b"NaN" in outside or b"Infinity" in outside:
            return _NOT_FINITE.sub(lambda match: match[0] if match[0][:1] == b'"' else b"null", data)
        return data

    def _whole(self, size: int) -> tuple[bytes, bytes]:
        """The next bytes, and the part of them outside of strings.

        Reads at least as much as is held, so that a long string is not searched again for every chunk.
        """
        while True:
            read = self._file.read(max(size, len(self._held)))
            data = self._held + read
            outside = _STRING.sub(b"", data)
            start = outside.find(b'"') if b'"' in outside else len(outside.rstrip(_WORD))
            cut = len(data) - (len(outside) - start) if read else len(data)
            self._held = data[cut:]
            if len(self._held) > LARGEST_OBJECT:
                self.refusal = "holds a name or a number without an end"
            if cut or not read or self.refusal:
                return data[:cut], outside[:start]

    def _shallow(self, outside: bytes) -> bool:
        """Whether few enough brackets are open: removes innermost pairs until only open brackets are left."""
        self._brackets += outside.translate(None, _NO_BRACKETS)
        for _ in range(DEEPEST):
            length = len(self._brackets)
            self._brackets = self._brackets.replace(b"[]", b"").replace(b"{}", b"")
            if len(self._brackets) == length:
                return length <= DEEPEST
        return False

    def refuse(self, cause: str) -> NoReturn:
        raise UsageError(self._path, cause, "export the cells again")
