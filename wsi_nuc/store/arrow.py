"""NumPy to Arrow and back over shared buffers.

`pyarrow.array` and `to_numpy` import pandas when they are first called: 46 MiB in every process, for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_nuc.rings import offsets_of

AnyArray = npt.NDArray[Any]


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
    """The values of an Arrow array of numbers or flags without nulls; numbers share its memory, read only."""
    import pyarrow as pa

    flags = array.type == pa.bool_()
    data, start, stop = array.buffers()[1], array.offset, array.offset + len(array)
    if flags:
        bits = np.unpackbits(np.frombuffer(data or b"", np.uint8), bitorder="little")
        return bits[start:stop].astype(np.bool_)
    return np.frombuffer(data or b"", np.dtype(array.type.to_pandas_dtype()))[start:stop]
