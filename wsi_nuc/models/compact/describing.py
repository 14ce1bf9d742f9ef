"""What the network sees at a point: the embedding that a nucleus's mask would be made from."""

from __future__ import annotations

import numpy as np
import torch

from wsi_nuc.models.calls import chunks
from wsi_nuc.models.compact.look import Look
from wsi_nuc.models.compact.masks import Asked
from wsi_nuc.models.compact.segmenting import PROMPTS_A_CALL
from wsi_nuc.types import Float32, Int64, TileBatch


class CompactEmbedder:
    def __init__(self, look: Look, size: int) -> None:
        self._look, self._size = look, size

    def embed(self, batch: TileBatch, xy_tile: Float32, row: Int64) -> Float32:
        out = np.zeros((len(row), self._size), np.float32)
        with torch.inference_mode():
            for number, maps in enumerate(self._look.at(batch)):
                for part, real in chunks(np.flatnonzero(row == number).tolist(), PROMPTS_A_CALL):
                    xy = torch.from_numpy(xy_tile[part]).to(self._look.place.device)
                    asked = Asked(torch.zeros(len(part), dtype=torch.int64, device=xy.device), xy, xy)
                    found = self._look.place.infer(self._look.net.decoder.embedding, maps.context, asked)
                    out[part[:real]] = found[:real].float().cpu().numpy()
        return out
