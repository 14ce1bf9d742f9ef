"""CONTRIBUTING.md is followed word by word: each recipe in a copy of the checkout, then the check it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEP = re.compile(
    r"^(File|Line in|Run:|Check:) `(.+?)`(?:, below `(.+?)`)?(?::\n\n```(?:python|text)\n(.*?)```)?", re.M | re.S
)
RECIPES = dict(
    part.split("\n", 1)
    for part in (ROOT / "CONTRIBUTING.md").read_text().split("\n## ")
    if part.startswith("To add")
)


def test_there_is_a_recipe_for_each_kind_of_addition() -> None:
    kinds = ["a slide reader", "a model family", "an export", "a feature", "a data set", "a training recipe"]
    assert list(RECIPES) == [f"To add {kind}" for kind in kinds]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree as it is now. What no recipe changes is only linked."""
    copy = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in ("wsi_nuc", "tests", "docs", "benchmarks", "pipelines"):
        shutil.copytree(ROOT / name, copy / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "configs"):
        (copy / name).symlink_to(ROOT / name)
    for weights in (ROOT / "wsi_nuc").rglob("*.safetensors"):
        (copy / weights.relative_to(ROOT)).symlink_to(weights)
    return copy


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", RECIPES)
def test_an_addition_is_a_file_or_folder_a_line_in_a_registry_and_a_row_of_a_test(kind: str) -> None:
    steps = STEP.findall(RECIPES[kind])
    files = [Path(where) for what, where, *_ in steps if what == "File"]
    lines = [Path(where) for what, where, *_ in steps if what == "Line in"]
    if kind == "To add a feature":
        # Its formula is a line beside those of its family, in place of a file.
        assert (files, [path.name for path in lines]) == ([], ["registry.py", "shape.py", "test_known.py"])
        return
    assert len({path.parent for path in files}) == 1
    assert len(files) == 1 or files[0].name == "__init__.py"
    assert [path.parts[0] for path in lines] == ["wsi_nuc", "tests"]
    assert lines[0].name == "registry.py"


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_leads_to_an_addition_that_passes_the_tests_of_its_kind(kind: str, checkout: Path) -> None:
    steps = STEP.findall(RECIPES[kind])
    for what, where, below, code in steps:
        if what == "File":
            path = checkout / where
            assert not path.exists()
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
        elif what == "Line in":
            lines = (checkout / where).read_text().splitlines(keepends=True)
            place = [i for i, line in enumerate(lines) if line.rstrip("\n") == below]
            assert len(place) == 1, f"{where} has {len(place)} lines {below!r}"
            lines.insert(place[0] + 1, code)
            (checkout / where).write_text("".join(lines))
        elif what == "Run:":
            done = python(checkout, "-c", where)
            assert done.returncode == 0, done.stderr
    sources = [where for what, where, *_ in steps if what in ("File", "Line in")]
    done = python(checkout, "-m", "ruff", "check", *sources)
    assert done.returncode == 0, done.stdout
    (_, check, _, _) = steps[-1]
    arguments = re.findall(r'"[^"]*"|\S+', check)
    done = python(checkout, "-m", "pytest", "-q", "-n", "0", *(part.strip('"') for part in arguments))
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
