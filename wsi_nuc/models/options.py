"""Sections of a model file's header as records, and the options of use that a caller gives.

Both are checked by the schema of the model's family, and an error names the key that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from wsi_nuc.errors import ModelError, UsageError, choices


def used(settings: Any, options: Mapping[str, Any]) -> Any:
    """The same networks used in another way: `options` are keys of the section `use`, with new values."""
    if not options:
        return settings
    kind = type(settings.use)
    return replace(settings, use=section(kind, {"use": asdict(settings.use) | dict(options)}, "use"))


def section(kind: type[Any], header: Mapping[str, Any], name: str) -> Any:
    """The section `name` of the header as a record of `kind`, a dataclass. Missing keys get their defaults; lists
    become tuples."""
    given = header.get(name, {})
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        cause = f"section {name} has the unknown key {unknown[0]!r}"
        raise ModelError("model header", cause, f"known keys: {', '.join(sorted(known))}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


def checked_options(subject: str, schema: type[Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values with the types that `schema` (a dataclass) states; None means not given.

    Whether a value is in range is checked later, when the schema is filled with the values.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return {}
    if schema is None:
        cause = f"it has no options of use ({', '.join(given)})"
        raise UsageError(subject, cause, "leave the section `inference` out, or give another model")
    known = [field.name for field in fields(schema)]
    for key in given:
        if key not in known:
            raise UsageError(f"inference.{key}", f"{subject} has no such option", choices(key, known))
    hints = get_type_hints(schema)
    return {key: _typed(subject, key, hints[key], value) for key, value in given.items()}


def _typed(subject: str, key: str, kind: Any, value: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UsageError(
            f"inference.{key} = {value!r}", error.errors()[0]["msg"], f"correct it for {subject}"
        ) from None
