"""The notebook of docs/python.md runs as it stands, and its result shows a picture."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs/notebook/python.ipynb"


@pytest.mark.timeout(280)
def test_the_notebook_runs_and_shows_a_bar_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, 4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    bars = [data["text/html"] for data in shown if "<progress" in data.get("text/html", "")]
    assert re.match(r'<progress value="(\d+)" max="\1"></progress> \1 of \1 regions, [\d,]{3,} nuclei', bars[0])
    (result,) = [data for data in shown if "<img" in data.get("text/html", "")]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["image/png"]))))
    assert picture.shape == (800, 800, 3)
    assert picture.std() > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.svs", "drawn.svs.truth.parquet"]
