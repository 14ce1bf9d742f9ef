"""Fixtures that many tests share, and the rule that real data is used where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test fails because a machine is slow.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

REAL_DATA = Path(os.environ.get("WSI_NUC_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
_skipped_although_present: list[str] = []


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real slides and labelled images that is kept beside the checkout, not inside it."""
    if not (REAL_DATA / "wsi").is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set WSI_NUC_REAL_DATA to the folder that holds wsi/")
    return REAL_DATA


@pytest.fixture(scope="session")
def wsi(real_data: Path) -> Path:
    return real_data / "wsi"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "real_data" in report.keywords and (REAL_DATA / "wsi").is_dir():
        _skipped_although_present.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test of real data that was skipped although the data is there fails the run."""
    if _skipped_although_present and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for test in _skipped_although_present:
        terminalreporter.write_line(f"FAILED {test}: skipped although the real data is there", red=True)
