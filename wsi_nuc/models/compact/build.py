"""From settings and weights to a model that the pipeline can run, and to its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.compact.look import look
from wsi_nuc.models.compact.net import CompactNet
from wsi_nuc.models.compact.network import Network
from wsi_nuc.models.compact.settings import ARCHITECTURE, Settings, UseSettings, spec_of
from wsi_nuc.models.compact.team import AnyNet, Team
from wsi_nuc.models.device import Device
from wsi_nuc.models.options import used
from wsi_nuc.models.torch_ops import PIXEL_MEAN, PIXEL_STD
from wsi_nuc.models.weights import (
    Checkpoint,
    CheckpointInfo,
    check_class_count,
    check_state,
    save_checkpoint,
)

ABOUT = "a compact network for points, masks and classes, trained by `wsi-nuc train compact`"
OPTIONS = UseSettings


def assemble(net: AnyNet, settings: Settings, device: str, spec: ModelSpec) -> NucleiModel:
    """Put a trained network behind the pipeline's protocols. Training and evaluation call this too."""
    network = Network.of(net, Device.of(device, settings.use.precision), settings.use)
    return NucleiModel(spec, partial(look, network))


def spec_of_file(info: CheckpointInfo, options: Mapping[str, Any]) -> ModelSpec:
    """Refuses a file whose tensors do not fit its header; no tensor is read. `options`: see `options.used`."""
    spec = spec_of(used(_checked(info), options), info.sha256, Path(info.path).stem)
    return replace(spec, nucleus_um=info.nucleus_um)


def load_file(checkpoint: Checkpoint, device: str, options: Mapping[str, Any]) -> NucleiModel:
    settings = used(_checked(checkpoint.info), options)
    return assemble(net_of(checkpoint), settings, device, spec_of_file(checkpoint.info, options))


def net_of(checkpoint: Checkpoint) -> AnyNet:
    """The trained network, not fused."""
    net = untrained(_checked(checkpoint.info))
    load_weights(net, checkpoint.tensors())
    return net


def untrained(settings: Settings) -> AnyNet:
    nets = [CompactNet(net, len(settings.classes)) for net in settings.nets]
    return Team(nets) if settings.beside else nets[0]


def load_weights(net: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    counters = {name: tensor for name, tensor in net.state_dict().items() if is_counter(name)}
    net.load_state_dict(counters | {name: tensor.float() for name, tensor in state.items()})


def save_net(path: str | Path, net: AnyNet, settings: Settings, about: Mapping[str, Any]) -> None:
    """Write a trained network in half precision; `about` holds training_data and metrics."""
    state = {n: t.detach().cpu().half().numpy() for n, t in net.state_dict().items() if not is_counter(n)}
    normalisation = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)}
    header = {"architecture": ARCHITECTURE, "normalisation": normalisation} | settings.to_header()
    save_checkpoint(path, state, dict(about) | header)


def expected_shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = untrained(settings).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not is_counter(name)}


def is_counter(name: str) -> bool:
    """The batch norm's count of training steps, which has no effect at a fixed momentum."""
    return name.endswith("num_batches_tracked")


def _checked(info: CheckpointInfo) -> Settings:
    settings = Settings.from_header(info.details)
    first, layer = "nets.0." if settings.beside else "", "out." if settings.net.class_hidden else ""
    head = info.shapes.get(f"{first}class_head.{layer}weight")
    if head is not None:
        check_class_count(info.path, settings.classes, head[0])
    check_state(info.path, expected_shapes(settings), info.shapes)
    return settings
