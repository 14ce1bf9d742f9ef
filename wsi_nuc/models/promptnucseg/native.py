"""PromptNucSeg in native files: what the registry calls, and what training saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.promptnucseg.build import (
    PromptNucSegNet,
    assemble,
    build_net,
    class_counts,
    expected_shapes,
    spec_of,
)
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.models.sam.encoder import PIXEL_MEAN, PIXEL_STD
from wsi_nuc.models.weights import (
    Checkpoint,
    CheckpointInfo,
    check_class_count,
    check_state,
    save_checkpoint,
)

ARCHITECTURE = "promptnucseg"
PART = "promptnucseg-part"
NORMALISATION = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)}


def spec_of_file(info: CheckpointInfo, options: Mapping[str, Any] | None = None) -> ModelSpec:
    """Refuses a file whose tensors do not fit its header; no tensor is read. `options`: see `Settings.used`."""
    return _spec(info, _checked(info).used(options))


def load_file(checkpoint: Checkpoint, device: str, options: Mapping[str, Any] | None = None) -> NucleiModel:
    settings = _checked(checkpoint.info).used(options)
    state = checkpoint.tensors()
    return assemble(build_net(settings, state), settings, device, _spec(checkpoint.info, settings))


def _spec(info: CheckpointInfo, settings: Settings) -> ModelSpec:
    return replace(spec_of(settings, info.sha256, Path(info.path).stem), nucleus_um=info.nucleus_um)


def save_net(
    path: str | Path, net: PromptNucSegNet, settings: Settings, about: Mapping[str, Any] | None = None
) -> None:
    """Write trained networks; `about` holds training_data and metrics."""
    wanted = expected_shapes(settings)
    state = {name: tensor for name, tensor in net.state_dict().items() if name in wanted}
    save_state(path, state, header_of(settings, ARCHITECTURE, about))


def save_state(path: str | Path, state: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    save_checkpoint(path, {name: tensor.detach().cpu().float().numpy() for name, tensor in state.items()}, header)


def header_of(settings: Settings, architecture: str, about: Mapping[str, Any] | None) -> dict[str, Any]:
    unknown: dict[str, Any] = {"training_data": "unknown", "metrics": {}}
    named = {"architecture": architecture, "normalisation": NORMALISATION}
    return unknown | dict(about or {}) | settings.to_header() | named


def _checked(info: CheckpointInfo) -> Settings:
    if info.architecture == PART:
        parts = ", ".join(sorted({name.partition(".")[0] for name in info.shapes}))
        remedy = "convert a prompter and a segmentor together, or train from it"
        raise ModelError(info.path, f"it holds parts of a model only ({parts})", remedy)
    if info.details.get("normalisation", NORMALISATION) != NORMALISATION:
        cause = f"its pixels are normalised by {info.details['normalisation']}, here by {NORMALISATION}"
        raise ModelError(info.path, cause, "train or convert it with this version")
    settings = Settings.from_header(info.details)
    for count in class_counts(settings, info.shapes):
        check_class_count(info.path, settings.classes, count)
    check_state(info.path, expected_shapes(settings), info.shapes)
    return settings
