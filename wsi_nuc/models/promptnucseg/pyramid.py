"""Feature pyramids of the prompter: over a timm backbone, or over the segmentor's image embedding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.errors import ModelError
from wsi_nuc.models.torch_ops import load

STRIDES = (4, 8, 16, 32)


class FeaturePyramid(nn.Module):
    """Top-down pyramid (FPN). Levels beyond the backbone's are strided convolutions of its last feature map."""

    def __init__(self, in_channels: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_named(nn.Conv2d(inner, channels, 1)) for inner in in_channels)
        inside = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(min(levels, len(in_channels)))]
        sources = [in_channels[-1]] + [channels] * levels
        extra = [nn.Conv2d(sources[i], channels, 3, stride=2, padding=1) for i in range(levels - len(in_channels))]
        self.fpn_convs = nn.ModuleList(_named(conv) for conv in inside + extra)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        laterals = [conv(feature) for conv, feature in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size=laterals[i - 1].shape[2:])
        convs = list(self.fpn_convs)
        out = [conv(lateral) for conv, lateral in zip(convs, laterals, strict=False)]
        source = features[-1]
        for conv in convs[len(laterals) :]:
            source = conv(source)
            out.append(source)
        return out


class Backbone(nn.Module):
    """A timm backbone with two pyramids: `neck` for the anchors, `neck1` (one level) for the region mask."""

    def __init__(self, name: str, channels: int, levels: int) -> None:
        super().__init__()
        self.backbone = _timm_model(name)
        self._taps = _taps(name, self.backbone)
        inner = [self.backbone.feature_info[tap]["num_chs"] for tap in self._taps]
        self.neck = FeaturePyramid(inner, channels, levels)
        self.neck1 = FeaturePyramid(inner, channels, 1)

    def features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = self.backbone.forward_intermediates(
            pixels, indices=list(self._taps), intermediates_only=True
        )
        return maps


class SharedBackbone(nn.Module):
    """The segmentor's image embedding (stride 16) brought to strides 4, 8, 16 and 32, then the same two pyramids.

    Paper, "Further ablation studies": prompter and segmentor trained end to end on one image encoder.
    """

    def __init__(self, embedding: int, channels: int, levels: int) -> None:
        super().__init__()
        half, quarter = embedding // 2, embedding // 4
        self.to_stride8 = nn.ConvTranspose2d(embedding, half, 2, stride=2)
        self.to_stride4 = nn.Sequential(
            nn.ConvTranspose2d(embedding, half, 2, stride=2),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        inner = [quarter, half, embedding, embedding]
        self.neck = FeaturePyramid(inner, channels, levels)
        self.neck1 = FeaturePyramid(inner, channels, 1)

    def features(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        return [
            self.to_stride4(embedding), self.to_stride8(embedding), embedding, F.max_pool2d(embedding, 2),
        ]  # fmt: skip


class FoldedBackbone(nn.Module):
    """The map of stride 4 that a convolutional encoder gives beside its tokens, the same at stride 8, the tokens,
    and these at stride 32; then the same two pyramids."""

    def __init__(self, near: int, embedding: int, channels: int, levels: int) -> None:
        super().__init__()
        self._embedding = embedding
        inner = [near, near, embedding, embedding]
        self.neck = FeaturePyramid(inner, channels, levels)
        self.neck1 = FeaturePyramid(inner, channels, 1)

    def features(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        tokens, folded = embedding.split_with_sizes([self._embedding, embedding.shape[1] - self._embedding], 1)
        near = F.pixel_shuffle(folded, STRIDES[2] // STRIDES[0])
        return [near, F.avg_pool2d(near, 2), tokens, F.max_pool2d(tokens, 2)]


def _timm_model(name: str) -> Any:
    timm = load("timm")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_', maxsplit=1)[0]}*")[:5])
        raise ModelError(
            f"backbone {name!r}", "timm has no such model", f"use for example {near or 'convnext_small'}"
        )
    return timm.create_model(name, pretrained=False, num_classes=0)


def _taps(name: str, model: Any) -> tuple[int, ...]:
    """Indices of the feature maps of strides 4 to 32; what comes after the last is removed from the model."""
    by_stride = OrderedDict((info["reduction"], i) for i, info in enumerate(model.feature_info))
    if not all(stride in by_stride for stride in STRIDES) or not hasattr(model, "forward_intermediates"):
        raise ModelError(
            f"backbone {name!r}", "it has no feature maps of strides 4 to 32", "use a ConvNeXt or ResNet"
        )
    taps = tuple(by_stride[stride] for stride in STRIDES)
    model.prune_intermediate_layers(list(taps), prune_norm=True, prune_head=True)
    return taps


def _named(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv))
