"""A point per nucleus: the prompter once over each tile, or window by window on a shared encoder."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F

from wsi_nuc.models.nms import suppress_doubles
from wsi_nuc.models.promptnucseg.crops import DecodingRule, decode_points
from wsi_nuc.models.promptnucseg.net import PrompterNet
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.views import average_proposed, views_for
from wsi_nuc.models.promptnucseg.windows import Layout, Window, WindowEncoder
from wsi_nuc.models.torch_ops import in_calls, normalise
from wsi_nuc.types import Prompts, UInt8


class NetPrompter:
    def __init__(self, net: PrompterNet, runner: Runner, use: UseSettings) -> None:
        self._net, self._runner = net, runner
        self._rule = DecodingRule.of(use)
        self._views = views_for(use.averages_points)

    def propose(self, rgb: UInt8) -> Prompts:
        """The points of a batch, B x H x W x 3."""

        def call(part: list[int], real: int) -> Prompts:
            prompts = self._propose(torch.from_numpy(rgb[part]).to(self._runner.device.torch_device))
            return shift(prompts.select(prompts.row < real), part[0], 0, 0)

        with torch.inference_mode():
            return concat(list(in_calls(range(len(rgb)), self._runner.tiles, call)))

    def _propose(self, rgb: torch.Tensor) -> Prompts:
        size = (rgb.shape[1], rgb.shape[2])
        below, beside = (-length % self._net.space_px for length in size)
        pixels = F.pad(normalise(rgb), (0, beside, 0, below), mode="reflect")
        seen = []
        for view in self._views:
            padded = view.size((size[0] + below, size[1] + beside))
            shown = view.apply(pixels).contiguous()
            seen.append(self._runner.infer(self._net, shown, padded, self._rule.mask_filter))
        return decode_points(average_proposed(seen, self._views, self._net.space_px), size, self._rule)


class SharedPrompter:
    """Works on the embeddings of the segmentor's windows; a point counts in the window that will decode it."""

    def __init__(self, net: PrompterNet, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._net, self._encoder, self._runner, self._use = net, encoder, runner, use
        self._rule = DecodingRule.of(use)
        self._views = views_for(use.averages_points)

    def propose(self, rgb: UInt8) -> Prompts:
        """The points of a batch, B x H x W x 3, which must be the encoder's batch."""
        layout = Layout.of(*self._encoder.size, self._use)
        windows = [window for row in range(len(rgb)) for window in layout.windows(row)]

        def call(part: list[Window], real: int) -> list[Prompts]:
            prompts = self._propose(part)
            return [_owned(prompts, i, window, layout) for i, window in enumerate(part[:real])]

        with torch.inference_mode():
            parts = list(chain.from_iterable(in_calls(windows, self._runner.windows, call)))
        return suppress_doubles(_inside(concat(parts), self._encoder.size), self._use.nms_radius_px)

    def _propose(self, windows: list[Window]) -> Prompts:
        size, seen = (WINDOW_PX, WINDOW_PX), []
        for view in self._views:
            known = self._encoder.embed(dict.fromkeys(windows), view)
            embedding = torch.stack([known[window] for window in windows])
            seen.append(self._runner.infer(self._net, embedding, size, self._rule.mask_filter))
        return decode_points(average_proposed(seen, self._views, self._net.space_px), size, self._rule)


def _owned(prompts: Prompts, place: int, window: Window, layout: Layout) -> Prompts:
    """The points of the window at `place` in its call that this window will decode, in tile pixels."""
    inside = prompts.select(prompts.row == place)
    inside = shift(inside, window.row - place, window.x0, window.y0)
    return inside.select(np.flatnonzero((layout.owner(inside.xy_tile) == (window.x0, window.y0)).all(1)))


def _inside(prompts: Prompts, size: tuple[int, int]) -> Prompts:
    """Without the points in the blank area that fills up an image smaller than a window."""
    end = np.array(size[::-1], np.float32)
    return prompts.select(np.flatnonzero((prompts.xy_tile < end).all(1)))


def shift(prompts: Prompts, rows: int, dx_px: float, dy_px: float) -> Prompts:
    xy_tile = prompts.xy_tile + np.array([dx_px, dy_px], np.float32)
    return Prompts(xy_tile, prompts.score, prompts.class_probs, prompts.row + rows)


def concat(parts: list[Prompts]) -> Prompts:
    return Prompts(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("xy_tile", "score", "class_probs", "row")
        )
    )
