"""A list of objects inside a large JSON file, one at a time: memory holds the largest object, not the file."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from wsi_nuc.errors import UsageError

CHUNK = 1 << 20
LARGEST_OBJECT = 256 << 20
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


class JsonObjects:
    """Iterates over the objects of the top-level list `key`, or of the list that the whole file is.

    `rest` holds the other top-level values that were met so far; after the last object, all of them. A file that
    is a single object without that list is handed over as the one object.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.rest: dict[str, Any] = {}
        self._buffer, self._at, self._ended = "", 0, False
        self._file: IO[str] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            with _open(self._path) as self._file:
                yield from self._top()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UsageError(
                self._path, f"cannot be read ({error})", "check the file, or export it again"
            ) from error

    def _top(self) -> Iterator[dict[str, Any]]:
        start = self._peek()
        if start == "[":
            yield from self._objects()
            return
        if start != "{":
            self._refuse("is no JSON object or list")
        self._at += 1
        met = False
        while self._peek() != "}":
            key = self._value()
            self._expect(":")
            if key == self._key and self._peek() == "[":
                met = True
                yield from self._objects()
            else:
                self.rest[str(key)] = self._value()
            if self._peek() == ",":
                self._at += 1
        if not met and self.rest:
            yield self.rest

    def _objects(self) -> Iterator[dict[str, Any]]:
        self._expect("[")
        while self._peek() != "]":
            value = self._value()
            if not isinstance(value, dict):
                self._refuse(f"holds a {type(value).__name__} where an object is expected")
            yield value
            if self._peek() == ",":
                self._at += 1
        self._at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except RecursionError:
                self._refuse("is nested too deeply")
            except ValueError:
                # Perhaps only the rest of the value is lacking.
                if self._ended or len(self._buffer) - self._at > LARGEST_OBJECT:
                    self._refuse("is no valid JSON, or was cut off")
            else:
                # A number at the very end may go on in the next chunk.
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return value
            self._more()

    def _peek(self) -> str:
        """The next character that is not white space."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                self._refuse("ends in the middle")
            self._more()

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            self._refuse(f"lacks a {character!r}")
        self._at += 1

    def _more(self) -> None:
        """At least doubles what is ahead, so that a large object is not parsed again for every chunk."""
        assert self._file is not None
        ahead = self._buffer[self._at :]
        read = self._file.read(max(CHUNK, len(ahead)))
        self._ended = not read
        self._buffer, self._at = ahead + read, 0

    def _refuse(self, cause: str) -> Any:
        raise UsageError(self._path, cause, "export the cells again")


def _open(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    raw: Any = gzip.GzipFile(path) if packed else path.open("rb")
    return io.TextIOWrapper(raw, encoding="utf-8-sig")
