"""A convolutional encoder in place of SAM's vision transformer, for those who have no weights of SAM.

Encoder and pyramid are those of the compact network, so the file of a compact model is a start. The pyramid's map
of stride 4 is folded into tokens of 16 x 16 pixels, from which SAM's mask decoder works as it does from its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.encoder import encoder_of
from wsi_nuc.models.compact.net import Pyramid
from wsi_nuc.models.compact.settings import NetSettings
from wsi_nuc.models.sam.decoder import LOGITS_PER_TOKEN
from wsi_nuc.models.sam.model import EMBEDDING, encode
from wsi_nuc.models.torch_ops import load

FOLDED = EMBEDDING // LOGITS_PER_TOKEN**2  # channels of a cell of stride 4 within a token


class ConvEncoder(nn.Module):
    """From B x 3 x H x W normalised pixels to B x (256 + seen) x H/16 x W/16.

    The first 256 channels are SAM's tokens. The rest is the map of stride 4, folded, for the prompter alone.
    """

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        near, _, far = settings.pyramid
        self.encoder, self.pyramid = encoder_of(settings), Pyramid(settings)
        self.to_cells = nn.Conv2d(near, FOLDED, 1)
        self.to_tokens = nn.Conv2d(far, EMBEDDING, 1)
        self.norm = load("segment_anything.modeling.common").LayerNorm2d(EMBEDDING)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        _, *maps = self.encoder(pixels.contiguous(memory_format=torch.channels_last))
        near, _, far = self.pyramid(maps)
        cells = F.pixel_unshuffle(self.to_cells(near), LOGITS_PER_TOKEN)
        tokens = self.norm(cells + self.to_tokens(far))
        return torch.cat([tokens, F.pixel_unshuffle(near, LOGITS_PER_TOKEN)], 1)


def embed_pixels(encoder: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the image encoder, of either kind, makes of B x 3 x H x W normalised pixels; tokens come first."""
    if isinstance(encoder, ConvEncoder):
        embedded: torch.Tensor = encoder(pixels)
        return embedded
    return encode(encoder, pixels)
