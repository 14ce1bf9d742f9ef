"""The first labels S: the pixels of each dot's nucleus, from outlines, from a prompted model, or from colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from wsi_nuc.datasets.record import Int32, LabelledImage
from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.net import Asked
from wsi_nuc.models.compact.segmentor import PROMPTS_PER_CALL, nearest_others
from wsi_nuc.models.compact.settings import STRIDES
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.training.instasam.config import InstaSamConfig, PseudoConfig
from wsi_nuc.training.instasam.pseudo import IGNORED, PseudoLabels, refined
from wsi_nuc.training.instasam.start import prompted_net
from wsi_nuc.training.pieces import centres, pieces
from wsi_nuc.types import Bool, Float64, Int64, UInt8

CLUSTERS = 3
DOT_PX = 2.0
"""Around each dot this much is nucleus, whatever its colour."""
FAR_PX = 20.0
"""Distances from the nearest dot beyond this count alike."""
COLOUR_UNIT = 20.0
"""A difference in colour of this many grey values weighs as much as a pixel of distance. Chosen, like the blur, on
outlines of NuInsSeg and NuCLS: of 10 and 30 too, and of a blur of 0 to 3, it agrees best where it is sure."""
BLUR_PX = 1.0
SAMPLE = 20_000


@dataclass(frozen=True, slots=True)
class Dotted:
    """An image with its N dots and their first labels."""

    image: LabelledImage
    xy: Float64
    """N x 2."""
    kinds: Int64
    """N classes; -1: not known."""
    first: Int32
    """H x W: 0 background, n + 1 the nucleus of dot n, IGNORED."""
    known: Bool | None
    """H x W: where a missing dot means background; None: everywhere."""

    def with_dots(self, kept: Int64) -> Dotted:
        """With these dots only. What is near the others is not known."""
        number = np.full(len(self.xy) + 2, IGNORED, np.int32)
        number[0], number[kept + 1] = 0, np.arange(1, len(kept) + 1)
        first = number[self.first]
        away = (first == IGNORED) & (self.first != IGNORED)
        known = ~away if self.known is None else self.known & ~away
        return replace(self, xy=self.xy[kept], kinds=self.kinds[kept], first=first, known=known)


Label = Callable[[LabelledImage, Float64], Int32]


def first_labels(config: InstaSamConfig, images: Sequence[LabelledImage]) -> list[Dotted]:
    """Every image with its dots, moved as the settings say, and S."""
    known: dict[str, Label] = {"voronoi": _voronoi, "masks": _true}
    label = known.get(config.first) or _prompted(config)
    made = []
    for number, image in enumerate(images):
        rng = np.random.default_rng((config.seed, number))
        xy, kinds, outlines = _dots(image)
        xy = _moved(xy, config.shift_px, image.rgb.shape[:2], rng)
        labels = outlines if config.first == "masks" and outlines is not None else label(image, xy)
        made.append(Dotted(image, xy, kinds, labels, image.known))
    return made


def _dots(image: LabelledImage) -> tuple[Float64, Int64, Int32 | None]:
    """Dots and classes of an image and, where it has outlines, these with the numbers of the dots plus 1."""
    if image.instances is not None:
        outlines, nuclei = pieces(image.instances.astype(np.uint16))
        kinds = np.full(len(nuclei), -1, np.int64) if image.types is None else image.types[nuclei - 1]
        return centres(outlines), kinds, outlines
    assert image.points_xy is not None
    kinds = np.full(len(image.points_xy), -1, np.int64) if image.point_types is None else image.point_types
    return image.points_xy, kinds, None


def _moved(xy: Float64, by: tuple[float, float], size: tuple[int, ...], rng: np.random.Generator) -> Float64:
    angle, distance = rng.uniform(0, 2 * np.pi, len(xy)), rng.uniform(*by, len(xy))
    moved = xy + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.asarray(np.clip(moved, 0, np.array(size[::-1]) - 1e-3))


def _true(image: LabelledImage, xy: Float64) -> Int32:
    raise ModelError(image.id, "has no outlines", "set `first` to another source of first labels")


def _voronoi(image: LabelledImage, xy: Float64) -> Int32:
    """Clusters of colour and distance within the Voronoi cells of the dots, as Qu et al. (2020) make them: the
    cluster that most dots lie in is nucleus, the one farthest from dots is background, and the third is ignored.
    The borders of the cells are background."""
    height, width = image.rgb.shape[:2]
    labels = np.zeros((height, width), np.int32)
    if not len(xy):
        return labels
    y, x = np.mgrid[:height, :width] + 0.5
    far, nearest = cKDTree(xy).query(np.stack([x.ravel(), y.ravel()], 1))
    far, nearest = far.reshape(height, width), nearest.reshape(height, width)
    colour = cv2.GaussianBlur(image.rgb, (0, 0), BLUR_PX) / COLOUR_UNIT
    features = np.dstack([colour, np.minimum(far, FAR_PX)]).astype(np.float32)
    cluster = _clusters(features.reshape(-1, features.shape[2])).reshape(height, width)
    near = np.array([(cluster[far <= DOT_PX] == k).sum() for k in range(CLUSTERS)])
    nucleus = int(near.argmax())
    distance = np.array([far[cluster == k].mean() if (cluster == k).any() else -1.0 for k in range(CLUSTERS)])
    distance[nucleus] = -1.0
    background = int(distance.argmax())
    inside = (cluster == nucleus) | (far <= DOT_PX)
    labels[inside] = nearest[inside] + 1
    labels[(cluster != nucleus) & (cluster != background) & ~inside] = IGNORED
    border = np.zeros((height, width), np.bool_)
    border[:, 1:] |= nearest[:, 1:] != nearest[:, :-1]
    border[1:] |= nearest[1:] != nearest[:-1]
    labels[border & (labels > 0)] = 0
    return labels


def _clusters(features: Any) -> Int64:
    """The cluster of each row; the centres are found on evenly spaced rows."""
    cv2.setRNGSeed(0)
    sample = features[:: max(1, len(features) // SAMPLE)]
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
    _, _, centre = cv2.kmeans(sample, CLUSTERS, None, criteria, 3, cv2.KMEANS_PP_CENTERS)
    return np.asarray(((features[:, None] - centre[None]) ** 2).sum(2).argmin(1))


def _prompted(config: InstaSamConfig) -> Label:
    """S from a model's masks at the dots, without adapters."""
    net = prompted_net(config.frozen if config.first == "frozen" else config.first)

    def label(image: LabelledImage, xy: Float64) -> Int32:
        return pseudo_labels(net, image.rgb, xy, config.pseudo).labels[0].numpy().astype(np.int32)

    return label


def pseudo_labels(net: Any, rgb: UInt8, xy: Float64, rule: PseudoConfig) -> PseudoLabels:
    """What a network's masks at the dots of an image (H x W x 3) say, as maps of 1 x H x W."""
    logits, origin = soft_masks(net, rgb, xy)
    row = torch.zeros(len(xy), dtype=torch.int64)
    return refined(logits, origin, row, (1, rgb.shape[0], rgb.shape[1]), rule)


@torch.inference_mode()
def soft_masks(net: Any, rgb: UInt8, xy: Float64) -> tuple[torch.Tensor, torch.Tensor]:
    """N x s x s logits around the dots, and the first pixel (x, y) of each, N x 2."""
    if not len(xy):
        return torch.zeros(0, 1, 1), torch.zeros(0, 2, dtype=torch.int64)
    below, beside = (-length % STRIDES[-1] for length in rgb.shape[:2])
    pixels = F.pad(normalise(torch.tensor(rgb)[None]), (0, beside, 0, below), mode="replicate")
    everything = np.arange(len(xy))
    negative = nearest_others(xy, everything, everything)
    asked = Asked(
        torch.zeros(len(xy), dtype=torch.int64),
        torch.tensor(xy, dtype=torch.float32),
        torch.tensor(negative, dtype=torch.float32),
    )
    logits, origin = net.masks(net(pixels), asked, PROMPTS_PER_CALL)
    return logits, origin
