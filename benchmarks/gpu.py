"""PromptNucSeg-B, -L and -H on one GPU: tiles per second, share of the matmul peak, ratio to the published loop.

    python -m benchmarks.gpu            # the targets; says so where there is no GPU
    python -m benchmarks.gpu --small    # whether the same code works, with tiny networks on the CPU; no targets

A tile is what the papers count: 256 px with an overlap of 64, hence 192 x 192 px of tissue, with 24 prompts. The
images have 1000 px and random points of that density, so the work does not depend on the weights, which are random
(`tests/models/sensible.py`). Calls end with masks on the host, so that a plain clock measures all of their work.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.child import measured_run
from benchmarks.published_loop import FOREGROUND, region, same_share
from benchmarks.slides import synthetic
from benchmarks.table import Row, interleaved, print_rows
from tests.models.published import Instances, published_instances, published_points
from tests.models.sensible import sensible_net
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import Look, NucleiModel
from wsi_nuc.models.options import used as used_as
from wsi_nuc.models.promptnucseg.build import assemble, save_net, spec_of
from wsi_nuc.models.promptnucseg.cost import PROMPTS, network, published_gmacs
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import PrompterSettings, SegmentorSettings, Settings, UseSettings
from wsi_nuc.types import Box, Float32, MaskCrops, Prompts, Tile, TileBatch

TILE_PX, OVERLAP_PX, MPP = 256, 64, 0.25
TILES_PER_CM2 = (10_000 / MPP / (TILE_PX - OVERLAP_PX)) ** 2
# Encoder and timm backbone of the prompter.
SIZES = {
    "B": ("vit_b", "convnext_small"),
    "L": ("vit_l", "convnext_small"),
    "H": ("vit_h", "convnext_small"),
}
TINY = {"tiny": ("vit_mini", "convnext_atto")}
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
# By size and precision. What is not listed here has no target.
PEAK_SHARE = {("B", "bf16"): 0.40, ("H", "bf16"): 0.50}
TIMES_THE_LOOP = {"bf16": 50.0, "fp32": 8.0}
SECONDS_PER_CM2, RUN_SHARE, SAME_PERCENT, SAME_IOU = 20.0, 0.90, 99.0, 0.8


@dataclass(frozen=True)
class Place:
    """Where to measure, and how much."""

    device: str
    side_px: int
    """Edge of the images."""
    images: int
    """How many images at once."""
    matrix: int
    """Edge of the matrices whose product gives the matmul peak."""
    slide_px: int
    """Edge of the slide that a whole run gets; 0: no run."""
    rounds: int
    """How often everything is measured."""
    targets: bool
    """Whether the targets count."""


GPU = Place("cuda", 1000, 8, 8192, 16_384, 5, targets=True)
SMALL = Place("cpu", 272, 1, 256, 0, 1, targets=False)


def with_points(model: NucleiModel, xy: Float32) -> NucleiModel:
    """The prompter does its work, but then every image gets the same points."""

    def look(batch: TileBatch) -> Look:
        seen = model.look(batch)
        classes = seen.prompts.get().class_probs.shape[1]
        count, rows = len(xy), len(batch.rgb)
        points = Prompts(
            np.tile(xy, (rows, 1)),
            np.ones(count * rows, np.float32),
            np.full((count * rows, classes), 1 / classes, np.float32),
            np.repeat(np.arange(rows), count),
        )
        return seen.prompted(points)

    return replace(model, look=look)


def measure(small: bool = False) -> list[Row]:
    place, sizes = (SMALL, TINY) if small else (GPU, SIZES)
    if place.device == "cuda" and not torch.cuda.is_available():
        return [Row("GPU: this torch sees no CUDA device, nothing was measured", 0.0)]
    peak = {precision: matmul_peak(place, precision) for precision in TYPES}
    rows = [Row(f"matmul peak, {name}, {place.matrix}^3", flops / 1e12, "TFLOP/s") for name, flops in peak.items()]
    for name, (encoder, backbone) in sizes.items():
        rows += _of_size(name, settings(encoder, backbone), place, peak)
    return rows


def matmul_peak(place: Place, precision: str) -> float:
    """FLOP/s of one large product of matrices."""
    a = torch.randn(place.matrix, place.matrix, dtype=TYPES[precision], device=place.device)
    (seconds,) = interleaved(lambda: float((a @ a)[0, 0]), rounds=place.rounds)
    return float(2 * place.matrix**3 / seconds)


def settings(encoder: str, backbone: str) -> Settings:
    use = UseSettings(negatives=1, mask_filter=False, precision="fp32")
    return Settings(("nucleus",), MPP, PrompterSettings(backbone), SegmentorSettings(encoder), use=use)


def _of_size(name: str, used: Settings, place: Place, peak: Mapping[str, float]) -> list[Row]:
    net = sensible_net(used, FOREGROUND, region(512, seed=1))
    batch = images(place, place.images)
    xy = random_points(place.side_px)
    models = {precision: model(net, used, place, xy, precision=precision) for precision in TYPES}
    calls: list[Callable[[], object]] = [partial(alone, variant, batch) for variant in models.values()]
    calls += [partial(predict, variant, batch) for variant in models.values()]
    seconds = interleaved(*calls, rounds=place.rounds)
    theirs, loop_s = published(net, used, place, xy)

    tiles = place.images * (place.side_px / (TILE_PX - OVERLAP_PX)) ** 2
    flops = published_flops(used)
    rows = [Row(f"{name}: published loop, fp32", tiles / place.images / loop_s, "tiles/s")]
    for i, precision in enumerate(models):
        whole = seconds[len(models) + i] / place.images
        speed = tiles / seconds[i]
        share = speed * flops / peak[precision]
        rows += [
            Row(f"{name} {precision}: networks to masks", speed, "tiles/s"),
            _row(place, f"{name} {precision}: share of the matmul peak", share, PEAK_SHARE.get((name, precision))),
            _row(place, f"{name} {precision}: / published loop", loop_s / whole, TIMES_THE_LOOP[precision], "x"),
        ]
        s_per_cm2 = whole * place.images / tiles * TILES_PER_CM2
        fine = s_per_cm2 <= SECONDS_PER_CM2 or not place.targets
        target = f"<= {SECONDS_PER_CM2:g}" if name == "B" else "-"
        rows.append(Row(f"{name} {precision}: with polygons", s_per_cm2, "s/cm2", target, fine or name != "B"))
    rows += _agreement(name, net, used, place, xy, models, theirs)
    return rows + (_run(name, net, used, place) if place.slide_px and name == "B" else [])


def _row(place: Place, what: str, value: float, target: float | None, unit: str = "") -> Row:
    wanted = target if place.targets else None
    return Row(what, value, unit, "-" if wanted is None else f">= {wanted:g}", wanted is None or value >= wanted)


def images(place: Place, count: int) -> TileBatch:
    box = Box(0, 0, place.side_px, place.side_px)
    rgb = np.stack([region(place.side_px, seed=seed) for seed in range(count)])
    return TileBatch(rgb, tuple(Tile(i, box, box) for i in range(count)))


def random_points(side_px: int) -> Float32:
    """As many points per window as the papers count, on pixel centres, so that both codes mean the same place."""
    count = round(PROMPTS * (side_px / TILE_PX) ** 2)
    return np.random.default_rng(0).integers(0, side_px, (count, 2)).astype(np.float32) + np.float32(0.5)


def model(
    net: PromptNucSegNet, used: Settings, place: Place, xy: Float32, precision: str, mode: str = "default"
) -> NucleiModel:
    changed = used_as(used, {"precision": precision, "mode": mode, "batch": place.images})
    made = assemble(net, changed, place.device, spec_of(changed, "0" * 64))
    return with_points(made, xy)


def alone(variant: NucleiModel, batch: TileBatch) -> list[MaskCrops]:
    """Pixels to masks on the host, without polygons."""
    look = variant.look(batch)
    return list(look.masks(range(len(look.prompts.get()))).get())


def published(net: PromptNucSegNet, used: Settings, place: Place, xy: Float32) -> tuple[Instances, float]:
    """Instances of the first image, and the seconds that one image takes."""
    rgb, instances = images(place, 1).rgb[0], list[Instances]()

    def loop() -> None:
        published_points(net, rgb, used.use)
        instances.append(published_instances(net, rgb, xy - np.float32(0.5), used.use))

    (seconds,) = interleaved(loop, rounds=1)
    return instances[-1], seconds


def published_flops(used: Settings) -> float:
    """FLOP of one tile, as published; a multiply-accumulate counts as two."""
    return 2e9 * published_gmacs(network(used))


def _agreement(
    name: str,
    net: PromptNucSegNet,
    used: Settings,
    place: Place,
    xy: Float32,
    models: Mapping[str, NucleiModel],
    theirs: Instances,
) -> list[Row]:
    batch = images(place, 1)
    same = same_share(model(net, used, place, xy, "fp32", "parity"), batch, theirs)
    masks = {precision: masks_by_prompt(alone(models[precision], batch)) for precision in TYPES}
    shared = sorted(set(masks["bf16"]) & set(masks["fp32"]))
    iou = float(np.mean([_iou(masks["bf16"][i], masks["fp32"][i]) for i in shared])) if shared else float("nan")
    same_target, is_same = f">= {SAME_PERCENT:g}", same >= SAME_PERCENT
    # A target for the tiny networks alone: with large ones, the row just shows what half precision does to masks.
    iou_target = ("-", True) if place.targets else (f"> {SAME_IOU:g}", iou > SAME_IOU)
    return [
        Row(f"{name} fp32: parity, instances of the published loop", same, "%", same_target, is_same, always=True),
        Row(f"{name}: mean IoU of bf16 masks with fp32 ones", iou, "", *iou_target, always=True),
    ]


def masks_by_prompt(crops: list[MaskCrops]) -> dict[int, set[tuple[int, int]]]:
    """Pixels of each prompt's mask, wherever its crop lies."""
    return {
        int(prompt): {(int(x0 + x), int(y0 + y)) for y, x in np.argwhere(mask)}
        for group in crops
        for mask, (x0, y0), prompt in zip(group.mask, group.origin_tile, group.prompt, strict=True)
    }


def _iou(a: set[tuple[int, int]], b: set[tuple[int, int]]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def _run(name: str, net: PromptNucSegNet, used: Settings, place: Place) -> list[Row]:
    """The whole pipeline on a JPEG slide: how much of a worker's time the model has."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.safetensors"
        save_net(file, net, used_as(used, {"precision": "bf16"}))
        slide = synthetic(f"gpu-{place.slide_px}.svs", place.slide_px, tissue=0.9)
        done = measured_run([slide], model=str(file), device=place.device, workers=1, quiet=True)
    work = done["worker_s"]
    share = work["predict"] / sum(work.values())
    return [_row(place, f"{name} bf16: model's share of `run` on a JPEG slide", share, RUN_SHARE)]


if __name__ == "__main__":
    print_rows(measure("--small" in sys.argv[1:]))
