"""Parameters and multiply-accumulates of PromptNucSeg on one 256 px tile.

Nothing is allocated, since the tensors only have shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.pyramid import SharedBackbone
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX, Settings
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import decode, embed_points
from wsi_nuc.models.sam.model import EMBEDDING, encode

PROMPTS = 24  # about as many as there are nuclei in a tile of PanNuke


def network(settings: Settings) -> PromptNucSegNet:
    with torch.device("meta"):
        return PromptNucSegNet(settings).eval()


def parameters_m(net: PromptNucSegNet) -> float:
    return sum(parameter.numel() for parameter in net.parameters()) / 1e6


def published_gmacs(net: PromptNucSegNet) -> float:
    """The plain modules, with padded windows and every prompt decoded on its own in full."""
    return _gmacs(lambda: _published_pass(net))


def gmacs_here(net: PromptNucSegNet) -> float:
    """What this package computes for the same masks."""
    return _gmacs(lambda: _pass_here(net))


def _gmacs(run: Callable[[], None]) -> float:
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        run()
    return float(counter.get_total_flops() / 2e9)


def _published_pass(net: PromptNucSegNet) -> None:
    pixels, sam = _tile(), net.segmentor
    encoder: Any = sam.image_encoder
    mask_decoder: Any = sam.mask_decoder
    embedding = encoder(pixels)
    net.prompter(embedding if _shares(net) else pixels, (WINDOW_PX, WINDOW_PX))
    side = WINDOW_PX // 16
    mask_decoder(
        image_embeddings=embedding,
        image_pe=torch.empty(1, EMBEDDING, side, side, device="meta"),
        sparse_prompt_embeddings=torch.empty(PROMPTS, 2, EMBEDDING, device="meta"),
        dense_prompt_embeddings=torch.empty(PROMPTS, EMBEDDING, side, side, device="meta"),
        multimask_output=False,
    )


def _pass_here(net: PromptNucSegNet) -> None:
    pixels, sam = _tile(), net.segmentor
    embedding = encode(sam.image_encoder, pixels)
    net.prompter(embedding if _shares(net) else pixels, (WINDOW_PX, WINDOW_PX), with_mask=False)
    xy, label = torch.empty(1, PROMPTS, 1, 2, device="meta"), torch.empty(1, PROMPTS, 1, device="meta")
    decoded = decode(sam, embedding, embed_points(sam.prompt_encoder, xy, label))
    first = decoder.first_tokens(xy.view(-1, 2), WINDOW_PX // 16, 5)
    decoder.near_logits(sam.mask_decoder, decoded.image[0], decoded.filters[0], first, 5)


def _tile() -> torch.Tensor:
    return torch.empty(1, 3, WINDOW_PX, WINDOW_PX, device="meta")


def _shares(net: PromptNucSegNet) -> bool:
    return isinstance(net.prompter.backbone, SharedBackbone)
