"""Masks as a label map, as they are: not traced, and not cut to their largest part.

In the default mode these are the masks of the nuclei that stitching keeps, so that tracing alone makes the
difference to what a run publishes. A model in parity mode is scored as the published program scores itself:

* all its masks are painted, those of higher predicted IoU on top;
* PQ of a class comes from a map of that class alone, so that no other class hides a nucleus;
* detection judges the prompter's points against one whole pixel in each nucleus, see `target_points`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from wsi_nuc.datasets.overlaps import Labels, compact, overlaps_of_labels
from wsi_nuc.evaluation.detection import Points
from wsi_nuc.evaluation.metrics import Panoptic, panoptic
from wsi_nuc.evaluation.protocol import Nuclei, nuclei_of_labels
from wsi_nuc.nuclei import GridNuclei, NucleiTable
from wsi_nuc.stitch.precedence import rank
from wsi_nuc.types import Bool, Float32, Float64, Int64, MaskCrops, Prompts, UInt8


@dataclass(frozen=True, slots=True)
class Masks:
    """N masks of an image, in pixels of the model's resolution."""

    mask: Sequence[UInt8]
    """N, each h x w."""
    origin: Int64
    """N x 2: x and y of each mask's first pixel."""
    prompt: Int64
    score: Float64
    predicted_iou: Float32
    types: Int64
    """The model's number of each class."""

    @classmethod
    def of(cls, crops: Sequence[MaskCrops]) -> Masks:
        if not crops:
            none = np.zeros(0, np.int64)
            return cls([], none.reshape(0, 2), none, none.astype(np.float64), none.astype(np.float32), none)
        return cls(
            mask=[mask for group in crops for mask in group.mask],
            origin=np.concatenate([group.origin_tile for group in crops]),
            prompt=np.concatenate([group.prompt for group in crops]),
            score=np.concatenate([group.score for group in crops]).astype(np.float64),
            predicted_iou=np.concatenate([group.predicted_iou for group in crops]),
            types=np.concatenate([group.class_probs for group in crops]).argmax(1).astype(np.int64),
        )

    def paint(self, rows: Int64, scale: float, size: tuple[int, ...]) -> Nuclei:
        """The masks of `rows`, the last one on top, as nuclei of an image of this height and width; `scale` is the
        length in the model's pixels of one pixel of the image. What is hidden altogether is left out."""
        labels = np.zeros(size, np.int32)
        for row in rows.tolist():
            mask, (x0, y0) = self.mask[row], self.origin[row].tolist()
            if scale != 1.0:
                mask, (x0, y0) = _at_scale(mask, (x0, y0), scale)
            first_y, first_x = max(0, -y0), max(0, -x0)
            seen = labels[y0 + first_y : max(0, y0 + len(mask)), x0 + first_x : max(0, x0 + mask.shape[1])]
            part = mask[first_y : first_y + seen.shape[0], first_x : first_x + seen.shape[1]]
            seen[part > 0] = row + 1
        painted, ids = compact(labels)
        return nuclei_of_labels(painted, self.types[ids - 1], self.score[ids - 1])

    def by_predicted_iou(self) -> Int64:
        """All rows, the highest predicted IoU last."""
        return np.argsort(-self.predicted_iou.astype(np.float64), kind="stable")[::-1]

    def kept(self, prompts: Prompts, traced: NucleiTable, own: Bool, stitched: NucleiTable) -> Int64:
        """The rows whose nuclei are among the `stitched` ones, the best last. Before them come those that are too
        small to be traced at all.

        `traced`: the candidates of stitching; `own`: whether each lies in its tile's core.
        """
        place = dict(zip(_keys(traced), rank(traced, own, np.arange(len(traced))).tolist(), strict=True))
        remaining = set(_keys(stitched))
        xy, score = prompts.xy_tile[self.prompt].astype(np.float64), prompts.score[self.prompt]
        keys = [(*at, value) for at, value in zip(map(tuple, xy.tolist()), score.tolist(), strict=True)]
        below = [row for row, key in enumerate(keys) if key not in place]
        above = [row for row, key in enumerate(keys) if key in remaining]
        below.sort(key=lambda row: self.score[row])
        above.sort(key=lambda row: -place[keys[row]])
        return np.array(below + above, np.int64)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a model finds in an image, in pixels of its resolution."""

    prompts: Prompts
    masks: Masks
    bottom_up: Int64
    """The rows of `masks` that count, in the order in which they are painted."""
    outlines: GridNuclei
    """What a run publishes."""
    scale: float
    """The length in these pixels of one pixel of the image."""
    size: tuple[int, ...]
    """Height and width of the image."""

    def painted(self, rows: Int64) -> Nuclei:
        return self.masks.paint(rows, self.scale, self.size)

    @property
    def points(self) -> Nuclei:
        return points_of(self.prompts, self.scale)

    def panoptic_of(self, c: int, truth: Nuclei, types: Int64) -> Panoptic:
        """Of a class, from maps that hold nothing else. `types`: the class of each row of `bottom_up`."""
        predicted = self.painted(self.bottom_up[types == c]).labels
        assert truth.labels is not None
        assert predicted is not None
        of_this_class = np.append(False, truth.points.types == c)
        return panoptic(overlaps_of_labels(np.where(of_this_class[truth.labels], truth.labels, 0), predicted))


def points_of(prompts: Prompts, scale: float) -> Nuclei:
    """The prompts as points in pixels of the image."""
    types = prompts.class_probs.argmax(1).astype(np.int64)
    return Nuclei(Points(prompts.xy_tile.astype(np.float64) / scale, prompts.score.astype(np.float64), types))


def _keys(table: NucleiTable) -> list[tuple[float, ...]]:
    """What tells the prompts of a table apart; equal prompts have equal masks."""
    return [
        (x, y, score) for (x, y), score in zip(table.prompt_xy.tolist(), table.prompt_score.tolist(), strict=True)
    ]


def _at_scale(mask: UInt8, origin: tuple[int, int], scale: float) -> tuple[UInt8, tuple[int, int]]:
    """A mask and its origin in pixels that are `scale` of the mask's pixels long."""
    first = [int(np.floor(start / scale)) - 1 for start in origin]
    width, height = (int(np.ceil(length / scale)) + 3 for length in mask.shape[::-1])
    shift = [(at + 0.5) * scale - start - 0.5 for at, start in zip(first, origin, strict=True)]
    place = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(mask.astype(np.float32), place, (width, height), flags=flags)
    return (seen > 0.5).astype(np.uint8), (first[0], first[1])


def largest_contour(inside: UInt8, offset: tuple[int, int] = (0, 0)) -> Mapping[str, float]:
    """The moments of the largest contour of a mask whose first pixel lies at `offset` (x, y)."""
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    return max(map(cv2.moments, outlines), key=lambda moments: moments["m00"])


def target_points(labels: Labels, types: Int64, several: bool) -> Points:
    """The published program's true point of each nucleus: the centre of mass inside its largest contour, cut down
    to a whole pixel, or the innermost pixel of a nucleus without an area.

    With several classes a point has the type that is annotated at its pixel, and none counts on background.
    """
    points, kinds = [], []
    for number, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        y0, x0 = (max(0, side.start - 1) for side in box)
        inside = (labels[y0 : box[0].stop + 1, x0 : box[1].stop + 1] == number).astype(np.uint8)
        # Places count from the image's corner, since cutting down depends on how they round.
        largest = largest_contour(inside, (x0, y0))
        if area := largest["m00"]:
            x, y = (math.floor(largest[sum_of] / area) for sum_of in ("m10", "m01"))
        else:
            depth = cv2.distanceTransform(inside, cv2.DIST_L1, 3)
            row, column = np.unravel_index(int(depth.argmax()), depth.shape)
            x, y = x0 + int(column), y0 + int(row)
        under = int(labels[y, x]) if several else number
        if under:
            points.append((x + 0.5, y + 0.5))
            kinds.append(types[under - 1])
    xy = np.array(points, np.float64).reshape(-1, 2)
    return Points(xy, np.ones(len(xy)), np.array(kinds, np.int64))
