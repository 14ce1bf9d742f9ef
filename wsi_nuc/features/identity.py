"""Features as a part of what a result is made from: a store has those of one version of the table, or none."""

from __future__ import annotations

from typing import Any

from wsi_nuc.features.registry import VERSION

Json = dict[str, Any]


def settings() -> Json:
    """What `config` of an identity key says of the features."""
    return {"version": VERSION}


def has_features(key: Json | None) -> bool:
    return key is not None and "features" in key.get("config", {})


def without_features(key: Json) -> Json:
    """The key of the same nuclei alone."""
    return {**key, "config": {name: value for name, value in key["config"].items() if name != "features"}}


def with_features(key: Json) -> Json:
    return {**key, "config": {**key["config"], "features": settings()}}
