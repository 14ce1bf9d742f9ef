"""What a network learns from another one's answers, on any tissue, with labels or without.

The teacher sees the same pixels. Where it expects nuclei it also says the mask of each: a prompt is put on each of
its clearest points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.build import net_of
from wsi_nuc.models.compact.net import Asked, CompactNet, Maps, mask_windows
from wsi_nuc.models.compact.network import Network
from wsi_nuc.models.compact.packaged import checkpoint_of
from wsi_nuc.models.compact.settings import POINT_STRIDE, Settings, UseSettings
from wsi_nuc.models.compact.team import AnyNet, Team
from wsi_nuc.models.device import Device
from wsi_nuc.training.compact.config import TeacherConfig

CLEAR = 0.3  # least heat of a point that becomes a prompt


def teacher_of(config: TeacherConfig, classes: tuple[str, ...], device: str) -> AnyNet | None:
    """The mean of all named models and views, fused; None where none is named."""
    nets: list[CompactNet] = []
    for name in config.models:
        checkpoint = checkpoint_of(name)
        known = Settings.from_header(checkpoint.info.details).classes
        if known != classes:
            cause = f"knows the classes {', '.join(known)} and not {', '.join(classes)}"
            raise ModelError(f"teacher {name}", cause, "teach with a model of the same classes, in the same order")
        net = net_of(checkpoint)
        nets += net.members if isinstance(net, Team) else [net]
    if not nets:
        return None
    use = UseSettings(views=config.views)
    return Network.of(nets[0] if len(nets) == 1 else Team(nets), Device.of(device, "auto"), use).net


def teaching_losses(
    net: CompactNet, maps: Maps, teacher: AnyNet, told: Maps, prompts: int, side: int
) -> dict[str, torch.Tensor]:
    """How far the answers of `net` are from the teacher's. `prompts`: most masks per crop; `side`: cells of a
    prompt's window at stride 2."""
    heat, region = told.heat.float().sigmoid(), told.region.float().sigmoid()
    offset = (maps.offset.float() - told.offset.float()).abs() * heat
    kinds = F.kl_div(maps.classes.float().log_softmax(1), told.classes.float().softmax(1), reduction="none")
    inside = F.avg_pool2d(region, 2)
    losses = {
        "taught_heat": _beyond(maps.heat.float(), heat).sum() / heat.sum().clamp(min=1),
        "taught_offset": offset.sum() / heat.sum().clamp(min=1),
        "taught_kind": (kinds * inside).sum() / inside.sum().clamp(min=1),
        "taught_region": _beyond(maps.region.float(), region).mean(),
    }
    asked = clear_points(told, prompts)
    if not len(asked.row):
        return losses | {"taught_mask": maps.masks.float().sum() * 0}
    with torch.no_grad():
        masks = mask_windows(teacher.decoder, told, asked, side)
    drawn = mask_windows(net.decoder, maps, asked, side)
    return losses | {"taught_mask": _beyond(drawn, masks.sigmoid()).mean()}


def clear_points(told: Maps, most: int) -> Asked:
    """The teacher's clearest points, at most this many per crop, each with the nearest other one as its
    negative."""
    heat = told.heat[:, 0].float().sigmoid()
    peak = heat * (heat >= F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0])
    best, place = peak.flatten(1).topk(min(most, peak[0].numel()))
    y, x = place // heat.shape[2], place % heat.shape[2]
    rows = torch.arange(len(heat), device=heat.device)[:, None].expand_as(x)
    moved = told.offset.float().clamp(-1.5, 1.5).permute(0, 2, 3, 1)[rows, y, x]
    xy = (torch.stack([x, y], 2) + 0.5 + moved) * POINT_STRIDE
    clear = best > CLEAR
    away = torch.cdist(xy, xy).masked_fill(~clear[:, None, :], torch.inf)
    away = away.masked_fill(torch.eye(xy.shape[1], dtype=torch.bool, device=xy.device), torch.inf)
    distance, nearest = away.min(2)
    negative = xy.gather(1, nearest[..., None].expand_as(xy)).masked_fill(distance.isinf()[..., None], torch.nan)
    return Asked(rows[clear], xy[clear], negative[clear])


def _beyond(logits: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """Cross-entropy above what it is where both agree, so that 0 means that nothing is left to learn."""
    least = F.binary_cross_entropy(probs.clamp(1e-6, 1 - 1e-6), probs, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, probs, reduction="none") - least
