"""The plan says for every line what will run or why not, and a later job cannot come to another answer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cohort.lists import copy, planned, write_list
from wsi_nuc.cohort import inspections, planning
from wsi_nuc.cohort.plan import load, save, write_table
from wsi_nuc.errors import MODEL, OK, SLIDES, USAGE, ModelError, UsageError


def test_every_line_is_in_the_plan_with_its_facts_or_its_reason(slides: list[Path], tmp_path: Path) -> None:
    a, b, *_ = slides
    twin = copy(a, tmp_path / "twin.svs")
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b.read_bytes()[:4000])
    source = write_list(
        tmp_path / "list.csv",
        "slide,id,mpp,model,tissue,Stage",
        f"{a},a,,,,II",
        f"{b},b,0.5,,none,=cmd",
        f"{twin},twin,,,,",
        f"{broken},broken,,,,",
        f"{tmp_path}/missing.svs,missing,,,,",
        f"{slides[2]},c,,no-such-model,,",
        f"{slides[3]},d,,,gone.geojson,",
    )
    folder, plan = planned(tmp_path / "cohort", source)
    by_id = {row.id: row for row in plan.rows}
    assert [row.id for row in plan.runnable] == ["a", "b"]
    assert by_id["b"].facts is not None
    assert (by_id["b"].facts.mpp, by_id["b"].facts.mpp_source) == (0.5, "--mpp")
    assert by_id["b"].facts.tissue_share == 1.0
    assert "the same content as line 2" in by_id["twin"].problem
    assert "truncated" in by_id["broken"].problem
    assert "does not exist" in by_id["missing"].problem
    assert "no-such-model" in by_id["c"].problem
    assert "gone.geojson" in by_id["d"].problem
    codes = {name: row.exit_code for name, row in by_id.items()}
    assert codes == {"a": OK, "b": OK, "twin": USAGE, "broken": SLIDES, "missing": SLIDES, "c": MODEL, "d": USAGE}
    assert plan.estimate["worker_seconds"] > 0
    assert plan.estimate["bytes"] > 0
    assert load(folder) == plan
    write_table(folder, plan)
    table = list(csv.DictReader(folder.plan_table.read_text().splitlines()))
    assert [line["will_run"] for line in table] == ["True", "True"] + ["False"] * 5
    assert table[1]["Stage"] == "'=cmd"
    assert table[0]["store"] == "results/a.zarr"


def test_content_is_only_hashed_where_sizes_are_equal(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(inspection: inspections.Inspection) -> str:
        hashed.append(Path(inspection.slide).name)
        return inspections.content_of(inspection)

    monkeypatch.setattr(planning, "content_of", counted)
    other = copy(slides[0], tmp_path / "other.svs")
    changed = bytearray(other.read_bytes())
    changed[len(changed) // 3] ^= 1
    other.write_bytes(changed)
    source = write_list(tmp_path / "list.csv", "slide", *map(str, [*slides, other]))
    _, plan = planned(tmp_path / "cohort", source)
    assert sorted(hashed) == ["a.svs", "other.svs"]
    assert len(plan.runnable) == 5


def test_another_plan_is_only_replaced_when_asked_for(slides: list[Path], tmp_path: Path) -> None:
    source = write_list(tmp_path / "list.csv", "slide", str(slides[0]))
    folder, plan = planned(tmp_path / "cohort", source)
    _, same = planned(tmp_path / "cohort", source)
    assert same.rows == plan.rows
    with pytest.raises(UsageError, match="another plan"):
        planned(tmp_path / "cohort", source, labels=True)
    assert load(folder) == same
    config = plan.config(folder, {"scheduler": "serial"}).model_copy(update={"labels": True})
    other = planning.make_plan(folder, str(source), config, overwrite=True)
    save(folder, other, overwrite=True)
    assert load(folder).settings["labels"] is True


def test_a_model_that_cannot_be_used_at_all_ends_the_planning(slides: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        planned(tmp_path / "cohort", slides[0], model="no-such-model")


def test_what_is_not_a_plan_is_refused(tmp_path: Path) -> None:
    from wsi_nuc.cohort.folder import CohortFolder

    folder = CohortFolder(tmp_path)
    with pytest.raises(UsageError, match="has no plan"):
        load(folder)
    for content in (b"", b"{}", b'{"format": 99}', b'{"format": 1, "rows": 3}', b"\xff"):
        folder.plan.write_bytes(content)
        with pytest.raises(UsageError, match="plan"):
            load(folder)
