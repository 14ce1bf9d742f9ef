"""Reads a written store row group by row group: rings, points, places of the groups, classes, tissue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from wsi_nuc.errors import StorageError
from wsi_nuc.rings import Rings, offsets_of
from wsi_nuc.safezarr import read_array
from wsi_nuc.safezip import contents, for_arrow
from wsi_nuc.store import layout
from wsi_nuc.store.geometry import rings_of_wkb
from wsi_nuc.store.geoparquet import CORNERS
from wsi_nuc.store.tables import to_numpy
from wsi_nuc.types import Float64, Int64, UInt8

_MOST_CLASSES = 100_000
_MOST_VALUES = 2**25
_VERIFY = "`wsi-nuc verify` says what is wrong"


@dataclass(frozen=True, slots=True)
class StoredRings(Rings):
    """Outlines of nuclei in level-0 pixels."""

    ids: Int64
    """N: from 1 on."""
    bounds_l0: Float64
    """N x 4: x0, y0, x1, y1."""

    def within(self, box_l0: tuple[float, float, float, float]) -> StoredRings:
        """The outlines whose boxes meet the given box: x0, y0, x1, y1."""
        return self.select(np.flatnonzero(self.meeting(box_l0)))

    def meeting(self, box_l0: tuple[float, float, float, float]) -> Any:
        """N: whether the box of each outline meets the given box."""
        return meet(self.bounds_l0, box_l0)


@dataclass(frozen=True, slots=True)
class Points:
    """Centroids of N nuclei, with class and area."""

    xy_l0: Float64
    """N x 2: in level-0 pixels."""
    class_id: Int64
    area_um2: Float64

    def __len__(self) -> int:
        return len(self.class_id)

    def within(self, box_l0: tuple[float, float, float, float]) -> Points:
        x, y = self.xy_l0.T
        kept = np.flatnonzero((x >= box_l0[0]) & (x <= box_l0[2]) & (y >= box_l0[1]) & (y <= box_l0[3]))
        return Points(self.xy_l0[kept], self.class_id[kept], self.area_um2[kept])


def meet(bounds: Float64, box: tuple[float, float, float, float]) -> Any:
    """N: whether each of the boxes (N x 4) has more than a border in common with `box`."""
    low = (bounds[:, 0] < box[2]) & (bounds[:, 1] < box[3])
    return low & (bounds[:, 2] > box[0]) & (bounds[:, 3] > box[1])


class NucleiFile:
    """The Parquet file of the nuclei."""

    def __init__(self, store: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = contents(store) / layout.NUCLEI_SHAPES / layout.PARQUET
        try:
            self.path, self._file = path, pq.ParquetFile(for_arrow(path))
        except (OSError, pa.ArrowException) as error:
            raise StorageError(path, f"cannot be read ({error})", _VERIFY) from None
        meta = self._file.metadata
        self.rows = int(meta.num_rows)
        sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        self.starts = offsets_of(sizes)
        """G + 1: the first row of each row group, and the number of rows."""
        self.group_boxes_l0 = _group_boxes(meta)
        """G x 4: the box that each row group covers."""

    @property
    def groups(self) -> int:
        return len(self.starts) - 1

    @property
    def column_names(self) -> list[str]:
        names: list[str] = self._file.schema_arrow.names
        return names

    def table(self, group: int, columns: list[str]) -> Any:
        """An Arrow table with these columns of a row group."""
        import pyarrow as pa

        try:
            return self._file.read_row_group(group, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(self.path, f"cannot be read ({error})", _VERIFY) from error

    def rings(self, group: int) -> StoredRings:
        return decode_rings(self.table(group, ["id", "bbox", "geometry"]))

    def points(self, group: int) -> Points:
        table = self.table(group, ["x", "y", "class_id", "area_um2"])
        x, y, class_id, area = (to_numpy(table.column(i).combine_chunks()) for i in range(4))
        return Points(np.column_stack([x, y]), class_id.astype(np.int64), area)

    def meeting(self, box_l0: tuple[float, float, float, float]) -> list[int]:
        """The row groups that reach into the box, in ascending order."""
        groups: list[int] = np.flatnonzero(meet(self.group_boxes_l0, box_l0)).tolist()
        return groups

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def _group_boxes(meta: Any) -> Float64:
    """The boxes, from the statistics that the writer left for every corner."""
    names = [meta.schema.column(i).path for i in range(meta.num_columns)]
    columns = [names.index(f"bbox.{corner}") for corner in CORNERS]
    boxes = np.zeros((meta.num_row_groups, 4))
    for group in range(meta.num_row_groups):
        known = [meta.row_group(group).column(column).statistics for column in columns]
        boxes[group] = [known[0].min, known[1].min, known[2].max, known[3].max]
    return boxes


def decode_rings(table: Any) -> StoredRings:
    """The rings of the columns `id`, `bbox` and `geometry` of one row group."""
    geometry = table.column("geometry").combine_chunks()
    geometry = geometry.chunk(0) if hasattr(geometry, "chunk") else geometry
    ends = np.frombuffer(geometry.buffers()[1], np.int32)[geometry.offset : geometry.offset + len(geometry) + 1]
    rings = rings_of_wkb(np.frombuffer(geometry.buffers()[2], np.uint8), ends.astype(np.int64))
    # This is a single row group, so every column is a single chunk.
    flat = table.combine_chunks().flatten()
    columns = [flat.column(name).chunk(0) for name in ("id", *(f"bbox.{corner}" for corner in CORNERS))]
    ids, *bounds = map(to_numpy, columns)
    return StoredRings(rings.xy, rings.offsets, ids, np.column_stack(bounds))


def class_names(store: Path) -> tuple[str, ...]:
    """The classes in the order of their numbers."""
    path = contents(store) / layout.NUCLEI_TABLE / "obs/class/categories"
    try:
        return tuple(str(name) for name in read_array(path, _MOST_CLASSES))
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(path, f"cannot be read ({error})", _VERIFY) from None


def slide_beside(store: Path, name: str) -> Path | None:
    """The slide that a store names, if it lies beside the store, one folder up, or here."""
    return next(slides_beside(store, name), None)


def slides_beside(store: Path, name: str, folders: Iterable[Path] = ()) -> Iterator[Path]:
    """Where the slide that a store names may be, the likeliest place first: in the `folders`, then beside the
    store, one folder up, and here. A name that would lead elsewhere is in none of them."""
    if name in ("", ".", "..") or name != Path(name).name:
        return
    for folder in (*folders, store.absolute().parent, store.absolute().parent.parent, Path.cwd()):
        place = folder / name
        if place.exists() and not place.samefile(store):
            yield place


def read_tissue(store: Path) -> tuple[Any, float]:
    """The searched polygons as an array of Shapely geometries in level-0 pixels, and their area in mm2."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    path = contents(store) / layout.TISSUE_SHAPES / layout.PARQUET
    try:
        table = pq.read_table(for_arrow(path), columns=["area_mm2", "geometry"])
    except (OSError, pa.ArrowException) as error:
        raise StorageError(path, f"cannot be read ({error})", _VERIFY) from None
    polygons = shapely.from_wkb(np.array(table.column("geometry").to_pylist(), dtype=object))
    return polygons, float(sum(table.column("area_mm2").to_pylist()))


def read_thumbnail(store: Path) -> UInt8:
    """The slide's small picture, H x W x 3."""
    path = contents(store) / layout.THUMBNAIL / "s0"
    try:
        return np.ascontiguousarray(np.moveaxis(read_array(path, _MOST_VALUES), 0, 2))
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(path, f"cannot be read ({error})", "`wsi-nuc verify` says what is wrong") from None
