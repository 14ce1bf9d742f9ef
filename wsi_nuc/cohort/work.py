"""One job of a cohort: it runs its share of the slides and records each as soon as it is published."""

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
from wsi_nuc.cohort.recording import Recorder, SlideOutcome
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
) -> Generator[SlideOutcome, None, None]:
    """Run the slides of this share that are not done; with `retry` also those that failed or could not be read.

    Any number of jobs may run any shares, at the same time or again. A slide that is done, or that another job
    works on, is not computed twice.
    """
    plan = load(folder)
    share = {row.line for row in (rows_of(shard, plan.rows) if shard else plan.rows)}
    everything = states(folder, plan, plan.rows)
    todo: list[State] = []
    # Chosen from the whole cohort: it is not a mistake if no slide of this share matches.
    for state in select(everything, only):
        if state.row.line not in share:
            continue
        if _to_do(folder, state, retry):
            todo.append(state)
        else:
            yield _unchanged(state)
    copies = late_twins(folder, everything) if any(map(unsure, todo)) else {}
    for state in todo:
        if state.row.line in copies:
            yield _refuse_copy(folder, plan, state.row, copies[state.row.line])
    rows = [state.row for state in todo if state.row.line not in copies]
    if rows:
        yield from _run(folder, plan, rows, plan.config(folder, execution or {}), emit)


def _refuse_copy(folder: CohortFolder, plan: Plan, row: PlanRow, twin: PlanRow) -> SlideOutcome:
    """Record a copy that the plan did not see as a failure; without a record the next job would run it."""
    problem = refuse_twin(row, twin, "content").problem
    records.write(folder, Record(row.id, plan.key(row), FAILED, error=problem, exit_code=SLIDES))
    return SlideOutcome(row.id, row.slide, FAILED, FAILED, row.named(problem), SLIDES)


def _to_do(folder: CohortFolder, state: State, retry: bool) -> bool:
    """Whether a slide has to run.

    If the slide itself failed it waits for a retry; storage or a model may work again.
    """
    if state.state == DONE:
        return not _intact(folder, state)
    if state.state == REFUSED:
        return retry and state.row.retriable
    return state.state != FAILED or retry or state.exit_code != SLIDES


def _intact(folder: CohortFolder, state: State) -> bool:
    """The manifest is the verified one and all files have their sizes.

    Only `status --verify` reads their content.
    """
    store = folder.store(state.row.id)
    try:
        manifest, inside = manifests.read(store), contents(store)
        sizes = all((inside / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
    except (StorageError, OSError, KeyError, TypeError):
        return False
    return sizes and state.record is not None and manifest.get("digest") == state.record.digest


def _unchanged(state: State) -> SlideOutcome:
    status = KEPT if state.state == DONE else state.state
    nuclei = state.record.nuclei if state.record else 0
    return SlideOutcome(
        state.row.label,
        state.row.slide,
        state.state,
        status,
        state.row.named(state.error),
        state.exit_code,
        nuclei,
    )


def _run(
    folder: CohortFolder, plan: Plan, rows: Sequence[PlanRow], config: Any, emit: Emit
) -> Iterator[SlideOutcome]:
    """Run the rows, those with the same model after each other."""
    out = folder.open_results()
    sweep(folder)
    ordered = sorted(rows, key=lambda row: (row.settings.get("model", ""), row.line))
    requests = [SlideRequest(row.slide, row.id, row.settings) for row in ordered]
    waiting: deque[Future[SlideOutcome]] = deque()
    with (
        JobFile(folder, {row.slide: row.id for row in rows}) as job,
        closing(Recorder(folder, plan, {row.slide: row for row in rows}, job)) as recorder,
        closing(run_slides(config, requests, to_all(emit, recorder.hear), out, class_tables=False)) as results,
    ):
        for result in results:
            waiting.append(recorder.outcome(result.slide))
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
