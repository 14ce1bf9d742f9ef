"""Parameters and multiply-accumulates of PromptNucSeg-B, -L and -H on one 256 px tile with 24 prompts.

"as published" counts the plain modules, with padded windows and every prompt decoded on its own in full. "here"
counts what this package computes for the same masks. Nothing is allocated, since the tensors only have shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.table import Row, print_rows
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import SegmentorSettings, Settings
from wsi_nuc.models.sam import decoder
from wsi_nuc.models.sam.decoder import decode, embed_points
from wsi_nuc.models.sam.model import encode

SIZES = (("B", "vit_b"), ("L", "vit_l"), ("H", "vit_h"))
PROMPTS = 24
CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
PUBLISHED_PARAMETERS_M, PUBLISHED_MACS_G = 145.6, 59.0


def network(size: str) -> PromptNucSegNet:
    with torch.device("meta"):
        return PromptNucSegNet(Settings(CLASSES, 0.25, segmentor=SegmentorSettings(size))).eval()


def published_pass(net: PromptNucSegNet) -> None:
    pixels, sam = torch.empty(1, 3, 256, 256, device="meta"), net.segmentor
    encoder: Any = sam.image_encoder
    decoder: Any = sam.mask_decoder
    net.prompter(pixels, (256, 256))
    decoder(
        image_embeddings=encoder(pixels),
        image_pe=torch.empty(1, 256, 16, 16, device="meta"),
        sparse_prompt_embeddings=torch.empty(PROMPTS, 2, 256, device="meta"),
        dense_prompt_embeddings=torch.empty(PROMPTS, 256, 16, 16, device="meta"),
        multimask_output=False,
    )


def pass_here(net: PromptNucSegNet) -> None:
    pixels, sam = torch.empty(1, 3, 256, 256, device="meta"), net.segmentor
    net.prompter(pixels, (256, 256), with_mask=False)
    xy, label = torch.empty(1, PROMPTS, 1, 2, device="meta"), torch.empty(1, PROMPTS, 1, device="meta")
    decoded = decode(sam, encode(sam.image_encoder, pixels), embed_points(sam.prompt_encoder, xy, label))
    first = decoder.first_tokens(xy.view(-1, 2), 16, 5)
    decoder.near_logits(sam.mask_decoder, decoded.image[0], decoded.filters[0], first, 5)


def gmacs(run: Any, net: PromptNucSegNet) -> float:
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        run(net)
    return counter.get_total_flops() / 2e9


def measure(small: bool = False) -> list[Row]:
    rows = []
    for name, size in SIZES[:1] if small else SIZES:
        net = network(size)
        parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
        published, here = gmacs(published_pass, net), gmacs(pass_here, net)
        # The published figures are those of B.
        published_of_b = [
            ("145.6 +- 0.5 %", abs(parameters / PUBLISHED_PARAMETERS_M - 1) <= 0.005),
            ("59.0 +- 1.5 %", abs(published / PUBLISHED_MACS_G - 1) <= 0.015),
        ]
        of_parameters, of_cost = published_of_b if name == "B" else [("-", True)] * 2
        rows += [
            Row(f"{name}: parameters", parameters, "M", *of_parameters, always=True),
            Row(f"{name}: as published", published, "GMACs", *of_cost, always=True),
            Row(f"{name}: here", here, "GMACs", "<= as published", here <= published, always=True),
        ]
    return rows


if __name__ == "__main__":
    print_rows(measure())
