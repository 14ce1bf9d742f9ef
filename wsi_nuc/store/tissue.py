"""The searched area as shapes, with one row per polygon, and the thumbnail as an OME-Zarr image under them."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsi_nuc.rings import offsets_of
from wsi_nuc.store import layout
from wsi_nuc.store.column_record import Column, described
from wsi_nuc.store.geoparquet import BOX_AND_GEOMETRY, GeoParquetFile, bbox_array, bbox_type, binary_array
from wsi_nuc.store.tables import to_arrow
from wsi_nuc.store.zarrfile import ZarrFolder
from wsi_nuc.types import UInt8

COLUMNS = (
    Column("id", "", "number of the polygon", "whole numbers from 1"),
    Column("tissue_id", "", "the same number under the name that LazySlide knows", "whole numbers from 1"),
    Column("area_mm2", "mm2", "area of the polygon, without its holes", "above 0"),
    *BOX_AND_GEOMETRY,
)


def write_thumbnail(folder: ZarrFolder, rgb: UInt8, l0_per_px: float) -> None:
    """Write H x W x 3 pixels. They are one chunk, because a thumbnail is read as a whole."""
    layout.raster_group(folder, layout.THUMBNAIL, "cyx", [1.0], l0_per_px)
    planes = np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
    folder.array(f"{layout.THUMBNAIL}/s0", planes, names=list("cyx"))


def write_tissue(folder: ZarrFolder, area_l0: Any, mpp: float) -> float:
    """Write the polygons of a Shapely geometry in level-0 pixels. Returns their area in mm2."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts([area_l0] if area_l0 is not None else []))
    parts = parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]
    bounds = np.asarray(shapely.bounds(parts), dtype=np.float64).reshape(-1, 4)
    area_mm2 = np.asarray(shapely.area(parts), dtype=np.float64) * (mpp / 1000) ** 2
    path = folder.root / layout.TISSUE_SHAPES / layout.PARQUET
    batch = _batch(np.asarray(shapely.to_wkb(parts, byte_order=1), dtype=object), bounds, area_mm2)
    with GeoParquetFile(path, batch.schema, ["Polygon"]) as file:
        file.write(batch, bounds)
    layout.shapes_group(folder, layout.TISSUE_SHAPES, len(parts))
    return float(area_mm2.sum())


def _batch(wkb: Any, bounds: Any, area_mm2: Any) -> Any:
    import pyarrow as pa

    offsets = offsets_of([len(polygon) for polygon in wkb])
    data = np.frombuffer(b"".join(wkb), np.uint8)
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("tissue_id", pa.int64(), nullable=False),
            pa.field("area_mm2", pa.float64(), nullable=False),
            pa.field("bbox", bbox_type(), nullable=False),
            pa.field("geometry", pa.binary(), nullable=False),
        ]
    )
    ids = to_arrow(np.arange(1, len(wkb) + 1))
    columns = [ids, ids, to_arrow(area_mm2), bbox_array(bounds), binary_array(data, offsets)]
    return pa.record_batch(columns, schema=described(schema, COLUMNS))
