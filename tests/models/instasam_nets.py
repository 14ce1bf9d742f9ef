"""An InstaSAM network of a few thousand parameters that takes dark connected pixels for nuclei."""

from __future__ import annotations

import numpy as np
import torch

from tests.models.compact_nets import CLASSES, NET
from tests.models.tiles import scene
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.instasam.build import assemble
from wsi_nuc.models.instasam.net import InstaSamNet
from wsi_nuc.models.instasam.settings import Settings, UseSettings, spec_of
from wsi_nuc.models.torch_ops import normalise

DARK = 170.0


def tiny_settings(**use: object) -> Settings:
    given: dict[str, object] = {"tile_px": 256, "halo_px": 96, "largest_px": 64, "precision": "fp32"}
    return Settings(CLASSES, 0.25, net=NET, use=UseSettings(**{**given, **use}))  # type: ignore[arg-type]


@torch.no_grad()
def tiny_net(seed: int = 0) -> InstaSamNet:
    """Everything is random, except that the foreground is fitted to what is dark, and no edge is seen."""
    torch.manual_seed(seed)
    net = InstaSamNet(tiny_settings()).eval()
    rgb = scene(5, 128)
    stem = net.encoder(normalise(torch.from_numpy(rgb[None])))[0][0]
    dark = rgb[:, :, 0].reshape(64, 2, 64, 2).mean((1, 3)) < DARK
    seen = torch.nn.functional.unfold(stem[None], 3, padding=1)[0].T.double().numpy()
    fitted = np.linalg.lstsq(np.column_stack([seen, np.ones(len(seen))]), np.where(dark, 6.0, -6.0).ravel())[0]
    fold = len(net.mask_head.weight) // len(net.mask_detail.weight)
    for part, per_map in ((net.mask_head, fold), (net.mask_detail, 1)):
        part.weight[: 3 * per_map] = 0
        part.bias[: 3 * per_map] = 0  # type: ignore[index]
    net.mask_detail.weight[0] = torch.from_numpy(fitted[:-1]).float().view(-1, 3, 3)
    net.mask_detail.bias[0] = float(fitted[-1])  # type: ignore[index]
    return net


def tiny_model(**use: object) -> NucleiModel:
    settings = tiny_settings(**use)
    return assemble(tiny_net(), settings, "cpu", spec_of(settings, "a" * 64))
