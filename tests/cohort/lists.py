"""Slides and lists of slides for the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from wsi_nuc.cohort import planning
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Facts, Plan, PlanRow, save
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SLIDES


def write_list(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def settings(folder: CohortFolder, **options: object) -> RunConfig:
    given = {"scheduler": "serial", "model": "classical", **options}
    return RunConfig(out=folder.root, **given)  # type: ignore[arg-type]


def planned(root: Path, source: Path | str, **options: object) -> tuple[CohortFolder, Plan]:
    folder = CohortFolder(root)
    plan = planning.make_plan(folder, str(source), settings(folder, **options))
    save(folder, plan, overwrite=False)
    return folder, plan


def row(line: int, tiles: int = 10, problem: str = "", **cells: str) -> PlanRow:
    """A row of a plan whose slide has not been looked at."""
    facts = Facts("jpegtiff", 1024, 1024, 0.25, "header", 1000 + line, 0.5, tiles / 4, tiles, 1)
    values = {"id": f"s{line}", "slide": f"/slides/{line}.svs", "patient": f"P{line % 7}", **cells}
    return PlanRow(line, facts=facts, problem=problem, exit_code=SLIDES if problem else 0, **values)


def copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
