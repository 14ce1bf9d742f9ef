"""The one schema of a run. YAML file, ``--set key=value`` and command-line options all end here.

Later sources win: defaults < ``--config FILE`` < ``--set`` < options. An unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsi_nuc.errors import UsageError, choices

MAX_CONFIG_BYTES = 1 << 20
Schema = TypeVar("Schema", bound=BaseModel)
# Keys that say how a run goes; all others show in its results, and a cohort keeps those for every job.
EXECUTION = frozenset(
    (
        "out",
        "device",
        "workers",
        "scheduler",
        "overwrite",
        "pack",
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
    allow_bad_tiles: bool = False
    """Publish although places could not be decoded or computed; they are listed."""
    overwrite: bool = False
    """Replace a result that was made with other settings."""
    pack: bool = False
    """Publish each result as one file, SLIDE.zarr.zip."""
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


def with_settings(config: RunConfig, settings: Mapping[str, Any], whose: str = "") -> RunConfig:
    """The configuration with other values for some keys, checked as if it had been given so. `whose` is the slide
    that they belong to."""
    if not settings:
        return config
    try:
        return RunConfig(**{**config.model_dump(), **settings})
    except ValidationError as error:
        raise _first_problem(error, f"{whose}: " if whose else "") from None


def load_config(file: Path | None, assignments: Iterable[str], options: Mapping[str, Any]) -> RunConfig:
    return load_section(RunConfig, file, assignments, options)


def load_section(
    schema: type[Schema], file: Path | None, assignments: Iterable[str], options: Mapping[str, Any]
) -> Schema:
    """Merge the sources of any schema; `options` whose value is None were not given."""
    merged: dict[str, Any] = read_yaml(file) if file else {}
    check_keys(merged, schema, str(file))
    for assignment in assignments:
        assign(merged, *parse_assignment(assignment))
    merged.update({key: value for key, value in options.items() if value is not None})
    check_keys(merged, schema, "--set")
    try:
        return schema(**merged)
    except ValidationError as error:
        raise _first_problem(error) from None


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a configuration file."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            cause = f"has over {MAX_CONFIG_BYTES} bytes, and is not a configuration file"
            raise UsageError(file, cause, "give the path of a configuration file")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(file, "does not exist", "correct the path of the configuration file") from None
    except OSError as error:
        cause = f"cannot be read ({error.strerror or error})"
        raise UsageError(file, cause, "give a configuration file that you may read") from None
    except UnicodeDecodeError:
        raise UsageError(file, "is not text in UTF-8", "save it as UTF-8") from None
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(file, f"is not YAML ({_on_one_line(error)})", "correct it at that place") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(file, f"holds a {type(loaded).__name__}", "write lines of the form `key: value`")
    return loaded


def assigned_values(texts: Iterable[str]) -> dict[str, Any]:
    """The nested values of several `--set key.key=value`."""
    merged: dict[str, Any] = {}
    for text in texts:
        assign(merged, *parse_assignment(text))
    return merged


def parse_assignment(assignment: str) -> tuple[list[str], Any]:
    """Path and value of a `--set key.key=value`; the value is YAML."""
    key, sign, text = assignment.partition("=")
    if not sign:
        raise UsageError(f"--set {assignment}", "has no value", "write --set key=value")
    try:
        return key.strip().split("."), yaml.safe_load(text)
    except yaml.YAMLError as error:
        cause = f"the value is not YAML ({_on_one_line(error)})"
        raise UsageError(f"--set {assignment}", cause, "correct the value, or put it in quotes") from None


def assign(target: dict[str, Any], path: list[str], value: Any) -> None:
    """Set the value of a dotted key in nested sections."""
    for key in path[:-1]:
        step = target.setdefault(key, {})
        if not isinstance(step, dict):
            raise UsageError(".".join(path), f"{key} is a single value, it has no {path[-1]}", f"set {key} itself")
        target = step
    target[path[-1]] = value


def check_keys(given: Mapping[str, Any], schema: type[Any], where: str, prefix: str = "") -> None:
    """An unknown key is named together with the nearest one that exists. `where` is what gave the keys."""
    known = _keys(schema)
    for key, value in given.items():
        if key not in known:
            raise UsageError(where, f"unknown key {prefix}{key}", choices(key, known))
        if isinstance(value, Mapping) and _keys(known[key]):
            check_keys(value, known[key], where, f"{prefix}{key}.")


def _keys(schema: Any) -> dict[str, Any]:
    """Name and type of the keys of a section (a model or a dataclass); none for any other type."""
    if not isinstance(schema, type):
        return {}
    if issubclass(schema, BaseModel):
        return {field.alias or name: field.annotation for name, field in schema.model_fields.items()}
    if dataclasses.is_dataclass(schema):
        hints = get_type_hints(schema)
        return {field.name: hints[field.name] for field in dataclasses.fields(schema)}
    return {}


def _first_problem(error: ValidationError, whose: str = "") -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return UsageError(whose + key, "is missing", f"give --{key} or put it into the configuration file")
    cause = first["msg"].removeprefix("Value error, ")
    if not key:
        return UsageError(f"{whose}configuration", cause, "correct the keys that it names")
    return UsageError(f"{whose}{key} = {first.get('input')!r}", cause, "correct this value")


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
