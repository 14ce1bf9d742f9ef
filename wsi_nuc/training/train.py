"""The training: one loop, from the first batch to the file of the best weights.

    wsi-nuc train configs/tiny.yaml --out runs/tiny
    torchrun --nproc-per-node 8 -m wsi_nuc train configs/pannuke.yaml --out runs/pannuke

Each stage has its folder under `out`: `state.pt` to go on from, `best.safetensors`, `curves.csv`, `curves.png`.
The same command goes on where a stopped one was, with the very same batches and numbers.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from wsi_nuc.datasets.images import Loaded, load_images
from wsi_nuc.errors import WsiNucError
from wsi_nuc.models.place import Place
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.batches import Batch, Crops, Order, batches
from wsi_nuc.training.config import Part, StageConfig, TrainConfig
from wsi_nuc.training.curves import draw_curves, write_curves
from wsi_nuc.training.ema import Ema
from wsi_nuc.training.events import Clock, Emit, EpochDone, Noted, StepDone, ignore
from wsi_nuc.training.losses import Losses
from wsi_nuc.training.network import LossNet
from wsi_nuc.training.ranks import Ranks, join
from wsi_nuc.training.start import PARTS, best_file, save_parts, starting_net
from wsi_nuc.training.state import Progress, Trained, load_state, save_state
from wsi_nuc.training.sums import Sums
from wsi_nuc.training.supervision import left_out, taking_part
from wsi_nuc.training.validation import Validation


class TrainingError(WsiNucError):
    """The training cannot go on; what was saved before is intact."""


@dataclass(frozen=True, slots=True)
class Data:
    train: Loaded
    validation: Loaded


def train(config: TrainConfig, emit: Emit = ignore, overwrite: bool = False) -> Path:
    """Run all stages and return the file with everything that was trained."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with join(config.device) as ranks:
        if overwrite and ranks.first:
            for part in config.stages:
                shutil.rmtree(config.out / part, ignore_errors=True)
        data = Data(
            load_images(config.data.train, config.classes, config.mpp),
            load_images(config.data.validation, config.classes, config.mpp),
        )
        emit = emit if ranks.first else ignore
        _tell(config, data, emit)
        if ranks.first and config.init:
            starting_net(config, None)  # foreign files are converted once, not by every process
        for part in config.stages:
            _wait(ranks)
            train_stage(config, part, data, ranks, emit)
        _wait(ranks)
        return _finish(config, data, ranks)


def train_stage(config: TrainConfig, part: Part, data: Data, ranks: Ranks, emit: Emit) -> None:
    stage: StageConfig = getattr(config.train, part)
    folder = config.out / part
    folder.mkdir(parents=True, exist_ok=True)

    net, known = starting_net(config, part)
    net = net.to(ranks.device)
    module = LossNet(net, part, config.prompter.shared_encoder, config.loss)
    ema = Ema(net, stage.ema)
    optimizer = _optimizer(module, stage)
    images = taking_part(part, data.train.images)
    order = Order(len(images) * config.data.crops_per_image, stage.batch, config.seed, ranks.rank, ranks.world)
    end = stage.epochs * order.steps_per_epoch
    trained = Trained(module, ema, optimizer, _schedule(optimizer, stage, end), Progress())
    if load_state(folder / "state.pt", trained, config, ranks.device):
        emit(Noted(f"{part}: goes on at step {trained.progress.step} of {end}"))
    validation = Validation(config, part, known, data.validation.images, ranks)

    model, place = ranks.wrap(module), Place.of(str(ranks.device), config.precision)
    clock, sums, progress = Clock(stage.batch, trained.progress.step), Sums(), trained.progress
    module.train()
    for batch in batches(Crops(images, config), order, progress.step, end, config.data.workers):
        with place.autocast():
            losses: Losses = model(batch.to(ranks.device))
        total = torch.stack(list(losses.values())).sum()
        _refuse_non_finite(total, losses, part, progress.step, batch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if stage.clip:
            nn.utils.clip_grad_norm_(module.parameters(), stage.clip)
        optimizer.step()
        trained.schedule.step()
        ema.update(progress.step)
        progress.step += 1
        sums.add(losses)

        epoch = -(-progress.step // order.steps_per_epoch)
        speed, left = clock.tell(progress.step, end)
        emit(StepDone(part, epoch, stage.epochs, progress.step, end, float(total.detach()), speed, left))
        if progress.step % order.steps_per_epoch:
            continue
        row = {"epoch": float(epoch), "step": float(progress.step), "images_per_s": speed}
        row |= {"lr": optimizer.param_groups[0]["lr"]} | sums.means(ranks.mean)
        due = epoch % stage.validate_every == 0 or epoch == stage.epochs
        row |= validation.scores(ema.net) if due else {}
        module.train()
        progress.rows.append(row)
        better = due and row.get("quality", 0.0) >= progress.best
        if better:
            progress.best = row.get("quality", 0.0)
        if ranks.first:
            if better:
                save_parts(
                    best_file(config.out, part), ema.net, config.settings(), set(PARTS[part]), _about(data, row)
                )
            if epoch % stage.save_every == 0 or epoch == stage.epochs:
                save_state(folder / "state.pt", trained, config)
                write_curves(folder, progress.rows)
        emit(EpochDone(part, epoch, stage.epochs, row, better))
    if ranks.first and not draw_curves(folder, progress.rows):
        emit(Noted(f"{folder}: no curves.png, since matplotlib is not installed"))


def _tell(config: TrainConfig, data: Data, emit: Emit) -> None:
    """What was mended in the labels, and which images which stage has no use for, before anything is trained."""
    for kind, loaded in (("training", data.train), ("validation", data.validation)):
        for what, count in loaded.repairs.items():
            emit(Noted(f"{kind} images: {what}: {count}"))
    for part in config.stages:
        for line in left_out(part, data.train.images, data.validation.images):
            emit(Noted(line))


def _optimizer(module: nn.Module, stage: StageConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    kind: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[stage.optimizer]
    made: torch.optim.Optimizer = kind(parameters, lr=stage.lr, weight_decay=stage.weight_decay)
    return made


def _schedule(
    optimizer: torch.optim.Optimizer, stage: StageConfig, end: int
) -> torch.optim.lr_scheduler.LRScheduler:
    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / max(1, stage.warmup_steps))
        return rise * (0.5 + 0.5 * math.cos(math.pi * step / end)) if stage.schedule == "cosine" else rise

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _refuse_non_finite(total: torch.Tensor, losses: Losses, part: str, step: int, batch: Batch) -> None:
    if bool(torch.isfinite(total)):
        return
    parts = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
    raise TrainingError(
        f"stage {part}, step {step}",
        f"the loss is not a finite number ({parts}); images of the batch: {', '.join(batch.ids)}",
        "lower the learning rate, set train.STAGE.clip, or look at these images; the last saved state is intact",
    )


def _about(data: Data, row: dict[str, float]) -> dict[str, Any]:
    """What the file's header tells of its origin. Non-finite numbers are no JSON."""
    metrics = {name: value for name, value in row.items() if math.isfinite(value)}
    return {"training_data": list(data.train.sources), "metrics": metrics}


def _wait(ranks: Ranks) -> None:
    if ranks.world > 1:
        dist.barrier()


def _finish(config: TrainConfig, data: Data, ranks: Ranks) -> Path:
    """All trained parts in one file, with the validation of the last stage, which saw them together."""
    path = config.out / "model.safetensors"
    if ranks.first:
        net, known = starting_net(config, part=None)
        last = open_checkpoint(best_file(config.out, config.stages[-1])).info.details
        save_parts(path, net, config.settings(), known, _about(data, last["metrics"]))
    return path
