"""A cohort is listed with its figures, outliers first; its slides are found by its plan; nothing is written."""

from __future__ import annotations

from pathlib import Path

from benchmarks.viewer import viewing
from tests.cohort.lists import planned, write_list
from tests.viewer.asking import Page
from tests.viewer.conftest import Results
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.viewer.gallery import Known, outliers_first


def state(root: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_a_cohort_shows_what_is_done_and_why_the_rest_is_not(results: Results, tmp_path: Path) -> None:
    lines = ["slide,id,roi", f"{results.slide},a,{results.roi}", "none.svs,gone,"]
    folder, _ = planned(tmp_path / "cohort", write_list(tmp_path / "list.csv", *lines))
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    before = state(folder.root)
    with viewing(folder.root) as server:
        page = Page(server.address)
        rows = {row["name"]: row for row in page.all()}
        assert rows["gone"]["state"].startswith("refused: ")
        assert rows["a"]["nuclei"] == sum(rows["a"]["classes"].values()) > 0
        assert rows["a"]["squares_gini"] > 0
        path = page.of("a")
        assert page.get(f"{path}/status").json["state"] == "same"
        assert len(page.get(f"{path}/layers").json["roi"]) == 1
        assert page.get(f"{path}/thumbnail").headers["Content-Type"] == "image/jpeg"
    assert state(folder.root) == before


def row(name: str, nuclei: int, area_mm2: float) -> dict[str, object]:
    known = Known(digest=name, nuclei=nuclei, area_mm2=area_mm2, classes={"tumour": nuclei})
    return {"id": name, "name": name, "state": ""} | known.figures()


def test_what_stands_out_comes_first_with_the_reason_and_what_failed_last() -> None:
    usual = [row(f"s{i}", 5000 + 10 * i, 1.0 + 0.001 * i) for i in range(10)]
    failed = {"id": "", "name": "failed", "state": "failed: broken"}
    ranked = outliers_first([failed, *usual, row("empty", 0, 1.0), row("dense", 40_000, 1.0)])
    assert [entry["name"] for entry in ranked[:2]] == ["dense", "empty"]
    assert ranked[0]["why"] == ["nuclei per mm²: 40,000, median 5,025"]
    assert ranked[1]["why"] == ["no nuclei"]
    assert ranked[-1] == failed
    assert all(entry["why"] == [] for entry in ranked[2:-1])
