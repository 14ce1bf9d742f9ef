"""Inspecting slides for a plan, and keeping what was seen, so that each slide is inspected once.

A worker inspects a slide: does it open, what is its scale, where is its tissue, how many tiles are there? The
answers are kept as they come, so a plan that is stopped does not inspect again. Every call appends to a file of
its own, one line per answer, and reads the files of earlier calls. The key of an answer covers the slide's files
and the settings of the inspection, so the answers about a file that was replaced since are not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import wsi_nuc
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Facts
from wsi_nuc.cohort.twins import size_of
from wsi_nuc.config import RunConfig
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.quality import check_mpp
from wsi_nuc.results_numbers import NUMBERS
from wsi_nuc.run.job import Survey, file_sha256, survey
from wsi_nuc.run.region import RegionJob, loaded_model, process_region
from wsi_nuc.slides.identity import content_sha256, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.slides.sniff import kind_of
from wsi_nuc.store import durable
from wsi_nuc.store.locks import Held, is_held, try_lock
from wsi_nuc.store.manifest import canonical
from wsi_nuc.store.place import Place, open_folder
from wsi_nuc.types import SlideRef

Value = dict[str, Any]
# The settings that change what an inspection sees.
INSPECTED_WITH = {"inference", "mpp", "reader", "region_size", "roi", "tissue"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """A slide to inspect, with the configuration that it will run with."""

    line: int
    """Its line in the list."""
    slide: str
    config: RunConfig
    spec: ModelSpec
    device: str
    """Where its model would run."""
    key: str
    """Under which the answers are kept: see `key_of`."""

    def __str__(self) -> str:
        return self.slide


@dataclass(frozen=True, slots=True)
class Trial:
    """What a few tiles of a slide cost on one worker, once everything is warm."""

    tiles: int
    nuclei: int
    seconds: float
    rss_bytes: int = 0
    """Resident memory of the worker's process."""


def inspect_slide(inspection: Inspection) -> Facts:
    """Open the slide once and read only a small level of it. No pixel is read twice, and no content is hashed."""
    seen = survey(inspection.slide, inspection.config, inspection.spec)
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
        warnings=(*seen.warnings, *doubts_of_mpp(seen, inspection)),
    )


def doubts_of_mpp(seen: Survey, inspection: Inspection) -> Sequence[str]:
    """Reasons to believe that the stated microns per pixel are wrong, from the sizes of a few nuclei."""
    if seen.info.mpp_source == "--mpp":
        return ()
    model = loaded_model(inspection.config.model, inspection.device, tuple(inspection.config.inference.items()))
    source = open_slide(seen.ref)
    try:
        check = check_mpp(source, seen.mpp, seen.tissue, model)
    finally:
        source.close()
    return () if check.fine else (check.reason,)


def content_of(inspection: Inspection) -> str:
    """The hash of the whole content. It is only needed if another slide has as many bytes."""
    return content_sha256(SlideRef(inspection.slide))


def try_out(inspection: Inspection) -> Trial:
    """Compute a few tiles in the middle of the slide twice; the second time counts."""
    update = {"region_size": 2 * inspection.spec.core_px}
    small = replace(inspection, config=inspection.config.model_copy(update=update))
    seen = survey(small.slide, small.config, small.spec)
    middle = sum(1 for _ in seen.plan.regions()) // 2
    task = next(islice(seen.plan.tasks(), middle, None))
    options = tuple(inspection.config.inference.items())
    with TemporaryDirectory(prefix="wsi-nuc-trial-") as parts:
        folder = open_folder(Path(parts)).ref()
        job = RegionJob(seen.ref, task, inspection.config.model, inspection.device, folder, options)
        process_region(job)
        report = process_region(job)
    return Trial(len(task.region.tiles), report.nuclei, sum(report.seconds.values()), report.rss_bytes)


def key_of(slide: str, config: RunConfig, spec: ModelSpec) -> str:
    """The key of a slide's answers, with the slide's own `config`. Reads only the slide's first bytes.

    Raises what is clear without an inspection: that the file is missing or is not an image.
    """
    kind_of(slide)
    signature = stat_signature(SlideRef(slide))
    areas = [file_sha256(path) for path in (config.roi, config.tissue) if path not in (None, "auto", "none")]
    given = config.model_dump(mode="json", include=INSPECTED_WITH)
    numbers = [wsi_nuc.__version__, NUMBERS["pipeline"]]
    made_from = [numbers, slide, signature, given, areas, spec.name, spec.weights_sha256]
    return hashlib.sha256(canonical(made_from)).hexdigest()[:32]


class Inspections:
    """All answers by key: those of earlier calls, and those of this one, which go to a file of its own."""

    def __init__(self, folder: CohortFolder) -> None:
        kept = folder.place(folder.inspections)
        self._files = [kept / name for name in kept.names() if name.endswith(".jsonl")]
        self._known: dict[str, Value] = {}
        for file in self._files:
            for key, value in _read(file):
                self._known.setdefault(key, {}).update(value)
        self._own, self._held, self._fd = kept / f"{uuid.uuid4().hex}.jsonl", Held(-1), -1

    def get(self, key: str, name: str) -> Any:
        """The answer `name`; None if it is not known."""
        return self._known.get(key, {}).get(name)

    def put(self, key: str, name: str, value: Any) -> None:
        """Keep an answer. `value` consists of JSON types."""
        self._known.setdefault(key, {})[name] = value
        if self._fd < 0:
            self._fd, _ = try_lock(self._own)
            self._held = Held(self._fd)
        line = _line(key, {name: value})
        with durable.reported("write", self._own, len(line)):
            os.write(self._fd, line)

    def keep_only(self, keys: Collection[str]) -> None:
        """Merge all files that nobody writes to any more into one, which keeps only the answers under `keys`."""
        self.close()
        files = [file for file in (*self._files, self._own) if file.exists() and is_held(file) is False]
        if len(files) == 1 and self._known.keys() == set(keys):
            return
        lines = b"".join(_line(key, self._known[key]) for key in keys if key in self._known)
        if lines:
            durable.atomic_write(self._own.parent / f"{uuid.uuid4().hex}.jsonl", lines)
        for file in files:
            durable.remove_file(file)

    def close(self) -> None:
        self._held.close()
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()


def _line(key: str, value: Value) -> bytes:
    return json.dumps([key, value]).encode() + b"\n"


def _read(file: Place) -> Iterator[tuple[str, Value]]:
    """Skips lines that are cut off or not ours."""
    try:
        lines = file.path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, TypeError):
            key, value = json.loads(line)
            yield str(key), dict(value)
