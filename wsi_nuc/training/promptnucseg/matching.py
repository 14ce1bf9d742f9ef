"""Which anchor stands for which nucleus: Eq. 3 of the paper, solved exactly."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from wsi_nuc.errors import UsageError


def edge_weights(xy: torch.Tensor, logits: torch.Tensor, points: torch.Tensor, alpha: float) -> torch.Tensor:
    """anchors x nuclei: class probability minus `alpha` times the distance (Eq. 3).

    A nucleus of unknown class (-1) takes the probability of being any nucleus.
    """
    probs = logits.softmax(-1)
    types = points[:, 2].long()
    # The last column is background: what is not background stands for -1.
    table = torch.cat([probs[:, :-1], 1 - probs[:, -1:]], 1)
    return table[:, types] - alpha * torch.cdist(xy, points[:, :2])


def match(
    xy: torch.Tensor, logits: torch.Tensor, points: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of matched anchors and of their nuclei, of the greatest total weight, each used once."""
    with torch.no_grad():
        weights = edge_weights(xy.float(), logits.float(), points, alpha).cpu()
    if len(points) > len(xy):
        cause = f"{len(points)} nuclei and {len(xy)} anchors in one crop"
        raise UsageError("prompter.space_px", cause, "use a smaller distance of anchors")
    anchors, nuclei = linear_sum_assignment(weights.numpy(), maximize=True)
    device = xy.device
    return torch.from_numpy(anchors).to(device), torch.from_numpy(nuclei).to(device)


def match_nearest(anchor_xy: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For comparison: each nucleus takes the anchor nearest to it as the grid has it; one taken before is gone."""
    if not len(points):
        none = torch.zeros(0, dtype=torch.int64, device=points.device)
        return none, none
    nearest = torch.cdist(anchor_xy, points[:, :2]).argmin(0).cpu()
    taken: dict[int, int] = {}
    for nucleus, anchor in enumerate(nearest.tolist()):
        taken.setdefault(anchor, nucleus)
    device = points.device
    return torch.tensor(list(taken), device=device), torch.tensor(list(taken.values()), device=device)
