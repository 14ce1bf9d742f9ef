"""Documents, docstrings and comments name only modules that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

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
