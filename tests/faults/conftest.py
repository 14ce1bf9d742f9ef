"""The slide that the faults meet, and what an undisturbed run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.one_run import NAME, run_one
from wsi_nuc.store.manifest import read
from wsi_nuc.synth import SynthSpec, write_slide


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1024 x 512 px at 0.5 um, two regions of one tile each: a whole run takes half a second."""
    path = tmp_path_factory.mktemp("faults") / f"{NAME}.svs"
    write_slide(path, SynthSpec(size=1024, height=512, mpp=0.5, seed=5, tissue=1.0, density=0.5))
    return path


@pytest.fixture(scope="session")
def undisturbed(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run that nothing happened to."""
    result = run_one(slide, tmp_path_factory.mktemp("undisturbed"))
    assert result.exit_code == 0, result.error
    return str(read(Path(result.store))["digest"])
