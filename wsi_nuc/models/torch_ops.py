"""Around torch: calls of one fixed size, and importing timm and segment-anything without torchvision's operators.

timm and segment-anything import torchvision at module level, and torchvision refuses to be imported over a torch
build that its binary was not made for (for example a CPU-only torch). None of its operators is used here. So they
are declared, `nms` with a plain body, and the import is tried again. Where the native operators load, nothing is
changed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
# SAM's pixel mean and deviation are ImageNet's, so prompter and segmentor share one normalised image.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def chunks(items: Sequence[Item], size: int) -> Iterator[tuple[list[Item], int]]:
    """Lists of exactly `size` items, and how many of the items are real: the last list is filled up with copies of
    its first item."""
    for first in range(0, len(items), size):
        part = list(items[first : first + size])
        yield part + [part[0]] * (size - len(part)), len(part)


def in_calls(items: Sequence[Item], size: int, call: Callable[[list[Item], int], Result]) -> Iterator[Result]:
    """`call(part, real)` for the chunks of `items`. When memory runs out, calls have half the size from then on.
    If a single item does not fit, the error goes to the caller."""
    first = 0
    while first < len(items):
        part = list(items[first : first + size])
        try:
            result = call(part + [part[0]] * (size - len(part)), len(part))
        except (MemoryError, torch.cuda.OutOfMemoryError):
            if size == 1:
                raise
            size = -(-size // 2)
            continue
        first += len(part)
        yield result


def load(name: str) -> Any:
    """Import `timm`, `segment_anything` or a part of them."""
    _make_torchvision_importable()
    return importlib.import_module(name)


@cache
def _make_torchvision_importable() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")
        boxes: Any = importlib.import_module("torchvision.ops.boxes")
        boxes._assert_has_ops = lambda: None


_fragments: list[Any] = []  # when a library object is collected, its operators go with it


def _declare_operators() -> None:
    library: Any = torch.library.Library  # untyped in torch
    fragment = library("torchvision", "FRAGMENT")
    fragment.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    fragment.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    fragment.impl("nms", greedy_nms, "CPU")
    _fragments.append(fragment)


def greedy_nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes (N x 4: x0, y0, x1, y1) that survive, best score first."""
    order = scores.argsort(descending=True, stable=True)
    area = (dets[:, 2:] - dets[:, :2]).prod(1)
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = torch.maximum(dets[order, :2], dets[best, :2])
        common = (torch.minimum(dets[order, 2:], dets[best, 2:]) - low).clamp(min=0).prod(1)
        order = order[common <= iou_threshold * (area[order] + area[best] - common)]
    return torch.tensor(kept, dtype=torch.int64)


def normalise(rgb: torch.Tensor) -> torch.Tensor:
    """uint8 B x H x W x 3 -> float32 B x 3 x H x W, on the device of the pixels."""
    mean = torch.tensor(PIXEL_MEAN, device=rgb.device)
    std = torch.tensor(PIXEL_STD, device=rgb.device)
    return ((rgb.float() - mean) / std).permute(0, 3, 1, 2).contiguous()
