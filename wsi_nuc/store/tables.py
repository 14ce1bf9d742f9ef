"""AnnData tables on Zarr v3 as SpatialData expects them, written row by row, and NumPy to Arrow and back.

The conversions share buffers. They do not call pyarrow's own `array` and `to_numpy`, which import pandas: 46 MiB
in every process that nobody needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.nuclei import NucleiTable
from wsi_nuc.rings import offsets_of
from wsi_nuc.store import layout
from wsi_nuc.store.column_record import FACTS, Column
from wsi_nuc.store.zarrfile import Json, RowArray, ZarrFolder
from wsi_nuc.types import Float32, Float64, Int64

AnyArray = npt.NDArray[Any]

_ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
_TEXTS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
_TEXT = {"encoding-type": "string", "encoding-version": "0.2.0"}
_DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}
_CATEGORICAL = {"ordered": False, "encoding-type": "categorical", "encoding-version": "0.2.0"}
OBS = (
    Column("id", "", "number of the nucleus: `id` of the shapes", "whole numbers from 1"),
    Column("region", "", "which shapes the table belongs to, as SpatialData needs it", "always `nuclei`"),
    Column("class", "", "the most probable class, as in the shapes", "the names of the model's classes"),
    Column("x", "px", "x of the centroid in level-0 pixels; also in `obsm/spatial`", "on the slide"),
    Column("y", "px", "y of the centroid in level-0 pixels, downwards", "on the slide"),
    # Not `area_um2`, which may be a column of X: tools refuse a name that means two columns.
    Column("area", "um2", "area of the polygon: `area_um2` of the shapes", "above 0"),
    Column("score", "", "`score` of the shapes", "0 to 1"),
)
NUMBERS = {"x": np.float64, "y": np.float64, "area": np.float64, "score": np.float32}
PROBABILITY = Column(
    "probability_{class}",
    "",
    "probability that a nucleus is of this class, given that it is one, as the model states it; the columns of "
    "all classes add up to 1. Cells from elsewhere have 1 for their class",
    "0 to 1",
    family="class",
)


def _bits(flags: AnyArray) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def to_arrow(values: AnyArray, nan_is_null: bool = False) -> Any:
    """An Arrow array of numbers or flags (one dimension)."""
    import pyarrow as pa

    if values.dtype == np.bool_:
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])
    absent = np.isnan(values) if nan_is_null else np.zeros(0, np.bool_)
    valid = _bits(~absent) if absent.any() else None
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, data])


def texts(values: Sequence[str]) -> Any:
    import pyarrow as pa

    raw = [value.encode() for value in values]
    offsets = offsets_of([len(text) for text in raw]).astype(np.int32)
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(offsets), pa.py_buffer(b"".join(raw)))


def to_numpy(array: Any) -> AnyArray:
    """The values of an Arrow array of numbers or flags without nulls. Numbers share its memory, read-only."""
    import pyarrow as pa

    flags = array.type == pa.bool_()
    data, start, stop = array.buffers()[1], array.offset, array.offset + len(array)
    if flags:
        bits = np.unpackbits(np.frombuffer(data or b"", np.uint8), bitorder="little")
        return bits[start:stop].astype(np.bool_)
    return np.frombuffer(data or b"", np.dtype(array.type.to_pandas_dtype()))[start:stop]


def _frame(order: Sequence[str]) -> Json:
    return {
        "column-order": list(order),
        "_index": "_index",
        "encoding-type": "dataframe",
        "encoding-version": "0.2.0",
    }


def _column(folder: ZarrFolder, path: str, values: Any) -> None:
    array = np.asarray(values)
    folder.array(path, array, _TEXTS if array.dtype.kind == "U" else _ARRAY)


def _write_frame(folder: ZarrFolder, path: str, index: Sequence[str], columns: Mapping[str, Any]) -> None:
    folder.group(path, _frame(list(columns)))
    _column(folder, f"{path}/_index", np.array(list(index), dtype=np.str_))
    for name, values in columns.items():
        _column(folder, f"{path}/{name}", values)


def _anndata_group(folder: ZarrFolder, path: str, region: str | None) -> None:
    annotated = region is not None
    folder.group(
        path,
        {
            "encoding-type": "anndata",
            "encoding-version": "0.1.0",
            "spatialdata-encoding-type": "ngff:regions_table",
            "region": region,
            "region_key": layout.REGION_KEY if annotated else None,
            "instance_key": layout.INSTANCE_KEY if annotated else None,
            "version": "0.2",
        },
    )
    folder.group(f"{path}/uns", _DICT)


def _annotation(folder: ZarrFolder, path: str) -> None:
    folder.group(f"{path}/uns/spatialdata_attrs", _DICT)
    entries = {
        "region": layout.REGION,
        "region_key": layout.REGION_KEY,
        "instance_key": layout.INSTANCE_KEY,
    }
    for name, value in entries.items():
        folder.array(f"{path}/uns/spatialdata_attrs/{name}", np.array(value), _TEXT)


def _code_type(classes: int) -> Any:
    return np.int8 if classes <= 127 else np.int16


def probability_name(label: str) -> str:
    """The column with the probability of a class."""
    return PROBABILITY.with_({"class": label}).name


class ProbabilityTable:
    """The class probabilities N x C with id, class, place, area and score of every nucleus.

    Memory does not grow with N.
    """

    def __init__(self, folder: ZarrFolder, classes: Sequence[str]) -> None:
        self._folder, self._classes = folder, list(classes)
        self._path = path = layout.NUCLEI_TABLE
        codes = _code_type(len(self._classes))
        self._x = RowArray(folder, f"{path}/X", np.zeros((0, len(self._classes)), np.float32), _ARRAY)
        self._index = RowArray(folder, f"{path}/obs/_index", np.zeros(0, "U1"), _TEXTS)
        self._id = RowArray(folder, f"{path}/obs/id", np.zeros(0, np.int64), _ARRAY)
        self._region = RowArray(folder, f"{path}/obs/region/codes", np.zeros(0, np.int8), _ARRAY)
        self._class = RowArray(folder, f"{path}/obs/class/codes", np.zeros(0, codes), _ARRAY)
        self._spatial = RowArray(folder, f"{path}/obsm/spatial", np.zeros((0, 2)), _ARRAY)
        self._numbers = {
            name: RowArray(folder, f"{path}/obs/{name}", np.zeros(0, kind), _ARRAY)
            for name, kind in NUMBERS.items()
        }

    @property
    def _columns(self) -> tuple[RowArray, ...]:
        return self._x, self._index, self._id, self._region, self._class, self._spatial, *self._numbers.values()

    def append(self, ids: Int64, table: NucleiTable, centre_l0: Float64, area_um2: Float64) -> None:
        self._x.append(table.class_probs)
        self._index.append(ids.astype(np.str_))
        self._id.append(ids)
        self._region.append(np.zeros(len(ids), np.int8))
        self._class.append(table.class_id.astype(_code_type(len(self._classes))))
        self._spatial.append(centre_l0)
        numbers: tuple[AnyArray, ...] = (centre_l0[:, 0], centre_l0[:, 1], area_um2, table.score)
        for name, values in zip(NUMBERS, numbers, strict=True):
            self._numbers[name].append(values)

    def finish(self) -> None:
        for column in self._columns:
            column.finish()
        # SpatialData refuses shapes without rows, and a table that annotates missing shapes.
        annotated = self._id.rows > 0
        _anndata_group(self._folder, self._path, layout.REGION if annotated else None)
        if annotated:
            _annotation(self._folder, self._path)
        self._folder.group(f"{self._path}/obsm", _DICT)
        self._folder.group(f"{self._path}/obs", _frame([column.name for column in OBS]))
        for name, categories in (("region", [layout.REGION]), ("class", self._classes)):
            self._folder.group(f"{self._path}/obs/{name}", _CATEGORICAL)
            _column(self._folder, f"{self._path}/obs/{name}/categories", np.array(categories, dtype=np.str_))
        _write_frame(self._folder, f"{self._path}/var", list(map(probability_name, self._classes)), {})

    def abandon(self) -> None:
        for column in self._columns:
            column.abandon()


def write_columns(
    folder: ZarrFolder, classes: Sequence[str], features: Sequence[Column], rows: Iterable[Float32]
) -> None:
    """X and `var` of `tables/nuclei_table` with the `features` after the class probabilities. `var` says what each
    column means. `rows`: pieces of the N x (C + F) table.
    """
    path, columns = layout.NUCLEI_TABLE, [*(PROBABILITY.with_({"class": label}) for label in classes), *features]
    names = [column.name for column in columns]
    table = RowArray(folder, f"{path}/X", np.zeros((0, len(names)), np.float32), _ARRAY)
    try:
        for values in rows:
            table.append(values)
        table.finish()
    finally:
        table.abandon()
    about = {"family": np.array([column.family for column in columns])}
    about |= {fact: np.array([column.facts[fact] for column in columns]) for fact in FACTS}
    _write_frame(folder, f"{path}/var", names, about)
