"""Small slides that the end-to-end tests share; written once per test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_nuc.synth import SynthSpec, write_slide


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2560 x 2560 px at 0.25 um: several tiles and regions for any model of this package."""
    path = tmp_path_factory.mktemp("slides") / "tissue.svs"
    write_slide(path, SynthSpec(size=2560, mpp=0.25, seed=3))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "small.svs"
    write_slide(path, SynthSpec(size=768, mpp=0.25, seed=5))
    return path


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "blank.svs"
    write_slide(path, SynthSpec(size=1024, mpp=0.25, seed=1, blank=True))
    return path
