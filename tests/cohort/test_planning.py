"""A plan that is stopped, shared out or made again inspects each slide once and equals that of a single call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cohort.lists import copy, planned, settings, write_list
from wsi_nuc.cohort import inspections, planning
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.inspections import Inspection, Inspections, content_of, inspect_slide, try_out
from wsi_nuc.cohort.plan import Plan, PlanRow
from wsi_nuc.cohort.planning import Listener, inspect_share, make_plan
from wsi_nuc.cohort.shards import Shard
from wsi_nuc.errors import UsageError


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the workers did, in their order, as "inspect a"."""
    said: list[str] = []

    def noted(what: str, do: Callable[[Inspection], Any]) -> Callable[[Inspection], Any]:
        def noting(inspection: Inspection) -> Any:
            said.append(f"{what} {Path(inspection.slide).stem}")
            return do(inspection)

        return noting

    for name, what, do in (
        ("inspect_slide", "inspect", inspect_slide),
        ("content_of", "hash", content_of),
        ("try_out", "try", try_out),
    ):
        monkeypatch.setattr(planning, name, noted(what, do))
    return said


@pytest.fixture
def source(slides: list[Path], tmp_path: Path) -> Path:
    """Four slides, a copy of the first, one that is cut off, and two lines that need no inspection."""
    copy(slides[0], tmp_path / "twin.svs")
    (tmp_path / "broken.svs").write_bytes(slides[1].read_bytes()[:4000])
    lines = [*map(str, slides), "twin.svs", "broken.svs", "missing.svs", str(slides[0])]
    return write_list(tmp_path / "list.csv", "slide", *lines)


def same(first: Plan, second: Plan) -> bool:
    """Equal but for the times that were measured."""
    timeless = [dataclasses.replace(plan, estimate={}) for plan in (first, second)]
    return timeless[0] == timeless[1]


class Stopped(Exception):
    pass


class Stopping(Listener):
    def __init__(self, after: int) -> None:
        self._after = after

    def inspected(self, done: int, of: int, before: int) -> None:
        if done - before == self._after:
            raise Stopped


def test_a_plan_that_is_stopped_again_and_again_looks_at_each_slide_once(
    source: Path, tmp_path: Path, done: list[str]
) -> None:
    quiet = make_plan(CohortFolder(tmp_path / "quiet"), str(source), settings(CohortFolder(tmp_path / "quiet")))
    alone = sorted(done)
    done.clear()
    folder = CohortFolder(tmp_path / "cohort")
    for _ in range(5):
        with pytest.raises(Stopped):
            make_plan(folder, str(source), settings(folder), Stopping(1))
    plan = make_plan(folder, str(source), settings(folder))
    assert same(plan, quiet)
    # Only slides that could not be inspected are tried again: they may have been mended.
    assert sorted(set(done)) == sorted(set(alone))
    assert {what for what in done if done.count(what) > 1} <= {"inspect broken"}
    done.clear()
    again = make_plan(folder, str(source), settings(folder))
    assert again == plan
    assert set(done) == {"inspect broken"}
    assert len(list(folder.inspections.iterdir())) == 1


def test_shares_of_the_looking_leave_nothing_for_the_plan_to_look_at(
    source: Path, tmp_path: Path, done: list[str]
) -> None:
    folder = CohortFolder(tmp_path / "cohort")
    rows = [
        row for index in (2, 3, 1) for row in inspect_share(folder, str(source), settings(folder), Shard(index, 3))
    ]
    assert sorted(row.line for row in rows) == list(range(2, 10))
    assert not folder.plan.exists()
    assert len(done) == len(set(done)) == 6
    done.clear()
    plan = make_plan(folder, str(source), settings(folder))
    assert [what for what in done if what.startswith("inspect")] == ["inspect broken"]
    quiet = CohortFolder(tmp_path / "quiet")
    assert same(plan, make_plan(quiet, str(source), settings(quiet)))


@pytest.mark.parametrize("workers", [2])
def test_workers_do_not_show_in_the_plan(workers: int, source: Path, tmp_path: Path) -> None:
    folders = [CohortFolder(tmp_path / name) for name in ("serial", "local")]
    serial = make_plan(folders[0], str(source), settings(folders[0]))
    local = make_plan(folders[1], str(source), settings(folders[1], scheduler="local", workers=workers))
    assert same(serial, local)


class Noting(Listener):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def inspected(self, done: int, of: int, before: int) -> None:
        self.heard.append((done, of))

    def refused(self, row: PlanRow) -> None:
        self.heard.append(Path(row.slide).stem)


def test_what_needs_no_look_is_refused_before_the_first_one(source: Path, tmp_path: Path) -> None:
    folder, noting = CohortFolder(tmp_path / "cohort"), Noting()
    make_plan(folder, str(source), settings(folder), noting)
    assert noting.heard[:3] == ["missing", "a", (1, 6)]
    assert noting.heard[-3:] == ["broken", (6, 6), "twin"]


def test_another_plan_is_refused_before_the_first_look(
    slides: list[Path], tmp_path: Path, done: list[str]
) -> None:
    source = write_list(tmp_path / "list.csv", "slide", str(slides[0]))
    folder, _ = planned(tmp_path / "cohort", source)
    done.clear()
    write_list(source, "slide", str(slides[0]), str(slides[1]))
    with pytest.raises(UsageError, match="another plan"):
        make_plan(folder, str(source), settings(folder))
    assert done == []
    assert len(make_plan(folder, str(source), settings(folder), overwrite=True).runnable) == 2
    assert "inspect a" not in done


def test_a_slide_that_was_replaced_or_is_read_otherwise_is_looked_at_again(
    slides: list[Path], tmp_path: Path, done: list[str]
) -> None:
    copy(slides[0], tmp_path / "s.svs")
    folder = CohortFolder(tmp_path / "cohort")

    def inspected(cells: str = "s.svs,", **options: object) -> bool:
        source = write_list(tmp_path / "list.csv", "slide,mpp", cells)
        done.clear()
        make_plan(folder, str(source), settings(folder, **options), overwrite=True)
        return "inspect s" in done

    assert [inspected(), inspected(), inspected(labels=True)] == [True, False, False]
    assert [inspected("s.svs,0.5"), inspected(tissue="none")] == [True, True]
    copy(slides[1], tmp_path / "s.svs")
    assert [inspected(), inspected()] == [True, False]


def test_lines_that_are_cut_off_or_not_ours_are_skipped(tmp_path: Path) -> None:
    folder = CohortFolder(tmp_path)
    with Inspections(folder) as first:
        first.put("a", "facts", {"tiles": 1})
        first.put("a", "sha256", "0" * 64)
        first.put("b", "facts", {"tiles": 2})
    (file,) = folder.inspections.iterdir()
    file.write_bytes(b'\nnull\n3\n["c"]\n{"d": 1}\n["e", 5]\n\xff\xfe\n' + file.read_bytes()[:-5])
    known = Inspections(folder)
    assert known.get("a", "facts") == {"tiles": 1}
    assert known.get("a", "sha256") == "0" * 64
    assert [known.get(key, "facts") for key in "bcde"] == [None] * 4


def test_a_job_that_still_looks_keeps_its_file(tmp_path: Path) -> None:
    folder = CohortFolder(tmp_path)
    with Inspections(folder) as other:
        other.put("a", "facts", {"tiles": 1})
        with Inspections(folder) as inspections:
            inspections.put("b", "facts", {"tiles": 2})
            inspections.keep_only(["a", "b"])
        other.put("c", "facts", {"tiles": 3})
    assert [Inspections(folder).get(key, "facts") for key in "abc"] == [{"tiles": number} for number in (1, 2, 3)]


def test_the_key_does_not_ask_for_the_pixels(
    slides: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_nuc.models.registry import model_spec

    config, spec = settings(CohortFolder(tmp_path)), model_spec("classical")
    monkeypatch.setattr("wsi_nuc.slides.registry.open_slide", None)
    assert inspections.key_of(str(slides[0]), config, spec) != inspections.key_of(str(slides[1]), config, spec)
