"""The published loop over one image and its scores, written plainly with segment-anything's own parts: parity is
compared with it.

It makes the prompts of an image, then goes window by window: both decodings, masks as full images, run-length
coded and decoded. Then it paints the masks and counts. Only the modules that hold the weights are shared with the
package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from tests.models.nets import prompt_encoder_at_256
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import UseSettings
from wsi_nuc.models.torch_ops import load
from wsi_nuc.types import Bool, Float32, Int64, UInt8

SIDE, POINTS_PER_CALL, EDGE_PX = 256, 256, 7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Instances:
    """n instances, best first."""

    mask: list[Bool]
    """n full images."""
    iou: list[float]
    """n predicted IoUs."""
    point: Int64
    """n indices: the prompt of each."""
    closest: float
    """The least distance of a pixel's logit from 0; where that is as small as rounding, a mask may differ."""


def normalised(rgb: UInt8, device: torch.device) -> torch.Tensor:
    pixels = torch.from_numpy(rgb).float() / 255
    return ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None].contiguous().to(device)


def device_of(net: PromptNucSegNet) -> torch.device:
    return next(net.parameters()).device


def published_points(net: PromptNucSegNet, rgb: UInt8, use: UseSettings) -> Float32:
    """n x 2 pixel indices of one image, best first."""
    return published_prompts(net, rgb, use)[0]


@torch.inference_mode()
def published_prompts(net: PromptNucSegNet, rgb: UInt8, use: UseSettings) -> tuple[Float32, Float32, Int64]:
    """n x 2 pixel indices of one image, best first, with n scores and n classes."""
    height, width = rgb.shape[:2]
    space = net.prompter.space_px
    pixels = F.pad(normalised(rgb, device_of(net)), (0, -width % space, 0, -height % space), mode="reflect")
    out = net.prompter(pixels, (pixels.shape[2], pixels.shape[3]))
    xy, probs = out.xy[0].cpu().numpy(), out.logits[0].softmax(-1).cpu().numpy()
    xy = np.clip(xy, 0, [width - 1, height - 1])
    kind, score = probs.argmax(1), probs.max(1)
    anchors = np.flatnonzero(kind < probs.shape[1] - 1)
    if use.mask_filter:
        mask = F.interpolate(out.mask_logits, size=pixels.shape[2:], mode="bilinear", align_corners=True)[0, 0]
        columns, rows = xy[anchors].astype(int).T
        anchors = anchors[mask.cpu().numpy()[rows, columns] > 0]
    anchors = anchors[np.argsort(-score[anchors], kind="stable")]
    distance = np.linalg.norm(xy[anchors][:, None] - xy[anchors][None], axis=2)
    kept: list[int] = []
    for i in range(len(anchors)):
        if not (distance[i, kept] <= use.nms_radius_px).any():
            kept.append(i)
    chosen = anchors[kept]
    return np.asarray(xy[chosen], np.float32), score[chosen], kind[chosen]


class PlainSam:
    """segment-anything's forward passes, one window after the other, with the weights of `net`."""

    def __init__(self, net: PromptNucSegNet) -> None:
        sam: Any = net.segmentor
        self.encoder, self.decoder = sam.image_encoder, sam.mask_decoder
        self.points = prompt_encoder_at_256(sam).to(device_of(net))

    def __call__(self, window: torch.Tensor, xy: torch.Tensor, label: torch.Tensor) -> tuple[Any, Any]:
        """Logits at 256 px and predicted IoU of up to `POINTS_PER_CALL` prompts."""
        embedding = self.encoder(window)
        sparse, dense = self.points(points=(xy, label), boxes=None, masks=None)
        low, iou = self.decoder(
            image_embeddings=embedding,
            image_pe=self.points.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return F.interpolate(low, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0], iou[:, 0]

    def averaged(self, window: torch.Tensor, xy: torch.Tensor, label: torch.Tensor) -> tuple[Any, Any]:
        """The mean over six views. As released, flips mirror indices at 255 and rotations turn them about 128."""
        x, y = xy.unbind(-1)
        views: list[tuple[torch.Tensor, Any, Any]] = [
            (window, (x, y), lambda m: m),
            (window.flip(3), (255 - x, y), lambda m: m.flip(2)),
            (window.flip(2), (x, 255 - y), lambda m: m.flip(1)),
            (window.rot90(1, (2, 3)), (y, 256 - x), lambda m: m.rot90(3, (1, 2))),
            (window.rot90(2, (2, 3)), (256 - x, 256 - y), lambda m: m.rot90(2, (1, 2))),
            (window.rot90(3, (2, 3)), (256 - y, x), lambda m: m.rot90(1, (1, 2))),
        ]
        seen = [(self(image, torch.stack(at, -1), label), back) for image, at, back in views]
        return sum(back(m) for (m, _), back in seen) / 6, sum(iou for (_, iou), _ in seen) / 6


def published_starts(length: int, overlap: int) -> list[int]:
    starts = [0]
    while length > SIDE and starts[-1] + SIDE < length:
        starts.append(min(starts[-1] + SIDE - overlap, length - SIDE))
    return starts


def with_nearest(points: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n x (1 + count) x 2 and labels: the nearest others as negatives, -1 where there are too few."""
    distance = torch.cdist(points, points) + torch.eye(len(points), device=points.device).mul(1e9)
    others = min(count, len(points) - 1)
    near = points.new_zeros(len(points), 0, 2)
    if others:
        near = points[distance.topk(others, 1, largest=False).indices]
    blank = points.new_zeros(len(points), count - others, 2)
    label = torch.ones(len(points), 1 + count, dtype=torch.int, device=points.device)
    label[:, 1 : 1 + others], label[:, 1 + others :] = 0, -1
    return torch.cat([points[:, None], near, blank], 1), label


@torch.inference_mode()
def published_instances(net: PromptNucSegNet, rgb: UInt8, points: Float32, use: UseSettings) -> Instances:
    """All instances of one image, best first: they are painted from the last to the first."""
    amg, sam = load("segment_anything.utils.amg"), PlainSam(net)
    size = rgb.shape[:2]
    below, beside = (-length % use.multiple_px for length in size)
    rgb = np.pad(rgb, ((0, below), (0, beside), (0, 0)), mode="reflect")
    height, width = rgb.shape[:2]
    device = device_of(net)
    image, every = normalised(rgb, device), torch.from_numpy(points).to(device)
    candidates: list[Any] = []
    for y0 in published_starts(height, use.overlap_px):
        for x0 in published_starts(width, use.overlap_px):
            corner = torch.tensor([x0, y0], device=device)
            inside = ((every >= corner) & (every < corner + SIDE)).all(1)
            index = torch.nonzero(inside)[:, 0]
            if not len(index):
                continue
            xy, label = with_nearest(every[index] - corner, use.negatives)
            if use.negatives:
                without = label.clone()
                without[:, 1:] = -1
                xy, label, index = torch.cat([xy, xy]), torch.cat([label, without]), torch.cat([index, index])
            window = image[..., y0 : y0 + SIDE, x0 : x0 + SIDE]
            for first in range(0, len(index), POINTS_PER_CALL):
                part = slice(first, first + POINTS_PER_CALL)
                logits, iou = (sam.averaged if use.tta else sam)(window, xy[part], label[part])
                candidates += _in_image(amg, logits, iou, index[part], (x0, y0, size[1], size[0]))
    return _chosen(candidates, use.box_iou)


def _in_image(
    amg: Any, logits: torch.Tensor, iou: torch.Tensor, index: torch.Tensor, place: tuple[int, int, int, int]
) -> list[Any]:
    """Predicted IoU, prompt, box, mask and least logit of each candidate that the edge rule leaves."""
    mask = logits > 0
    x0, y0, width, height = place
    crop = [x0, y0, x0 + SIDE, y0 + SIDE]
    box = amg.batched_mask_to_box(mask)
    kept = ~amg.is_box_near_crop_edge(box, crop, [0, 0, width, height], atol=EDGE_PX)
    full = amg.uncrop_masks(mask[kept], crop, height, width)
    coded = amg.mask_to_rle_pytorch(full)
    box = amg.uncrop_boxes_xyxy(box[kept], crop).double().cpu().numpy()
    closest = logits[kept].flatten(1).abs().amin(1).tolist()
    masks = map(amg.rle_to_mask, coded)
    return list(zip(iou[kept].tolist(), index[kept].tolist(), box, masks, closest, strict=True))


def _chosen(candidates: list[Any], limit: float) -> Instances:
    best: dict[int, Any] = {}
    for candidate in candidates:
        iou, point = candidate[:2]
        if point not in best or iou > best[point][0]:
            best[point] = candidate
    masks: list[Bool] = []
    ious: list[float] = []
    points: list[int] = []
    boxes, least = np.zeros((0, 4)), float("inf")
    for iou, point, box, mask, closest in sorted(best.values(), key=lambda candidate: -candidate[0]):
        if not (_box_iou(box, boxes) <= limit).all():
            continue
        boxes = np.vstack([boxes, box])
        if mask.any():
            masks.append(mask)
            ious.append(iou)
            points.append(point)
            least = min(least, closest)
    return Instances(masks, ious, np.array(points, np.int64), least)


def _box_iou(box: Any, others: Any) -> Any:
    """IoU of one box with each of n."""
    shared = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared
    return shared / np.maximum(union, 1e-9)


def painted(masks: list[Bool], size: tuple[int, ...]) -> Int64:
    """Labels of masks that are sorted best first: the best lies on top."""
    labels = np.zeros(size, np.int64)
    for number, mask in reversed(list(enumerate(masks, start=1))):
        labels[mask] = number
    return labels


def _ious(truth: Int64, predicted: Int64) -> tuple[Any, Any, list[int], list[int]]:
    """Shared pixels and unions of all pairs, and the numbers of both sides."""
    sides = [[int(number) for number in np.unique(side) if number] for side in (truth, predicted)]
    shared, union = np.zeros((2, len(sides[0]), len(sides[1])))
    for row, t in enumerate(sides[0]):
        for column, p in enumerate(sides[1]):
            shared[row, column] = ((truth == t) & (predicted == p)).sum()
            union[row, column] = ((truth == t) | (predicted == p)).sum()
    return shared, union, *sides


def published_pq(truth: Int64, predicted: Int64) -> float:
    """NaN where the truth is empty."""
    shared, union, true, guessed = _ious(truth, predicted)
    if not true:
        return float("nan")
    iou = (shared / union)[shared / union > 0.5]
    hits = len(iou)
    found = hits / (hits + 0.5 * (len(guessed) - hits) + 0.5 * (len(true) - hits))
    return float(found * iou.sum() / (hits + 1e-6))


def published_aji(truth: Int64, predicted: Int64) -> float:
    shared, union, true, guessed = _ious(truth, predicted)
    inside, whole, used = 0.0, 0.0, set[int]()
    for row, number in enumerate(true):
        iou = shared[row] / (union[row] + 1e-6)
        if len(iou) and iou.max() > 0:
            best = int(iou.argmax())
            used.add(best)
            inside, whole = inside + shared[row, best], whole + union[row, best]
        else:
            whole += (truth == number).sum()
    whole += sum((predicted == number).sum() for place, number in enumerate(guessed) if place not in used)
    return float(inside / whole) if whole else float("nan")


def published_hits(points: Any, score: Any, truth: Any) -> int:
    """In falling order of score, each point takes the nearest free true one within 12 px."""
    free, hits = list(range(len(truth))), 0
    for row in np.argsort(-np.asarray(score)):
        if not free:
            break
        distance = np.linalg.norm(np.asarray(truth)[free] - points[row], axis=1)
        if distance.min() <= 12:
            free.pop(int(distance.argmin()))
            hits += 1
    return hits


def published_targets(labels: Int64, types: Int64 | None) -> tuple[Any, Any]:
    """The true point of each nucleus, in pixel indices, and its class. `types`: H x W, 0: none; None: not told
    apart."""
    points, kinds = [], []
    for number in np.unique(labels)[1:]:
        inside = np.asarray(labels == number, np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        largest = cv2.moments(max(outlines, key=cv2.contourArea))
        if largest["m00"] > 0:
            x, y = (int(largest[name] / largest["m00"]) for name in ("m10", "m01"))
        else:
            depth = cv2.distanceTransform(inside, cv2.DIST_L1, 3)
            _, _, _, (x, y) = cv2.minMaxLoc(depth)
        kind = 1 if types is None else types[y, x]
        if kind:
            points.append((x, y))
            kinds.append(kind - 1)
    return np.array(points).reshape(-1, 2), np.array(kinds)
