"""Fills the schema of a run, or any other one, from a YAML file, ``--set key=value`` and command-line options.

Later sources win: defaults < ``--config FILE`` < ``--set`` < options. An unknown key is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from wsi_nuc.config import RunConfig
from wsi_nuc.errors import UsageError, choices

MAX_CONFIG_BYTES = 1 << 20
Schema = TypeVar("Schema", bound=BaseModel)


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
    """Merge the sources of any schema. `options`: by dotted key; those whose value is None were not given."""
    merged: dict[str, Any] = read_yaml(file) if file else {}
    check_keys(merged, schema, str(file))
    for assignment in assignments:
        assign(merged, *parse_assignment(assignment))
    for key, value in options.items():
        if value is not None:
            assign(merged, key.split("."), value)
    check_keys(merged, schema, "--set")
    try:
        return schema(**merged)
    except ValidationError as error:
        raise _first_problem(error, options=options) from None


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
        # A copy, since a file may name one section (`&name`) and use it in several places.
        target[key] = dict(step)
        target = target[key]
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


def _first_problem(error: ValidationError, whose: str = "", options: Collection[str] = ()) -> UsageError:
    """`options`: keys that have an option of the command line, which is called like their last part."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        inner = "." in key and key not in options
        given = f"--set {key}=..." if inner else f"--{key.rpartition('.')[2]}"
        return UsageError(whose + key, "is missing", f"give {given} or put it into the configuration file")
    cause = first["msg"].removeprefix("Value error, ")
    if not key:
        return UsageError(f"{whose}configuration", cause, "correct the keys that it names")
    return UsageError(f"{whose}{key} = {first.get('input')!r}", cause, "correct this value")


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
