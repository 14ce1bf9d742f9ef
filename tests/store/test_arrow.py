"""The conversions agree with pyarrow's own, and pandas stays out of the processes of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wsi_nuc.store.tables import texts, to_arrow, to_numpy

ROOT = Path(__file__).parents[2]
KINDS = st.sampled_from([np.bool_, np.int8, np.int16, np.int64, np.float32, np.float64])


@given(values=KINDS.flatmap(lambda kind: arrays.arrays(kind, st.integers(0, 40))), start=st.integers(0, 40))
def test_numbers_and_flags_go_there_and_back(values: np.ndarray, start: int) -> None:
    array = to_arrow(values)
    assert array.type == pa.array(values).type
    array.validate(full=True)
    back = to_numpy(array[start:])
    assert back.dtype == values.dtype
    assert back.tobytes() == values[start:].tobytes()


@given(values=arrays.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([0.5, np.nan])))
def test_what_is_unknown_becomes_null(values: np.ndarray) -> None:
    assert to_arrow(values, nan_is_null=True).equals(pa.array(values, from_pandas=True))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_are_those_of_pyarrow(values: list[str]) -> None:
    assert texts(values).equals(pa.array(values, pa.string()))


def test_pandas_is_never_imported(tmp_path: Path) -> None:
    code = """
import sys, pathlib, numpy, shapely
from tests.store.build import nuclei, write_nuclei
from wsi_nuc.store.labels import write_labels
from wsi_nuc.store.parts import read_part, write_part
from wsi_nuc.store.tissue import write_tissue
from wsi_nuc.store.folders import made_folder
from wsi_nuc.store.zarrfile import ZarrFolder
path = pathlib.Path(sys.argv[1])
top = made_folder(path)
part = write_part(top, 1, nuclei(9), numpy.zeros(9, bool), {})
assert len(read_part(top / part)[0]) == 9
folder = ZarrFolder(top / "x")
write_tissue(folder, shapely.box(0, 0, 9, 9), 0.25)
write_labels(folder, write_nuclei(folder, [nuclei(30)]), 1024, 1024)
assert "pandas" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
