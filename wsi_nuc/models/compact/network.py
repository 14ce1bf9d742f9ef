"""The trained network, ready to look at tiles: fused, on its device, in its precision."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsi_nuc.models.compact.net import Maps
from wsi_nuc.models.compact.settings import STRIDES, UseSettings
from wsi_nuc.models.compact.team import AnyNet, of_views
from wsi_nuc.models.device import Device
from wsi_nuc.models.finite import Unchecked
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.types import Tile, UInt8

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Network:
    """What all looks of a model share and none of them changes: the fused network, where it runs, and how it is
    used."""

    net: AnyNet
    device: Device
    use: UseSettings

    @classmethod
    def of(cls, net: AnyNet, device: Device, use: UseSettings) -> Network:
        return cls(of_views(channels_last(fused(net).to(device.torch_device)), use.views), device, use)

    def maps(self, rgb: UInt8) -> Unchecked[Maps]:
        """The maps of one tile, H x W x 3. Every call of the network gets one tile, whatever else is in the
        batch."""
        pixels = padded(rgb, self.device.torch_device)
        with torch.inference_mode():
            maps: Unchecked[Maps] = self.device.start(self.net, pixels)
        return maps


def padded(rgb: UInt8, device: torch.device) -> torch.Tensor:
    """1 x 3 x H x W normalised pixels of an image, continued to sides that the coarsest stride divides."""
    pixels = normalise(torch.tensor(rgb)[None].to(device))
    below, beside = (-length % STRIDES[-1] for length in rgb.shape[:2])
    mode = "reflect" if min(rgb.shape[:2]) > STRIDES[-1] else "replicate"
    return F.pad(pixels, (0, beside, 0, below), mode=mode).contiguous(memory_format=torch.channels_last)


def cut(rgb: UInt8, tile: Tile) -> UInt8:
    """The tile without what lies further right of or below its core than its halo. At the end of a slide a core is
    smaller, and on small slides most of a tile would be white."""
    halo_x, halo_y = tile.core_box.x0 - tile.read_box.x0, tile.core_box.y0 - tile.read_box.y0
    width, height = tile.core_box.x1 - tile.read_box.x0 + halo_x, tile.core_box.y1 - tile.read_box.y0 + halo_y
    return rgb[: height + -height % STRIDES[-1], : width + -width % STRIDES[-1]]


def channels_last(net: Net) -> Net:
    """The order of weights with which CPUs and tensor cores compute fastest."""
    made: Any = net
    made.to(memory_format=torch.channels_last)
    return net


def fused(net: Net) -> Net:
    """A copy of the network in evaluation mode, with every norm folded into the convolution before it."""
    made = deepcopy(net).float().eval().requires_grad_(False)
    made.apply(_fold)
    return made


def _fold(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and len(child) == 2 and isinstance(child[1], nn.BatchNorm2d):
            pair: Any = (child[0], child[1])
            setattr(module, name, fuse_conv_bn_eval(*pair))
