"""The networks that a stage starts from: random weights, then those of files, then of the stages before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from wsi_nuc.errors import ModelError
from wsi_nuc.models.promptnucseg.build import ARCHITECTURE, PART, header_of, save_state
from wsi_nuc.models.promptnucseg.convert import Target, convert
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet, expected_shapes
from wsi_nuc.models.promptnucseg.settings import Settings
from wsi_nuc.models.weights import open_checkpoint, sha256_of
from wsi_nuc.training.promptnucseg.config import Part, TrainConfig

SHARPER = 3.0  # a point and its own place then differ from the rest by a logit of about 6
PARTS: dict[Part, tuple[Part, ...]] = {
    "segmentor": ("segmentor",), "prompter": ("prompter",), "together": ("segmentor", "prompter"),
}  # fmt: skip


def fresh_net(config: TrainConfig) -> PromptNucSegNet:
    """Random weights that follow from the seed, so that every process and every stage has the same."""
    torch.manual_seed(config.seed)
    net = PromptNucSegNet(config.settings())
    # Few anchors are nuclei: told from the start, the first steps are not spent on learning it.
    with torch.no_grad():
        prompter: Any = net.prompter
        prompter.cls_head.layers[-1].bias[-1] = 2.0
        prompter.mask_head[-1].bias.fill_(-math.log(4))
        _look_at_the_point(net.segmentor.mask_decoder.transformer)
    return net


def _look_at_the_point(transformer: Any) -> None:
    """Cross-attention starts as a similarity of positions, by equal projections of queries and keys.

    From independent ones a decoder without SAM's weights spends its first thousands of steps on empty masks.
    """
    cross = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        cross += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in cross:
        attention.q_proj.weight.mul_(SHARPER)
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def best_file(out: Path, part: Part) -> Path:
    return out / part / "best.safetensors"


def starting_net(config: TrainConfig, part: Part | None) -> tuple[PromptNucSegNet, set[str]]:
    """The network for a stage (None: after all of them), and which of its parts hold more than random weights."""
    net, known = fresh_net(config), set[str]()
    for file in config.init:
        known |= _load(net, _native(file, config))
    for stage in config.stages:
        if stage != part and best_file(config.out, stage).exists():
            known |= _load(net, best_file(config.out, stage))
    return net, known


def _native(file: Path, config: TrainConfig) -> Path:
    """A foreign file is converted first, beside the training; what it holds names the result, since two files may
    have one name, and one may be replaced."""
    if not file.exists():
        raise ModelError(file, "there is no such file", "correct `init`")
    if file.suffix == ".safetensors" and _has_header(file):
        return file
    made = config.out / "init" / f"{file.stem}-{sha256_of(file)[:12]}.safetensors"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        half = made.with_suffix(".tmp.safetensors")
        convert([file], half, Target(config.classes, config.mpp, config.prompter.space_px))
        half.replace(made)
    return made


def _has_header(file: Path) -> bool:
    try:
        open_checkpoint(file)
    except ModelError:
        return False
    return True


def _load(net: PromptNucSegNet, file: Path) -> set[str]:
    """Take over the tensors of the file; all of them must fit, but for heads of another number of classes."""
    own, tensors = net.state_dict(), open_checkpoint(file).tensors()
    strange = [n for n, t in tensors.items() if n not in own or (own[n].shape != t.shape and "cls_head" not in n)]
    if strange:
        some = ", ".join(strange[:5])
        raise ModelError(
            file, f"{len(strange)} of its tensors do not fit this model: {some}", "use its own settings"
        )
    fitting = {name: tensor for name, tensor in tensors.items() if own[name].shape == tensor.shape}
    net.load_state_dict({**own, **fitting})
    return {name.split(".", 1)[0] for name in fitting}


def save_parts(
    path: Path, net: PromptNucSegNet, settings: Settings, parts: set[str], about: dict[str, Any]
) -> None:
    """Write the parts that are trained: a model that can run if both are, else a start for another training."""
    wanted = expected_shapes(settings)
    state = {n: t for n, t in net.state_dict().items() if n in wanted and n.split(".", 1)[0] in parts}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp.safetensors")
    save_state(half, state, header_of(settings, ARCHITECTURE if set(state) == set(wanted) else PART, about))
    half.replace(path)
