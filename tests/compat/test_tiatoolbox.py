"""An export opens in TIAToolbox as a store that it wrote itself, outlines, properties and searches.

`make compat-tiatoolbox` makes the environment, which takes gigabytes. Without it, this is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.exporting.build import CLASS_NAMES, RINGS, known_store
from wsi_nuc.exporting.export import export

ROOT = Path(__file__).parents[2]
TIATOOLBOX = ROOT / ".venv-tiatoolbox/bin/python"
OPEN = """
import json, sqlite3, sys
from shapely.geometry import box
from tiatoolbox.annotation.storage import SQLiteStore

if not hasattr(sqlite3.Connection, "enable_load_extension"):
    # TIAToolbox asks for it only to list how SQLite was compiled. Some builds of Python lack it.
    options = [option for (option,) in sqlite3.connect(":memory:").execute("PRAGMA compile_options")]
    SQLiteStore.compile_options = staticmethod(lambda: options)
store = SQLiteStore(sys.argv[1])
print(json.dumps({
    "count": len(store),
    "outlines": [list(annotation.geometry.exterior.coords) for annotation in store.values()],
    "properties": [annotation.properties for annotation in store.values()],
    "near": [annotation.properties["type"] for annotation in store.query(box(0, 0, 50, 50)).values()],
    "tumour": len(store.query(where="props['type'] == 'tumour'")),
    "likely": len(store.query(where="props['prob'] > 0.4")),
    "large": len(store.query(box(0, 0, 100000, 100000), min_area=50)),
    "keys": len({*store.keys()}),
}))
store.close()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not TIATOOLBOX.exists(), reason="make compat-tiatoolbox installs it")
def test_an_export_opens_in_tiatoolbox(tmp_path: Path) -> None:
    out = tmp_path / "cells.db"
    export(known_store(tmp_path / "results"), "annotationstore", out)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [TIATOOLBOX, "-c", OPEN, out]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    read = json.loads(done.stdout.splitlines()[-1])
    assert [ring[:-1] for ring in read["outlines"]] == [ring.tolist() for ring in RINGS]
    assert [properties["type"] for properties in read["properties"]] == list(CLASS_NAMES)
    assert read["properties"][0]["solidity"] == 1
    counts = {name: read[name] for name in ("count", "near", "tumour", "likely", "large", "keys")}
    assert counts == {"count": 3, "near": ["stroma"], "tumour": 1, "likely": 2, "large": 2, "keys": 3}
