"""The one schema of a run, with its defaults. `configuring` fills it from files, ``--set`` and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Keys that say how a run goes; all others show in its results, and a cohort keeps those for every job.
EXECUTION = frozenset(
    (
        "out",
        "device",
        "workers",
        "scheduler",
        "overwrite",
        "pack",
        "report",
        "keep_parts",
        "scratch",
        "stage",
        "quiet",
        "answers",
        "json",
        "dask",
    )
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, validate_by_name=True)


class StitchConfig(Section):
    """Two candidates are one nucleus when their IoU, or the part of the smaller that lies in the larger, is over
    the limit."""

    iou: float = Field(default=0.5, gt=0, lt=1)
    containment: float = Field(default=0.75, gt=0, lt=1)


class SlurmConfig(Section):
    """The jobs of `--scheduler slurm`."""

    jobs: int = Field(default=2, ge=1, le=10_000)
    cores: int = Field(default=4, ge=1, le=1024)
    """Of each job, and one worker for each of them."""
    gpu: bool = False
    """Each job gets one GPU, and one worker in all."""
    memory: str = "16GB"
    """Of each job."""
    time: str = "04:00:00"
    partition: str | None = None
    account: str | None = None
    interface: str | None = None
    """Of the network between the nodes, such as ib0."""
    directives: list[str] = []
    """More `#SBATCH` lines."""
    prologue: list[str] = []
    """Shell lines before a worker starts."""
    resubmit: int = Field(default=3, ge=0, le=1000)
    """How often, on average, a lost job is submitted again."""
    patience_s: float = Field(default=43_200, gt=0)
    """Seconds that the run waits without any worker while its jobs wait in the queue."""


class DaskConfig(Section):
    """How Dask runs, and the scheduler that a run finds running."""

    host: str = "127.0.0.1"
    """Where workers and scheduler of this machine listen."""
    dashboard: bool = False
    patience_s: float = Field(default=300, gt=0)
    """Seconds without any worker after which a run ends; the same command goes on from there."""
    regions_in_flight: int = Field(default=2, ge=1, le=64)
    """Regions that each worker has in hand or waiting."""
    tls_ca: str | None = None
    """This and the next two: PEM files for a scheduler that is already running."""
    tls_cert: str | None = None
    tls_key: str | None = None
    slurm: SlurmConfig = SlurmConfig()


class RunConfig(Section):
    """Everything that `wsi-nuc run` can be told. A relative path counts from where the command was given."""

    out: Path = Path("results")
    """Folder of the results."""
    model: str = "default"
    """A name, or the path of a checkpoint file."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|all)$")
    workers: int | None = Field(default=None, ge=1, le=4096)
    """None: one per usable core."""
    scheduler: str = "local"
    """serial, local, slurm, or the address of a Dask scheduler."""
    reader: str = "auto"
    mpp: float | None = Field(default=None, gt=0.01, lt=100)
    """Microns per level-0 pixel, in place of what the file says."""
    tissue: str = "auto"
    """auto, none (the whole slide), or the path of a GeoJSON file."""
    roi: str | None = None
    """GeoJSON file: only nuclei inside of its polygons are kept."""
    region_size: int | None = Field(default=None, ge=256, le=32768)
    """Edge of a region in pixels that are read; None: fitted to slide, model and workers."""
    labels: bool = False
    """Also publish an image of labels."""
    features: bool = False
    """Measure every nucleus."""
    embedding: bool = False
    """Features, and the model's embedding at every nucleus."""
    dab: bool = False
    """Features, and the optical density of DAB in every nucleus."""
    dab_vectors: str = "default"
    """default, calibrated (from the slide's own colours), or six numbers: R,G,B of haematoxylin, then of DAB."""
    allow_bad_tiles: bool = False
    """Publish although places could not be decoded or computed; they are listed."""
    overwrite: bool = False
    """Replace a result that was made with other settings."""
    pack: bool = False
    """Publish each result as one file, SLIDE.zarr.zip."""
    report: bool = False
    """Write a page about each result beside it."""
    keep_parts: bool = False
    """Do not remove the parts of the regions when the result is published."""
    scratch: Path | None = None
    """Folder of the parts, in place of `out`."""
    stage: Path | None = None
    """Folder on this node's disk that slides are copied to before they are read."""
    quiet: bool = False
    answers: bool = Field(default=False, alias="json")
    """One JSON object per slide on standard output."""
    inference: dict[str, Any] = {}
    """How a trained model is used, where not as its file says; the model's family knows the keys."""
    stitch: StitchConfig = StitchConfig()
    dask: DaskConfig = DaskConfig()

    @field_validator("out", "scratch", "stage")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return Path(os.path.abspath(value.expanduser())) if value is not None else None

    @field_validator("inference")
    @classmethod
    def _only_given(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {key: setting for key, setting in value.items() if setting is not None}

    @field_validator("model")
    @classmethod
    def _where_workers_find_it(cls, value: str) -> str:
        return os.path.abspath(value) if Path(value).is_file() else value
