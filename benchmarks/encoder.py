"""SAM's ViT-B at 256 px in fp32 on one CPU core: without padded windows against segment-anything's own."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.table import Row, interleaved, print_rows
from wsi_nuc.models.sam.model import Sam, encode


def measure(small: bool = False) -> list[Row]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    # One thread: with more, the ratio would depend on what else the machine is doing.
    torch.set_num_threads(1)
    encoder: Any = Sam("vit_b").image_encoder.eval()
    with torch.inference_mode():
        for name, parameter in encoder.named_parameters():
            if parameter.ndim == 1 or "rel_pos" in name or "pos_embed" in name:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        pixels = torch.randn(1, 3, 256, 256)
        difference = float((encoder(pixels) - encode(encoder, pixels)).abs().max())
        padded, unpadded = interleaved(
            lambda: encoder(pixels), lambda: encode(encoder, pixels), rounds=1 if small else 5
        )
    torch.set_num_threads(threads)
    return [
        Row("ViT-B encoder, padded / without padding", padded / unpadded, "x", ">= 1.3", padded / unpadded >= 1.3),
        Row("ViT-B encoder, largest difference", difference, "", "<= 1e-4", difference <= 1e-4, always=True),
        Row("ViT-B encoder, one core", 1 / unpadded, "images/s"),
    ]


if __name__ == "__main__":
    print_rows(measure())
