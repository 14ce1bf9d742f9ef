"""The exact truth as GeoParquet: one row a nucleus, written as the slide grows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import shapely

from wsi_nuc.synth.spec import CLASSES
from wsi_nuc.types import Int64

_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        # A null crs says that the coordinates are not on the globe: level-0 px, y down.
        "geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None},
    },
}


class TruthWriter:
    """Columns id (int64, from 0), class and geometry (WKB, level-0 px)."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(
            [("id", pa.int64()), ("class", pa.string()), ("geometry", pa.binary())],
            metadata={"geo": json.dumps(_GEO)},
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._wkb: list[bytes] = []
        self._names: list[str] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))

    @property
    def nuclei(self) -> int:
        return sum(self.counts.values())

    def add(self, polygon: npt.NDArray[Any], class_id: Int64) -> None:
        # Bytes at once: shapely's objects live in the drawing threads' heaps and would keep them large.
        self._wkb += shapely.to_wkb(polygon).tolist()
        self._names += [CLASSES[i] for i in class_id]
        if len(self._names) >= 10_000:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._names:
            ids = np.arange(self.nuclei, self.nuclei + len(self._names))
            self._writer.write_table(pa.table([ids, self._names, self._wkb], schema=self._schema))
            self.counts.update(self._names)
            self._wkb, self._names = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
