"""A look for models without prompts: networks whose maps become an instance map of each tile straight away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from wsi_nuc.errors import ModelError
from wsi_nuc.models.base import PromptedLook, Ready, no_embedding
from wsi_nuc.types import Bool, Float32, Int64, MaskCrops, Prompts

Labels = npt.NDArray[np.int32]
SMALLEST_CROP_PX = 32


@dataclass(frozen=True, slots=True)
class Instances:
    """Nuclei of a batch: those of the first tile by their ids, then those of the second, and so on."""

    labels: Labels
    """B x H x W: in each tile 0 is background, and its nuclei are 1 to the number of them, without gaps."""
    score: Float32
    """N, 0..1."""
    class_probs: Float32
    """N x C, rows sum to 1."""


class InstancesLook(PromptedLook):
    """Everything follows from the label maps. A nucleus's point is its pixel nearest to its centre of mass."""

    def __init__(self, name: str, instances: Instances) -> None:
        self._name, self._instances = name, instances

    def _propose(self) -> Prompts:
        rows, xy = zip(*(inner_points(labels) for labels in self._instances.labels), strict=True)
        row = np.repeat(np.arange(len(rows), dtype=np.int64), list(map(len, rows)))
        return Prompts(
            xy_tile=np.concatenate(xy).astype(np.float32) + np.float32(0.5),
            score=self._instances.score,
            class_probs=self._instances.class_probs,
            row=row,
        )

    def prompted(self, prompts: Prompts) -> NoReturn:
        cause = "it makes its nuclei without points, so other points change nothing"
        raise ModelError(f"model {self._name}", cause, "use a model with prompts, such as default")

    def masks(self, wanted: Sequence[int]) -> Ready[Sequence[MaskCrops]]:
        return Ready(list(self._crops(np.asarray(wanted, np.int64))))

    def _crops(self, wanted: Int64) -> Iterator[MaskCrops]:
        """Crops of a few sizes, each a power of two."""
        prompts = self._prompts
        first = np.searchsorted(prompts.row, prompts.row)
        ids = np.arange(len(prompts)) - first + 1
        boxes = np.concatenate([Runs.of(labels).boxes() for labels in self._instances.labels])[wanted]
        edge = np.maximum(extents(boxes), SMALLEST_CROP_PX)
        crop_px = 2 ** np.ceil(np.log2(edge)).astype(np.int64)
        for side in np.unique(crop_px).tolist():
            chosen = wanted[crop_px == side]
            origin = boxes[crop_px == side, :2]
            unknown = np.full(len(chosen), np.nan, np.float32)
            yield MaskCrops(
                mask=self._cut(prompts.row[chosen], ids[chosen], origin, side),
                origin_tile=origin,
                prompt=chosen,
                score=prompts.score[chosen],
                predicted_iou=unknown,
                class_probs=prompts.class_probs[chosen],
            )

    def _cut(self, row: Int64, ids: Int64, origin: Int64, side: int) -> npt.NDArray[np.uint8]:
        labels, steps = self._instances.labels, np.arange(side)
        y, x = origin[:, 1, None] + steps, origin[:, 0, None] + steps
        inside = (y < labels.shape[1])[:, :, None] & (x < labels.shape[2])[:, None, :]
        y, x = np.minimum(y, labels.shape[1] - 1), np.minimum(x, labels.shape[2] - 1)
        near = labels[row[:, None, None], y[:, :, None], x[:, None, :]]
        return np.asarray((near == ids[:, None, None]) & inside, np.uint8)

    def embed(self, xy_tile: Float32, row: Int64) -> Ready[Float32]:
        raise no_embedding(self._name)


def inner_points(labels: Labels) -> tuple[Int64, Int64]:
    """Ids 1..N, and for each the pixel (x, y) nearest to its centre of mass, N x 2; at a tie the first in reading
    order."""
    y, x = np.nonzero(labels)
    if not len(y):
        return np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
    ids = labels[y, x].astype(np.int64)
    count = np.bincount(ids)
    # In whole numbers, so that a nucleus has the same point wherever it lies.
    off_x = x * count[ids] - np.bincount(ids, x).astype(np.int64)[ids]
    off_y = y * count[ids] - np.bincount(ids, y).astype(np.int64)[ids]
    distance = off_x**2 + off_y**2
    least = np.full(len(count), np.iinfo(np.int64).max)
    np.minimum.at(least, ids, distance)
    near = np.flatnonzero(distance == least[ids])
    of, first = np.unique(ids[near], return_index=True)
    nearest = near[first]
    return of, np.stack([x[nearest], y[nearest]], 1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Runs:
    """A label map as runs of pixels along its rows, in reading order, without background."""

    ids: Int64
    y: Int64
    x: Int64
    """The first pixel."""
    length: Int64

    @classmethod
    def of(cls, labels: Labels) -> Runs:
        begins = np.ones(labels.shape, np.bool_)
        np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
        starts = np.flatnonzero(begins)
        y, x = np.divmod(starts, labels.shape[1])
        every = cls(labels[y, x].astype(np.int64), y, x, np.diff(starts, append=labels.size))
        return every.select(every.ids > 0)

    def select(self, rows: Bool) -> Runs:
        return Runs(self.ids[rows], self.y[rows], self.x[rows], self.length[rows])

    def areas(self) -> Int64:
        """N pixel counts, of ids 1..N."""
        return np.bincount(self.ids, self.length).astype(np.int64)[1:]

    def boxes(self) -> Int64:
        """N x 4: x0, y0, x1, y1 (exclusive) of ids 1..N."""
        count = int(self.ids.max(initial=0)) + 1
        low, high = np.full((2, count), np.iinfo(np.int64).max), np.zeros((2, count), np.int64)
        for axis, first, last in ((0, self.x, self.x + self.length), (1, self.y, self.y + 1)):
            np.minimum.at(low[axis], self.ids, first)
            np.maximum.at(high[axis], self.ids, last)
        return np.concatenate([low, high])[:, 1:].T


def extents(boxes: Int64) -> Int64:
    """N: the larger one of width and height of each box."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0))
