"""The losses of the paper, Eqs. 2 to 6, for batches in which not every image has every kind of label.

`LossConfig` names the variants of the released code. Eq. 3, which decides which anchor stands for which nucleus,
is solved exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from wsi_nuc.errors import UsageError
from wsi_nuc.models.promptnucseg.net import Proposed, anchor_grid, resize_mask
from wsi_nuc.training.promptnucseg.batches import Batch
from wsi_nuc.training.promptnucseg.config import LossConfig

Losses = dict[str, torch.Tensor]
FOCAL_GAMMA = 2.0  # as in the focal loss paper and in SAM
EPSILON = 1e-7  # of the released code


def edge_weights(xy: torch.Tensor, logits: torch.Tensor, points: torch.Tensor, alpha: float) -> torch.Tensor:
    """anchors x nuclei: class probability minus `alpha` times the distance (Eq. 3).

    A nucleus of unknown class (-1) takes the probability of being any nucleus.
    """
    probs = logits.softmax(-1)
    types = points[:, 2].long()
    # In the last column, which index -1 selects, background is replaced by its opposite: any nucleus.
    table = torch.cat([probs[:, :-1], 1 - probs[:, -1:]], 1)
    return table[:, types] - alpha * torch.cdist(xy, points[:, :2])


def match(
    xy: torch.Tensor, logits: torch.Tensor, points: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of matched anchors and of their nuclei: the matching of greatest total weight, each used once."""
    with torch.no_grad():
        weights = edge_weights(xy.float(), logits.float(), points, alpha).cpu()
    if len(points) > len(xy):
        cause = f"{len(points)} nuclei and {len(xy)} anchors in one crop"
        raise UsageError("prompter.space_px", cause, "use a smaller distance of anchors")
    anchors, nuclei = linear_sum_assignment(weights.numpy(), maximize=True)
    device = xy.device
    return torch.from_numpy(anchors).to(device), torch.from_numpy(nuclei).to(device)


def match_nearest(anchor_xy: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For comparison: each nucleus takes the nearest anchor of the unmoved grid, unless an earlier nucleus has
    taken it."""
    if not len(points):
        none = torch.zeros(0, dtype=torch.int64, device=points.device)
        return none, none
    nearest = torch.cdist(anchor_xy, points[:, :2]).argmin(0).cpu()
    taken: dict[int, int] = {}
    for nucleus, anchor in enumerate(nearest.tolist()):
        taken.setdefault(anchor, nucleus)
    device = points.device
    return torch.tensor(list(taken), device=device), torch.tensor(list(taken.values()), device=device)


def focal(logits: torch.Tensor, target: torch.Tensor, alpha: float | None) -> torch.Tensor:
    """Element-wise focal loss of logits against 0/1. `alpha`: weight of the ones; None weights nothing."""
    target = target.to(logits.dtype)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = torch.where(target > 0, torch.sigmoid(-logits), torch.sigmoid(logits))
    focus = missed**FOCAL_GAMMA
    return (focus if alpha is None else torch.where(target > 0, alpha, 1 - alpha) * focus) * cross


def dice(logits: torch.Tensor, target: torch.Tensor, over: str) -> torch.Tensor:
    """Dice loss of n masks (n x h x w): the mean of each "mask", or of the "batch" as a whole."""
    probs, target = logits.sigmoid().flatten(1), target.to(logits.dtype).flatten(1)
    if over == "mask":
        return (1 - (2 * (probs * target).sum(1) + 1) / (probs.sum(1) + target.sum(1) + 1)).mean()
    shared = 2 * (probs * target).sum() / (probs.sum() + target.sum()).clamp(min=EPSILON)
    return (1 - shared) * (target.sum() > 0)


def hard_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU of each mask, thresholded as in inference."""
    mask, target = (logits > 0).flatten(1), target.flatten(1)
    union = (mask | target).sum(1)
    return (mask & target).sum(1) / union.clamp(min=1)


def soft_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU of each mask's probabilities."""
    probs, target = logits.sigmoid().flatten(1), target.to(logits.dtype).flatten(1)
    both = (probs * target).sum(1)
    return (both + EPSILON) / (probs.sum(1) + target.sum(1) - both + EPSILON)


def focal_classes(logits: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """Multi-class focal loss of each row (the [cls] token's)."""
    log_p = logits.log_softmax(-1).gather(1, types[:, None])[:, 0]
    return -((1 - log_p.exp()) ** FOCAL_GAMMA) * log_p


def segmentor_losses(
    logits: torch.Tensor, predicted_iou: torch.Tensor, target: torch.Tensor, config: LossConfig
) -> Losses:
    """Eq. 2, the mean over the n masks. Without masks it is 0, still connected to the parameters."""
    if not len(logits):
        nothing = logits.sum() + predicted_iou.sum()
        return {"focal": nothing, "dice": nothing, "iou": nothing}
    logits, predicted_iou = logits.float(), predicted_iou.float()
    iou = hard_iou if config.iou == "hard" else soft_iou
    return {
        "focal": config.omega * focal(logits, target, config.focal_alpha).mean(),
        "dice": dice(logits, target, config.dice),
        "iou": F.mse_loss(predicted_iou, iou(logits, target)),
    }


def prompter_losses(proposed: Proposed, space_px: int, batch: Batch, config: LossConfig) -> Losses:
    """Eqs. 4 to 6, over the images whose points are known and over those whose region is known. All anchors and
    nuclei of the batch count alike."""
    nothing = proposed.xy.sum() * 0 + proposed.logits.sum() * 0
    distances, log_p, anchors, nuclei = nothing, nothing, 0, 0
    for xy, logits, known in zip(proposed.xy, proposed.logits, batch.points, strict=True):
        if known is None:
            continue
        points = known.to(xy.device)
        if logits.shape[-1] == 2:  # a prompter with one class: every nucleus is of it
            points = torch.cat([points[:, :2], points[:, 2:].clamp(max=0)], 1)
        rows, columns = _matched(xy, logits, points, proposed.size, space_px, config)
        distances = distances + _distance(xy[rows], points[columns, :2], config.regression).sum()
        log_p = log_p + _log_likelihood(logits, rows, points[columns, 2].long(), config.beta)
        anchors, nuclei = anchors + len(xy), nuclei + len(rows)
    weights = anchors if config.class_mean == "anchors" else nuclei + config.beta * (anchors - nuclei)
    losses = {
        "regression": config.gamma * distances / max(1, nuclei),
        "class": -log_p / (weights or 1),
    }
    if proposed.mask_logits is not None and config.mask > 0:
        losses["mask"] = config.mask * _region(proposed, batch, config.focal_alpha)
    return losses


def _matched(
    xy: torch.Tensor,
    logits: torch.Tensor,
    points: torch.Tensor,
    size: tuple[int, int],
    space_px: int,
    config: LossConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    if config.matching == "nearest":
        return match_nearest(anchor_grid(size, space_px, xy.device).flatten(0, 1), points)
    return match(xy, logits, points, config.alpha)


def _distance(xy: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    squared = ((xy - target) ** 2).sum(1)
    # The root has no slope at 0: without the epsilon an exact hit gives NaN.
    return squared if kind == "squared" else (squared + 1e-6).sqrt()


def _log_likelihood(logits: torch.Tensor, rows: torch.Tensor, types: torch.Tensor, beta: float) -> torch.Tensor:
    """The bracket of Eq. 4: matched anchors count by their class, all others as background."""
    log_q = logits.log_softmax(-1)
    any_nucleus = log_q[rows, :-1].logsumexp(-1)
    of_class = log_q[rows, types.clamp(min=0)]
    others = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    others[rows] = False
    return torch.where(types < 0, any_nucleus, of_class).sum() + beta * log_q[others, -1].sum()


def _region(proposed: Proposed, batch: Batch, alpha: float | None) -> torch.Tensor:
    """Eq. 5, the mean over the pixels of images whose foreground is known."""
    assert proposed.mask_logits is not None
    logits = resize_mask(proposed.mask_logits, proposed.size)
    known = batch.has_region.to(logits.dtype)
    by_image = focal(logits, batch.region, alpha).mean((1, 2))
    return (by_image * known).sum() / known.sum().clamp(min=1)
