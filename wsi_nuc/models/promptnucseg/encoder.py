"""Image embeddings of the windows of one batch: prompter, segmentor and embedder share them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from wsi_nuc.models.calls import in_calls
from wsi_nuc.models.promptnucseg.device import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX
from wsi_nuc.models.promptnucseg.views import AS_IT_IS, View
from wsi_nuc.models.promptnucseg.windows import Window
from wsi_nuc.models.sam.encoder import encode, normalise
from wsi_nuc.models.sam.sizes import Sam
from wsi_nuc.types import UInt8

WHITE = 255


class WindowEncoder:
    """Of the batch `rgb` (uint8 B x H x W x 3); each window is encoded once per view, when it is asked for."""

    def __init__(self, sam: Sam, runner: Runner, rgb: UInt8) -> None:
        self._sam, self._runner = sam, runner
        self.size = (rgb.shape[1], rgb.shape[2])
        self._rgb = _at_least_a_window(torch.tensor(rgb).to(runner.device))
        self._known: dict[View, dict[Window, torch.Tensor]] = {}

    def embed(self, windows: Iterable[Window], view: View = AS_IT_IS) -> dict[Window, torch.Tensor]:
        """256 x 16 x 16 for each window, as `view` shows it."""
        known = self._known.setdefault(view, {})
        missing = [window for window in windows if window not in known]
        calls = in_calls(missing, self._runner.windows, lambda part, real: self._encoded(part, real, view))
        for embeddings in calls:
            known.update(embeddings)
        return known

    def _encoded(self, part: list[Window], real: int, view: View) -> dict[Window, torch.Tensor]:
        pixels = view.apply(normalise(torch.stack([self._cut(window) for window in part]))).contiguous()
        embeddings = self._runner.infer(encode, self._sam.image_encoder, pixels)
        return dict(zip(part[:real], embeddings[:real], strict=True))

    def _cut(self, window: Window) -> torch.Tensor:
        return self._rgb[window.row, window.y0 : window.y0 + WINDOW_PX, window.x0 : window.x0 + WINDOW_PX]


def _at_least_a_window(rgb: torch.Tensor) -> torch.Tensor:
    below, beside = (max(0, WINDOW_PX - length) for length in rgb.shape[1:3])
    return F.pad(rgb, (0, 0, 0, beside, 0, below), value=WHITE)
