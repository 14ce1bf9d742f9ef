"""docs/tools.md is true: its snippets and the notebook run in an environment that has the tools, and no wsi-nuc.

`make compat` makes that environment. Without it, what needs the tools is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from wsi_nuc.store.verify import verify

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "docs/notebook"
TOOLS = ROOT / ".venv-compat/bin/python"
SNIPPETS = {
    f"{title} {number}": code
    for title, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL), 1)
}
# What napari is tried without: its window.
BEFORE = {
    "napari 1": "import napari, napari.components\n"
    "napari.Viewer, napari.run = napari.components.ViewerModel, lambda: None",
}
# What a snippet has to give. COUNT is the number of nuclei of the slide.
AFTER = {
    "spatialdata 1": "assert 0 < len(nuclei) == table.n_obs < COUNT",
    "scanpy 1": "import numpy as np\nassert nuclei.obsm['X_umap'].shape == (COUNT, 2)\n"
    "assert np.isfinite(nuclei.obsm['X_umap']).all()\nassert nuclei.obs['leiden'].nunique() > 1",
    "scanpy 2": "import numpy as np\nassert np.isfinite(slides.obsm['X_pca']).all()\n"
    "assert slides.obsm['X_pca'].shape[0] == 16\nassert slides.obs['age'].dtype == 'int64'",
    "squidpy 1": "import numpy as np\nscores = nuclei.uns['class_nhood_enrichment']['zscore']\n"
    "assert np.isfinite(scores).any() and 'class_co_occurrence' in nuclei.uns",
    "napari 1": "assert [layer.name for layer in viewer.layers] == ['nuclei', 'points']\n"
    "assert len(viewer.layers['points'].data) == COUNT == viewer.layers['nuclei'].data[0].max().compute()",
    "LazySlide 1": "assert len(nuclei) == COUNT and len(tiles) > 0 and 'area' in wsi.shapes['tissue']",
    "geopandas 1": "assert 0 < len(nuclei) < COUNT and (by_class > 0).all()",
    "DuckDB 1": "assert by_slide.filename.nunique() == 16 and by_slide.nuclei.min() > 0\n"
    "assert sorted(set(ages.age)) == [40, 43, 46, 49]",
    "pyarrow 1": "assert 'not the confidence in the class' in meaning and 0 < len(large) < COUNT",
    "ome-zarr 1": "assert pyramid[0].shape == (1536, 1536) and pyramid[0].max().compute() == COUNT",
    "GeoPackage 1": "assert len(again) == COUNT and again.geometry.is_valid.all()\n"
    "assert abs(again.geometry.area.sum() / nuclei.geometry.area.sum() - 1) < 1e-9",
}
# Types and codecs that R's arrow turns into columns of a data frame.
PLAIN_TYPES = (pa.int64(), pa.int16(), pa.float32(), pa.float64(), pa.bool_(), pa.binary(), pa.string())
ENCODINGS, CODECS = {"PLAIN", "RLE", "RLE_DICTIONARY"}, {"ZSTD", "SNAPPY", "UNCOMPRESSED"}


def with_tools(test: Callable[..., None]) -> Callable[..., None]:
    marks = (
        pytest.mark.slow,
        pytest.mark.timeout(1200),
        pytest.mark.skipif(not TOOLS.exists(), reason="make compat installs the tools"),
    )
    for mark in marks:
        test = mark(test)
    return test


def test_the_page_names_every_tool_in_the_version_that_is_tried() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "tests/compat/requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    named = {
        tool: version for tool, version in re.findall(r"^\| ([^|]+) \| ([\d.]+) \|", PAGE, re.MULTILINE) if version
    }
    assert len(named) > 10
    assert named == {tool: pinned[tool] for tool in named}
    assert SNIPPETS.keys() == AFTER.keys()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide, its result with features and labels, and the notebook's cohort."""
    folder = tmp_path_factory.mktemp("compat")
    for command in (
        ("-m", "wsi_nuc", "synth", "slide.svs", "--size", "1536"),
        ("-m", "wsi_nuc", "run", "slide.svs", "--features", "--labels"),
        (NOTEBOOK / "make_cohort.py", folder),
    ):
        subprocess.run([sys.executable, *command], cwd=folder, check=True)
    return folder


def _run(code: str, folder: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"MPLBACKEND": "Agg"}
    done = subprocess.run(
        [TOOLS, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


@with_tools
@pytest.mark.parametrize("name", SNIPPETS, ids=lambda name: name.replace(" ", "-"))
def test_a_snippet_runs_as_it_stands(name: str, place: Path) -> None:
    store = place / "results/slide.svs.zarr"
    count = pq.read_metadata(store / "shapes/nuclei/shapes.parquet").num_rows
    _run("\n".join([BEFORE.get(name, ""), SNIPPETS[name], f"COUNT = {count}", AFTER[name]]), place)
    assert verify(store) == [], "the tool changed the result"


@with_tools
def test_the_notebook_runs_without_a_line_of_repair(place: Path) -> None:
    code = (NOTEBOOK / "analysis.py").read_text(encoding="utf-8")
    _run(f"{code}\nassert accuracy >= 7 / 8, accuracy", place)
    for name in ("slides_pca.png", "nuclei_umap.png", "neighbours.png"):
        assert (place / name).stat().st_size > 5_000


@with_tools
def test_the_tools_are_those_of_the_list_and_wsi_nuc_is_not_there() -> None:
    listed = (ROOT / "tests/compat/requirements.txt").read_text().splitlines()
    check = (
        "import importlib.metadata as m, importlib.util as u\n"
        f"for line in {[line for line in listed if not line.startswith('#')]}:\n"
        "    tool, version = line.split('==')\n    assert m.version(tool) == version, tool\n"
        "assert u.find_spec('wsi_nuc') is None"
    )
    _run(check, ROOT.parent)


@with_tools
def test_the_files_use_only_what_arrow_of_r_reads(place: Path) -> None:
    for path in ("results/slide.svs.zarr/shapes/nuclei/shapes.parquet", "cohort/cohort.parquet"):
        file = pq.ParquetFile(place / path)
        for field in file.schema_arrow:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            kinds = [inner.type for inner in kind] if pa.types.is_struct(kind) else [kind]
            assert all(kind in PLAIN_TYPES for kind in kinds), field
        for group in range(file.metadata.num_row_groups):
            for column in map(file.metadata.row_group(group).column, range(file.metadata.num_columns)):
                assert column.compression in CODECS
                assert set(column.encodings) <= ENCODINGS
    geometry = pq.read_table(place / "results/slide.svs.zarr/shapes/nuclei/shapes.parquet")["geometry"][0].as_py()
    assert geometry[:5] == b"\x01\x03\x00\x00\x00", "a polygon as plain WKB, little-endian, without Z and SRID"
    assert shapely.from_wkb(geometry).is_valid
