"""Flat tables as bytes: CSV that a spreadsheet opens safely, and Parquet whose fields say what they mean.

Beside a store lies a small table of its classes, `SLIDE.classes.csv`. It is never that of another store: before a
store gets its name, the table of an earlier one is removed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsi_nuc.store import durable
from wsi_nuc.store.column_record import Column, described
from wsi_nuc.store.place import Place

# What a text begins with that a spreadsheet takes for a formula.
RISKY = ("=", "+", "-", "@", "\t", "\r")


def safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(RISKY) else value


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([safe(name) for name in header])
    writer.writerows([safe(value) for value in row] for row in rows)
    return out.getvalue().encode("utf-8", "surrogateescape")


def to_parquet(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> bytes:
    """A value that a row lacks is empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = described(pa.schema([(column.name, types[column.kind]) for column in columns]), columns)
    arrays = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=schema), sink, compression="zstd")
    del arrays
    data = bytes(sink.getvalue().to_pybytes())
    # What Arrow would keep for later is as much as the rows themselves.
    pa.default_memory_pool().release_unused()
    return data


def class_table_of(final: Place) -> Place:
    """Where the table of the classes of a store lies, which is the same for both forms of the store."""
    return final.parent / f"{final.name.removesuffix('.zip').removesuffix('.zarr')}.classes.csv"


def remove_class_table(final: Place) -> None:
    table = class_table_of(final)
    if table.exists():
        with durable.reported("unlink", table):
            table.unlink()
        durable.sync(table.parent)
