"""The training of a compact model: one loop, from the first crop to the file of weights.

Under `out`: `state.pt` to go on from, `model.safetensors` (the running average of the weights), `curves.csv`,
`curves.png`. The same command goes on where a stopped one was, with the very same crops;
on one thread, with the very same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images
from wsi_nuc.evaluation.protocol import Means, image_means
from wsi_nuc.models.compact.build import assemble, load_weights, save_net
from wsi_nuc.models.compact.look import channels_last
from wsi_nuc.models.compact.net import CompactNet
from wsi_nuc.models.compact.settings import MASK_STRIDE, Settings
from wsi_nuc.models.compact.spec import spec_of
from wsi_nuc.models.domain import limits_of, looks_of
from wsi_nuc.models.place import Place
from wsi_nuc.models.sam.encoder import normalise
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.compact.config import CompactTrainConfig
from wsi_nuc.training.compact.crops import Batch, Crops, collate
from wsi_nuc.training.compact.losses import losses
from wsi_nuc.training.curves import draw_curves, write_curves
from wsi_nuc.training.ema import Ema
from wsi_nuc.training.events import Clock, Emit, EpochDone, Noted, StepDone, ignore
from wsi_nuc.training.state import Progress, Trained, load_state, save_state
from wsi_nuc.training.sums import Sums
from wsi_nuc.training.train import TrainingError

STAGE = "compact"


class LossNet(nn.Module):
    """Pixels and labels in, the losses out."""

    def __init__(self, net: CompactNet, config: CompactTrainConfig) -> None:
        super().__init__()
        self.net, self._weights, self._side = net, config.loss, config.use.window_px // MASK_STRIDE

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        pixels = normalise(batch.rgb).contiguous(memory_format=torch.channels_last)
        return losses(self.net, self.net(pixels), batch, self._weights, self._side)


def train(config: CompactTrainConfig, emit: Emit = ignore) -> Path:
    """Run to the end and return the file of the trained model."""
    if config.threads:
        torch.set_num_threads(config.threads)
    loaded = [load_images([source], config.classes, config.mpp) for source in config.data.train]
    validation = load_images(config.data.validation, config.classes, config.mpp).images
    about = [
        one | {"weight": s.weight} for got, s in zip(loaded, config.data.train, strict=True) for one in got.sources
    ]
    place = Place.of(config.device, config.precision)
    settings = replace(config.settings(), domain=domain_of([image for got in loaded for image in got.images]))
    trained, ema = start(config, place.device)
    config.out.mkdir(parents=True, exist_ok=True)
    state, made = config.out / "state.pt", config.out / "model.safetensors"
    if load_state(state, trained, config, place.device, STEERED):
        emit(Noted(f"goes on at step {trained.progress.step} of {config.steps}"))
    crops = Crops([got.images for got in loaded], [s.weight for s in config.data.train], config.crop, config.seed)
    clock, sums, progress = Clock(config.batch, trained.progress.step), Sums(), trained.progress
    trained.module.train()
    for batch in batches(crops, config, progress.step):
        with place.autocast():
            found = trained.module(batch.to(place.device))
        total = torch.stack(list(found.values())).sum()
        if not bool(torch.isfinite(total)):
            cause = ", ".join(f"{name} {value.item():g}" for name, value in found.items())
            raise TrainingError(f"step {progress.step}", f"the loss is not finite ({cause})", "lower lr")
        step(trained, total, config)
        ema.update(progress.step)
        progress.step += 1
        sums.add(found)
        speed, left = clock.tell(progress.step, config.steps)
        emit(StepDone(STAGE, 1, 1, progress.step, config.steps, float(total.detach()), speed, left))
        if progress.step % config.report_every and progress.step != config.steps:
            continue
        row = {"epoch": progress.step / config.report_every, "step": float(progress.step), "images_per_s": speed}
        row |= sums.means() | validate(ema.net, config, validation)  # type: ignore[arg-type]
        progress.rows.append(row)
        metrics = {name: value for name, value in row.items() if math.isfinite(value)}
        save_net(made, ema.net, settings, {"training_data": about, "metrics": metrics})  # type: ignore[arg-type]
        save_state(state, trained, config, STEERED)
        write_curves(config.out, progress.rows)
        emit(EpochDone(STAGE, len(progress.rows), -(-config.steps // config.report_every), row, False))
    draw_curves(config.out, progress.rows)
    return made


def domain_of(images: Sequence[LabelledImage]) -> dict[str, tuple[float, float]]:
    found = (looks_of(image.rgb) for image in images)
    return limits_of([looks for looks in found if looks is not None])


# What may change between a stop and the continuation besides what never matters: how long, and how it is watched.
STEERED = ("steps", "decay", "lr", "report_every", "data", "use", "init")


def start(config: CompactTrainConfig, device: torch.device) -> tuple[Trained, Ema[CompactNet]]:
    torch.manual_seed(config.seed)
    net = CompactNet(config.net, len(config.classes))
    if config.init:
        load_weights(net, open_checkpoint(config.init).tensors())
    net = channels_last(net.to(device))
    module, ema = LossNet(net, config), Ema(net, config.ema)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1.0)
    return Trained(module, ema, optimizer, schedule, Progress()), ema


def rate(step: int, config: CompactTrainConfig) -> float:
    """Share of the learning rate: up, steady, then down to 0 in a straight line."""
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min(1.0, (step + 1) / max(1, config.warmup), left)


def step(trained: Trained, total: torch.Tensor, config: CompactTrainConfig) -> None:
    for group in trained.optimizer.param_groups:
        group["lr"] = config.lr * rate(trained.progress.step, config)
    trained.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if config.clip:
        nn.utils.clip_grad_norm_(trained.module.parameters(), config.clip)
    trained.optimizer.step()


def batches(crops: Crops, config: CompactTrainConfig, first: int) -> Iterator[Batch]:
    numbers = [list(range(at * config.batch, (at + 1) * config.batch)) for at in range(first, config.steps)]
    loader: Any = DataLoader(
        crops,
        batch_sampler=numbers,
        collate_fn=collate,
        num_workers=config.data.workers,
        generator=torch.Generator(),
    )
    return iter(loader)


def means_of(net: CompactNet, settings: Settings, device: str, images: Sequence[LabelledImage]) -> Means:
    model = assemble(net, settings, device, spec_of(settings, ""))
    return image_means(evaluate_images(model, images, Scoring()))


def validate(net: CompactNet, config: CompactTrainConfig, images: tuple[LabelledImage, ...]) -> dict[str, float]:
    if not images:
        return {}
    means = means_of(net, config.settings(), config.device, images)
    return means.overall | {"precision": means.detection.precision, "recall": means.detection.recall}
