"""One cluster for all tests of Slurm. They are skipped, with the reason, only if it cannot be started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Slurm, missing, two_nodes

# One of each kind is part of `make test`; the others, minutes each, of `make nightly`.
ALWAYS = {
    "test_an_array_with_a_task_preempted_and_a_node_lost",
    "test_one_slide_over_two_nodes",
    "test_without_slurm_the_option_says_so",
}


@pytest.fixture(scope="package")
def slurm() -> Iterator[Slurm]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with two_nodes() as made:
        yield made


@pytest.fixture
def with_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The commands of this process speak to that cluster."""
    for key in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(key, slurm.env[key])
    return slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine has room for one such cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if item.originalname not in ALWAYS:  # type: ignore[attr-defined]
                item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker(pytest.mark.xdist_group("slurm"))
