"""Sections of a model file's header as records, wrong keys told by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from wsi_nuc.errors import ModelError


def used(settings: Any, options: Mapping[str, Any]) -> Any:
    """The same networks used in another way: `options` are keys of the section `use`, with new values."""
    if not options:
        return settings
    kind = type(settings.use)
    return replace(settings, use=section(kind, {"use": asdict(settings.use) | dict(options)}, "use"))


def section(kind: type[Any], header: Mapping[str, Any], name: str) -> Any:
    """The record `kind` (a dataclass) of a section; defaults where it is silent. Lists become tuples."""
    given = header.get(name, {})
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        cause = f"section {name} has the unknown key {unknown[0]!r}"
        raise ModelError("model header", cause, f"known keys: {', '.join(sorted(known))}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
