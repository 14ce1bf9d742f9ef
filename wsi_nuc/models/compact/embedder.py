"""What the network sees at a point: the embedding from which the mask of a nucleus would be made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from wsi_nuc.models.base import Fetch, Later
from wsi_nuc.models.compact.net import Asked, Maps
from wsi_nuc.models.compact.network import Network
from wsi_nuc.models.compact.segmentor import PROMPTS_PER_CALL
from wsi_nuc.models.finite import refuse_non_finite
from wsi_nuc.models.torch_ops import chunks
from wsi_nuc.types import Float32, Int64

Part = tuple[Int64, torch.Tensor, torch.Tensor]


def embed(network: Network, maps: Sequence[Maps], xy_tile: Float32, row: Int64) -> Fetch[Float32]:
    """N x `prompt_channels` at the points of a batch."""
    parts: list[Part] = []
    with torch.inference_mode():
        for number, of_tile in enumerate(maps):
            for rows, real in chunks(np.flatnonzero(row == number).tolist(), PROMPTS_PER_CALL):
                xy = torch.from_numpy(xy_tile[rows]).to(network.device.torch_device)
                asked = Asked(torch.zeros(len(rows), dtype=torch.int64, device=xy.device), xy, xy)
                raw = network.device.start(network.net.decoder.embedding, of_tile.context, asked)
                parts.append((np.array(rows[:real], np.int64), raw.outputs[:real].float(), raw.total))
    return Later(partial(_on_host, parts, len(row), network.net.decoder.prompt_channels))


def _on_host(parts: Sequence[Part], count: int, channels: int) -> Float32:
    out = np.zeros((count, channels), np.float32)
    if parts:
        rows, embeddings, totals = zip(*parts, strict=True)
        refuse_non_finite(torch.stack(totals).tolist())
        out[np.concatenate(rows)] = torch.cat(embeddings).cpu().numpy()
    return out
