"""A new SQLite file. It has no journal: a file that is not completed is thrown away by the caller."""

from __future__ import annotations

import errno
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from wsi_nuc.rings import Rings
from wsi_nuc.store.geometry import polygons_wkb


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction. What SQLite cannot write is an OSError."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-65536"):
                connection.execute(f"PRAGMA {setting}")
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        full = error.sqlite_errorname == "SQLITE_FULL"
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def wkb_blobs(rings: Rings) -> list[memoryview]:
    """The polygon of each ring as well-known binary."""
    data, offsets = polygons_wkb(rings)
    view, ends = data.data, offsets.tolist()
    return [view[start:stop] for start, stop in itertools.pairwise(ends)]
