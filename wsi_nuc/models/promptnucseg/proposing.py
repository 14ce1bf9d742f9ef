"""The prompter behind the pipeline's protocol: once over each tile, or window by window on a shared encoder."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from wsi_nuc.models.promptnucseg.decoding import DecodingRule, decode_points, suppress_doubles
from wsi_nuc.models.promptnucseg.device import Runner, chunks
from wsi_nuc.models.promptnucseg.embedding import WindowEncoder
from wsi_nuc.models.promptnucseg.prompter import PrompterNet
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.windows import Layout, Window
from wsi_nuc.models.sam.encoder import normalise
from wsi_nuc.types import Prompts, TileBatch


class NetPrompter:
    def __init__(self, net: PrompterNet, runner: Runner, use: UseSettings) -> None:
        self._net, self._runner = net, runner
        self._rule = DecodingRule(use.nms_radius_px, use.mask_filter)

    def propose(self, batch: TileBatch) -> Prompts:
        found = []
        with torch.inference_mode():
            for part, real in chunks(range(len(batch.rgb)), self._runner.tiles):
                pixels = torch.from_numpy(batch.rgb[part]).to(self._runner.device)
                prompts = self._propose(pixels)
                prompts = prompts.select(prompts.row < real)
                found.append(shift(prompts, part[0], 0, 0))
        return concat(found)

    def _propose(self, rgb: torch.Tensor) -> Prompts:
        size = (rgb.shape[1], rgb.shape[2])
        below, beside = (-length % self._net.space_px for length in size)
        pixels = F.pad(normalise(rgb), (0, beside, 0, below), mode="reflect")
        with self._runner.autocast():
            padded = (size[0] + below, size[1] + beside)
            proposed = self._net(pixels, padded, with_mask=self._rule.mask_filter)
        return decode_points(proposed, size, self._rule)


class SharedPrompter:
    """Works on the embeddings of the segmentor's windows; a point counts in the window that will decode it."""

    def __init__(self, net: PrompterNet, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._net, self._encoder, self._runner, self._use = net, encoder, runner, use
        self._rule = DecodingRule(use.nms_radius_px, use.mask_filter)

    def propose(self, batch: TileBatch) -> Prompts:
        layout = Layout.of(batch.rgb.shape[1], batch.rgb.shape[2], self._use)
        windows = [window for row in range(len(batch.rgb)) for window in layout.windows(row)]
        found = []
        with torch.inference_mode():
            embeddings = self._encoder.embed(batch, windows)
            for part, real in chunks(windows, self._runner.windows):
                prompts = self._propose(torch.stack([embeddings[window] for window in part]))
                found += [_owned(prompts, i, window, layout) for i, window in enumerate(part[:real])]
        return suppress_doubles(_inside(concat(found), batch), self._use.nms_radius_px)

    def _propose(self, embedding: torch.Tensor) -> Prompts:
        size = (WINDOW_PX, WINDOW_PX)
        with self._runner.autocast():
            proposed = self._net(embedding, size, with_mask=self._rule.mask_filter)
        return decode_points(proposed, size, self._rule)


def _owned(prompts: Prompts, place: int, window: Window, layout: Layout) -> Prompts:
    mine = prompts.select(prompts.row == place)
    mine = shift(mine, window.row - place, window.x0, window.y0)
    return mine.select(np.flatnonzero((layout.owner(mine.xy_tile) == (window.x0, window.y0)).all(1)))


def _inside(prompts: Prompts, batch: TileBatch) -> Prompts:
    """Without points in the blank that fills up an image smaller than a window."""
    size = np.array(batch.rgb.shape[2:0:-1], np.float32)
    return prompts.select(np.flatnonzero((prompts.xy_tile < size).all(1)))


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
