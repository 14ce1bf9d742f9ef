"""The segmentor's 256 px windows over a tile, which prompts each of them decodes, and their image embeddings.

Each prompt is decoded in the window in which it lies most central. Prompter, segmentor and embedder share the
image embeddings of the windows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from wsi_nuc.models.promptnucseg.encoder import embed_pixels
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.views import AS_IT_IS, View
from wsi_nuc.models.sam.decoder import NEGATIVE, NO_POINT, POSITIVE
from wsi_nuc.models.sam.model import Sam
from wsi_nuc.models.torch_ops import in_calls, normalise
from wsi_nuc.types import Float32, Int64, Prompts, UInt8

# Prompts of one window are decoded in groups of these sizes, filled up with blanks, so that the shape of a call
# follows from the window alone and not from what else is in the batch.
SLOTS = (8, 16, 32)
WHITE = 255


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Where a window lies."""

    row: int
    """The tile's row in the batch."""
    y0: int
    """First row of pixels, in tile pixels."""
    x0: int
    """First column of pixels, in tile pixels."""


@dataclass(frozen=True, slots=True)
class Job:
    """Up to `slots` prompts of one window, with K negatives each."""

    window: Window
    prompt: Int64
    """The indices of the prompts."""
    xy_window: Float32
    """slots x (1 + K) x 2 window pixels, the point itself first."""
    label: Int64
    """slots x (1 + K): POSITIVE, NEGATIVE or NO_POINT."""

    @property
    def slots(self) -> int:
        return len(self.label)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where windows begin along x and y on tiles of one size."""

    x: Int64
    y: Int64

    @classmethod
    def of(cls, height: int, width: int, use: UseSettings) -> Layout:
        return cls(*(window_starts(length, _inset(length, use), use.overlap_px) for length in (width, height)))

    def windows(self, row: int) -> list[Window]:
        return [Window(row, int(y0), int(x0)) for y0 in self.y for x0 in self.x]

    def owner(self, xy_tile: Float32) -> Int64:
        """N x 2: the start (x0, y0) of the window whose centre is nearest along each axis, the first at a tie."""
        pairs = zip(xy_tile.T, (self.x, self.y), strict=True)
        distance = [np.abs(at[:, None] - (starts + WINDOW_PX / 2)[None]) for at, starts in pairs]
        return np.stack([self.x[distance[0].argmin(1)], self.y[distance[1].argmin(1)]], 1)


def window_starts(length: int, inset: int, overlap_px: int) -> Int64:
    """Starts of the windows that cover `inset` to `length - inset`; the last one is flush with the end."""
    last = max(length - inset - WINDOW_PX, 0)
    starts = np.arange(inset, last, WINDOW_PX - overlap_px, dtype=np.int64)
    return np.append(starts, last)


def _inset(length: int, use: UseSettings) -> int:
    """A tile of the pipeline needs no masks in the outer part of its halo; any other image is covered whole."""
    if length != use.core_px + 2 * use.halo_px:
        return 0
    return max(0, use.halo_px - use.margin_px - use.overlap_px // 2)


def plan_jobs(prompts: Prompts, wanted: Sequence[int], layout: Layout, negatives: int) -> list[Job]:
    """Jobs of all `wanted` prompts, in the order of their windows."""
    index = np.asarray(wanted, np.int64)
    starts = layout.owner(prompts.xy_tile[index])
    keys = np.column_stack([prompts.row[index], starts[:, 1], starts[:, 0]])
    jobs: list[Job] = []
    for row, y0, x0 in np.unique(keys, axis=0):
        owned = np.sort(index[(keys == (row, y0, x0)).all(1)])
        window = Window(int(row), int(y0), int(x0))
        jobs += window_jobs(prompts, owned, _inside(prompts, window), window, negatives)
    return jobs


def _inside(prompts: Prompts, window: Window) -> Int64:
    xy_window = prompts.xy_tile - np.array([window.x0, window.y0], np.float32)
    return np.flatnonzero((prompts.row == window.row) & ((xy_window >= 0) & (xy_window < WINDOW_PX)).all(1))


def window_jobs(prompts: Prompts, owned: Int64, inside: Int64, window: Window, negatives: int) -> list[Job]:
    """Jobs of the prompts `owned` by a window. Their negatives are chosen from the prompts `inside` it."""
    xy_window = prompts.xy_tile - np.array([window.x0, window.y0], np.float32)
    near = _nearest_others(xy_window, owned, inside, negatives)
    jobs = []
    for first in range(0, len(owned), SLOTS[-1]):
        part = slice(first, first + SLOTS[-1])
        jobs.append(_filled(window, owned[part], xy_window, near[part]))
    return jobs


def _nearest_others(xy: Float32, prompt: Int64, inside: Int64, count: int) -> Int64:
    """len(prompt) x count: for each prompt the nearest other points of the window, -1 where there are too few."""
    near = np.full((len(prompt), count), -1, np.int64)
    others = min(count, len(inside) - 1)
    if others <= 0:
        return near
    _, nearest = cKDTree(xy[inside]).query(xy[prompt], k=others + 1)
    nearest = inside[nearest]
    # A prompt is its own nearest point, unless another one lies on the same spot.
    nearest = np.take_along_axis(nearest, np.argsort(nearest == prompt[:, None], axis=1, kind="stable"), 1)
    near[:, :others] = nearest[:, :others]
    return near


def _filled(window: Window, prompt: Int64, xy_window: Float32, near: Int64) -> Job:
    slots = next(size for size in SLOTS if size >= len(prompt))
    members = np.column_stack([prompt, near])
    xy = np.zeros((slots, members.shape[1], 2), np.float32)
    xy[: len(prompt)] = np.where(members[..., None] >= 0, xy_window[members], 0)
    label = np.full((slots, members.shape[1]), NO_POINT, np.int64)
    label[: len(prompt)] = np.where(members >= 0, NEGATIVE, NO_POINT)
    label[: len(prompt), 0] = POSITIVE
    return Job(window, prompt, xy, label)


class WindowEncoder:
    """Encodes windows of the batch `rgb` (uint8 B x H x W x 3), each once per view, when it is asked for.

    `size` is the height and width of the images, and `covered` that of the pixels in which windows may lie: the
    images mirrored at their right and lower edge to a multiple of `multiple_px`.
    """

    def __init__(self, sam: Sam, runner: Runner, rgb: UInt8, multiple_px: int = 1) -> None:
        self._sam, self._runner = sam, runner
        self.size = (rgb.shape[1], rgb.shape[2])
        below, beside = (-length % multiple_px for length in self.size)
        self.covered = (self.size[0] + below, self.size[1] + beside)
        if below or beside:
            rgb = np.pad(rgb, ((0, 0), (0, below), (0, beside), (0, 0)), mode="reflect")
        self._rgb = _at_least_a_window(torch.tensor(rgb).to(runner.device.torch_device))
        self._known: dict[View, dict[Window, torch.Tensor]] = {}

    def embed(self, windows: Iterable[Window], view: View = AS_IT_IS) -> dict[Window, torch.Tensor]:
        """C x 16 x 16 for each window, as `view` shows it; the first 256 channels are the tokens."""
        known = self._known.setdefault(view, {})
        missing = [window for window in windows if window not in known]
        calls = in_calls(missing, self._runner.windows, lambda part, real: self._encoded(part, real, view))
        for embeddings in calls:
            known.update(embeddings)
        return known

    def _encoded(self, part: list[Window], real: int, view: View) -> dict[Window, torch.Tensor]:
        pixels = view.apply(normalise(torch.stack([self._cut(window) for window in part]))).contiguous()
        embeddings = self._runner.infer(embed_pixels, self._sam.image_encoder, pixels)
        return dict(zip(part[:real], embeddings[:real], strict=True))

    def _cut(self, window: Window) -> torch.Tensor:
        return self._rgb[window.row, window.y0 : window.y0 + WINDOW_PX, window.x0 : window.x0 + WINDOW_PX]


def _at_least_a_window(rgb: torch.Tensor) -> torch.Tensor:
    below, beside = (max(0, WINDOW_PX - length) for length in rgb.shape[1:3])
    return F.pad(rgb, (0, 0, 0, beside, 0, below), value=WHITE)
