"""The networks: a prompter, whose anchors on a grid move to the nuclei around them and are classified, and SAM.

Coordinates inside are the published ones: pixel indices, so the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.promptnucseg.encoder import ConvEncoder
from wsi_nuc.models.promptnucseg.pyramid import STRIDES, Backbone, FoldedBackbone, SharedBackbone
from wsi_nuc.models.promptnucseg.settings import CONV, WINDOW_PX, PrompterSettings, Settings
from wsi_nuc.models.sam.model import EMBEDDING, Sam


@dataclass(frozen=True, slots=True)
class Proposed:
    """What the prompter proposes for a batch of B images."""

    xy: torch.Tensor
    """B x anchors x 2 pixel indices."""
    logits: torch.Tensor
    """B x anchors x (C + 1), background last; C is 1 where the prompter is class-agnostic."""
    mask_logits: torch.Tensor | None
    """B x 1 x h x w of the region mask at about stride 4; None where it was not asked for."""
    size: tuple[int, int]
    """Height and width of the pixels."""


class PrompterNet(nn.Module):
    """The prompter. Its parameters have the names of the authors' checkpoints.

    `near`: channels of the map of stride 4 that a shared encoder gives beside its tokens; 0: it gives none.
    """

    def __init__(self, settings: PrompterSettings, class_count: int, near: int = 0) -> None:
        super().__init__()
        width, levels = settings.channels, settings.levels
        self.space_px, self.levels = settings.space_px, levels
        self.backbone: Backbone | SharedBackbone | FoldedBackbone
        if not settings.shared_encoder:
            self.backbone = Backbone(settings.backbone, width, levels)
        elif near:
            self.backbone = FoldedBackbone(near, EMBEDDING, width, levels)
        else:
            self.backbone = SharedBackbone(EMBEDDING, width, levels)
        self.deform_layer = Head(width, 2, settings.dropout)
        self.reg_head = Head(width, 2, settings.dropout)
        self.cls_head = Head(width, class_count + 1, settings.dropout)
        self.conv = nn.Conv2d(width * levels, width, 3, padding=1)
        # The padding of the last convolution is the published one: a frame of bias that the resizing squeezes in.
        self.mask_head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 1, padding=1),
        )

    def forward(self, source: torch.Tensor, size: tuple[int, int], with_mask: bool = True) -> Proposed:
        """`source`: normalised pixels, or the image embedding where the encoder is shared.

        `size`: height and width of the pixels, multiples of the anchors' distance.
        """
        features = self.backbone.features(source)
        levels = self.backbone.neck(features)
        anchors = anchor_grid(size, self.space_px, source.device)[None]
        anchors = anchors + self.deform_layer(_sample(levels[0], anchors, STRIDES[0]).permute(0, 2, 3, 1))
        sampled = [_sample(level, anchors, STRIDES[0] * 2**i) for i, level in enumerate(levels[: self.levels])]
        seen = self.conv(torch.cat(sampled, 1)).permute(0, 2, 3, 1)
        xy = anchors + self.reg_head(seen)
        mask = self.mask_head(self.backbone.neck1(features)[0]) if with_mask else None
        return Proposed(xy.flatten(1, 2).float(), self.cls_head(seen).flatten(1, 2).float(), mask, size)


class Head(nn.Module):
    """FC - ReLU - Dropout - FC (supplement A)."""

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(width, out)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def anchor_grid(size: tuple[int, int], space_px: int, device: torch.device) -> torch.Tensor:
    """rows x columns x 2 (x, y): every `space_px`, the first at half a step, or at half of what is left over."""
    axes = []
    for length in reversed(size):
        count = -(-length // space_px)
        first = (length % space_px or space_px) / 2
        axes.append(torch.arange(count, device=device) * float(space_px) + first)
    x, y = torch.meshgrid(*axes, indexing="xy")
    return torch.stack([x, y], -1)


def resize_mask(mask_logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """B x H x W logits of the region mask at the resolution of the pixels."""
    return F.interpolate(mask_logits.float(), size=size, mode="bilinear", align_corners=True)[:, 0]


def _sample(feature: torch.Tensor, xy: torch.Tensor, stride: int) -> torch.Tensor:
    """Bilinear values of B x C x h x w at B x rows x columns x 2 pixels: B x C x rows x columns."""
    size = torch.tensor(feature.shape[:1:-1], dtype=torch.float32, device=feature.device)
    place = 2.0 * xy.float() / stride / size - 1.0
    place = place.expand(len(feature), -1, -1, -1)
    # Places in bf16 would be whole pixels off, and both arguments must be of one type.
    return F.grid_sample(feature.float(), place, mode="bilinear", align_corners=True)


class PromptNucSegNet(nn.Module):
    """Both networks; the names of a native file's tensors are the names of its parameters."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        classes, size, sizes = len(settings.classes), settings.segmentor.size, settings.net
        conv = size == CONV
        told = 1 if settings.prompter.class_agnostic else classes
        self.prompter = PrompterNet(settings.prompter, told, sizes.pyramid[0] if conv else 0)
        token = classes if settings.segmentor.class_token else 0
        self.segmentor = Sam(size, WINDOW_PX, token, ConvEncoder(sizes) if conv else None)


def expected_shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a file with these settings holds; nothing is allocated."""
    with torch.device("meta"):
        net = PromptNucSegNet(settings)
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items() if not is_counter(name)}


def class_counts(settings: Settings, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """For how many classes each head is; heads that are missing from `shapes` are left out."""
    heads = {} if settings.prompter.class_agnostic else {"prompter.cls_head.layers.3.bias": 1}
    if settings.segmentor.class_token:
        heads["segmentor.mask_decoder.cls_head.layers.2.bias"] = 0
    return [shapes[name][0] - background for name, background in heads.items() if name in shapes]


def is_counter(name: str) -> bool:
    """The batch norm's count of training steps, which has no effect at a fixed momentum."""
    return name.endswith("num_batches_tracked")
