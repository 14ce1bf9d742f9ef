"""The file or folder of an export. It appears complete, or not at all."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from wsi_nuc.store import durable
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.place import Place


class Output(Protocol):
    def write(self, data: bytes) -> Any: ...


@contextmanager
def atomic_output(path: Path) -> Iterator[Output]:
    """Takes the bytes for `path`, and compresses them if its name ends in .gz.

    After an error the old file stays.
    """
    with _temporary(path) as (temporary, final):
        with durable.DurableFile(temporary) as file:
            if path.suffix == ".gz":
                # The header has no name and no time, so that the same nuclei give the same bytes. Level 5 takes
                # three times as long as level 1, and saves a tenth.
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=1, mtime=0) as packed:  # type: ignore[arg-type]
                    yield packed
            else:
                yield file
        durable.sync(temporary)
        durable.rename(temporary, final)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives the path to make a file or a folder at, which then replaces what is at `path`.

    After an error the old file or folder stays.
    """
    with _temporary(path) as (temporary, final):
        with durable.reported("write", final):
            yield temporary.path
        if not temporary.is_dir():
            durable.sync(temporary)
            durable.rename(temporary, final)
            return
        durable.sync_tree(temporary.opened())
        if not final.exists():
            durable.rename_new(temporary, final)
        elif not durable.exchange(temporary, final):
            # This file system cannot swap two folders. The old one is removed with the temporary ones.
            old = temporary.parent / f"{temporary.name}-old"
            durable.rename(final, old)
            try:
                durable.rename(temporary, final)
            except BaseException:
                durable.rename(old, final)
                raise
            durable.remove_tree(old)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Place, Place]]:
    """The places of a temporary file or folder and of the final one, in the same folder."""
    folder = made_folder(path.parent)
    temporary = folder / f".tmp-{uuid.uuid4().hex}{path.suffix}"
    try:
        yield temporary, folder / path.name
    finally:
        durable.remove_tree(temporary)
    durable.sync(folder)
