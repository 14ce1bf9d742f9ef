"""The published way from points to instances, step by step (`use.mode: parity`).

1. Windows of 256 px begin at the image's corner; the last one is flush with its end. For Kumar B that is the end
   of an image which was mirrored to a multiple of 16 px: at 752 of 1008 px instead of 744 of 1000. What lies
   beyond the image is cut off the masks, but not off their boxes.
2. Every point is decoded in every window that holds it, with its negatives and without them.
3. Masks near an inner edge of their window are dropped.
4. Of the masks that are left of a point, the one with the highest predicted IoU wins.
5. Boxes that overlap are suppressed greedily, whatever their class.

A tile of the pipeline takes the place of a published image. All its points take part, including those whose nuclei
another tile reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from wsi_nuc.models.base import Fetch, Ready
from wsi_nuc.models.promptnucseg.crops import INDEX_TO_CORNER
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.views import RELEASED_SLIP_PX, Size, views_for
from wsi_nuc.models.promptnucseg.whole import Decoded, WholeDecoder
from wsi_nuc.models.promptnucseg.windows import Job, Window, WindowEncoder, window_jobs, window_starts
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import NEGATIVE, NO_POINT
from wsi_nuc.models.sam.model import Sam
from wsi_nuc.types import Bool, Float32, Int64, MaskCrops, Prompts, UInt8

EDGE_PX = 7
CROP_SIZES = (64, 128, WINDOW_PX)


@dataclass(frozen=True, slots=True)
class Candidates:
    """n masks, on the host."""

    prompt: Int64
    """n indices of prompts."""
    iou: Float32
    """n predicted IoUs."""
    box: Int64
    """n x 4 tile pixels: x0, y0, x1, y1 of the outermost pixels, which may lie beyond the image; of an empty mask,
    its window's first pixel."""
    start: Int64
    """n x 2 tile pixels: the first pixel (x, y) of each mask's window."""
    empty: Bool
    """n: whether the mask holds no pixel of the image."""
    bits: UInt8
    """n x bytes: the mask of the whole window, packed."""
    class_probs: Float32
    """n x C."""

    def select(self, rows: Int64) -> Candidates:
        return Candidates(*(getattr(self, f.name)[rows] for f in fields(self)))


class ParitySegmentor:
    def __init__(self, sam: Sam, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._decoder = WholeDecoder(sam, encoder, runner, views_for(use.tta), RELEASED_SLIP_PX)
        self._size, self._covered, self._use = encoder.size, encoder.covered, use

    def segment(self, prompts: Prompts, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        return Ready(self._survivors(prompts, wanted))

    def _survivors(self, prompts: Prompts, wanted: Sequence[int]) -> list[MaskCrops]:
        rows, sizes = np.unique(prompts.row[np.asarray(wanted, np.int64)]), (self._size, self._covered)
        jobs = [job for row in rows for job in plan_published(prompts, int(row), self._covered, self._use)]
        with torch.inference_mode():
            parts = [_candidates(decoded, prompts, *sizes) for decoded in self._decoder.decode(jobs)]
        if not parts:
            return []
        every = Candidates(*(np.concatenate([getattr(c, f.name) for c in parts]) for f in fields(Candidates)))
        best = every.select(best_of_each(every.prompt, every.iou))
        row = prompts.row[best.prompt]
        kept = [group[box_nms(best.box[group], best.iou[group], self._use.box_iou)] for group in _groups(row)]
        survivors = best.select(np.sort(np.concatenate(kept)))
        asked = np.isin(survivors.prompt, wanted) & ~survivors.empty
        return _cropped(survivors.select(np.flatnonzero(asked)))


def plan_published(prompts: Prompts, row: int, covered: Size, use: UseSettings) -> list[Job]:
    """Every point of a tile in every window that holds it, with its negatives and, if there are any, without
    them."""
    y_starts, x_starts = (window_starts(length, 0, use.overlap_px) for length in covered)
    jobs: list[Job] = []
    for y0 in y_starts.tolist():
        for x0 in x_starts.tolist():
            # Which window holds a point depends on its pixel index, half a pixel less than its place.
            at = prompts.xy_tile - np.array([x0, y0], np.float32) - INDEX_TO_CORNER
            inside = np.flatnonzero((prompts.row == row) & ((at >= 0) & (at < WINDOW_PX)).all(1))
            if len(inside):
                jobs += window_jobs(prompts, inside, inside, Window(row, y0, x0), use.negatives)
    return jobs + [_without_negatives(job) for job in jobs if use.negatives]


def _without_negatives(job: Job) -> Job:
    label = np.where(job.label == NEGATIVE, NO_POINT, job.label)
    return Job(job.window, job.prompt, job.xy_window, label)


def _candidates(decoded: Decoded, prompts: Prompts, size: Size, covered: Size) -> Candidates:
    """The masks of one call that the edge rule leaves, on the host."""
    mask = decoder.enlarge(decoded.logits) > 0
    start = decoded.start.cpu().numpy()
    box = _boxes(mask) + np.tile(start, 2)
    mask = mask & _inside(decoded.start, size)
    index = decoded.prompt.cpu().numpy()
    probs = prompts.class_probs[index] if decoded.class_probs is None else decoded.class_probs.cpu().numpy()
    kept = np.flatnonzero(~near_inner_edge(box, start, size, covered))
    return Candidates(
        prompt=index[kept],
        iou=decoded.predicted_iou.cpu().numpy().astype(np.float32)[kept],
        box=box[kept],
        start=start[kept],
        empty=~mask.flatten(1).any(1).cpu().numpy()[kept],
        bits=np.packbits(mask.flatten(1).cpu().numpy()[kept], axis=1),
        class_probs=probs[kept].astype(np.float32),
    )


def _boxes(mask: torch.Tensor) -> Int64:
    columns, rows = mask.any(1), mask.any(2)
    low = [line.int().argmax(1) for line in (columns, rows)]
    high = [mask.shape[1] - 1 - line.int().flip(1).argmax(1) for line in (columns, rows)]
    box = torch.where(columns.any(1)[:, None], torch.stack(low + high, 1), 0)
    return box.cpu().numpy().astype(np.int64)


def _inside(start: torch.Tensor, size: Size) -> torch.Tensor:
    """n x 256 x 256: which pixels of the windows that begin at `start` lie in the image."""
    at = start[:, None] + torch.arange(WINDOW_PX, device=start.device)[None, :, None]
    x, y = (at < at.new_tensor(size[::-1])).unbind(-1)
    return y[:, :, None] & x[:, None, :]


def near_inner_edge(box: Int64, start: Int64, size: Size, covered: Size) -> Bool:
    """Whether each box lies within `EDGE_PX` of an edge of its window, and not as near to an edge of the image."""
    end = np.minimum(start + WINDOW_PX, np.array(covered[::-1]))
    near_window = np.abs(box - np.hstack([start, end])) <= EDGE_PX
    near_image = np.abs(box - np.array([0, 0, *size[::-1]])) <= EDGE_PX
    dropped: Bool = (near_window & ~near_image).any(1)
    return dropped


def best_of_each(prompt: Int64, iou: Float32) -> Int64:
    """The row with the highest predicted IoU of each prompt, at a tie the first, in the order of the prompts."""
    order = np.lexsort((np.arange(len(prompt)), -iou.astype(np.float64), prompt))
    first = np.append(True, np.diff(prompt[order]) > 0)[: len(order)]
    best: Int64 = order[first]
    return best


def box_nms(box: Int64, score: Float32, limit: float) -> Int64:
    """Rows that greedy suppression keeps, best first. Widths are differences of pixel indices, as published."""
    x0, y0, x1, y1 = box.T.astype(np.float64)
    area = (x1 - x0) * (y1 - y0)
    order = np.argsort(-score.astype(np.float64), kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[order]) - np.maximum(x0[best], x0[order])
        height = np.minimum(y1[best], y1[order]) - np.maximum(y0[best], y0[order])
        common = np.maximum(width, 0) * np.maximum(height, 0)
        order = order[~(common > limit * (area[best] + area[order] - common))]
    return np.array(kept, np.int64)


def _groups(row: Int64) -> list[Int64]:
    """The rows of each value of `row`."""
    return [np.flatnonzero(row == value) for value in np.unique(row)]


def _cropped(survivors: Candidates) -> list[MaskCrops]:
    """Each mask in the smallest square of `CROP_SIZES` that holds it."""
    side = (survivors.box[:, 2:] - survivors.box[:, :2]).max(1, initial=0) + 1
    bucket = np.searchsorted(CROP_SIZES, side)
    return [_of_size(survivors.select(rows), CROP_SIZES[bucket[rows[0]]]) for rows in _groups(bucket)]


def _of_size(survivors: Candidates, size: int) -> MaskCrops:
    whole = np.unpackbits(survivors.bits, axis=1).reshape(-1, WINDOW_PX, WINDOW_PX)
    first = np.minimum(survivors.box[:, :2] - survivors.start, WINDOW_PX - size)
    mask = [window[y : y + size, x : x + size] for window, (x, y) in zip(whole, first, strict=True)]
    return MaskCrops(
        mask=np.stack(mask),
        origin_tile=survivors.start + first,
        prompt=survivors.prompt,
        # Published results are ordered by the predicted IoU alone. Its head is linear, so it may exceed 1.
        score=np.clip(survivors.iou, 0, 1),
        predicted_iou=survivors.iou,
        class_probs=survivors.class_probs,
    )
