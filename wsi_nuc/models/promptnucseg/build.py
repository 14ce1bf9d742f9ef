"""From settings and weights to a model that the pipeline can run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from wsi_nuc.models.base import ModelSpec, NucleiModel, Prompter
from wsi_nuc.models.promptnucseg.device import Runner
from wsi_nuc.models.promptnucseg.embedding import WindowEncoder
from wsi_nuc.models.promptnucseg.prompter import PrompterNet
from wsi_nuc.models.promptnucseg.proposing import NetPrompter, SharedPrompter
from wsi_nuc.models.promptnucseg.segmenting import NetSegmentor
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, Settings
from wsi_nuc.models.sam.sizes import Sam


class PromptNucSegNet(nn.Module):
    """Both networks; the names of a native file's tensors are the names of its parameters."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        classes = len(settings.classes)
        self.prompter = PrompterNet(settings.prompter, classes)
        self.segmentor = Sam(settings.segmentor.size, WINDOW_PX, classes if settings.segmentor.class_token else 0)


def expected_shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a file with these settings holds; nothing is allocated."""
    with torch.device("meta"):
        net = PromptNucSegNet(settings)
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def spec_of(settings: Settings, weights_sha256: str, name: str = "promptnucseg") -> ModelSpec:
    use = settings.use
    return ModelSpec(
        name=name,
        classes=settings.classes,
        mpp=settings.mpp,
        core_px=use.core_px,
        halo_px=use.halo_px,
        largest_nucleus_px=use.largest_nucleus_px,
        margin_px=use.margin_px,
        batch=use.batch,
        weights_sha256=weights_sha256,
        uses_torch=True,
    )


def build_net(settings: Settings, state: Mapping[str, torch.Tensor]) -> PromptNucSegNet:
    """The networks with these weights, ready to infer. `state` has been checked against `expected_shapes`."""
    with torch.device("meta"):
        net = PromptNucSegNet(settings)
    net.load_state_dict(dict(state), assign=True)
    return net.float().eval().requires_grad_(False)


def assemble(net: PromptNucSegNet, settings: Settings, device: str, weights_sha256: str) -> NucleiModel:
    """Put trained networks behind the pipeline's protocols. Training and evaluation call this too."""
    runner = Runner.on(device, settings.use)
    net = net.to(runner.device).eval()
    encoder = WindowEncoder(net.segmentor, runner)
    prompter: Prompter = (
        SharedPrompter(net.prompter, encoder, runner, settings.use)
        if settings.prompter.shared_encoder
        else NetPrompter(net.prompter, runner, settings.use)
    )
    segmentor = NetSegmentor(net.segmentor, encoder, runner, settings.use)
    return NucleiModel(spec_of(settings, weights_sha256), prompter, segmentor)
