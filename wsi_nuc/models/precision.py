"""Where half precision does not do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """No automatic half precision for what is computed from `tensor`: scores and places need more than 8 bits."""
    # Tensors that have a shape only cannot be cast, and torch refuses to be asked.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
