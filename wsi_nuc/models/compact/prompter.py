"""From the network's maps to one point per nucleus: the peaks of the heat, only the best one in each nucleus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from wsi_nuc.models.compact.net import Asked, Maps, PooledClasses
from wsi_nuc.models.compact.network import Network
from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE
from wsi_nuc.models.compact.team import AnyNet
from wsi_nuc.models.nms import greedy_survivors, suppress_doubles
from wsi_nuc.types import Int64, Prompts


def propose(network: Network, maps: Sequence[Maps], size: tuple[int, int]) -> Prompts:
    """The points of a batch. `size`: height and width of its tiles."""
    with torch.inference_mode():
        return concat([_of_tile(network, of_tile, row, size) for row, of_tile in enumerate(maps)])


def _of_tile(network: Network, maps: Maps, row: int, size: tuple[int, int]) -> Prompts:
    use = network.use
    prompts = suppress_doubles(peaks(network.net, maps, row, size, use.threshold), use.nms_radius_px)
    pairs = _same_nucleus(network, maps, prompts)
    return prompts.select(greedy_survivors(len(prompts), pairs[:, 0], pairs[:, 1]))


def _same_nucleus(network: Network, maps: Maps, prompts: Prompts) -> Int64:
    """Pairs of points that lie in each other's mask, n x 2, the better one first. Of each mask only the pixel of
    the other point is computed."""
    reach, device = network.use.window_px / 2, network.device.torch_device
    pairs: Int64 = cKDTree(prompts.xy_tile).query_pairs(reach, output_type="ndarray").astype(np.int64)
    if not len(pairs):
        return pairs.reshape(0, 2)
    pairs = np.sort(pairs, axis=1)
    asked = asked_of(prompts, np.arange(len(prompts)), None, device)
    better, worse = (torch.from_numpy(pairs[:, i]).to(device) for i in (0, 1))
    embedding = network.device.infer(network.net.decoder.embedding, maps.context, asked)
    both = [_inside(network, maps, embedding, asked, a, b) for a, b in ((better, worse), (worse, better))]
    same: Int64 = pairs[(both[0] & both[1]).cpu().numpy()]
    return same


def _inside(
    network: Network,
    maps: Maps,
    embedding: torch.Tensor,
    asked: Asked,
    mask: torch.Tensor,
    point: torch.Tensor,
) -> torch.Tensor:
    """For each pair: whether the point `point` lies in the mask of the prompt `mask`."""
    height, width = maps.masks.shape[2:]
    cell = (asked.xy[point] / MASK_STRIDE).long()
    x, y = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    features = maps.masks[0, :, y, x].T[:, None]
    pixel = (torch.stack([x, y], 1).float() + 0.5) * MASK_STRIDE
    decoder, prompts = network.net.decoder, asked.select(mask)
    logits = network.device.infer(decoder.at, embedding[mask], features, pixel[:, None], prompts)
    inside: torch.Tensor = logits[:, 0] > network.use.mask_logit
    return inside


def peaks(net: AnyNet, maps: Maps, row: int, size: tuple[int, int], threshold: float) -> Prompts:
    """A point at each cell that is the hottest of its neighbours, moved by the cell's offset."""
    heat = smoothed(maps.heat[0].float().sigmoid())
    top = F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0]
    y, x = torch.nonzero((heat >= top) & (heat > threshold), as_tuple=True)
    cell = torch.stack([x, y], 1).float() + 0.5
    xy = (cell + maps.offset[0, :, y, x].T.float().clamp(-1.5, 1.5)) * POINT_STRIDE
    inside = (xy[:, 0] < size[1]) & (xy[:, 1] < size[0])
    limit = np.nextafter(np.array([size[1], size[0]], np.float32), np.float32(0))
    said = maps.classes[0, :, y, x].T.float()
    probs = net.class_head.told(said) if isinstance(net.class_head, PooledClasses) else said.softmax(1)
    return Prompts(
        xy_tile=np.clip(xy[inside].cpu().numpy(), 0, limit),
        score=heat[y, x][inside].cpu().numpy(),
        class_probs=probs[inside].cpu().numpy(),
        row=np.full(int(inside.sum()), row, np.int64),
    )


def smoothed(heat: torch.Tensor) -> torch.Tensor:
    """From 1 x h x w to h x w. A centre on the border of two cells heats both of them a little. Smoothed, it
    counts nearly as much as a centre in the middle of a cell, so where the grid of cells begins matters less."""
    shares = torch.tensor([1.0, 4.0, 1.0], device=heat.device) / 6
    around = F.pad(heat[None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(around, shares.outer(shares)[None, None])[0, 0]


def asked_of(prompts: Prompts, wanted: Int64, negative: np.ndarray | None, device: torch.device) -> Asked:  # type: ignore[type-arg]
    """The `wanted` prompts of one tile. `negative`: len(wanted) x 2, NaN where there is none."""
    xy = torch.from_numpy(prompts.xy_tile[wanted].astype(np.float32)).to(device)
    away = torch.full_like(xy, float("nan")) if negative is None else torch.from_numpy(negative).to(device)
    return Asked(torch.zeros(len(xy), dtype=torch.int64, device=device), xy, away)


def concat(prompts: Sequence[Prompts]) -> Prompts:
    names = ("xy_tile", "score", "class_probs", "row")
    return Prompts(*(np.concatenate([getattr(part, name) for part in prompts]) for name in names))
