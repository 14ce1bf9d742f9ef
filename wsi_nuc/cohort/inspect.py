"""One look at one slide, in a worker: does it open, what is its scale, where is its tissue, how much is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from wsi_nuc.cohort.plan import Facts
from wsi_nuc.cohort.twins import size_of
from wsi_nuc.config import RunConfig
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.quality import check_mpp
from wsi_nuc.run.job import Survey, survey
from wsi_nuc.run.region import RegionJob, loaded_model, process_region
from wsi_nuc.slides.identity import content_sha256
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.store.place import open_folder
from wsi_nuc.types import SlideRef


@dataclass(frozen=True, slots=True)
class Look:
    """A slide with the configuration it will run with; `device` is where its model would run, `key` that of
    `looks.py`."""

    line: int
    slide: str
    config: RunConfig
    spec: ModelSpec
    device: str
    key: str

    def __str__(self) -> str:
        return self.slide


@dataclass(frozen=True, slots=True)
class Trial:
    """What a few tiles of a slide cost on one worker, once everything is warm; `rss_bytes`: of its process."""

    tiles: int
    nuclei: int
    seconds: float
    rss_bytes: int = 0


def look_at(look: Look) -> Facts:
    """The slide is opened once and only a small level of it is read: no pixel twice, no hash of gigabytes."""
    seen = survey(look.slide, look.config, look.spec)
    return Facts(
        reader=seen.info.reader,
        width_px=seen.info.width,
        height_px=seen.info.height,
        mpp=seen.mpp,
        mpp_source=seen.info.mpp_source,
        bytes=size_of(seen.ref.path),
        tissue_share=round(seen.tissue.share, 6),
        area_mm2=seen.area_mm2,
        tiles=seen.plan.planned_tiles,
        regions=sum(1 for _ in seen.plan.regions()),
        warnings=(*seen.warnings, *doubts_of_mpp(seen, look)),
    )


def doubts_of_mpp(seen: Survey, look: Look) -> Sequence[str]:
    """Reasons to believe that the stated microns per pixel are wrong, from the sizes of a few nuclei."""
    if seen.info.mpp_source == "--mpp":
        return ()
    model = loaded_model(look.config.model, look.device, tuple(look.config.inference.items()))
    source = open_slide(seen.ref)
    try:
        found = check_mpp(source, seen.mpp, seen.tissue, model)
    finally:
        source.close()
    return () if found.fine else (found.reason,)


def content_of(look: Look) -> str:
    """The hash of the whole content; only asked for where another slide has as many bytes."""
    return content_sha256(SlideRef(look.slide))


def try_out(look: Look) -> Trial:
    """A few tiles in the middle of the slide, computed twice; the second time counts."""
    small = replace(look, config=look.config.model_copy(update={"region_size": 2 * look.spec.core_px}))
    seen = survey(small.slide, small.config, small.spec)
    middle = sum(1 for _ in seen.plan.regions()) // 2
    task = next(islice(seen.plan.tasks(), middle, None))
    options = tuple(look.config.inference.items())
    with TemporaryDirectory(prefix="wsi-nuc-trial-") as parts:
        folder = open_folder(Path(parts)).ref()
        job = RegionJob(seen.ref, task, look.config.model, look.device, folder, options)
        process_region(job)
        report = process_region(job)
    return Trial(len(task.region.tiles), report.nuclei, sum(report.seconds.values()), report.rss_bytes)
