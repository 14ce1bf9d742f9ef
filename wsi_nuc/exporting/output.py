"""The file of an export. It appears complete, or not at all."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from wsi_nuc.store import durable
from wsi_nuc.store.folders import made_folder


class Output(Protocol):
    def write(self, data: bytes) -> Any: ...


@contextmanager
def atomic_output(path: Path) -> Iterator[Output]:
    """Takes the bytes for `path`, and compresses them if its name ends in .gz.

    After an error the old file stays.
    """
    folder = made_folder(path.parent)
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    try:
        with durable.DurableFile(temporary) as file:
            if path.suffix == ".gz":
                # The header has no name and no time, so that the same nuclei give the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=5, mtime=0) as packed:  # type: ignore[arg-type]
                    yield packed
            else:
                yield file
        durable.sync(temporary)
        durable.rename(temporary, folder / path.name)
    finally:
        temporary.unlink()
    durable.sync(folder)
