"""A cohort whose results are single files: every command says the same as for folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from tests.cohort.lists import planned, write_list
from wsi_nuc.cohort.collect import collect
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import check_execution, load, write_table
from wsi_nuc.cohort.report import write_report
from wsi_nuc.cohort.sheet import slides_below
from wsi_nuc.cohort.state import states, verified
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.store.manifest import read

HOW = {"scheduler": "serial"}


@pytest.fixture(scope="module")
def source(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = ["slide,id", f"{slides[0]},a", f"{slides[1]},b"]
    return write_list(tmp_path_factory.mktemp("list") / "list.csv", *lines)


def run(folder: CohortFolder, **execution: object) -> dict[str, str]:
    return {slide.id: slide.status for slide in run_cohort(folder, execution={**HOW, **execution})}


def files(folder: CohortFolder) -> list[str]:
    return sorted(path.name for path in folder.results.iterdir() if path.name != ".wsi-nuc")


def states_of(folder: CohortFolder) -> Iterable[str]:
    plan = load(folder)
    return {state.state for state in verified(folder, states(folder, plan, plan.rows))}


def test_packed_results_are_run_kept_collected_and_reported(source: Path, tmp_path: Path) -> None:
    packed, _ = planned(tmp_path / "packed", source, pack=True)
    folders, _ = planned(tmp_path / "folders", source)
    assert run(packed) == run(folders) == {"a": "published", "b": "published"}
    assert files(packed) == ["a.zarr.zip", "b.zarr.zip"]
    assert run(packed) == {"a": "kept", "b": "kept"}
    assert states_of(packed) == {"done"}
    tables = [pd.read_parquet((collect(folder), folder.table)[1]) for folder in (packed, folders)]
    assert tables[0].store.tolist() == ["results/a.zarr.zip", "results/b.zarr.zip"]
    pd.testing.assert_frame_equal(*(table.drop(columns="store") for table in tables))
    pages = []
    for folder in (packed, folders):
        write_report(folder)
        pages.append(folder.report.read_text().count("data:image/jpeg"))
    assert pages == [2, 2]
    assert slides_below(packed.results) == ([], [])


def test_a_damaged_or_lost_packed_result_is_made_again(source: Path, tmp_path: Path) -> None:
    folder, _ = planned(tmp_path / "cohort", source, pack=True)
    run(folder)
    digests = [read(folder.store(name))["digest"] for name in "ab"]
    folder.store("a").unlink()
    data = bytearray(folder.store("b").read_bytes())
    data[len(data) // 2] ^= 1
    folder.store("b").write_bytes(data)
    assert states_of(folder) == {"pending"}
    assert run(folder) == {"a": "published", "b": "published"}
    assert [read(folder.store(name))["digest"] for name in "ab"] == digests
    assert files(folder) == ["a.zarr.zip", "b.zarr.zip"]


def test_packing_is_asked_for_by_the_plan_or_by_a_job_and_changes_no_record(source: Path, tmp_path: Path) -> None:
    folder, plan = planned(tmp_path / "cohort", source)
    asked, packing = planned(tmp_path / "packing", source, pack=True)
    assert [plan.key(row) for row in plan.rows] == [packing.key(row) for row in packing.rows]
    write_table(asked, packing)
    assert "results/a.zarr.zip" in asked.plan_table.read_text()
    assert run(folder, **check_execution({"pack": True}, folder.root)) == {"a": "published", "b": "published"}
    assert files(folder) == ["a.zarr.zip", "b.zarr.zip"]
    assert run(folder) == {"a": "kept", "b": "kept"}
    assert run(asked, pack=False) == {"a": "published", "b": "published"}
    assert files(asked) == ["a.zarr", "b.zarr"]
