"""The networks of a stage: their starting weights, their way from a batch to its losses, and their file.

They start from random weights, replaced by those of the files in `init`, then by those of the stages before.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from wsi_nuc.errors import ModelError
from wsi_nuc.models.promptnucseg.build import ARCHITECTURE, PART, header_of, save_state
from wsi_nuc.models.promptnucseg.convert import Target, convert
from wsi_nuc.models.promptnucseg.encoder import FOLDED, embed_pixels
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet, Proposed, expected_shapes
from wsi_nuc.models.promptnucseg.settings import CONV, Settings
from wsi_nuc.models.sam.decoder import (
    LOGITS_PER_TOKEN,
    TOKEN_PX,
    Decoded,
    decode,
    embed_points,
    enlarge,
    first_tokens,
    full_logits,
    near_logits,
)
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.models.weights import open_checkpoint, sha256_of
from wsi_nuc.training.pretrained import before, load_encoder
from wsi_nuc.training.promptnucseg.batches import Batch
from wsi_nuc.training.promptnucseg.config import GRID, Part, TrainConfig
from wsi_nuc.training.promptnucseg.losses import Losses, focal_classes, prompter_losses, segmentor_losses

# Of SAM's four masks only the first is used; the tokens of the others still take part in self-attention.
UNUSED = ("segmentor.prompt_encoder.", "segmentor.mask_decoder.output_hypernetworks_mlps.")
USED = "segmentor.mask_decoder.output_hypernetworks_mlps.0."
SMALLER = 0.1  # the random part of weights that start near a chosen one
SHARPER = 3.0  # the logit of a point and its own place is then about 6 above the rest
PARTS: dict[Part, tuple[Part, ...]] = {
    "segmentor": ("segmentor",), "prompter": ("prompter",), "together": ("segmentor", "prompter"),
}  # fmt: skip


class LossNet(nn.Module):
    """Both networks and the losses of this stage. It is a module, so that several GPUs can share the work."""

    def __init__(self, net: PromptNucSegNet, part: Part, config: TrainConfig) -> None:
        super().__init__()
        self.net, self.loss = net, config.loss
        self._prompts, self._masks = part != "segmentor", part != "prompter"
        self._shared = config.prompter.shared_encoder
        prefixes = tuple({"prompter": "prompter.", "segmentor": "segmentor.", "together": ""}[part].split())
        for name, parameter in net.named_parameters():
            frozen = name.startswith(UNUSED) and not name.startswith(USED)
            parameter.requires_grad_(name.startswith(prefixes or ("",)) and not frozen)

        self.before = before(net.segmentor.image_encoder, config.encoder)
        if getattr(config.train, part).encoder == 0:
            for module in self.before:
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """The norms of what was trained before stay as they are, since a step sees few crops."""
        super().train(mode)
        for module in self.before:
            module.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        pixels = normalise(batch.rgb)
        losses: Losses = {}
        embedding = embed_pixels(self.net.segmentor.image_encoder, pixels) if self._masks else None
        if self._masks and embedding is not None:
            losses |= self._segment(embedding, batch)
        if self._prompts:
            losses |= self._propose(pixels if embedding is None or not self._shared else embedding, batch)
        return losses

    def _propose(self, source: torch.Tensor, batch: Batch) -> Losses:
        size = (batch.rgb.shape[1], batch.rgb.shape[2])
        proposed: Proposed = self.net.prompter(source, size, with_mask=self.loss.mask > 0)
        return prompter_losses(proposed, self.net.prompter.space_px, batch, self.loss)

    def _segment(self, embedding: torch.Tensor, batch: Batch) -> Losses:
        sam = self.net.segmentor
        tokens = embed_points(sam.prompt_encoder, batch.prompt_xy, batch.prompt_label)
        decoded = decode(sam, embedding, tokens)
        real = batch.prompt_id.flatten() > 0
        image, filters = decoded.image.flatten(0, 1)[real], decoded.filters.flatten(0, 1)[real]
        row = torch.arange(len(batch.ids), device=real.device)[:, None].expand_as(batch.prompt_id).flatten()[real]
        side = self.loss.near_tokens
        first = first_tokens(batch.prompt_xy[:, :, 0].flatten(0, 1)[real], GRID, side)
        target = cut(batch.instances, row, first * TOKEN_PX, side * TOKEN_PX)
        target = target == batch.prompt_id.flatten()[real][:, None, None]
        logits = self._logits(image, filters, first) if len(image) else filters * 0
        losses = segmentor_losses(logits, decoded.predicted_iou.flatten()[real], target, self.loss)
        return losses | self._classify(decoded, batch, real)

    def _logits(self, image: torch.Tensor, filters: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Of the whole window or of the tokens near the prompts, at the resolution of the pixels."""
        decoder, side = self.net.segmentor.mask_decoder, self.loss.near_tokens
        if side == GRID:
            return enlarge(full_logits(decoder, image, filters))
        return enlarge(near_logits(decoder, image, filters, first, side))

    def _classify(self, decoded: Decoded, batch: Batch, real: torch.Tensor) -> Losses:
        if decoded.class_logits is None:
            return {}
        types = batch.prompt_type.flatten()
        known = real & (types >= 0)
        rows = decoded.class_logits.flatten(0, 1)[known].float()
        loss = focal_classes(rows, types[known]).mean() if len(rows) else decoded.class_logits.sum() * 0
        return {"token": self.loss.classes * loss}


def cut(images: torch.Tensor, row: torch.Tensor, first: torch.Tensor, side: int) -> torch.Tensor:
    """n x side x side: the part of image `row` (of B x H x W) that begins at pixel `first` (n x 2: x, y)."""
    steps = torch.arange(side, device=images.device)
    x, y = (first[:, axis, None] + steps for axis in (0, 1))
    return images[row[:, None, None], y[:, :, None], x[:, None, :]]


def fresh_net(config: TrainConfig) -> PromptNucSegNet:
    """Random weights that follow from the seed, so that all processes and stages have the same ones."""
    torch.manual_seed(config.seed)
    net = PromptNucSegNet(config.settings())
    # Few anchors are nuclei. The network starts with that, so that the first steps are not spent on learning it.
    with torch.no_grad():
        prompter: Any = net.prompter
        prompter.cls_head.layers[-1].bias[-1] = 2.0
        prompter.mask_head[-1].bias.fill_(-math.log(4))
        _look_at_the_point(net.segmentor.mask_decoder.transformer)
        if config.segmentor.size == CONV:
            _unfold(net.segmentor.mask_decoder.output_upscaling)
    if config.encoder:
        load_encoder(net.segmentor.image_encoder, config.encoder)
    return net


def _look_at_the_point(transformer: Any) -> None:
    """Let cross-attention start as a similarity of positions, by equal projections of queries and keys.

    With independent projections, a decoder without SAM's weights gives empty masks for its first thousands of
    steps.
    """
    cross = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        cross += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in cross:
        attention.q_proj.weight.mul_(SHARPER)
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def _unfold(upscaling: Any) -> None:
    """Let the two upscaling steps start as the inverse of what folded a token's cells into its channels."""
    first, second = upscaling[0].weight, upscaling[3].weight
    half = LOGITS_PER_TOKEN // 2
    cells = LOGITS_PER_TOKEN**2
    for weight in (first, second):
        weight.mul_(SMALLER)
    for y in range(LOGITS_PER_TOKEN):
        for x in range(LOGITS_PER_TOKEN):
            inner = torch.arange(FOLDED) * cells + y * LOGITS_PER_TOKEN + x
            outer = torch.arange(FOLDED) * half**2 + y % half * half + x % half
            first[inner, outer, y // half, x // half] += 1
    mix = torch.nn.init.orthogonal_(torch.empty(second.shape[1], FOLDED)).T
    for y in range(half):
        for x in range(half):
            second[torch.arange(FOLDED) * half**2 + y * half + x, :, y, x] += mix


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
    """The file itself or, of a foreign file, a native one that lies in the folder of the training.

    Its name holds the hash of the foreign file, since two files may have the same name and a file may be replaced.
    """
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
    """Copy the tensors of the file into the network. All must fit, except heads of another number of classes."""
    own, tensors = net.state_dict(), open_checkpoint(file).tensors()
    strange = [n for n, t in tensors.items() if n not in own or (own[n].shape != t.shape and "cls_head" not in n)]
    if strange:
        names = ", ".join(strange[:5])
        raise ModelError(
            file, f"{len(strange)} of its tensors do not fit this model: {names}", "use its own settings"
        )
    fitting = {name: tensor for name, tensor in tensors.items() if own[name].shape == tensor.shape}
    net.load_state_dict({**own, **fitting})
    return {name.split(".", 1)[0] for name in fitting}


def save_parts(
    path: Path, net: PromptNucSegNet, settings: Settings, parts: set[str], about: dict[str, Any]
) -> None:
    """Write the trained parts: a model that can run if both are trained, otherwise a start for another
    training."""
    wanted = expected_shapes(settings)
    state = {n: t for n, t in net.state_dict().items() if n in wanted and n.split(".", 1)[0] in parts}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp.safetensors")
    save_state(half, state, header_of(settings, ARCHITECTURE if set(state) == set(wanted) else PART, about))
    half.replace(path)
