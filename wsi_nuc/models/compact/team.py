"""Networks that answer as one: several of them, and mirrored views of what they see. Their answers are averaged.

A team has the face of a `CompactNet`. Its features and embeddings are those of its members, one after the other,
and each member's decoder draws every mask from its own; the mean of their logits is the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from wsi_nuc.models.compact.net import Asked, CompactNet, Maps, MaskDecoder, PooledClasses
from wsi_nuc.models.compact.settings import VIEWS, Side

SURE = 1e-6  # probabilities come no nearer to 0 and 1 than this before they become logits again


class Team(nn.Module):
    """What a file of several networks holds, and what a network becomes that sees more than one view."""

    def __init__(self, nets: Sequence[CompactNet], views: int = 1) -> None:
        super().__init__()
        self.nets, self.sides = nn.ModuleList(nets), VIEWS[views]
        self.decoder = TeamDecoder(list(nets), self.sides)
        heads = [net.class_head for net in nets]
        pooled = all(isinstance(head, PooledClasses) for head in heads)
        self.class_head: nn.Module = TeamClasses(heads, len(self.sides)) if pooled else nn.Identity()

    @property
    def members(self) -> list[CompactNet]:
        return list(self.nets)  # type: ignore[arg-type]

    def forward(self, pixels: torch.Tensor) -> Maps:
        """`pixels`: as for `CompactNet`."""
        seen = [mirrored_maps(net(mirrored(pixels, side)), side) for side in self.sides for net in self.members]
        heat = torch.stack([maps.heat.float().sigmoid() for maps in seen]).mean(0)
        points = torch.cat([as_logits(heat), _mean([maps.offset.float() for maps in seen])], 1)
        fine = [_mean([maps.fine[:, :3] for maps in seen]), *(maps.masks for maps in seen)]
        context = [torch.cat([maps.context[i] for maps in seen], 1) for i in (0, 1)]
        return Maps(points, self._classes(seen), torch.cat(fine, 1), (context[0], context[1]))

    def _classes(self, seen: Sequence[Maps]) -> torch.Tensor:
        if isinstance(self.class_head, PooledClasses):
            return torch.cat([maps.classes for maps in seen], 1)
        return _mean([maps.classes.float().softmax(1) for maps in seen]).clamp(min=SURE).log()


class TeamDecoder(MaskDecoder):
    """The decoders of all members, for all views. It has no weights of its own."""

    def __init__(self, nets: Sequence[CompactNet], sides: Sequence[Side]) -> None:
        nn.Module.__init__(self)
        self._seen = [(net.decoder, side) for side in sides for net in nets]
        self._embedded = [net.decoder.prompt_channels for net in nets] * len(sides)
        self._features = [net.mask_channels for net in nets] * len(sides)
        self._context = tuple([net.context_channels[i] for net in nets] * len(sides) for i in (0, 1))
        self.prompt_channels = sum(self._embedded)

    def embedding(self, context: tuple[torch.Tensor, ...], asked: Asked) -> torch.Tensor:
        """N x the sum of all prompt channels."""
        fine, coarse = (torch.split(maps, sizes, 1) for maps, sizes in zip(context, self._context, strict=True))
        parts = zip(self._seen, fine, coarse, strict=True)
        return torch.cat([decoder.embedding((near, far), asked) for (decoder, _), near, far in parts], 1)

    def at(
        self, embedding: torch.Tensor, features: torch.Tensor, pixel_xy: torch.Tensor, asked: Asked
    ) -> torch.Tensor:
        embeddings = torch.split(embedding, self._embedded, 1)
        logits = [
            decoder.at(embedded, seen, pixel_xy * along(side, pixel_xy), _turned(asked, side)).float()
            for (decoder, side), embedded, seen in zip(
                self._seen, embeddings, torch.split(features, self._features, 2), strict=True
            )
        ]
        return _mean(logits)

    def iou(self, embedding: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        parts = zip(self._seen, torch.split(embedding, self._embedded, 1), strict=True)
        return _mean([decoder.iou(embedded, logits) for (decoder, _), embedded in parts])


class TeamClasses(PooledClasses):
    """The pooled class heads of all members, for all views. It has no weights of its own."""

    def __init__(self, heads: Sequence[nn.Module], views: int) -> None:
        nn.Module.__init__(self)
        self._heads: list[PooledClasses] = list(heads) * views  # type: ignore[assignment]

    def told(self, hidden: torch.Tensor) -> torch.Tensor:
        parts = torch.split(hidden, [head.out.in_features for head in self._heads], 1)
        return _mean([head.told(part) for head, part in zip(self._heads, parts, strict=True)])


AnyNet = CompactNet | Team
"""What a file of the compact family may hold."""


def of_views(net: AnyNet, views: int) -> AnyNet:
    """The same networks, seeing this many views."""
    members = net.members if isinstance(net, Team) else [net]
    return net if len(members) == 1 and views == 1 else Team(members, views)


def mirrored(x: torch.Tensor, side: Side) -> torch.Tensor:
    """B x C x H x W, mirrored along the axes on which the view runs backwards."""
    backwards = [dim for dim, step in ((3, side[0]), (2, side[1])) if step < 0]
    return x.flip(backwards) if backwards else x


def mirrored_maps(maps: Maps, side: Side) -> Maps:
    """What a mirrored view gave, as if it had not been mirrored."""
    if side == (1, 1):
        return maps
    points, classes, fine, *context = (
        mirrored(x, side) for x in (maps.points, maps.classes, maps.fine, *maps.context)
    )
    way = along(side, points)[None, :, None, None]
    points = torch.cat([points[:, :1], points[:, 1:] * way], 1)
    fine = torch.cat([fine[:, :1], fine[:, 1:3] * way.to(fine.dtype), fine[:, 3:]], 1)
    return Maps(points, classes, fine, (context[0], context[1]))


def along(side: Side, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(side, device=like.device, dtype=like.dtype)


def _turned(asked: Asked, side: Side) -> Asked:
    """Only the way from prompt to pixel counts in a decoder, so this is how a mirrored view sees prompts."""
    way = along(side, asked.xy)
    return Asked(asked.row, asked.xy * way, asked.negative * way)


def _mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts)).mean(0)


def as_logits(probs: torch.Tensor) -> torch.Tensor:
    return torch.logit(probs.clamp(SURE, 1 - SURE))
