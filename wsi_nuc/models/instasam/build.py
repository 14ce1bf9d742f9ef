"""From settings and weights to a model that the pipeline can run, and to its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wsi_nuc.models.base import ModelSpec, NucleiModel
from wsi_nuc.models.compact.build import is_counter, load_weights
from wsi_nuc.models.compact.network import channels_last, fused
from wsi_nuc.models.device import Device
from wsi_nuc.models.instasam.look import look
from wsi_nuc.models.instasam.net import InstaSamNet
from wsi_nuc.models.instasam.settings import ARCHITECTURE, VIT, Settings, UseSettings, spec_of
from wsi_nuc.models.instasam.vit import VitNet
from wsi_nuc.models.options import used
from wsi_nuc.models.torch_ops import PIXEL_MEAN, PIXEL_STD
from wsi_nuc.models.weights import Checkpoint, CheckpointInfo, check_class_count, check_state, save_checkpoint

ABOUT = "nuclei from dots alone, trained by `wsi-nuc train instasam`"
OPTIONS = UseSettings
PER_CLASS = ("class_head.weight", "nuclei.class_tokens")

Net = InstaSamNet | VitNet


def network(settings: Settings) -> Net:
    """With random weights."""
    return VitNet(settings) if settings.encoder in VIT else InstaSamNet(settings)


def assemble(net: Net, settings: Settings, device: str, spec: ModelSpec) -> NucleiModel:
    """Put a trained network behind the pipeline's protocols. Training and evaluation call this too."""
    chosen = Device.of(device, settings.use.precision)
    ready = channels_last(fused(net).to(chosen.torch_device))
    return NucleiModel(spec, partial(look, ready, chosen, settings, spec.name))


def spec_of_file(info: CheckpointInfo, options: Mapping[str, Any]) -> ModelSpec:
    """Refuses a file whose tensors do not fit its header; no tensor is read. `options`: see `options.used`."""
    spec = spec_of(used(_checked(info), options), info.sha256, Path(info.path).stem)
    return replace(spec, nucleus_um=info.nucleus_um)


def load_file(checkpoint: Checkpoint, device: str, options: Mapping[str, Any]) -> NucleiModel:
    settings = used(_checked(checkpoint.info), options)
    return assemble(net_of(checkpoint), settings, device, spec_of_file(checkpoint.info, options))


def net_of(checkpoint: Checkpoint) -> Net:
    """The trained network, not fused, as training needs it."""
    net = network(_checked(checkpoint.info))
    load_weights(net, checkpoint.tensors())
    return net


def save_net(path: str | Path, net: Net, settings: Settings, about: Mapping[str, Any]) -> None:
    """Write a trained network; `about` holds training_data and metrics. Frozen weights keep every bit.
    Trained ones are written in half precision."""
    trained = net.trained()
    state = {
        name: (tensor.half() if name in trained else tensor).detach().cpu().numpy()
        for name, tensor in net.state_dict().items()
        if not is_counter(name)
    }
    normalisation = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)}
    header = {"architecture": ARCHITECTURE, "normalisation": normalisation} | settings.to_header()
    save_checkpoint(path, state, dict(about) | header)


def expected_shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = network(settings).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not is_counter(name)}


def _checked(info: CheckpointInfo) -> Settings:
    settings = Settings.from_header(info.details)
    for name in PER_CLASS:
        if name in info.shapes:
            check_class_count(info.path, settings.classes, info.shapes[name][0])
    check_state(info.path, expected_shapes(settings), info.shapes)
    return settings
