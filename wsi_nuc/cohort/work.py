"""One job of a cohort: its share of the slides through one run, each recorded as soon as it is published."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any

from wsi_nuc.cohort import records
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.jobs import JobFile, sweep
from wsi_nuc.cohort.plan import Plan, PlanRow, load
from wsi_nuc.cohort.recording import Recorder, Told
from wsi_nuc.cohort.records import DONE, FAILED, Record
from wsi_nuc.cohort.shards import Only, Shard, rows_of, select
from wsi_nuc.cohort.state import REFUSED, State, states
from wsi_nuc.cohort.twins import late_twins, refuse_twin, unsure
from wsi_nuc.errors import SLIDES, StorageError
from wsi_nuc.events import Emit, ignore, to_all
from wsi_nuc.features.running import run_slides
from wsi_nuc.run.request import SlideRequest
from wsi_nuc.safezip import contents
from wsi_nuc.store import manifest as manifests

KEPT = "kept"


def run_cohort(
    folder: CohortFolder,
    shard: Shard | None = None,
    only: Sequence[Only] = (),
    retry: bool = False,
    execution: Mapping[str, Any] | None = None,
    emit: Emit = ignore,
) -> Generator[Told, None, None]:
    """Run what is not done of this share; `retry` also what failed or was refused for its slide's sake.

    Any number of jobs may do any shares at once, and again: a slide that is done, or in another job's hands, is
    not computed twice.
    """
    plan = load(folder)
    mine = {row.line for row in (rows_of(shard, plan.rows) if shard else plan.rows)}
    everything = states(folder, plan, plan.rows)
    todo: list[State] = []
    # Chosen from all of the cohort: a share in which no slide is like that has nothing to do, which is no mistake.
    for state in select(everything, only):
        if state.row.line not in mine:
            continue
        if _to_do(folder, state, retry):
            todo.append(state)
        else:
            yield _as_it_is(state)
    copies = late_twins(folder, everything) if any(map(unsure, todo)) else {}
    for state in todo:
        if state.row.line in copies:
            yield _refuse_copy(folder, plan, state.row, copies[state.row.line])
    rows = [state.row for state in todo if state.row.line not in copies]
    if rows:
        yield from _run(folder, plan, rows, plan.config(folder, execution or {}), emit)


def _refuse_copy(folder: CohortFolder, plan: Plan, row: PlanRow, twin: PlanRow) -> Told:
    """The plan did not see that it is one; that is recorded, or the next job would run it."""
    problem = refuse_twin(row, twin, "content").problem
    records.write(folder, Record(row.id, plan.key(row), FAILED, error=problem, exit_code=SLIDES))
    return Told(row.id, row.slide, FAILED, FAILED, row.named(problem), SLIDES)


def _to_do(folder: CohortFolder, state: State, retry: bool) -> bool:
    """A failure of the slide itself stays one until it is retried; one of storage or model may be over."""
    if state.state == DONE:
        return not _intact(folder, state)
    if state.state == REFUSED:
        return retry and state.row.retriable
    return state.state != FAILED or retry or state.exit_code != SLIDES


def _intact(folder: CohortFolder, state: State) -> bool:
    """The manifest is the verified one, its files are there in their sizes; `status --verify` reads them."""
    store = folder.store(state.row.id)
    try:
        manifest, inside = manifests.read(store), contents(store)
        sizes = all((inside / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
    except (StorageError, OSError, KeyError, TypeError):
        return False
    return sizes and state.record is not None and manifest.get("digest") == state.record.digest


def _as_it_is(state: State) -> Told:
    status = KEPT if state.state == DONE else state.state
    nuclei = state.record.nuclei if state.record else 0
    return Told(
        state.row.label,
        state.row.slide,
        state.state,
        status,
        state.row.named(state.error),
        state.exit_code,
        nuclei,
    )


def _run(folder: CohortFolder, plan: Plan, rows: Sequence[PlanRow], config: Any, emit: Emit) -> Iterator[Told]:
    """Slides of one model follow each other."""
    out = folder.open_results()
    sweep(folder)
    ordered = sorted(rows, key=lambda row: (row.settings.get("model", ""), row.line))
    requests = [SlideRequest(row.slide, row.id, row.settings) for row in ordered]
    waiting: deque[Future[Told]] = deque()
    with (
        JobFile(folder, {row.slide: row.id for row in rows}) as job,
        closing(Recorder(folder, plan, {row.slide: row for row in rows}, job)) as recorder,
        closing(run_slides(config, requests, to_all(emit, recorder.hear), out)) as results,
    ):
        for result in results:
            waiting.append(recorder.told(result.slide))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
