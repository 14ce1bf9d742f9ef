"""Parquet: the same table as `csv`, with types. It holds no outlines; the store's own GeoParquet has them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from wsi_nuc.exporting.columns import FLAT, flat
from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

COLUMNS = FLAT
SUFFIX = ".parquet"


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    import pyarrow.parquet as pq

    tables = (flat(rows, about) for rows in nuclei)
    first = next(tables)
    writer = pq.ParquetWriter(output, first.schema, compression="zstd", use_dictionary=["class", "class_id"])
    try:
        for table in chain([first], tables):
            if len(table):
                writer.write_table(table)
        writer.close()
    finally:
        # After a failure, nothing may be written any more when it is collected.
        writer.is_open = False
