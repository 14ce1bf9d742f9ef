"""From the masks of the dots to labels: what is certain stays, everything else is ignored (Eqs. 2 to 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wsi_nuc.training.instasam.config import PseudoConfig

IGNORED = -1


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Labels, and why pixels are ignored."""

    labels: torch.Tensor
    """B x h x w: 0 background, n + 1 the nucleus of dot n, IGNORED."""
    uncertain: torch.Tensor
    """B x h x w: ignored for their entropy."""
    claimed: torch.Tensor
    """B x h x w: ignored because several nuclei claim them."""


def refined(
    logits: torch.Tensor,
    origin: torch.Tensor,
    row: torch.Tensor,
    shape: tuple[int, int, int],
    rule: PseudoConfig,
) -> PseudoLabels:
    """The labels of maps of `shape`, B x h x w.

    `logits`: N x s x s, one window per dot; `origin`: N x 2, the first cell (x, y) of each window, which may lie
    outside of the map; `row`: N, its image. Outside of its window the probability of a nucleus is 0.
    """
    batch, height, width = shape
    side, size = logits.shape[-1], batch * height * width
    steps = torch.arange(side, device=logits.device)
    x, y = (origin[:, i, None] + steps for i in (0, 1))
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    place = (row[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    used = torch.nonzero(inside.flatten())[:, 0]
    place, logit, dot = place.flatten()[used], logits.float().flatten()[used], used // side**2
    p = logit.sigmoid()

    best = p.new_zeros(size).scatter_reduce(0, place, p, "amax")
    # Of two equally probable nuclei the earlier dot wins.
    candidate = torch.where(p == best[place], dot, len(logits))
    winner = torch.full((size,), len(logits), device=p.device).scatter_reduce(0, place, candidate, "amin")
    labels = torch.where(best > rule.delta, winner + 1, 0)
    uncertain, claimed = (torch.zeros(size, dtype=torch.bool, device=p.device) for _ in range(2))
    if rule.entropy == "printed":
        entropy = p.new_zeros(size).index_add(0, place, -p * torch.nn.functional.logsigmoid(logit))
        uncertain = entropy >= rule.epsilon
    elif rule.entropy == "binary":
        uncertain = -(torch.xlogy(best, best) + torch.xlogy(1 - best, 1 - best)) >= rule.epsilon
    if rule.overlap:
        claims = p.new_zeros(size).index_add(0, place, (p > rule.delta).float())
        claimed = claims >= 2
    labels = labels.masked_fill(uncertain | claimed, IGNORED)
    return PseudoLabels(labels.view(shape), uncertain.view(shape), claimed.view(shape))


def distance_maps(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """B x 2 x h x w: horizontal and vertical distance of each pixel from the centre of mass of its nucleus, as a
    share of the greatest distance on that side; and B x h x w: where that is known, which are the pixels of all
    nuclei that the edge of the map does not touch. A label names one nucleus of the whole batch."""
    batch, height, width = labels.shape
    count = int(labels.max().clamp(min=0)) + 1
    inside = labels > 0
    ids, rows = labels[inside], torch.nonzero(inside)
    edges = torch.cat([labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]], 1)
    cut = torch.zeros(count, dtype=torch.bool, device=labels.device)
    cut[edges[edges > 0]] = True
    area = torch.bincount(ids, minlength=count).clamp(min=1).float()
    maps = torch.zeros(batch, 2, height, width, device=labels.device)
    for i, axis in ((0, 2), (1, 1)):
        at = rows[:, axis].float()
        offset = at - (at.new_zeros(count).index_add(0, ids, at) / area)[ids]
        right, left = (
            at.new_full((count,), 1e-6).scatter_reduce(0, ids, side, "amax")[ids] for side in (offset, -offset)
        )
        maps[:, i][inside] = offset / torch.where(offset > 0, right, left)
    known = inside.clone()
    known[inside] = ~cut[ids]
    return maps, known
