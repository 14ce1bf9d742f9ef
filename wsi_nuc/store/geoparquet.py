"""GeoParquet 1.1, written row group by row group from column arrays, without geometry objects."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np

from wsi_nuc.rings import Rings
from wsi_nuc.store.column_record import Column
from wsi_nuc.store.durable import DurableFile
from wsi_nuc.store.geometry import polygons_wkb
from wsi_nuc.store.place import Place
from wsi_nuc.store.tables import to_arrow
from wsi_nuc.types import Float64, Int64

CORNERS = ("xmin", "ymin", "xmax", "ymax")
BOX_AND_GEOMETRY = (
    Column(
        "bbox",
        "px",
        "the upright box around the polygon: xmin, ymin, xmax, ymax in level-0 pixels",
        "on the slide",
    ),
    Column(
        "geometry",
        "px",
        "polygon in level-0 pixels, as WKB; y points down, and (0, 0) is the slide's corner",
        "on the slide",
    ),
)


class Extent:
    """The box around all boxes so far."""

    def __init__(self) -> None:
        self.box: list[float] | None = None

    def add(self, bounds: Float64) -> None:
        if len(bounds):
            low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
            if self.box is not None:
                low, high = np.minimum(low, self.box[:2]), np.maximum(high, self.box[2:])
            self.box = [float(value) for value in (*low, *high)]


def geo_metadata(kinds: Sequence[str], box: list[float] | None) -> bytes:
    """The "geo" key. An image has no coordinate reference system, so `crs` is null."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": list(kinds),
        "crs": None,
        "edges": "planar",
        "covering": {"bbox": {corner: ["bbox", corner] for corner in CORNERS}},
    }
    if box is not None:
        column["bbox"] = box
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}).encode()


def _pandas_metadata() -> bytes:
    """Tells pandas, and thereby geopandas and SpatialData, that `id` is the index."""
    columns = [{"name": "id", "field_name": "id", "pandas_type": "int64", "numpy_type": "int64", "metadata": None}]
    document = {
        "index_columns": ["id"],
        "column_indexes": [],
        "columns": columns,
        "attributes": {},
        "pandas_version": "2.0.0",
    }
    return json.dumps(document).encode()


class GeoParquetFile:
    """A GeoParquet file that grows by record batches, one row group per batch. `close` writes the footer."""

    def __init__(self, place: Place, schema: Any, kinds: Sequence[str], dictionaries: Sequence[str] = ()) -> None:
        import pyarrow.parquet as pq

        self._kinds, self._extent = kinds, Extent()
        self._file = DurableFile(place)
        # A row group is compressed while the next one is computed. Only one may be pending, to bound the memory.
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        metadata = {"pandas": _pandas_metadata()}
        columns = [name for name in schema.names if name not in ("geometry", "bbox")]
        self._writer = pq.ParquetWriter(
            self._file,
            schema.with_metadata(metadata),
            compression="zstd",
            compression_level=1,
            use_dictionary=list(dictionaries),
            write_statistics=[*columns, *(f"bbox.{corner}" for corner in CORNERS)],
        )

    def write(self, batch: Any, bounds: Float64) -> None:
        """`batch`: a record batch of the schema; `bounds`: the boxes of its geometries."""
        import pyarrow as pa

        self._extent.add(bounds)
        if len(batch):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(self._writer.schema.metadata)
            self._settle()
            self._pending = self._pool.submit(self._writer.write_table, table, row_group_size=len(batch))

    def _settle(self) -> None:
        """Wait for the row group in the background, and raise its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        self._settle()
        self._pool.shutdown()
        geo = {"geo": geo_metadata(self._kinds, self._extent.box)}
        # Arrow reads what belongs to the table from its own copy of the schema, and writes that again.
        schema = self._writer.schema.with_metadata({**self._writer.schema.metadata, **geo})
        arrow = {"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes())}
        self._writer.add_key_value_metadata({**geo, **arrow})
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        """Close the file after a failure. The staging folder that holds it will be removed."""
        self._pool.shutdown(cancel_futures=True)
        self._file.abandon()
        self._writer.is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def wkb_array(rings: Rings) -> Any:
    """One-ring polygons as an Arrow binary array that shares the bytes of the NumPy buffer."""
    data, byte_offsets = polygons_wkb(rings)
    return binary_array(data, byte_offsets)


def binary_array(data: Any, byte_offsets: Int64) -> Any:
    import pyarrow as pa

    # 65,536 rows stay below 2^31 bytes up to 2,000 vertices per ring; beyond that, the cast below would wrap.
    if byte_offsets[-1] >= 2**31:
        raise ValueError("a row group of more than 2 GiB of WKB")
    buffers = [None, pa.py_buffer(byte_offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(byte_offsets) - 1, buffers)


def bbox_array(bounds: Float64) -> Any:
    import pyarrow as pa

    return pa.StructArray.from_arrays([to_arrow(bounds[:, i]) for i in range(4)], names=list(CORNERS))


def bbox_type() -> Any:
    import pyarrow as pa

    return pa.struct([(corner, pa.float64()) for corner in CORNERS])
