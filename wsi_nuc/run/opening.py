"""The beginning of work on a slide: its job is prepared, it is locked, and what is there already is looked up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from wsi_nuc.events import SlideStarted, Warned
from wsi_nuc.executors.base import Outcome
from wsi_nuc.run.job import SlideJob, prepare
from wsi_nuc.run.publish import acceptable
from wsi_nuc.run.region import RegionJob, read_report
from wsi_nuc.run.request import Call, SlideRequest
from wsi_nuc.run.slide_copy import StagedSlide
from wsi_nuc.run.tally import RegionReport
from wsi_nuc.safezip import other_form
from wsi_nuc.store.commit import Published, check_target
from wsi_nuc.store.durable import remove_file
from wsi_nuc.store.locks import try_lock
from wsi_nuc.store.parts import begun, find_parts, hold_parts, parts_dir
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import slide_lock
from wsi_nuc.store.zipping import present


@dataclass
class Unmeasured:
    """A slide whose result is there, but not the measures of its nuclei that are asked for."""

    job: SlideJob
    device: str
    final: Place
    held: ExitStack


@dataclass
class OpenSlide:
    """A slide whose regions are computed now."""

    job: SlideJob
    device: str
    final: Place
    """Where its result is going to be."""
    parts: Place
    """Where the parts of its regions lie."""
    held: ExitStack
    """Its lock, its name, its parts, and its copy on this node's disk."""
    started: float
    awaited: int = 0
    """Regions that are not back yet."""
    reports: list[RegionReport] = field(default_factory=list)
    error: Exception | None = None
    """The first region's that failed."""

    def resume(self, call: Call) -> None:
        """Take the parts of an earlier run, and count the regions that are left."""
        self.reports = list(_resumable(self.parts))
        regions, resumed = sum(1 for _ in self.job.plan.regions()), len(self.reports)
        self.awaited = regions - resumed
        call.emit(SlideStarted(self.job.slide, regions, resumed, self.job.plan.planned_tiles))

    def jobs(self) -> Iterator[RegionJob]:
        """The regions without a part, made one by one."""
        job, resumed = self.job, {report.index for report in self.reports}
        options = tuple(job.config.inference.items())
        for task in job.plan.tasks():
            if task.index not in resumed:
                yield RegionJob(job.pixels, task, job.config.model, self.device, self.parts.ref(), options)

    def take(self, outcome: Outcome[RegionJob, RegionReport]) -> None:
        if outcome.result is None:
            self.error = self.error or outcome.error
        else:
            self.reports.append(outcome.result)


def open_slide(call: Call, request: SlideRequest, wait: bool) -> OpenSlide | Unmeasured | Published | None:
    """None: another process is working on the slide, and `wait` says not to wait for it."""
    started, config = time.perf_counter(), request.config(call.config)
    model, out = call.model_of(config), call.folders.out
    job = prepare(request.slide, config, model.spec, model.device, call.measures.settings)
    for warning in job.warnings:
        call.emit(Warned(request.slide, warning))
    with ExitStack() as held:
        lock, locked = try_lock(slide_lock(out, job.work_key), _telling(call, request.slide) if wait else None)
        held.callback(os.close, lock)
        if locked is False:
            return None
        claim = held.enter_context(request.claim(out, job.content_sha256))
        final = out / (other_form(claim.name) if config.pack else claim.name)
        already = present(final)
        job = call.measures.reconciled(job, already.path)
        if call.measures.lacking(job, already.path):
            return Unmeasured(job, model.device, already, held.pop_all())
        published = check_target(out, final.name, job.origin.key, job.config.overwrite, acceptable(config))
        if published is not None:
            return published
        job = _as_begun(call, job)
        held.enter_context(hold_parts(call.folders.parts, job.content_sha256, job.parts_key))
        job = _staged(call, job, held)
        parts = parts_dir(call.folders.parts, job.content_sha256, job.parts_key)
        return OpenSlide(job, model.device, final, parts, held.pop_all(), started)


def _telling(call: Call, slide: str) -> Callable[[], None]:
    message = "another process is working on this slide; waiting for it"
    return lambda: call.emit(Warned(slide, message))


def _as_begun(call: Call, job: SlideJob) -> SlideJob:
    """With the regions of the run that goes on here, which may have had other workers."""
    if job.config.region_size is not None:
        return job
    tiles_per_region = begun(call.folders.parts, job.content_sha256, job.work_key)
    if tiles_per_region is None:
        return job
    return replace(job, plan=job.plan.with_regions(tiles_per_region))


def _staged(call: Call, job: SlideJob, held: ExitStack) -> SlideJob:
    """The job with its pixels on this node's disk, where that was asked for."""
    if call.folders.stage is None:
        return job
    staged = StagedSlide(job.ref, call.folders.stage, job.content_sha256, job.check_unchanged)
    return replace(job, copy=held.enter_context(staged).ref)


def _resumable(parts: Place) -> Iterator[RegionReport]:
    """Reports of the parts of an earlier run. A part that lacks places is done anew: the cause may be gone."""
    for index, part in find_parts(parts).items():
        report = read_report(index, part)
        if report.tally.failed or report.tally.damaged:
            remove_file(part)
        else:
            yield report
