"""Columns of many nuclei at once: under names that hold the unit, as a flat table, and as text of JSON.

Text is made by Arrow, a column at a time. An encoder that is called for each nucleus takes many times as long.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.exporting.output import Output
from wsi_nuc.exporting.registry import MEASURED, About
from wsi_nuc.rings import Rings
from wsi_nuc.store.nuclei_rows import Column, NucleiRows

FLAT = (
    "class",
    "class_id",
    "score",
    "prompt_score",
    "predicted_iou",
    "tile",
    "seam",
    "x",
    "y",
    "area_um2",
    MEASURED,
)
"""All columns of the store that have one value per nucleus, beside its number."""
# With more rows at once, the text of hundreds of columns would need much memory.
_ROWS_OF_TEXT = 2048


def with_unit(name: str, unit: str) -> str:
    """`x` in px becomes `x_px`, `h_mean` in OD `h_mean_od`. A name that holds its unit already stays as it is."""
    end = re.sub(r"[^0-9a-z]+", "_", unit.lower().replace("/", " per ")).strip("_")
    if not end or name.endswith((f"_{end}", f"_{end}s")):
        return name
    parts = end.split("_")
    tails = ["_".join(parts[i:]) for i in range(1, len(parts))]
    stem = next((name.removesuffix(f"_{tail}") for tail in tails if name.endswith(f"_{tail}")), name)
    return f"{stem}_{end}"


def labels(about: About) -> dict[str, str]:
    """Each column and its name with the unit in it."""
    return {name: with_unit(name, about.units.get(name, "")) for name in about.columns}


def flat(rows: NucleiRows, about: About) -> Any:
    """An Arrow table with one row per nucleus: its number, all columns, and its place in um, too."""
    import pyarrow as pa

    columns = {"id": pa.array(rows.rings.ids)}
    for name, label in labels(about).items():
        columns[label] = pa.array(rows.columns[name], from_pandas=True)
        if name == "y":
            columns |= {f"{axis}_um": pa.array(rows.columns[axis] * about.mpp) for axis in "xy"}
    return pa.table({**columns, "class": classes(rows, about.classes)})


def classes(rows: NucleiRows, texts: Any) -> Any:
    """The text of the class of each nucleus, as an Arrow array. `texts`: one per class."""
    import pyarrow as pa

    return pa.array(list(texts), pa.string()).take(pa.array(rows.columns["class_id"].astype(np.int64)))


def pieces(rows: NucleiRows) -> Iterator[NucleiRows]:
    """The rows in pieces whose text fits into memory."""
    for start in range(0, len(rows), _ROWS_OF_TEXT):
        yield rows.between(start, min(start + _ROWS_OF_TEXT, len(rows)))


def keys(rows: NucleiRows, about: About) -> Any:
    """A UUID per nucleus, as Arrow text: that of the slide, with the number of the nucleus at its end."""
    import pyarrow as pa
    import pyarrow.compute as pc

    start = str(uuid.uuid5(uuid.NAMESPACE_OID, about.slide_sha256))[:-12]
    return pc.binary_join_element_wise(
        start, pc.utf8_lpad(pa.array(rows.rings.ids).cast(pa.string()), 12, "0"), ""
    )


def members(columns: Mapping[str, Column]) -> list[Any]:
    """For each column of numbers the texts `"label":number`. A number that JSON cannot hold has an empty text.

    All texts but those of the first column begin with a comma.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, comma = [], ""
    for label, values in columns.items():
        text = pc.binary_join_element_wise(f"{comma}{json.dumps(label)}:", pa.array(values).cast(pa.string()), "")
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            text = pc.if_else(pa.array(finite), text, "")
        texts.append(text)
        comma = ","
    return texts


def ring_texts(rings: Rings, decimals: int, between: str = "],[") -> Any:
    """Per ring the text `x,y],[x,y],[x,y`, or with another text between the vertices, as an Arrow array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    vertices = pc.binary_join_element_wise(*number_texts(rings.xy, decimals), ",")
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(rings.offsets.astype(np.int32)), vertices), between)


def number_texts(table: npt.NDArray[Any], decimals: int) -> list[Any]:
    """The text of each number, as an Arrow array per column of the table (N x K)."""
    import pyarrow as pa

    return [pa.array(np.round(column.astype(np.float64), decimals)).cast(pa.string()) for column in table.T]


def write_items(nuclei: Iterable[NucleiRows], output: Output, texts: Callable[[NucleiRows], Any]) -> None:
    """The text of each nucleus in a line of its own, with commas between them. `texts`: an Arrow array of some."""
    import pyarrow as pa
    import pyarrow.compute as pc

    separator = b"\n"
    for rows in nuclei:
        for piece in pieces(rows):
            items = texts(piece)
            whole = pa.ListArray.from_arrays(pa.array([0, len(items)], pa.int32()), items)
            output.write(separator)
            output.write(pc.binary_join(whole, ",\n")[0].as_buffer())
            separator = b",\n"
