"""What the network sees at a point: the embedding that a nucleus's mask would be made from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from wsi_nuc.models.base import Fetch, Later
from wsi_nuc.models.calls import chunks
from wsi_nuc.models.compact.masks import Asked
from wsi_nuc.models.compact.net import Maps
from wsi_nuc.models.compact.network import Network
from wsi_nuc.models.compact.segmentor import PROMPTS_A_CALL
from wsi_nuc.types import Float32, Int64

Part = tuple[Int64, torch.Tensor]


def embed(network: Network, maps: Sequence[Maps], xy_tile: Float32, row: Int64) -> Fetch[Float32]:
    """N x `prompt_channels` at the points of a batch."""
    parts: list[Part] = []
    with torch.inference_mode():
        for number, of_tile in enumerate(maps):
            for rows, real in chunks(np.flatnonzero(row == number).tolist(), PROMPTS_A_CALL):
                xy = torch.from_numpy(xy_tile[rows]).to(network.place.device)
                asked = Asked(torch.zeros(len(rows), dtype=torch.int64, device=xy.device), xy, xy)
                embedding = network.place.infer(network.net.decoder.embedding, of_tile.context, asked)
                parts.append((np.array(rows[:real], np.int64), embedding[:real].float()))
    return Later(partial(_on_host, parts, len(row), network.net.decoder.weights.in_features))


def _on_host(parts: Sequence[Part], count: int, channels: int) -> Float32:
    out = np.zeros((count, channels), np.float32)
    if parts:
        out[np.concatenate([rows for rows, _ in parts])] = torch.cat([part for _, part in parts]).cpu().numpy()
    return out
