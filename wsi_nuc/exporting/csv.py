"""CSV: one row per nucleus, with the unit in the name of each column; an empty field where there is no value.

Places are centroids, in level-0 pixels from the corner of the first one, and in micrometres. It holds no outlines.
"""

from __future__ import annotations

from collections.abc import Iterable

from wsi_nuc.exporting.columns import FLAT, flat
from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import About
from wsi_nuc.store.nuclei_rows import NucleiRows

COLUMNS = FLAT
SUFFIX = ".csv"


def write(nuclei: Iterable[NucleiRows], about: About, output: Output) -> None:
    import pyarrow as pa
    from pyarrow.csv import WriteOptions, write_csv

    header = True
    for rows in nuclei:
        sink = pa.BufferOutputStream()
        write_csv(flat(rows, about), sink, WriteOptions(include_header=header))
        output.write(sink.getvalue())
        header = False
