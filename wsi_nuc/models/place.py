"""The device that a network runs on."""

from __future__ import annotations

import torch

from wsi_nuc.errors import UsageError


def torch_device(asked: str) -> torch.device:
    """`asked`: auto (a GPU where torch sees one), cpu, cuda or cuda:N."""
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {asked}", "this torch sees no CUDA device", "use --device cpu")
    return torch.device(wanted)
