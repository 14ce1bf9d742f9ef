"""The published way from points to instances, step by step (`use.mode: parity`).

Windows of 256 from the image's corner, the last flush with its end; every point is decoded in every window that
holds it, with its negatives and without them; masks near an inner edge of their window are dropped; of what is
left of a point the highest predicted IoU wins; then greedy suppression by boxes, whatever the class. A tile of the
pipeline takes the place of one published image, and all its points take part, also those that others answer for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from wsi_nuc.models.base import Fetch, Ready
from wsi_nuc.models.promptnucseg.crops import INDEX_TO_CORNER
from wsi_nuc.models.promptnucseg.device import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.views import RELEASED_SLIP_PX, views_for
from wsi_nuc.models.promptnucseg.whole import Decoded, WholeDecoder
from wsi_nuc.models.promptnucseg.windows import Job, Window, WindowEncoder, window_jobs, window_starts
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import NEGATIVE, NO_POINT
from wsi_nuc.models.sam.sizes import Sam
from wsi_nuc.types import Bool, Float32, Int64, MaskCrops, Prompts, UInt8

EDGE_PX = 7
CROP_SIZES = (64, 128, WINDOW_PX)


@dataclass(frozen=True, slots=True)
class Candidates:
    """n masks. `bits`: n x bytes of the packed window mask; `start`: n x 2; `box`: n x 4 in tile pixels, x0, y0,
    x1, y1 of the outermost pixels (that of an empty mask is its window's first pixel); `empty`: n."""

    prompt: Int64
    iou: Float32
    box: Int64
    start: Int64
    empty: Bool
    bits: UInt8
    class_probs: Float32

    def select(self, rows: Int64) -> Candidates:
        return Candidates(*(getattr(self, f.name)[rows] for f in fields(self)))


class ParitySegmentor:
    def __init__(self, sam: Sam, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._decoder = WholeDecoder(sam, encoder, runner, views_for(use.tta), RELEASED_SLIP_PX)
        self._size, self._use = encoder.size, use

    def segment(self, prompts: Prompts, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        return Ready(self._survivors(prompts, wanted))

    def _survivors(self, prompts: Prompts, wanted: Sequence[int]) -> list[MaskCrops]:
        rows, size = np.unique(prompts.row[np.asarray(wanted, np.int64)]), self._size
        jobs = [job for row in rows for job in plan_published(prompts, int(row), size, self._use)]
        with torch.inference_mode():
            found = [_candidates(one, prompts, size) for one in self._decoder.decode(jobs)]
        if not found:
            return []
        every = Candidates(*(np.concatenate([getattr(c, f.name) for c in found]) for f in fields(Candidates)))
        best = every.select(best_of_each(every.prompt, every.iou))
        row = prompts.row[best.prompt]
        kept = [some[box_nms(best.box[some], best.iou[some], self._use.box_iou)] for some in _groups(row)]
        survivors = best.select(np.sort(np.concatenate(kept)))
        asked = np.isin(survivors.prompt, wanted) & ~survivors.empty
        return _cropped(survivors.select(np.flatnonzero(asked)))


def plan_published(prompts: Prompts, row: int, size: tuple[int, int], use: UseSettings) -> list[Job]:
    """Every point of a tile in every window that holds it; with negatives and, if there are any, without."""
    y_starts, x_starts = (window_starts(length, 0, use.overlap_px) for length in size)
    jobs: list[Job] = []
    for y0 in y_starts.tolist():
        for x0 in x_starts.tolist():
            # Which window holds a point is asked of its index, half a pixel less than its place.
            at = prompts.xy_tile - np.array([x0, y0], np.float32) - INDEX_TO_CORNER
            inside = np.flatnonzero((prompts.row == row) & ((at >= 0) & (at < WINDOW_PX)).all(1))
            if len(inside):
                jobs += window_jobs(prompts, inside, inside, Window(row, y0, x0), use.negatives)
    return jobs + [_without_negatives(job) for job in jobs if use.negatives]


def _without_negatives(job: Job) -> Job:
    label = np.where(job.label == NEGATIVE, NO_POINT, job.label)
    return Job(job.window, job.prompt, job.xy_window, label)


def _candidates(one: Decoded, prompts: Prompts, size: tuple[int, int]) -> Candidates:
    """The masks of one call that the edge rule leaves, on the host."""
    mask = decoder.enlarge(one.logits) > 0
    start = one.start.cpu().numpy()
    box, empty = _boxes(mask)
    box = box + np.tile(start, 2)
    index = one.prompt.cpu().numpy()
    probs = prompts.class_probs[index] if one.class_probs is None else one.class_probs.cpu().numpy()
    kept = np.flatnonzero(~near_inner_edge(box, start, size))
    return Candidates(
        prompt=index[kept],
        iou=one.predicted_iou.cpu().numpy().astype(np.float32)[kept],
        box=box[kept],
        start=start[kept],
        empty=empty[kept],
        bits=np.packbits(mask.flatten(1).cpu().numpy()[kept], axis=1),
        class_probs=probs[kept].astype(np.float32),
    )


def _boxes(mask: torch.Tensor) -> tuple[Int64, Bool]:
    columns, rows = mask.any(1), mask.any(2)
    low = [line.int().argmax(1) for line in (columns, rows)]
    high = [mask.shape[1] - 1 - line.int().flip(1).argmax(1) for line in (columns, rows)]
    empty = ~columns.any(1)
    box = torch.where(empty[:, None], 0, torch.stack(low + high, 1))
    return box.cpu().numpy().astype(np.int64), empty.cpu().numpy()


def near_inner_edge(box: Int64, start: Int64, size: tuple[int, int]) -> Bool:
    """Boxes within `EDGE_PX` of an edge of their window that is not, as near, an edge of the image too."""
    end = np.minimum(start + WINDOW_PX, np.array(size[::-1]))
    near_window = np.abs(box - np.hstack([start, end])) <= EDGE_PX
    near_image = np.abs(box - np.array([0, 0, *size[::-1]])) <= EDGE_PX
    dropped: Bool = (near_window & ~near_image).any(1)
    return dropped


def best_of_each(prompt: Int64, iou: Float32) -> Int64:
    """Rows with the highest predicted IoU of their prompt, the first at a tie; in the order of the prompts."""
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
    return [np.flatnonzero(row == one) for one in np.unique(row)]


def _cropped(found: Candidates) -> list[MaskCrops]:
    """Masks in the smallest of a few squares that holds them."""
    side = (found.box[:, 2:] - found.box[:, :2]).max(1, initial=0) + 1
    bucket = np.searchsorted(CROP_SIZES, side)
    return [_of_size(found.select(rows), CROP_SIZES[bucket[rows[0]]]) for rows in _groups(bucket)]


def _of_size(found: Candidates, size: int) -> MaskCrops:
    whole = np.unpackbits(found.bits, axis=1).reshape(-1, WINDOW_PX, WINDOW_PX)
    first = np.minimum(found.box[:, :2] - found.start, WINDOW_PX - size)
    mask = [one[y : y + size, x : x + size] for one, (x, y) in zip(whole, first, strict=True)]
    return MaskCrops(
        mask=np.stack(mask),
        origin_tile=found.start + first,
        prompt=found.prompt,
        # Published results are ordered by the predicted IoU alone; the head is linear and may pass 1.
        score=np.clip(found.iou, 0, 1),
        predicted_iou=found.iou,
        class_probs=found.class_probs,
    )
