"""One slide with two results, which most tests of the viewer look at."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from wsi_nuc.config import RunConfig
from wsi_nuc.features.running import run_slides
from wsi_nuc.synth import SynthSpec, write_slide

EDGE_PX = 2304
ROI = [[300, 300], [2000, 300], [2000, 1800], [300, 1800], [300, 300]]


@dataclass(frozen=True)
class Results:
    slide: Path
    store: Path
    """With features."""
    other: Path
    """Of the same slide, without features, with a ROI."""
    roi: Path


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    # Beside the folders of the test processes, of which the first makes it and the others wait.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "alone")
    folder = tmp_path_factory.getbasetemp().parent / f"viewer-{run}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return made(folder)


def made(folder: Path) -> Results:
    slide = folder / "slides" / "tissue.svs"
    stores = [folder / name / "tissue.svs.zarr" for name in ("first", "second")]
    known = Results(slide, *stores, folder / "roi.geojson")
    if known.other.exists():
        return known
    slide.parent.mkdir(exist_ok=True)
    write_slide(slide, SynthSpec(size=EDGE_PX, mpp=0.25, seed=3), overwrite=True)
    known.roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ROI]}))
    for store, options in ((known.store, {"features": True}), (known.other, {"roi": str(known.roi)})):
        config = RunConfig(model="classical", out=store.parent, scheduler="serial", **options)
        (result,) = run_slides(config, [str(slide)], lambda event: None)
        assert not result.error
    return known
