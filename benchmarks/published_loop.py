"""Inference on a region against the published loop: same weights, same pixels, two cores.

The published loop runs the prompter on one image, then goes through overlapping 256 px windows one by one. It
decodes every point of a window with its negative and without, keeps masks as full images and codes their run
lengths. Its largest images are 1000 px square (Kumar), so that is the region. The weights are random except for a
few directions, which make points and masks about as many and as large as nuclei are (`tests/models/sensible.py`).

Parity mode follows the same rules and must give the same instances. The default mode decodes each point once, in
the window where it is most central. With these weights a mask depends much on its window, so the agreement of the
default mode has no target.

Measured on busy cores, default / parity mode: 5.9 / 2.2 times as fast as the loop with the tiny encoder on 1600 px
(4.2 / 2.0 on 1000 px), 3.1 / 1.5 times with ViT-B on 1000 px, where the image encoder takes most of the time of
both. The larger the image, the more the loop's full-image masks cost: on 2048 px they did not fit into 23 GiB.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.table import Row, interleaved, print_rows
from tests.models.published import Instances, published_instances, published_points
from tests.models.sensible import sensible_net
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import PrompterSettings, SegmentorSettings, Settings, UseSettings
from wsi_nuc.types import Bool, Box, Tile, TileBatch, UInt8

THREADS = 2
# Encoder, timm backbone of the prompter, edge of the region, rounds. Once where the published loop takes minutes.
SIZES = [
    ("vit_tiny", "convnext_atto", 1000, 5),
    ("vit_tiny", "convnext_atto", 1600, 1),
    ("vit_b", "convnext_small", 1000, 1),
]
SMALL = [("vit_mini", "convnext_atto", 272, 1)]
FOREGROUND, NMS_PX = 0.15, 14.0


def region(side: int, seed: int = 0) -> UInt8:
    """Dark blots on a light, uneven ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    rgb = np.repeat(230 - 20 * np.sin(x / 97) * np.cos(y / 71), 3).reshape(side, side, 3)
    for cx, cy in rng.uniform(0, side, (side * side * 600 // 10**6, 2)):
        box = np.s_[max(0, int(cy) - 24) : int(cy) + 24, max(0, int(cx) - 24) : int(cx) + 24]
        blot = np.exp(-((x[box] - cx) ** 2 + (y[box] - cy) ** 2) / 120)[..., None]
        rgb[box] -= blot * rng.uniform([60, 100, 30], [120, 150, 80])
    return np.asarray((rgb + rng.normal(0, 4, rgb.shape)).clip(0, 255), np.uint8)


def settings(encoder: str, backbone: str, mode: str) -> Settings:
    """As a user runs it: half precision where the device has it, but not in parity mode, which must be exact."""
    precision = "auto" if mode == "default" else "fp32"
    use = UseSettings(mode=mode, negatives=1, mask_filter=False, nms_radius_px=NMS_PX, precision=precision)
    prompter = PrompterSettings(backbone)
    return Settings(("nucleus",), 0.25, prompter, SegmentorSettings(encoder), use=use)


def measure(small: bool = False, sizes: Sequence[tuple[str, str, int, int]] = SIZES) -> list[Row]:
    # On a busy machine, one thread (OMP_NUM_THREADS=1) measures more fairly: two would wait for each other.
    torch.set_num_threads(min(THREADS, torch.get_num_threads()))
    return [row for size in (SMALL if small else sizes) for row in _measured(*size)]


def _measured(encoder: str, backbone: str, side: int, rounds: int) -> list[Row]:
    net = sensible_net(settings(encoder, backbone, "default"), FOREGROUND, region(512, seed=1))
    box = Box(0, 0, side, side)
    batch = TileBatch(region(side)[None], (Tile(0, box, box),))
    models = {mode: _model(net, settings(encoder, backbone, mode)) for mode in ("default", "parity")}
    use = settings(encoder, backbone, "parity").use
    published: list[Instances] = []

    def loop() -> None:
        points = published_points(net, batch.rgb[0], use)
        published[:] = [published_instances(net, batch.rgb[0], points, use)]

    calls = [loop, lambda: predict(models["default"], batch), lambda: predict(models["parity"], batch)]
    seconds = interleaved(*calls, rounds=rounds)
    theirs, what = published[0], f"{encoder} on {side} px"
    return [
        Row(f"{what}: instances of the published loop", len(theirs.mask)),
        Row(f"{what}: the published loop", seconds[0], "s"),
        Row(f"{what}: default / published", seconds[0] / seconds[1], "x", ">= 5", seconds[0] >= 5 * seconds[1]),
        Row(f"{what}: parity / published", seconds[0] / seconds[2], "x"),
        *(_agreement(what, mode, models[mode], batch, theirs) for mode in models),
    ]


def _model(net: PromptNucSegNet, used: Settings) -> NucleiModel:
    spec = replace(spec_of(used, "0" * 64), batch=1)
    return assemble(net, used, "cpu", spec)


def _agreement(what: str, mode: str, model: NucleiModel, batch: TileBatch, theirs: Instances) -> Row:
    share = same_share(model, batch, theirs)
    target = ">= 99" if mode == "parity" else "-"
    return Row(f"{what}: {mode}, same instances", share, "%", target, share >= 99 or mode != "parity", always=True)


def same_share(model: NucleiModel, batch: TileBatch, theirs: Instances) -> float:
    """Percentage of the published instances that one of ours covers with IoU >= 0.99.

    It does not matter which point an instance belongs to, since points of equal score come in any order.
    """
    look, side = model.look(batch), batch.rgb.shape[1]
    ours: dict[int, list[Bool]] = {}
    for group in look.masks(range(len(look.prompts.get()))).get():
        for mask, (x, y) in zip(group.mask, group.origin_tile, strict=True):
            whole = np.zeros((side + 256, side + 256), np.bool_)
            whole[y : y + len(mask), x : x + len(mask)] = mask
            inside = whole[:side, :side]
            ours.setdefault(int(inside.sum()), []).append(inside)
    same = [
        any(_iou(mask, candidate) >= 0.99 for candidate in _of_like_area(ours, int(mask.sum())))
        for mask in theirs.mask
    ]
    return 100 * float(np.mean(same)) if same else float("nan")


def _of_like_area(ours: dict[int, list[Bool]], area: int) -> Iterator[Bool]:
    """The masks whose area allows an IoU of 0.99."""
    for candidate_area, masks in ours.items():
        if 0.99 * area <= candidate_area <= area / 0.99:
            yield from masks


def _iou(a: Bool, b: Bool) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


if __name__ == "__main__":
    print_rows(measure(sizes=SIZES[: int(sys.argv[1])] if len(sys.argv) > 1 else SIZES))
