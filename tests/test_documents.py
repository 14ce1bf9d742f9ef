"""Documents, docstrings and comments name only modules that are there, and README every exit code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from wsi_nuc import errors
from wsi_nuc.datasets.record import DataError
from wsi_nuc.store.place import IsLink
from wsi_nuc.training.loop import TrainingError

ROOT = Path(__file__).parents[1]
# `store/parts.py` or `parts.py`, in backticks.
NAMED = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.py)`")
# The recipes of CONTRIBUTING.md make some: "File `wsi_nuc/slides/ppm.py`:".
MADE = re.compile(r"^File `([^`]+)`:", re.MULTILINE)


def test_every_module_that_a_text_names_exists() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(name) for name in listed.stdout.split() if (ROOT / name).exists()]
    made = MADE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    modules = [f"/{name}" for name in [*map(Path.as_posix, files), *made]]
    stale = [
        f"{path}: {name}"
        for path in files
        for name in sorted(set(NAMED.findall((ROOT / path).read_text(encoding="utf-8"))))
        if not any(module.endswith(f"/{name}") for module in modules)
    ]
    assert not stale, "\n".join(stale)


def test_every_kind_of_error_ends_with_an_exit_code_of_the_readme() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert {DataError, IsLink, TrainingError} <= set(_below(errors.WsiNucError))
    codes = {kind: kind.exit_code for kind in {*kinds, *_below(errors.WsiNucError)}}
    assert {kind for kind, code in codes.items() if str(code) not in rows} == set()


def _below(kind: type) -> list[type]:
    return [each for child in kind.__subclasses__() for each in (child, *_below(child))]
