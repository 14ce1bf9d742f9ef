"""Small slides that the tests of cohorts share; written once per test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_nuc.synth import SynthSpec, write_slide


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four slides of 512 to 1280 px, each with different content."""
    folder = tmp_path_factory.mktemp("slides")
    made = [folder / f"{name}.svs" for name in "abcd"]
    for seed, path in enumerate(made):
        write_slide(path, SynthSpec(size=512 + 256 * seed, mpp=0.25, seed=seed))
    return made
