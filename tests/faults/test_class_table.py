"""Row 37: the table beside a store is that of the store, whatever happens while either is written."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

from tests.cohort.lists import planned, write_list
from tests.faults.one_run import NAME, assert_told, digest_of, published
from tests.store.faults import before_call, failing, recording
from wsi_nuc.cohort.work import run_cohort
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import OK, STORAGE
from wsi_nuc.features.class_table import class_table
from wsi_nuc.features.running import run_slides
from wsi_nuc.run.success_or_failure import SlideResult
from wsi_nuc.store.manifest import read

TABLE, STORE = "tissue.svs.classes.csv", f"{NAME}.zarr"


def run(slide: Path, out: Path, **settings: Any) -> SlideResult:
    """As `wsi-nuc run` does it, with the plain loop."""
    settings = {"tissue": "none", "model": "classical", "scheduler": "serial", **settings}
    (result,) = run_slides(RunConfig(out=out, **settings), [str(slide)])
    return result


def state(out: Path) -> str:
    """Which of the two files are there. A table of another store fails the test."""
    if (out / TABLE).exists():
        assert (out / TABLE).read_bytes() == class_table(out / STORE)
    return " ".join(published(out))


def test_it_says_what_the_store_says_and_a_run_restores_it(slide: Path, in_memory: Path) -> None:
    assert run(slide, in_memory).exit_code == OK
    rows = list(csv.DictReader((in_memory / TABLE).open()))
    stated = json.loads((in_memory / STORE / "zarr.json").read_text())["attributes"]["wsi_nuc"]["classes"]
    assert [row["class"] for row in rows] == ["epithelial", "inflammatory", "connective", "other"]
    assert sum(int(row["count"]) for row in rows) > 100
    for row, figures in zip(rows, stated, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in figures.items()}
    whole = (in_memory / TABLE).read_bytes()
    for spoil in (Path.unlink, lambda path: path.write_text("edited")):
        spoil(in_memory / TABLE)
        assert run(slide, in_memory).status == "verified"
        assert (in_memory / TABLE).read_bytes() == whole


def test_row_37_table_is_never_that_of_another_store(slide: Path, in_memory: Path) -> None:
    run(slide, in_memory)
    first, seen = digest_of(in_memory), []
    with before_call(lambda operation, path: seen.append((read(in_memory / STORE)["digest"], state(in_memory)))):
        assert run(slide, in_memory, overwrite=True, tissue="auto").status == "published"
    digests, files = zip(*seen, strict=True)
    assert set(digests) == {first, digest_of(in_memory)}
    assert len(set(digests)) == 2
    assert set(files) == {STORE, f"{TABLE} {STORE}"}
    assert state(in_memory) == f"{TABLE} {STORE}"


def test_where_it_cannot_be_written_the_same_call_writes_it(slide: Path, in_memory: Path) -> None:
    run(slide, in_memory)
    with recording() as calls:
        run(slide, in_memory)
    digest, (first, last) = digest_of(in_memory), (len(calls) - 6, len(calls))
    for number in range(first, last):
        (in_memory / TABLE).unlink(missing_ok=True)
        with failing(number, errno.ENOSPC):
            assert_told(run(slide, in_memory), STORAGE, os.strerror(errno.ENOSPC))
        assert digest_of(in_memory) == digest
        state(in_memory)
        assert run(slide, in_memory).status == "verified"
        assert state(in_memory) == f"{TABLE} {STORE}"


def test_a_link_in_its_place_is_refused(slide: Path, in_memory: Path) -> None:
    victim = in_memory / "victim"
    victim.write_text("untouched")
    (in_memory / "out").mkdir()
    (in_memory / "out" / TABLE).symlink_to(victim)
    assert_told(run(slide, in_memory / "out"), STORAGE, TABLE)
    assert victim.read_text() == "untouched"


def test_a_cohort_has_none_and_a_packed_store_has_the_same(slide: Path, tmp_path: Path) -> None:
    run(slide, tmp_path / "run", pack=True)
    run(slide, tmp_path / "folder")
    assert (tmp_path / "run" / TABLE).read_bytes() == (tmp_path / "folder" / TABLE).read_bytes()
    folder, _ = planned(tmp_path / "cohort", write_list(tmp_path / "list.csv", "slide", str(slide)))
    list(run_cohort(folder, execution={"scheduler": "serial"}))
    assert [name for name in published(folder.results) if name.endswith(".csv")] == []
