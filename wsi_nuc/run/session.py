"""A call of `run`: many slides through one executor, each slide its own success or failure.

    open_slide      lock it, name it, see what is there already            run/opening
    executor.run    the regions that are left, of all open slides          run/apart, run/region
    end_slide       stitch, write and publish, in a thread of its own      run/ending, run/publish

Regions of the next slide are computed while the one before it is stitched and published.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from importlib import import_module
from itertools import chain, islice

from wsi_nuc.config import RunConfig
from wsi_nuc.events import Emit, RegionFinished, SlideFinished, SlideOpened, ignore
from wsi_nuc.executors.base import Executor, Outcome
from wsi_nuc.run.apart import process
from wsi_nuc.run.ending import add_measures, end_slide
from wsi_nuc.run.executor import make_executor
from wsi_nuc.run.opening import OpenSlide, Unmeasured, open_slide
from wsi_nuc.run.region import RegionJob
from wsi_nuc.run.request import Call, Measures, NoMeasures, SlideRequest, as_request, models_in_use, open_folders
from wsi_nuc.run.success_or_failure import SlideResult, failure, success
from wsi_nuc.run.tally import RegionReport
from wsi_nuc.store.commit import Published
from wsi_nuc.store.folders import tell_of_strangers
from wsi_nuc.store.place import Place, PlaceRef

START_TIMEOUT_S = 3.0


def run_session(
    config: RunConfig,
    slides: Sequence[str | SlideRequest],
    emit: Emit = ignore,
    out: Place | None = None,
    measures: Measures | None = None,
) -> Generator[SlideResult, None, None]:
    """One result per slide, as they are done. Raises only what concerns all slides: usage, model, output folder.

    A request in place of a path may have settings of its own; every model is checked before the first slide.
    `out`: the output folder where the caller has it open, which counts in place of `config.out`. `measures`: who
    measures the nuclei, where that is asked for.

    To stop early close the iterator: workers end within seconds, and what is finished stays for the next run.
    """
    folders = open_folders(config, out)
    requests = [as_request(slide) for slide in slides]
    models = models_in_use([request.config(config) for request in requests] or [config])
    session = _Session(Call(config, models, folders, emit, measures or NoMeasures()))
    try:
        yield from session.results(requests)
    finally:
        session.close()


class _Session:
    """Holds what outlives a slide: the executor, the publishing thread, and the slides that are open."""

    def __init__(self, call: Call) -> None:
        self._call = call
        tell_of_strangers(call.folders.clean_up(), call.emit)
        self._open: dict[PlaceRef, OpenSlide] = {}
        self._ended: deque[SlideResult | Future[SlideResult]] = deque()
        self._busy_elsewhere: list[SlideRequest] = []
        self._publisher = ThreadPoolExecutor(1, "publish")
        self._starter = ThreadPoolExecutor(1, "start")
        # The workers have the first slide's model at hand when they start.
        first = next(iter(call.models.values()))
        self._executor = self._starter.submit(make_executor, first.config, first.spec, first.device, call.emit)

    def results(self, requests: Sequence[SlideRequest]) -> Iterator[SlideResult]:
        yield from self._pass(requests, wait=False)
        # By now the other process may have published them.
        for request in self._busy_elsewhere:
            yield from self._pass([request], wait=True)

    def close(self) -> None:
        """Bounded in time, also where the workers have not even started."""
        self._publisher.shutdown(wait=False, cancel_futures=True)
        self._starter.shutdown(wait=False)
        wait_for([self._executor], timeout=START_TIMEOUT_S)
        if self._executor.done() and self._executor.exception() is None:
            self._executor.result().close()
        # Or else the next call in this process would wait for these locks forever.
        for opened in self._open.values():
            opened.held.close()

    def _pass(self, requests: Sequence[SlideRequest], wait: bool) -> Iterator[SlideResult]:
        jobs = self._region_jobs(requests, wait)
        # The first slide is opened while the workers start.
        first = list(islice(jobs, 1))
        executor: Executor = self._executor.result()
        if first:
            # What publishing needs is loaded while the workers compute.
            self._publisher.submit(import_module, "pyarrow.parquet")
        for outcome in executor.run(process, chain(first, jobs)):
            self._take(outcome)
            yield from self._results_so_far(wait=False)
        yield from self._results_so_far(wait=True)

    def _region_jobs(self, requests: Sequence[SlideRequest], wait: bool) -> Iterator[RegionJob]:
        for request in requests:
            started = time.perf_counter()
            self._call.emit(SlideOpened(request.slide))
            try:
                opened = open_slide(self._call, request, wait)
            except Exception as error:  # noqa: BLE001 - the slide boundary: any failure is this slide's
                self._ended.append(self._told(failure(request.slide, error, time.perf_counter() - started)))
                continue
            match opened:
                case OpenSlide():
                    yield from self._jobs_of(opened)
                case Unmeasured():
                    self._ended.append(self._publisher.submit(self._add_measures, opened))
                case Published():
                    result = success(request.slide, opened, time.perf_counter() - started)
                    self._ended.append(self._told(result))
                case None:
                    self._busy_elsewhere.append(request)

    def _jobs_of(self, opened: OpenSlide) -> Iterator[RegionJob]:
        """All regions are counted before the first is handed out. After a failure the rest is not computed."""
        opened.resume(self._call)
        self._open[opened.parts.ref()] = opened
        if not opened.awaited:
            self._end(opened)
        for job in opened.jobs():
            if opened.error is None:
                yield job
            else:
                self._count_back(opened)

    def _take(self, outcome: Outcome[RegionJob, RegionReport]) -> None:
        opened = self._open[outcome.task.parts]
        opened.take(outcome)
        if (report := outcome.result) is not None:
            slide, tiles = opened.job.slide, len(outcome.task.task.region.tiles)
            self._call.emit(
                RegionFinished(slide, report.index, tiles, report.nuclei, report.seconds, report.rss_bytes)
            )
        self._count_back(opened)

    def _count_back(self, opened: OpenSlide) -> None:
        opened.awaited -= 1
        if opened.awaited == 0:
            self._end(opened)

    def _end(self, opened: OpenSlide) -> None:
        del self._open[opened.parts.ref()]
        ended = self._publisher.submit(self._end_slide, opened)
        # Also where the thread is shut down before its turn comes.
        ended.add_done_callback(lambda _: opened.held.close())
        self._ended.append(ended)

    def _end_slide(self, opened: OpenSlide) -> SlideResult:
        return self._told(end_slide(self._call, opened, self._executor.result().run))

    def _add_measures(self, unmeasured: Unmeasured) -> SlideResult:
        return self._told(add_measures(self._call, unmeasured, self._executor.result().run))

    def _results_so_far(self, wait: bool) -> Iterator[SlideResult]:
        while self._ended:
            head = self._ended[0]
            if isinstance(head, Future) and not (wait or head.done()):
                return
            self._ended.popleft()
            yield head.result() if isinstance(head, Future) else head

    def _told(self, result: SlideResult) -> SlideResult:
        self._call.emit(
            SlideFinished(
                result.slide, result.status, result.nuclei, result.seconds, result.error, result.exit_code
            )
        )
        return result
