"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real slides and labelled images that is kept beside the checkout, not inside it."""
    if not (REAL_DATA / "wsi").is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set WSI_NUC_REAL_DATA to the folder that holds wsi/")
    return REAL_DATA


@pytest.fixture(scope="session")
def wsi(real_data: Path) -> Path:
    return real_data / "wsi"
