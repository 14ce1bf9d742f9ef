"""The nuclei of a published store with everything that is known about them, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.rings import offsets_of
from wsi_nuc.safezarr import open_array, read_array
from wsi_nuc.safezip import Folder, contents
from wsi_nuc.store import layout
from wsi_nuc.store.nuclei_columns import NUCLEI
from wsi_nuc.store.reading import NucleiFile, StoredRings, class_names, decode_rings
from wsi_nuc.store.tables import probability_name
from wsi_nuc.types import Bool, Int64

Column = npt.NDArray[Any]
_MOST_COLUMNS = 1_000_000
_OUTLINE = ("id", "bbox", "geometry")


@dataclass(frozen=True, slots=True)
class NucleiRows:
    """N nuclei, in the order of the store."""

    rings: StoredRings
    columns: dict[str, Column]
    """Under each wanted name: N numbers, or N texts for `class`."""

    def __len__(self) -> int:
        return len(self.rings)

    def between(self, start: int, stop: int) -> NucleiRows:
        """A run of rows without copying them."""
        columns = {name: values[start:stop] for name, values in self.columns.items()}
        return NucleiRows(self.rings.between(start, stop), columns)

    def select(self, rows: Int64) -> NucleiRows:
        return NucleiRows(self.rings.select(rows), {name: values[rows] for name, values in self.columns.items()})


class NucleiReader(NucleiFile):
    """Outline, class, scores and any measured column together. Memory holds one row group at a time."""

    def __init__(self, store: Path, columns: Sequence[str] = ()) -> None:
        super().__init__(store)
        self.store, self.columns = Path(store), tuple(columns)
        self._inside = contents(self.store)
        self.shape_columns = tuple(name for name in self.column_names if name not in _OUTLINE)
        """The columns beside the outlines."""
        self.measured_columns = _measured(self._inside, class_names(self.store))
        """The columns of the table: the probability of each class, then the features."""
        unknown = [name for name in columns if name not in self.shape_columns + self.measured_columns]
        if unknown:
            known = ", ".join(self.shape_columns + self.measured_columns)
            self.close()
            raise UsageError(self.store, f"has no column {unknown[0]}", f"its columns are {known}")

    @property
    def units(self) -> dict[str, str]:
        """Of each of the wanted columns; "" where there is none, and for features of early versions."""
        path = self._inside / layout.NUCLEI_TABLE / "var/unit"
        known = {column.name: column.unit for column in NUCLEI}
        with suppress(OSError, KeyError, ValueError):
            known = (
                dict(zip(self.measured_columns, map(str, read_array(path, _MOST_COLUMNS)), strict=True)) | known
            )
        return {name: known.get(name, "") for name in self.columns}

    def nuclei(self, group: int) -> NucleiRows:
        """All nuclei of a row group."""
        return NucleiRows(decode_rings(self.table(group, [*_OUTLINE])), self.values(group))

    def values(self, group: int) -> dict[str, Column]:
        """The columns of a row group, without the outlines."""
        beside = [name for name in self.columns if name in self.shape_columns]
        measured = [name for name in self.columns if name not in self.shape_columns]
        table = self.table(group, beside)
        columns = {name: _values(table.column(name)) for name in beside}
        if measured:
            columns |= self._measured(group, measured)
        return {name: columns[name] for name in self.columns}

    def none(self) -> NucleiRows:
        """No nuclei, with the types of all columns."""
        table = self._file.schema_arrow.empty_table()
        columns = {
            name: _values(table.column(name)) if name in self.shape_columns else np.zeros(0, np.float32)
            for name in self.columns
        }
        return NucleiRows(
            StoredRings(np.zeros((0, 2)), offsets_of([]), np.zeros(0, np.int64), np.zeros((0, 4))), columns
        )

    def each(self, box_l0: tuple[float, float, float, float] | None = None) -> Iterator[NucleiRows]:
        """The row groups, one after the other. With a box (x0, y0, x1, y1), only nuclei whose boxes meet it."""
        if box_l0 is None:
            yield from map(self.nuclei, range(self.groups))
            return
        for group in self.meeting(box_l0):
            rows = self.nuclei(group)
            met = np.flatnonzero(rows.rings.meeting(box_l0))
            if len(met):
                yield rows.select(met)

    def _measured(self, group: int, names: Sequence[str]) -> dict[str, Column]:
        start, stop = self.starts[group : group + 2].tolist()
        values = np.asarray(open_array(self._inside / layout.NUCLEI_TABLE / "X")[start:stop])
        return {name: values[:, self.measured_columns.index(name)] for name in names}


def _measured(store: Folder, classes: Sequence[str]) -> tuple[str, ...]:
    path = store / layout.NUCLEI_TABLE / "var/_index"
    try:
        names = [str(name) for name in read_array(path, _MOST_COLUMNS)]
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(path, f"cannot be read ({error})", "`wsi-nuc verify` says what is wrong") from None
    # In stores of earlier versions the probability has the name of the class alone.
    return (*map(probability_name, classes), *names[len(classes) :])


def _values(column: Any) -> Column:
    """The values of a column of one row group. Texts become an array of str."""
    values = column.combine_chunks()
    values = values.chunk(0) if hasattr(values, "chunk") else values
    if hasattr(values, "dictionary"):
        texts: Column = np.asarray(values.dictionary.to_pylist(), dtype=object)
        return np.asarray(texts[np.asarray(values.indices)])
    return np.asarray(values.to_numpy(zero_copy_only=False))


def of_classes(classes: Column, wanted: Sequence[str]) -> Bool:
    """N: whether each nucleus is of one of the `wanted` classes."""
    return np.isin(classes.astype(str), list(wanted))
