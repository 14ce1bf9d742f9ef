"""A call of `run`: many slides through one executor, each slide its own success or failure.

Regions of the next slide are computed while the one before it is stitched and published.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import SlideError
from wsi_nuc.events import Emit, RegionFinished, SlideFinished, SlideOpened, SlideStarted, Warned, ignore
from wsi_nuc.executors.base import Executor, Outcome
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.models.registry import is_file, load_model, model_spec
from wsi_nuc.run.apart import process
from wsi_nuc.run.executor import executor_device, make_executor
from wsi_nuc.run.folders import Folders, open_folders
from wsi_nuc.run.job import SlideJob, prepare
from wsi_nuc.run.measures import Measures, NoMeasures
from wsi_nuc.run.publish import Measuring, acceptable, publish_slide
from wsi_nuc.run.region import RegionJob, read_report
from wsi_nuc.run.report import RegionReport, lacking
from wsi_nuc.run.request import SlideRequest, as_request
from wsi_nuc.run.result import SlideResult, failure, success
from wsi_nuc.run.staging import StagedSlide
from wsi_nuc.safezip import other_form
from wsi_nuc.store.commit import Published, check_target
from wsi_nuc.store.durable import remove_file
from wsi_nuc.store.locks import try_lock
from wsi_nuc.store.parts import begun, find_parts, hold_parts, parts_dir, remove_parts
from wsi_nuc.store.paths import tell_of_strangers
from wsi_nuc.store.place import Place, PlaceRef
from wsi_nuc.store.private import slide_lock
from wsi_nuc.store.zipping import present

START_TIMEOUT_S = 3.0


def run_slides(
    config: RunConfig,
    slides: Sequence[str | SlideRequest],
    emit: Emit = ignore,
    out: Place | None = None,
    measures: Measures | None = None,
) -> Generator[SlideResult, None, None]:
    """One result a slide, as they are done. Raises only what concerns all slides: usage, model, output folder.

    A request in place of a path may have settings of its own; every model is checked before the first slide.
    `out`: the output folder where the caller has it open, which counts in place of `config.out`. `measures`: who
    measures the nuclei, where that is asked for.

    To stop early close the iterator: workers end within seconds, and what is finished stays for the next run.
    """
    folders = open_folders(config, out)
    requests = [as_request(slide) for slide in slides]
    models = _models([request.config(config) for request in requests] or [config])
    session = _Session(config, models, folders, emit, measures or NoMeasures())
    try:
        yield from session.results(requests)
    finally:
        session.close()


@dataclass(frozen=True)
class _Model:
    config: RunConfig
    spec: ModelSpec
    device: str


def _models(configs: Sequence[RunConfig]) -> dict[str, _Model]:
    """What the slides' configurations ask for, each model once."""
    found: dict[str, _Model] = {}
    for config in configs:
        if _model_key(config) not in found:
            spec = checked_spec(config.model, config.inference)
            found[_model_key(config)] = _Model(config, spec, executor_device(config, spec.uses_torch))
    return found


def _model_key(config: RunConfig) -> str:
    return f"{config.model} {sorted(config.inference.items())}"


def checked_spec(model: str, options: dict[str, Any]) -> ModelSpec:
    """A file is loaded once here: whatever is wrong with its weights is told before any slide is read."""
    if options:
        return load_model(model, "cpu", options).spec
    return load_model(model, "cpu").spec if is_file(model) else model_spec(model)


@dataclass
class _Open:
    """A slide whose regions are being computed: its lock, name and parts are `held`. `todo` counts the regions
    that are not back yet."""

    job: SlideJob
    device: str
    final: Place
    held: ExitStack
    started: float
    todo: int = 0
    reports: list[RegionReport] = field(default_factory=list)
    error: Exception | None = None


class _Session:
    """Holds what outlives a slide: the executor, the publishing thread, and the slides that are open."""

    def __init__(
        self, config: RunConfig, models: dict[str, _Model], folders: Folders, emit: Emit, measures: Measures
    ) -> None:
        self._config, self._models, self._folders, self._emit = config, models, folders, emit
        self._measures = measures
        tell_of_strangers(folders.clean_up(), emit)
        self._open: dict[PlaceRef, _Open] = {}
        self._done: deque[SlideResult | Future[SlideResult]] = deque()
        self._busy: list[SlideRequest] = []
        self._copies: list[StagedSlide] = []
        self._publisher = ThreadPoolExecutor(1, "publish")
        self._starter = ThreadPoolExecutor(1, "start")
        # The workers have the first slide's model at hand when they start.
        first = next(iter(models.values()))
        self._executor = self._starter.submit(make_executor, first.config, first.device, emit)

    def results(self, requests: Sequence[SlideRequest]) -> Iterator[SlideResult]:
        yield from self._pass(requests, wait=False)
        # Slides that another process was working on: by now it may have published them.
        for request in self._busy:
            yield from self._pass([request], wait=True)

    def close(self) -> None:
        """Bounded in time, also where the workers have not even started."""
        self._publisher.shutdown(wait=False, cancel_futures=True)
        self._starter.shutdown(wait=False)
        wait_for([self._executor], timeout=START_TIMEOUT_S)
        if self._executor.done() and self._executor.exception() is None:
            self._executor.result().close()
        # Or else the next call in this process would wait for these locks for ever.
        for opened in self._open.values():
            opened.held.close()
        for copy in self._copies:
            copy.close()

    def _pass(self, requests: Sequence[SlideRequest], wait: bool) -> Iterator[SlideResult]:
        jobs = self._region_jobs(requests, wait)
        # The first slide is opened while the workers start.
        first = list(islice(jobs, 1))
        executor: Executor = self._executor.result()
        for outcome in executor.run(process, chain(first, jobs)):
            self._take(outcome)
            yield from self._finished(wait=False)
        yield from self._finished(wait=True)

    def _finished(self, wait: bool) -> Iterator[SlideResult]:
        while self._done:
            head = self._done[0]
            if isinstance(head, Future) and not (wait or head.done()):
                return
            self._done.popleft()
            yield head.result() if isinstance(head, Future) else head

    def _region_jobs(self, requests: Sequence[SlideRequest], wait: bool) -> Iterator[RegionJob]:
        for request in requests:
            started = time.perf_counter()
            self._emit(SlideOpened(request.slide))
            try:
                opened = self._prepare(request, wait, started)
            except Exception as error:  # noqa: BLE001 - the slide boundary: any failure is this slide's
                self._done.append(self._told(failure(request.slide, error, time.perf_counter() - started)))
                continue
            if opened is not None:
                yield from self._todo(opened)

    def _prepare(self, request: SlideRequest, wait: bool, started: float) -> _Open | None:
        """None if there is nothing to compute: it is there already, or another process has it in hand."""
        slide, out, config = request.slide, self._folders.out, request.config(self._config)
        model = self._models[_model_key(config)]
        job = prepare(slide, config, model.spec, model.device, self._emit, self._measures.settings)
        for warning in job.warnings:
            self._emit(Warned(slide, warning))
        with ExitStack() as held:
            lock, locked = try_lock(slide_lock(out, job.work_key), self._waiting(slide) if wait else None)
            held.callback(os.close, lock)
            if locked is False:
                self._busy.append(request)
                return None
            claim = held.enter_context(request.claim(out, job.content_sha256))
            final = out / (other_form(claim.name) if config.pack else claim.name)
            already = present(final)
            job = self._measures.reconciled(job, already.path)
            if self._measures.lacking(job, already.path):
                add = self._publisher.submit(self._add_measures, job, already, held.pop_all(), model.device)
                self._done.append(add)
                return None
            overwrite = job.config.overwrite
            there = check_target(out, final.name, job.origin.key, overwrite, acceptable(config))
            if there is not None:
                self._done.append(self._told(success(slide, there, time.perf_counter() - started)))
                return None
            job = self._as_begun(job)
            held.enter_context(hold_parts(self._folders.parts, job.content_sha256, job.parts_key))
            job = self._staged(job, held)
            return _Open(job, model.device, final, held.pop_all(), started)

    def _as_begun(self, job: SlideJob) -> SlideJob:
        """With the regions of the run that goes on here, which may have had other workers."""
        if job.config.region_size is not None:
            return job
        edge = begun(self._folders.parts, job.content_sha256, job.work_key)
        return job if edge is None else replace(job, plan=job.plan.with_regions(edge))

    def _staged(self, job: SlideJob, held: ExitStack) -> SlideJob:
        """The job with its pixels on this node's disk, where that was asked for."""
        if self._folders.stage is None:
            return job
        staged = StagedSlide(job.ref, self._folders.stage, job.content_sha256, job.check_unchanged)
        self._copies.append(held.enter_context(staged))
        return replace(job, copy=staged.ref)

    def _waiting(self, slide: str) -> Callable[[], None]:
        message = "another process is working on this slide; waiting for it"
        return lambda: self._emit(Warned(slide, message))

    def _todo(self, opened: _Open) -> Iterator[RegionJob]:
        """The regions without a part, made one by one; all are counted before the first is handed out."""
        job, folder = opened.job, self._parts_dir(opened.job)
        options = tuple(job.config.inference.items())
        opened.reports = list(_resumable(folder))
        resumed = {report.index for report in opened.reports}
        regions = sum(1 for _ in job.plan.regions())
        opened.todo = regions - len(resumed)
        self._emit(SlideStarted(job.slide, regions, len(resumed), job.plan.planned_tiles))
        self._open[folder.ref()] = opened
        if not opened.todo:
            self._close_slide(opened)
        for task in job.plan.tasks():
            if task.index in resumed:
                continue
            if opened.error is None:
                yield RegionJob(job.pixels, task, job.config.model, opened.device, folder.ref(), options)
            else:
                self._count_back(opened)

    def _parts_dir(self, job: SlideJob) -> Place:
        return parts_dir(self._folders.parts, job.content_sha256, job.parts_key)

    def _take(self, outcome: Outcome[RegionJob, RegionReport]) -> None:
        opened = self._open[outcome.task.parts]
        report = outcome.result
        if report is None:
            opened.error = opened.error or outcome.error
        else:
            opened.reports.append(report)
            tiles = len(outcome.task.task.region.tiles)
            finished = RegionFinished(
                opened.job.slide, report.index, tiles, report.nuclei, report.seconds, report.rss_bytes
            )
            self._emit(finished)
        self._count_back(opened)

    def _count_back(self, opened: _Open) -> None:
        opened.todo -= 1
        if opened.todo == 0:
            self._close_slide(opened)

    def _close_slide(self, opened: _Open) -> None:
        del self._open[self._parts_dir(opened.job).ref()]
        published = self._publisher.submit(self._publish, opened)
        published.add_done_callback(lambda _: opened.held.close())
        self._done.append(published)

    def _publish(self, opened: _Open) -> SlideResult:
        """Runs in the publishing thread."""
        job = opened.job
        try:
            if opened.error is not None:
                # A slide that is gone or replaced fails in many ways; the change is what the user must know.
                job.check_unchanged()
                raise opened.error
            self._refuse_bad_places(opened)
            folder = self._parts_dir(job)
            parts = {report.index: folder / report.part for report in opened.reports}
            published = publish_slide(
                job, opened.final, parts, opened.reports, self._measuring(job, opened.device)
            )
            self._warn_of_looks(job, published)
            # Unlinked while it is held: whoever waits for it sees that, and finds the result.
            remove_file(slide_lock(self._folders.out, job.work_key))
            opened.held.close()
            if not job.config.keep_parts:
                strangers = remove_parts(self._folders.parts, job.content_sha256, job.parts_key)
                tell_of_strangers(strangers, self._emit)
            return self._told(success(job.slide, published, time.perf_counter() - opened.started))
        except Exception as error:  # noqa: BLE001 - the slide boundary: any failure is this slide's
            return self._told(failure(job.slide, error, time.perf_counter() - opened.started))
        finally:
            opened.held.close()

    def _add_measures(self, job: SlideJob, final: Place, held: ExitStack, device: str) -> SlideResult:
        """Runs in the publishing thread."""
        started, execute = time.perf_counter(), self._executor.result().run
        try:
            with held:
                published = self._measures.add(job, final, execute, device)
            return self._told(success(job.slide, published, time.perf_counter() - started))
        except Exception as error:  # noqa: BLE001 - the slide boundary: any failure is this slide's
            return self._told(failure(job.slide, error, time.perf_counter() - started))

    def _measuring(self, job: SlideJob, device: str) -> Measuring | None:
        """How the nuclei of a folder that is being written are measured, where that is asked for."""
        if not self._measures.wanted(job):
            return None
        execute = self._executor.result().run
        return lambda folder: self._measures.measure(folder, job, execute, device)

    def _warn_of_looks(self, job: SlideJob, published: Published) -> None:
        found = published.manifest["counts"].get("unlike_training_images")
        if found:
            differs = f"it looks unlike the images that {job.spec.name} was trained on"
            self._emit(
                Warned(job.slide, f"{differs}: {'; '.join(found)}; look at the outlines before you use them")
            )

    def _told(self, result: SlideResult) -> SlideResult:
        self._emit(
            SlideFinished(
                result.slide, result.status, result.nuclei, result.seconds, result.error, result.exit_code
            )
        )
        return result

    def _refuse_bad_places(self, opened: _Open) -> None:
        """Raise where places could not be decoded or computed, unless that is allowed: then it is only told."""
        slide, (missing, bad) = opened.job.slide, lacking(opened.reports)
        if missing:
            self._emit(Warned(slide, missing))
        if bad and not opened.job.config.allow_bad_tiles:
            remedy = "restore the file, or pass --allow-bad-tiles to publish without them; good regions are kept"
            raise SlideError(slide, bad, remedy)
        if bad:
            self._emit(Warned(slide, bad))


def _resumable(folder: Place) -> Iterator[RegionReport]:
    """Reports of the parts of an earlier run. A part that lacks places is done anew: the cause may be gone."""
    for index, part in find_parts(folder).items():
        report = read_report(index, part)
        if report.tally.failed or report.tally.damaged:
            remove_file(part)
        else:
            yield report
