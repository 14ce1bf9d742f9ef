"""Slides by name: generated once a session, or real ones beside the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slides.make import SAMPLES

REAL = {
    "cmu": "CMU-1-Small-Region.svs",
    "tcga": "TCGA-CR-7395-01A-01-TS1.crop.svs",
    "ndpi": "test3-DAPI-2-(387).ndpi",
    "os1": "OS-1-detail.ome.tif",
    "dcm": "camelyon_lowres_1152x700.dcm",
}


@pytest.fixture(scope="session")
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("slides")

    def find(name: str) -> Path:
        if name in REAL:
            return request.getfixturevalue("wsi") / REAL[name]
        path = folder / name
        return path if path.exists() else SAMPLES[name].make(path)

    return find
