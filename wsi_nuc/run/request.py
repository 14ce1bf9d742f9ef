"""What a call asks for: which slides, with which settings, names and models, and the folders that it works in.

`Measures` stands for the code that measures nuclei. It lies in a room above this one, so the caller hands it in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wsi_nuc.config import RunConfig
from wsi_nuc.configuring import with_settings
from wsi_nuc.errors import UsageError
from wsi_nuc.events import Emit
from wsi_nuc.executors.base import Execute
from wsi_nuc.models.base import ModelSpec
from wsi_nuc.models.registry import is_file, load_model, model_spec
from wsi_nuc.run.executor import executor_device
from wsi_nuc.run.job import SlideJob
from wsi_nuc.run.slide_copy import remove_abandoned
from wsi_nuc.slides.address import shown
from wsi_nuc.store.commit import Published, clean_up
from wsi_nuc.store.folders import output_folder
from wsi_nuc.store.manifest import Accounting
from wsi_nuc.store.names import NameClaim, claim_name, plain_name
from wsi_nuc.store.place import Place
from wsi_nuc.store.zarrfile import ZarrFolder


class Measures(Protocol):
    """Measures every nucleus of a result before or after it is published, where that is asked for."""

    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        """What is asked for, as it shows in the identity of a result; empty where nothing is."""
        ...

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        """The job in the light of what lies at its place."""
        ...

    def lacking(self, job: SlideJob, final: Path) -> bool:
        """The nuclei that the job asks for are there, intact, and only their measures are not."""
        ...

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        """Measure the nuclei of the published result at `final`."""
        ...

    def wanted(self, job: SlideJob) -> bool: ...

    def measure(
        self, folder: ZarrFolder, job: SlideJob, accounting: Accounting, execute: Execute, device: str
    ) -> dict[str, Any]:
        """Measure nuclei that are written, with the tissue, but not sealed yet. Returns what the counts of the
        manifest say of it."""
        ...


class NoMeasures:
    """For calls that measure nothing: their results hold the nuclei alone."""

    def settings(self, config: RunConfig, spec: ModelSpec) -> dict[str, Any]:
        if config.features or config.embedding or config.dab:
            raise UsageError("features", "this call cannot measure them", "call `wsi_nuc.run_slides`")
        return {}

    def reconciled(self, job: SlideJob, final: Path) -> SlideJob:
        return job

    def lacking(self, job: SlideJob, final: Path) -> bool:
        return False

    def add(self, job: SlideJob, final: Place, execute: Execute, device: str) -> Published:
        raise NotImplementedError

    def wanted(self, job: SlideJob) -> bool:
        return False

    def measure(
        self, folder: ZarrFolder, job: SlideJob, accounting: Accounting, execute: Execute, device: str
    ) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SlideRequest:
    """One slide, where more is asked of it than its path says."""

    slide: str
    name: str = ""
    """Of the result; "" for one that is made from the slide's own."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """In place of the call's, by key."""

    def config(self, common: RunConfig) -> RunConfig:
        return with_settings(common, self.settings, whose=shown(self.slide))

    def claim(self, out: Place, content_sha256: str) -> NameClaim:
        """The name of the result. One that was asked for is never changed to make room for another slide's."""
        claim = claim_name(self.name or self.slide, out, content_sha256)
        if self.name and claim.name != f"{plain_name(self.name)}.zarr":
            claim.close()
            raise UsageError(
                out / f"{plain_name(self.name)}.zarr",
                f"holds the result of another slide than {shown(self.slide)}",
                "move it away, or give the slide another name",
            )
        return claim


def as_request(slide: str | SlideRequest) -> SlideRequest:
    return slide if isinstance(slide, SlideRequest) else SlideRequest(slide)


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model that some slides are computed with."""

    config: RunConfig
    """Of the first of them."""
    spec: ModelSpec
    device: str


@dataclass(frozen=True, slots=True)
class Call:
    """What all slides of a call have in common."""

    config: RunConfig
    models: Mapping[str, ModelInUse]
    folders: Folders
    emit: Emit
    measures: Measures

    def model_of(self, config: RunConfig) -> ModelInUse:
        return self.models[_model_key(config)]


def models_in_use(configs: Sequence[RunConfig]) -> dict[str, ModelInUse]:
    """What the slides' configurations ask for, each model once."""
    models: dict[str, ModelInUse] = {}
    for config in configs:
        if _model_key(config) not in models:
            spec = checked_spec(config.model, config.inference)
            models[_model_key(config)] = ModelInUse(config, spec, executor_device(config, spec.uses_torch))
    return models


def checked_spec(model: str, options: Mapping[str, Any]) -> ModelSpec:
    """A file is loaded once here, so that any fault of its weights shows before a slide is read."""
    if options:
        return load_model(model, "cpu", options).spec
    return load_model(model, "cpu").spec if is_file(model) else model_spec(model)


def _model_key(config: RunConfig) -> str:
    return f"{config.model} {sorted(config.inference.items())}"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where results lie, where the parts of regions do, and where slides are copied to, if they are."""

    out: Place
    parts: Place
    stage: Place | None = None

    def clean_up(self) -> list[Place]:
        """Remove what dead runs left. Returns what wsi-nuc did not make: it stays."""
        return clean_up(self.out) + (remove_abandoned(self.stage) if self.stage is not None else [])


def open_folders(config: RunConfig, out: Place | None = None) -> Folders:
    """Those of the configuration; `out` where the caller has that one open."""
    out = out or output_folder(config.out)
    parts = output_folder(config.scratch) if config.scratch is not None else out
    if config.stage is None:
        return Folders(out, parts)
    if config.scheduler not in ("serial", "local"):
        cause = f"the workers of --scheduler {config.scheduler} do not see this machine's own disk"
        raise UsageError(f"--stage {config.stage}", cause, "leave one of the two out")
    return Folders(out, parts, output_folder(config.stage))
