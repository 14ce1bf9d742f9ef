"""GeoParquet 1.1, written row group by row group from column arrays, without geometry objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.store.durable import DurableFile
from wsi_nuc.store.geometry import polygons_wkb
from wsi_nuc.store.place import Place
from wsi_nuc.store.tables import texts, to_arrow
from wsi_nuc.types import Bool, Float64, Int64

ROW_GROUP_ROWS = 16_384
CORNERS = ("xmin", "ymin", "xmax", "ymax")
DICTIONARIES = ("class", "class_id", "tile")


@dataclass(frozen=True, slots=True)
class Rows:
    """A row group of N nuclei, with what is derived from their rings."""

    table: NucleiTable
    first_id: int
    """The number of the first row; the others follow."""
    seam: Bool
    """N: whether more than one tile saw the nucleus."""
    bounds_l0: Float64
    """N x 4: x0, y0, x1, y1, in level-0 pixels."""
    area_px: Float64
    """N: in level-0 pixels."""
    centre_l0: Float64
    """N x 2: centroids, in level-0 pixels."""

    @classmethod
    def of(cls, table: NucleiTable, first_id: int, bounds_l0: Float64, seam: Bool) -> Rows:
        area, centre = table.areas_and_centres()
        return cls(table, first_id, seam, bounds_l0, area, centre)


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
        self._writer.add_key_value_metadata({"geo": geo_metadata(self._kinds, self._extent.box)})
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


def _class_type(classes: int) -> Any:
    import pyarrow as pa

    return pa.int8() if classes <= 127 else pa.int16()


def nuclei_schema(classes: int) -> Any:
    import pyarrow as pa

    fields = [
        ("id", pa.int64()),
        ("class", pa.dictionary(_class_type(classes), pa.string())),
        ("class_id", pa.int16()),
        ("score", pa.float32()),
        ("prompt_score", pa.float32()),
        ("predicted_iou", pa.float32()),
        ("tile", pa.int64()),
        ("seam", pa.bool_()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("area_um2", pa.float64()),
        ("bbox", bbox_type()),
        ("geometry", pa.binary()),
    ]
    optional = {"predicted_iou"}
    return pa.schema([pa.field(name, kind, nullable=name in optional) for name, kind in fields])


def nuclei_batch(rows: Rows, classes: Sequence[str], um2_per_px: float) -> Any:
    """The columns of one row group."""
    import pyarrow as pa

    table, schema = rows.table, nuclei_schema(len(classes))
    class_id = table.class_id
    codes = to_arrow(class_id.astype(_class_type(len(classes)).to_pandas_dtype()))
    columns = [
        to_arrow(np.arange(rows.first_id, rows.first_id + len(table))),
        pa.DictionaryArray.from_arrays(codes, texts(classes)),
        to_arrow(class_id.astype(np.int16)),
        to_arrow(table.score),
        to_arrow(table.prompt_score),
        to_arrow(table.predicted_iou, nan_is_null=True),
        to_arrow(table.tile),
        to_arrow(rows.seam),
        to_arrow(rows.centre_l0[:, 0]),
        to_arrow(rows.centre_l0[:, 1]),
        to_arrow(rows.area_px * um2_per_px),
        bbox_array(rows.bounds_l0),
        wkb_array(table),
    ]
    return pa.record_batch(columns, schema=schema)
