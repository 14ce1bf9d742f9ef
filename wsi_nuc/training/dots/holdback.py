"""A share of the dots that no training sees, so that the report can say how many of them are found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.types import Bool, Int64

# With at least this many groups whole groups are held back, and else blocks, of which there are about BLOCKS.
LEAST_GROUPS, BLOCKS = 10, 40
# Around a block that is held back: about the radius of a large nucleus.
MARGIN_UM = 6.0
USUAL_MPP = 0.25


@dataclass(frozen=True, slots=True)
class Split:
    """Two lists of images that share no known pixel."""

    training: tuple[LabelledImage, ...]
    held_back: tuple[LabelledImage, ...]
    rule: str
    """How it was made, in words."""


def held_back(images: Sequence[LabelledImage], share: float = 0.1, seed: int = 0) -> Split:
    """About `share` of the dots, and the rest.

    With ten groups or more that hold dots, whole groups are held back. Else the images are cut into squares, and
    some of these are: the pixels of these squares and of a margin around them are not known in the images for
    training, whose dots there are left out. In both lists, every dot lies on a known pixel of its image.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, int] = {}
    for image in images:
        groups[image.group or image.id] = groups.get(image.group or image.id, 0) + (image.count or 0)
    dotted = [name for name, dots in groups.items() if dots]
    if len(dotted) >= LEAST_GROUPS:
        chosen = _chosen(np.array([groups[name] for name in dotted]), share, rng)
        names = {dotted[i] for i in chosen.tolist()}
        return Split(
            tuple(replace(i, split="training") for i in images if (i.group or i.id) not in names),
            tuple(replace(i, split="held back") for i in images if (i.group or i.id) in names),
            f"{len(names)} of {len(dotted)} images or patches with dots",
        )
    return _blocks(images, share, rng)


def _chosen(dots: Int64, share: float, rng: np.random.Generator) -> Int64:
    """Indices of parts that hold about the share of all dots together: at least one, and at most half of them."""
    wanted, held = share * dots.sum(), 0
    chosen: list[int] = []
    for part in rng.permutation(len(dots))[: max(1, len(dots) // 2)].tolist():
        if not chosen or abs(held + dots[part] - wanted) < abs(held - wanted):
            chosen.append(part)
            held += dots[part]
    return np.array(sorted(chosen), np.int64)


def _blocks(images: Sequence[LabelledImage], share: float, rng: np.random.Generator) -> Split:
    area = sum(image.rgb.shape[0] * image.rgb.shape[1] for image in images)
    edge = max(1, math.ceil(math.sqrt(area / BLOCKS)))
    numbers = [_block_of(image, edge, i) for i, image in enumerate(images)]
    blocks, of_dot = np.unique(np.concatenate([np.zeros((0, 3), np.int64), *numbers]), axis=0, return_inverse=True)
    chosen = _chosen(np.bincount(of_dot.ravel(), minlength=len(blocks)), share, rng)
    training, held = [], []
    for i, image in enumerate(images):
        inside = np.zeros(image.rgb.shape[:2], np.bool_)
        for _, row, column in blocks[chosen][blocks[chosen][:, 0] == i].tolist():
            inside[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = True
        if not inside.any():
            training.append(replace(image, split="training"))
            continue
        held.append(replace(_restricted(image, inside), split="held back"))
        training.append(replace(_restricted(image, ~_grown(inside, image.mpp)), split="training"))
    return Split(tuple(training), tuple(held), f"{len(chosen)} of {len(blocks)} squares of {edge} px with dots")


def _block_of(image: LabelledImage, edge: int, number: int) -> Int64:
    """M x 3: number of the image, row and column of the block of each dot."""
    xy = np.zeros((0, 2)) if image.points_xy is None else image.points_xy
    places = np.floor(xy[:, ::-1] / edge).astype(np.int64)
    return np.column_stack([np.full(len(places), number, np.int64), places])


def _grown(mask: Bool, mpp: float | None) -> Bool:
    reach = math.ceil(MARGIN_UM / (mpp or USUAL_MPP))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def _restricted(image: LabelledImage, where: Bool) -> LabelledImage:
    """The image with only these pixels known, and the dots on them."""
    known = where if image.known is None else where & image.known
    if image.points_xy is None:
        return replace(image, known=known)
    x, y = np.floor(image.points_xy).astype(np.int64).T
    kept = known[y, x]
    kinds = None if image.point_types is None else image.point_types[kept]
    return replace(image, known=known, points_xy=image.points_xy[kept], point_types=kinds)
