"""PromptNucSeg in native files: what the registry calls, what training saves, and the networks as a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.options import used
from wsi_nuc.models.promptnucseg.embedder import EMBEDDING
from wsi_nuc.models.promptnucseg.look import Networks, PromptNucSegLook
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet, class_counts, expected_shapes, is_counter
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import CONV, Settings, UseSettings
from wsi_nuc.models.sam.model import SIZES
from wsi_nuc.models.torch_ops import PIXEL_MEAN, PIXEL_STD
from wsi_nuc.models.weights import (
    Checkpoint,
    CheckpointInfo,
    check_class_count,
    check_state,
    save_checkpoint,
)
from wsi_nuc.results_numbers import NUMBERS

ARCHITECTURE = "promptnucseg"
PART = "promptnucseg-part"
NORMALISATION = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)}

SECONDS_PER_WINDOW = 1.1  # of ViT-B, on one CPU core
LEAST_SHARE = 0.1  # of that, for the smallest encoder: the mask decoder takes the rest

ABOUT = "a prompter and a fine-tuned SAM at 256 px, trained by `wsi-nuc train` or converted from published weights"
OPTIONS = UseSettings


def spec_of_file(info: CheckpointInfo, options: Mapping[str, Any]) -> ModelSpec:
    """Refuses a file whose tensors do not fit its header; no tensor is read. `options`: see `options.used`."""
    return _spec(info, used(_checked(info), options))


def load_file(checkpoint: Checkpoint, device: str, options: Mapping[str, Any]) -> NucleiModel:
    settings = used(_checked(checkpoint.info), options)
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
        raise ModelError(info.path, f"it holds only parts of a model ({parts})", remedy)
    if info.details.get("normalisation", NORMALISATION) != NORMALISATION:
        cause = f"its pixels are normalised by {info.details['normalisation']}, here by {NORMALISATION}"
        raise ModelError(info.path, cause, "train or convert it with this version")
    settings = Settings.from_header(info.details)
    for count in class_counts(settings, info.shapes):
        check_class_count(info.path, settings.classes, count)
    check_state(info.path, expected_shapes(settings), info.shapes)
    return settings


def spec_of(settings: Settings, weights_sha256: str, name: str = "promptnucseg") -> ModelSpec:
    use = settings.use
    return ModelSpec(
        name=name,
        classes=settings.classes,
        mpp=settings.mpp,
        core_px=use.core_px,
        halo_px=use.halo_px,
        largest_nucleus_px=use.reach_px,
        margin_px=use.margin_px,
        batch=use.batch,
        weights_sha256=weights_sha256,
        uses_torch=True,
        embedding=EMBEDDING,
        cpu_tile_s=_cpu_tile_s(settings),
        copyable=True,
        as_published=use.mode == "parity",
        results=NUMBERS[ARCHITECTURE],
    )


def _cpu_tile_s(settings: Settings) -> float:
    """The encoder takes nearly all of it, and its cost grows with depth and the square of its width."""
    views, of_vit_b = 6 if settings.use.tta else 1, LEAST_SHARE
    if settings.segmentor.size != CONV:
        size, vit_b = SIZES[settings.segmentor.size], SIZES["vit_b"]
        of_vit_b = max(size.depth * size.width**2 / (vit_b.depth * vit_b.width**2), LEAST_SHARE)
    return SECONDS_PER_WINDOW * of_vit_b * views * settings.use.windows**2


def build_net(settings: Settings, state: Mapping[str, torch.Tensor]) -> PromptNucSegNet:
    """The networks with these weights, ready to infer. `state` has been checked against `expected_shapes`."""
    with torch.device("meta"):
        net = PromptNucSegNet(settings)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in net.state_dict() if is_counter(name)}
    net.load_state_dict({**counters, **state}, assign=True)
    return net.float().eval().requires_grad_(False)


def assemble(net: PromptNucSegNet, settings: Settings, device: str, spec: ModelSpec) -> NucleiModel:
    """Put trained networks behind the pipeline's contract. Training and evaluation call this too."""
    runner = Runner.on(device, settings.use)
    networks = Networks(
        net=net.to(runner.device.torch_device).eval(),
        runner=runner,
        use=settings.use,
        shared_encoder=settings.prompter.shared_encoder,
        classes=len(settings.classes),
    )
    return NucleiModel(spec, partial(PromptNucSegLook, networks))
