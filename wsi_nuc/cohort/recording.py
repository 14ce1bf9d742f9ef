"""Writes down what became of a slide as soon as it is known: its figures first, then its record."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from wsi_nuc.cohort import records, tables
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.jobs import JobFile
from wsi_nuc.cohort.plan import Plan, PlanRow
from wsi_nuc.cohort.records import DONE, FAILED, Record
from wsi_nuc.errors import OK
from wsi_nuc.events import Event, SlideFinished
from wsi_nuc.run.success_or_failure import failure
from wsi_nuc.store import manifest as manifests


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """What became of one slide in a job."""

    id: str
    slide: str
    state: str
    """One of `state.STATES`."""
    status: str
    """As the run calls it; "kept" if the slide was done before."""
    error: str = ""
    exit_code: int = OK
    nuclei: int = 0
    seconds: float = 0.0
    new: bool = True
    """False if an event of the run has reported the error already."""


class Recorder:
    """Hears the events of a run. Its thread makes figures and records while the next slides are computed."""

    def __init__(self, folder: CohortFolder, plan: Plan, rows: Mapping[str, PlanRow], job: JobFile) -> None:
        """`rows`: the plan's rows by the path of their slide.

        `job` shows a slide as in hand until it is recorded.
        """
        self._folder, self._plan, self._rows, self._job = folder, plan, rows, job
        self._thread = ThreadPoolExecutor(1, "record")
        self._outcomes: dict[str, Future[SlideOutcome]] = {}

    def hear(self, event: Event) -> None:
        if not isinstance(event, SlideFinished):
            self._job.hear(event)
            return
        # A run that was stopped may still publish a slide; the next job finds its result.
        with suppress(RuntimeError):
            self._outcomes[event.slide] = self._thread.submit(self._record, event)

    def outcome(self, slide: str) -> Future[SlideOutcome]:
        """What became of a slide that the run is done with."""
        return self._outcomes.pop(slide)

    def close(self) -> None:
        """Does not wait, also when stopped: if a record is missing the next job finds the published result."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _record(self, event: SlideFinished) -> SlideOutcome:
        row = self._rows[event.slide]
        record = self._finished(row, event)
        records.write(self._folder, record)
        self._job.hear(event)
        done = record.state == DONE
        return SlideOutcome(
            id=row.id,
            slide=row.slide,
            state=record.state,
            status=event.status if done else FAILED,
            error=row.named(record.error),
            exit_code=record.exit_code,
            nuclei=record.nuclei,
            seconds=record.seconds,
            new=event.exit_code == OK,
        )

    def _finished(self, row: PlanRow, event: SlideFinished) -> Record:
        """The record of a slide. It says done only if the result and its figures are complete."""
        key = self._plan.key(row)
        error, exit_code = event.error, event.exit_code
        if exit_code == OK:
            try:
                manifest = manifests.read(self._folder.store(row.id))
                digest, counts = str(manifest["digest"]), manifest["counts"]
                tables.summarise(self._folder, row.id, digest)
                figures = (counts["nuclei"], counts["area_mm2"], counts["classes"], event.seconds)
                return Record(row.id, key, DONE, digest, *figures)
            except Exception as problem:  # noqa: BLE001 - the slide boundary: any failure is this slide's
                failed = failure(row.slide, problem, event.seconds)
                error, exit_code = failed.error, failed.exit_code
        return Record(row.id, key, FAILED, seconds=event.seconds, error=error, exit_code=exit_code)
