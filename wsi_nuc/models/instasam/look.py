"""What an InstaSAM network sees in one batch: an instance map of every tile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wsi_nuc.models.compact.network import cut, padded
from wsi_nuc.models.device import Device
from wsi_nuc.models.hv import HvMaps, HvSettings, decode
from wsi_nuc.models.instances import InstancesLook
from wsi_nuc.models.instasam.settings import Settings, UseSettings
from wsi_nuc.types import TileBatch, UInt8


def look(net: Any, device: Device, settings: Settings, name: str, batch: TileBatch) -> InstancesLook:
    """Every call of the network gets one tile, whatever else is in the batch."""
    maps = [maps_of(net, device, cut(rgb, tile)) for rgb, tile in zip(batch.rgb, batch.tiles, strict=True)]
    instances = [decode([tile], hv_settings(settings.use)) for tile in maps]
    labels = np.zeros(batch.rgb.shape[:3], np.int32)
    for whole, tile in zip(labels, instances, strict=True):
        height, width = tile.labels.shape[1:]
        whole[:height, :width] = tile.labels[0]
    joined = replace(
        instances[0],
        labels=labels,
        score=np.concatenate([tile.score for tile in instances]),
        class_probs=np.concatenate([tile.class_probs for tile in instances]),
    )
    return InstancesLook(name, joined)


def maps_of(net: Any, device: Device, rgb: UInt8) -> HvMaps:
    """What the network says of an image, H x W x 3, at each of its pixels."""
    height, width = rgb.shape[:2]
    pixels = padded(rgb, device.torch_device)
    with torch.inference_mode():
        seen = device.infer(net, pixels)
        fine = seen.maps[0, :, :height, :width]
        classes = seen.classes[0].float().softmax(0)
    return HvMaps(fine[0].sigmoid().cpu().numpy(), fine[1:].cpu().numpy(), classes.cpu().numpy())


def hv_settings(use: UseSettings) -> HvSettings:
    return HvSettings(
        foreground=use.foreground, marker=use.marker, least_px=use.least_area_px, largest_px=use.largest_px
    )
