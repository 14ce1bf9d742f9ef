"""How a slide ends: published, measured, refused for what it lacks, or failed. Runs in the publishing thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from wsi_nuc.errors import SlideError
from wsi_nuc.events import Warned
from wsi_nuc.executors.base import Execute
from wsi_nuc.run.job import SlideJob
from wsi_nuc.run.opening import OpenSlide, Unmeasured
from wsi_nuc.run.publish import Measuring, publish_slide
from wsi_nuc.run.request import Call
from wsi_nuc.run.success_or_failure import SlideResult, failure, success
from wsi_nuc.run.tally import Tally, lacking
from wsi_nuc.store.commit import Published
from wsi_nuc.store.durable import remove_file
from wsi_nuc.store.folders import tell_of_strangers
from wsi_nuc.store.parts import remove_parts
from wsi_nuc.store.private import slide_lock


def end_slide(call: Call, opened: OpenSlide, execute: Execute) -> SlideResult:
    """All regions are back: publish the slide, or say why not."""
    return _result(opened.job.slide, opened.held, opened.started, lambda: _published(call, opened, execute))


def add_measures(call: Call, unmeasured: Unmeasured, execute: Execute) -> SlideResult:
    """The result is there: only the measures of its nuclei are made."""
    job, final, device = unmeasured.job, unmeasured.final, unmeasured.device

    def add() -> Published:
        published = call.measures.add(job, final, execute, device)
        _warn_of_empty_features(call, job, published)
        return published

    return _result(job.slide, unmeasured.held, time.perf_counter(), add)


def _result(slide: str, held: ExitStack, started: float, publish: Callable[[], Published]) -> SlideResult:
    """What `publish` makes of the slide, whose locks are let go."""
    try:
        with held:
            published = publish()
        return success(slide, published, time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001 - the slide boundary: any failure is this slide's
        return failure(slide, error, time.perf_counter() - started)


def _published(call: Call, opened: OpenSlide, execute: Execute) -> Published:
    job = opened.job
    if opened.error is not None:
        # A slide that is gone or replaced fails in many ways; the change is what the user must know.
        job.check_unchanged()
        raise opened.error
    _refuse_bad_places(call, opened)
    parts = {report.index: opened.parts / report.part for report in opened.reports}
    published = publish_slide(job, opened.final, parts, opened.reports, _measuring(call, opened, execute))
    _warn_of_doubts(call, opened, published)
    _warn_of_empty_features(call, job, published)
    # Unlinked while it is held: whoever waits for it sees that, and finds the result.
    remove_file(slide_lock(call.folders.out, job.work_key))
    opened.held.close()
    if not job.config.keep_parts:
        tell_of_strangers(remove_parts(call.folders.parts, job.content_sha256, job.parts_key), call.emit)
    return published


def _measuring(call: Call, opened: OpenSlide, execute: Execute) -> Measuring | None:
    """How the nuclei of a folder that is being written are measured, where that is asked for."""
    if not call.measures.wanted(opened.job):
        return None
    return lambda folder, accounting: call.measures.measure(folder, opened.job, accounting, execute, opened.device)


def _warn_of_doubts(call: Call, opened: OpenSlide, published: Published) -> None:
    job, unlike = opened.job, published.manifest["counts"].get("unlike_training_images")
    if unlike:
        differs = f"it looks unlike the images that {job.spec.name} was trained on"
        advice = "look at the outlines before you use them"
        call.emit(Warned(job.slide, f"{differs}: {'; '.join(unlike)}; {advice}"))
    for text in published.manifest["run"].get("doubts", []):
        call.emit(Warned(job.slide, text))


def _warn_of_empty_features(call: Call, job: SlideJob, published: Published) -> None:
    for text in published.manifest["counts"].get("not_measured", []):
        call.emit(Warned(job.slide, f"left empty: {text}"))


def _refuse_bad_places(call: Call, opened: OpenSlide) -> None:
    """Raise where places could not be decoded or computed, unless that is allowed: then it is only told."""
    slide, (missing, bad) = opened.job.slide, lacking(opened.reports)
    if missing:
        call.emit(Warned(slide, missing))
    counts = sum((report.tally for report in opened.reports), Tally()).counts
    if counts.failed and not counts.processed:
        raise SlideError(slide, f"no tile has a result: {bad}", "check the model and the file")
    if bad and not opened.job.config.allow_bad_tiles:
        damaged = any(report.tally.damaged for report in opened.reports)
        mend = "restore the file" if damaged else "remove the cause and run it again"
        remedy = f"{mend}, or pass --allow-bad-tiles to publish without them; good regions are kept"
        raise SlideError(slide, bad, remedy)
    if bad:
        call.emit(Warned(slide, bad))
