"""The losses of the compact network. Each head learns only from what is known of a crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from wsi_nuc.models.compact.net import Asked, CompactNet, Maps
from wsi_nuc.models.compact.segmentor import enlarged
from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE
from wsi_nuc.training.compact.config import LossWeights
from wsi_nuc.training.compact.crops import Batch

BACKGROUND_PER_CROP = 4
HOT = 0.1


def losses(net: CompactNet, maps: Maps, batch: Batch, weights: LossWeights, side: int) -> dict[str, torch.Tensor]:
    """Each loss, multiplied by its weight. `side`: cells of a prompt's window at stride 2."""
    parts = {
        "heat": weights.heat * heat_loss(maps.heat[:, 0].float(), batch.heat, batch.heat_weight),
        "offset": weights.offset * _masked_l1(maps.offset.float(), batch.offset, batch.offset_weight),
        "kind": weights.kind * kind_loss(maps.classes.float(), batch.kind, batch.kind_weight, weights.classes),
        "region": weights.region * region_loss(maps.region[:, 0].float(), batch.region, batch.region_weight),
        "towards": weights.towards * _masked_l1(maps.towards.float(), batch.towards, batch.towards_weight),
    }
    asked, ids = _asked(batch, maps)
    if not len(ids):
        zero = maps.masks.float().sum() * 0
        return parts | {"mask": zero, "dice": zero, "quality": zero}
    embedding = net.decoder.embedding(maps.context, asked)
    logits, origin = net.decoder.window(embedding, maps.masks, asked, side)
    truth, seen = windows_of(batch.instances, asked.row, ids, origin, side)
    wide = enlarged(logits)
    mask, dice = mask_losses(wide, truth, seen, ids > 0, weights.background)
    quality = net.decoder.iou(embedding, logits)
    with torch.no_grad():
        iou = _iou(wide > 0, truth, seen)
    return parts | {
        "mask": weights.mask * mask,
        "dice": weights.dice * dice,
        "quality": weights.quality * F.binary_cross_entropy_with_logits(quality, iou),
    }


def heat_loss(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """CornerNet's focal loss: of the cells that hold no centre, those nearer to one cost less."""
    probs = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = (target > 1 - 1e-6).float()
    cost = -centre * (1 - probs) ** 2 * probs.log()
    cost = cost - (1 - centre) * (1 - target) ** 4 * probs**2 * (1 - probs).log()
    return (cost * weight).sum() / (centre * weight).sum().clamp(min=1)


def kind_loss(
    logits: torch.Tensor, kind: torch.Tensor, weight: torch.Tensor, classes: tuple[float, ...]
) -> torch.Tensor:
    rarity = logits.new_tensor(classes) if classes else None
    cost = F.cross_entropy(logits, kind.clamp(min=0), rarity, reduction="none", label_smoothing=0.05)
    return (cost * weight).sum() / weight.sum().clamp(min=1)


def region_loss(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probs = logits.sigmoid() * weight
    overlap = 2 * (probs * target).sum() + 1
    dice = 1 - overlap / (probs.sum() + (target * weight).sum() + 1)
    return (cost * weight).sum() / weight.sum().clamp(min=1) + dice


def _masked_l1(predicted: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    cost = F.smooth_l1_loss(predicted, wanted, beta=0.1, reduction="none").sum(1)
    return (cost * weight).sum() / weight.sum().clamp(min=1)


def _asked(batch: Batch, maps: Maps) -> tuple[Asked, torch.Tensor]:
    """The prompts of the crops and, with id 0, places that the network takes for nuclei although there is none."""
    row, xy = _false_points(batch, maps.heat[:, 0].detach().float())
    asked = Asked(
        torch.cat([batch.prompt_row, row]),
        torch.cat([batch.prompt_xy, xy]),
        torch.cat([batch.negative, torch.full_like(xy, float("nan"))]),
    )
    return asked, torch.cat([batch.prompt_id, torch.zeros_like(row)])


def _false_points(batch: Batch, heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    half = POINT_STRIDE // 2
    empty = batch.instances[:, half::POINT_STRIDE, half::POINT_STRIDE] == 0
    outlined = (batch.instances > 0).flatten(1).any(1)[:, None, None]
    score = torch.where(empty & (batch.heat < HOT) & outlined, heat.sigmoid(), 0.0)
    best, place = score.flatten(1).topk(BACKGROUND_PER_CROP)
    row, slot = torch.nonzero(best > HOT, as_tuple=True)
    place = place[row, slot]
    y, x = place // heat.shape[2], place % heat.shape[2]
    return row, (torch.stack([x, y], 1).float() + 0.5) * POINT_STRIDE


def windows_of(
    instances: torch.Tensor, row: torch.Tensor, ids: torch.Tensor, origin: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The true mask of each prompt in its window, and which of its pixels the crop holds: N x 2 side x 2 side."""
    steps = torch.arange(side * MASK_STRIDE, device=origin.device)
    x, y = (origin[:, i, None] * MASK_STRIDE + steps for i in (0, 1))
    height, width = instances.shape[1:]
    seen = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    near = instances[row[:, None, None], y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
    return ((near == ids[:, None, None]) & seen & (ids > 0)[:, None, None]).float(), seen.float()


def mask_losses(
    logits: torch.Tensor, truth: torch.Tensor, seen: torch.Tensor, real: torch.Tensor, background: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over the pixels and dice over the nuclei. Each mask counts the same, whatever its size."""
    weight = torch.where(real, 1.0, background)
    cost = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    per_mask = (cost * seen).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)
    probs = logits.sigmoid() * seen
    dice = 1 - (2 * (probs * truth).sum((1, 2)) + 1) / (probs.sum((1, 2)) + truth.sum((1, 2)) + 1)
    mean_dice = (dice * real).sum() / real.sum().clamp(min=1)
    return (per_mask * weight).sum() / weight.sum().clamp(min=1), mean_dice


def _iou(mask: torch.Tensor, truth: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    predicted = mask.float() * seen
    common = (predicted * truth).sum((1, 2))
    return common / ((predicted + truth).sum((1, 2)) - common).clamp(min=1)
