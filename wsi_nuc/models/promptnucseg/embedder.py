"""What the image encoder sees at a point: its embedding of the window in which the point lies most central."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, UseSettings
from wsi_nuc.models.promptnucseg.windows import Layout, Window, WindowEncoder
from wsi_nuc.types import Float32, Int64

EMBEDDING = 256


class PointEmbedder:
    """Interpolates between the tokens, each of which stands for 16 x 16 pixels."""

    def __init__(self, encoder: WindowEncoder, runner: Runner, use: UseSettings) -> None:
        self._encoder, self._runner, self._use = encoder, runner, use

    def embed(self, xy_tile: Float32, row: Int64) -> Float32:
        out = np.zeros((len(row), EMBEDDING), np.float32)
        if not len(row):
            return out
        start = Layout.of(*self._encoder.size, self._use).owner(xy_tile)
        places, owner = np.unique(np.column_stack([row, start[:, ::-1]]), axis=0, return_inverse=True)
        windows = [Window(int(r), int(y0), int(x0)) for r, y0, x0 in places]
        with torch.inference_mode():
            known = self._encoder.embed(windows)
            for number, window in enumerate(windows):
                here = np.flatnonzero(owner.ravel() == number)
                out[here] = self._at(known[window], xy_tile[here] - start[here].astype(np.float32))
        return out

    def _at(self, embedding: torch.Tensor, xy_window: Float32) -> Float32:
        """N x 256, from the tokens of an `embedding`, C x 16 x 16."""
        place = torch.from_numpy(xy_window * np.float32(2 / WINDOW_PX) - 1).to(self._runner.device.torch_device)
        image = embedding[:EMBEDDING].float()[None]
        sampled = F.grid_sample(image, place[None, None], padding_mode="border", align_corners=False)
        return np.asarray(sampled[0, :, 0].T.cpu().numpy(), np.float32)
