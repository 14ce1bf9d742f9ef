"""One job of a cohort: its share of the slides through one run, each recorded as soon as it is published."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from wsi_nuc.cohort import records, summaries
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.only import Only, select
from wsi_nuc.cohort.plan import Plan, PlanRow, load
from wsi_nuc.cohort.records import DONE, FAILED, Record
from wsi_nuc.cohort.shards import Shard, rows_of
from wsi_nuc.cohort.state import REFUSED, State, states
from wsi_nuc.errors import OK, SLIDES, StorageError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.run import SlideResult, run_slides
from wsi_nuc.run.request import SlideRequest
from wsi_nuc.run.result import failure
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests

KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Told:
    """What a job says of a slide. `state`: one of `state.py`; `status`: the run's, or kept (it was done).

    `new`: the failure was not told as an event of the run.
    """

    id: str
    slide: str
    state: str
    status: str
    error: str = ""
    exit_code: int = OK
    nuclei: int = 0
    seconds: float = 0.0
    new: bool = True


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
    todo = []
    # Chosen from all of the cohort: a share in which no slide is like that has nothing to do, which is no mistake.
    for state in select(states(folder, plan, plan.rows), only):
        if state.row.line not in mine:
            continue
        if _to_do(folder, state, retry):
            todo.append(state.row)
        else:
            yield _as_it_is(state)
    if todo:
        yield from _run(folder, plan, todo, plan.config(folder, execution or {}), emit)


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
        manifest = manifests.read(store)
        sizes = all((store / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
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
        _named(state.row, state.error),
        state.exit_code,
        nuclei,
    )


def _named(row: PlanRow, error: str) -> str:
    return f"{row.label}: {error}" if error else ""


def _run(folder: CohortFolder, plan: Plan, rows: Sequence[PlanRow], config: Any, emit: Emit) -> Iterator[Told]:
    """Slides of one model follow each other. Figures are made and records written while the next slides run."""
    durable.make_dir(folder.records)
    durable.make_dir(folder.summaries)
    by_slide = {row.slide: row for row in rows}
    models = [row.settings.get("model", "") for row in rows]
    ordered = [row for _, _, row in sorted(zip(models, range(len(rows)), rows, strict=True))]
    requests = [SlideRequest(row.slide, row.id, row.settings) for row in ordered]
    waiting: deque[Future[Told]] = deque()
    recorder = ThreadPoolExecutor(1, "record")
    try:
        with closing(run_slides(config, requests, emit)) as results:
            for result in results:
                waiting.append(recorder.submit(_record, folder, plan, by_slide[result.slide], result))
                while waiting and waiting[0].done():
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Whoever is stopped does not wait; a slide whose record is missing is found published by the next job.
        recorder.shutdown(wait=False, cancel_futures=True)


def _record(folder: CohortFolder, plan: Plan, row: PlanRow, result: SlideResult) -> Told:
    """Figures first, then the record: what is recorded as done is complete."""
    record = _failed(plan, row, result)
    if result.exit_code == OK:
        try:
            digest = str(manifests.read(folder.store(row.id))["digest"])
            summaries.summarise(folder, row.id, digest)
            record = Record(
                row.id, plan.key(row), DONE, digest, result.nuclei, result.area_mm2, result.classes, result.seconds
            )
        except Exception as problem:  # noqa: BLE001 - the slide boundary: any failure is this slide's
            record = _failed(plan, row, failure(row.slide, problem, result.seconds))
    records.write(folder, record)
    status = result.status if record.state == DONE else FAILED
    error = _named(row, record.error)
    new = result.exit_code == OK
    return Told(
        row.id, row.slide, record.state, status, error, record.exit_code, record.nuclei, record.seconds, new
    )


def _failed(plan: Plan, row: PlanRow, result: SlideResult) -> Record:
    return Record(
        row.id, plan.key(row), FAILED, seconds=result.seconds, error=result.error, exit_code=result.exit_code
    )
