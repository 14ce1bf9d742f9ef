"""From settings and weights to a model that the pipeline can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from wsi_nuc.models.base import ModelSpec, NucleiModel, Prompter, Segmentor
from wsi_nuc.models.promptnucseg.describing import EMBEDDING, PointEmbedder
from wsi_nuc.models.promptnucseg.device import Runner
from wsi_nuc.models.promptnucseg.embedding import WindowEncoder
from wsi_nuc.models.promptnucseg.parity import ParitySegmentor
from wsi_nuc.models.promptnucseg.prompter import PrompterNet
from wsi_nuc.models.promptnucseg.proposing import NetPrompter, SharedPrompter
from wsi_nuc.models.promptnucseg.segmenting import NetSegmentor
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, Settings, UseSettings
from wsi_nuc.models.promptnucseg.whole import AveragingSegmentor
from wsi_nuc.models.sam.sizes import SIZES, Sam

# ViT-B in single precision on one core of a server CPU of 2020.
SECONDS_A_WINDOW = 1.1


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
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items() if not _is_counter(name)}


def class_counts(settings: Settings, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """For how many classes the heads are, as far as they are there."""
    heads = {"prompter.cls_head.layers.3.bias": 1}
    if settings.segmentor.class_token:
        heads["segmentor.mask_decoder.cls_head.layers.2.bias"] = 0
    return [shapes[name][0] - background for name, background in heads.items() if name in shapes]


def _is_counter(name: str) -> bool:
    """The batch norm's count of training steps: no weight, and without use at its fixed momentum."""
    return name.endswith("num_batches_tracked")


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
    )


def _cpu_tile_s(settings: Settings) -> float:
    """The encoder takes nearly all of it, and its cost grows with depth and the square of its width."""
    size, views = SIZES[settings.segmentor.size], 6 if settings.use.tta else 1
    of_vit_b = size.depth * size.width**2 / (SIZES["vit_b"].depth * SIZES["vit_b"].width ** 2)
    return SECONDS_A_WINDOW * max(of_vit_b, 0.1) * views * settings.use.windows**2


def build_net(settings: Settings, state: Mapping[str, torch.Tensor]) -> PromptNucSegNet:
    """The networks with these weights, ready to infer. `state` has been checked against `expected_shapes`."""
    with torch.device("meta"):
        net = PromptNucSegNet(settings)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in net.state_dict() if _is_counter(name)}
    net.load_state_dict({**counters, **state}, assign=True)
    return net.float().eval().requires_grad_(False)


def assemble(net: PromptNucSegNet, settings: Settings, device: str, spec: ModelSpec) -> NucleiModel:
    """Put trained networks behind the pipeline's protocols. Training and evaluation call this too."""
    runner = Runner.on(device, settings.use)
    net = net.to(runner.device).eval()
    encoder = WindowEncoder(net.segmentor, runner)
    prompter: Prompter = (
        SharedPrompter(net.prompter, encoder, runner, settings.use)
        if settings.prompter.shared_encoder
        else NetPrompter(net.prompter, runner, settings.use)
    )
    segmentor = _segmentor(settings.use)(net.segmentor, encoder, runner, settings.use)
    return NucleiModel(spec, prompter, segmentor, PointEmbedder(encoder, runner, settings.use))


def _segmentor(use: UseSettings) -> Callable[[Sam, WindowEncoder, Runner, UseSettings], Segmentor]:
    if use.mode == "parity":
        return ParitySegmentor
    return AveragingSegmentor if use.tta else NetSegmentor
