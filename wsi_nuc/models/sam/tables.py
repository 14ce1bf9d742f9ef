"""Official checkpoints hold position tables for 1024 px. They are resized once, when loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


def resize_tables(state: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> State:
    """The same state with position tables brought to the wanted `shapes`; all else is passed through.

    The position embedding is resized bicubically and relative positions linearly, as the published method does in
    every forward pass.
    """
    return {name: _resized(name, tensor, shapes.get(name)) for name, tensor in state.items()}


def _resized(name: str, tensor: torch.Tensor, shape: tuple[int, ...] | None) -> torch.Tensor:
    if shape is None or tuple(tensor.shape) == shape or tensor.ndim != len(shape):
        return tensor
    if name.endswith("pos_embed") and tensor.ndim == 4 and tensor.shape[3] == shape[3]:
        channels_first = tensor.permute(0, 3, 1, 2).float()
        resized = F.interpolate(channels_first, size=shape[1:3], mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1).contiguous().to(tensor.dtype)
    if name.rpartition(".")[2] in ("rel_pos_h", "rel_pos_w") and tensor.shape[1] == shape[1]:
        resized = F.interpolate(tensor.float().T[None], size=shape[0], mode="linear")
        return resized[0].T.contiguous().to(tensor.dtype)
    return tensor
