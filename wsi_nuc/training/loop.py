"""The training loop, from the first batch to the last row of the curves. It knows no model family.

A recipe gives it a `Stage`. The stage's folder then holds `state.pt` to go on from, `curves.csv`, `curves.png` and
what the stage itself saves. The same command goes on where a stopped one was, with exactly the same batches, and
on one thread with exactly the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader

from wsi_nuc.errors import ModelError
from wsi_nuc.models.device import Device
from wsi_nuc.run.resources import Heap
from wsi_nuc.training.config import TrainingConfig
from wsi_nuc.training.curves import Sums, draw_curves, write_curves
from wsi_nuc.training.events import Clock, Emit, EpochDone, Noted, StepDone
from wsi_nuc.training.ranks import Ranks
from wsi_nuc.training.state import Ema, Progress, Trained, load_state, save_state

STATE, BEST = "state.pt", "best.safetensors"
_heap = Heap()

Item = TypeVar("Item")
Losses = dict[str, torch.Tensor]
Row = dict[str, float]


class TrainingError(ModelError):
    """The network cannot be trained further; what was saved before is intact."""


class Batch(Protocol):
    @property
    def ids(self) -> Sequence[str]:
        """Names of the images, for messages."""
        ...

    def to(self, device: torch.device) -> Self: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the loop, as a recipe describes it. An epoch is the number of steps per row of the curves."""

    name: str
    folder: Path
    config: TrainingConfig
    module: nn.Module
    """From a batch to its weighted losses, by name."""
    net: nn.Module
    """The part of `module` that is averaged, validated and saved."""
    optimizer: torch.optim.Optimizer
    lr: float
    rate: Callable[[int], float]
    """Share of `lr` at a step."""
    batches: Callable[[int], Iterator[Any]]
    """This process's batches from a step to the end; the same ones at every call. They may end before `steps`,
    when a time is up."""
    batch: int
    """Images per step, over all processes."""
    steps: int
    """Steps of the whole stage."""
    epoch_steps: int
    """Steps per epoch."""
    scores: Callable[[nn.Module], Row]
    """Validation of a network. Its `quality` decides which epoch is the best."""
    save: Callable[[nn.Module, Row], None]
    """Write the network to its file, with the row of the curves that belongs to it."""
    clip: float = 0.0
    """Greatest norm of the gradient; 0: no limit."""
    ema: float = 0.0
    """Decay of the averaged weights; 0: no average."""
    ema_copied: int = 0
    """Steps at the start after which the average is a copy of the weights."""
    validate_every: int = 1
    """Epochs from one validation to the next."""
    save_every: int = 1
    """Epochs from one saved state to the next."""
    best: bool = True
    """Save the network of the best validation; otherwise that of each epoch, so that the last one stays."""
    steered: Collection[str] = ()
    """Settings that may change before a stopped stage goes on."""


def batches(
    items: Any, collate: Callable[[Any], Any], batch: int, steps: int, workers: int, ranks: Ranks, first: int
) -> Iterator[Any]:
    """This process's share of every batch from step `first` on, for `items` that follow from their numbers.

    A batch has `batch` items over all processes. `workers`: processes that prepare batches ahead.
    """
    numbers = [
        list(range(step * batch, (step + 1) * batch))[ranks.rank :: ranks.world] for step in range(first, steps)
    ]
    loader: Any = DataLoader(
        items, batch_sampler=numbers, collate_fn=collate, num_workers=workers, generator=torch.Generator()
    )
    return iter(loader)


def run_stage(stage: Stage, ranks: Ranks, emit: Emit) -> None:
    stage.folder.mkdir(parents=True, exist_ok=True)
    state = stage.folder / STATE
    trained = Trained(stage.module, Ema(stage.net, stage.ema, stage.ema_copied), stage.optimizer, Progress())
    if load_state(state, trained, stage.config, ranks.device, stage.steered):
        emit(Noted(f"{stage.name}: goes on at step {trained.progress.step} of {stage.steps}"))
    model, device = ranks.wrap(stage.module), Device.of(str(ranks.device), stage.config.precision)
    progress, epochs = trained.progress, -(-stage.steps // stage.epoch_steps)
    stage.module.train()
    batches = stage.batches(progress.step)  # may look at all images first, which is not the time of a step
    clock, sums = Clock(stage.batch, progress.step), Sums()
    for batch, last in with_last(batches):
        with device.autocast():
            losses: Losses = model(batch.to(ranks.device))
        total = torch.stack(list(losses.values())).sum()
        _refuse_non_finite(total, losses, stage.name, progress.step, batch)
        _learn(stage, total, progress.step)
        trained.ema.update(progress.step)
        progress.step += 1
        sums.add(losses)

        epoch = -(-progress.step // stage.epoch_steps)
        speed, left = clock.tell(progress.step, stage.steps)
        loss = float(total.detach())
        emit(StepDone(stage.name, epoch, epochs, progress.step, stage.steps, loss, speed, left))
        if progress.step % stage.epoch_steps and not last:
            continue
        row = {"epoch": progress.step / stage.epoch_steps, "step": float(progress.step), "images_per_s": speed}
        row |= {"lr": stage.lr * stage.rate(progress.step - 1)} | sums.means(ranks.mean)
        due = epoch % stage.validate_every == 0 or last
        row |= stage.scores(trained.ema.net) if due else {}
        stage.module.train()
        progress.rows.append(row)
        better = due and row.get("quality", 0.0) >= progress.best
        if better:
            progress.best = row.get("quality", 0.0)
        if ranks.first:
            if better or not stage.best:
                stage.save(trained.ema.net, row)
            if epoch % stage.save_every == 0 or last:
                save_state(state, trained, stage.config, stage.steered)
                write_curves(stage.folder, progress.rows)
        emit(EpochDone(stage.name, epoch, epochs, row, stage.best and better))
    if ranks.first and not draw_curves(stage.folder, progress.rows):
        emit(Noted(f"{stage.folder}: no curves.png, since matplotlib is not installed"))


def with_last(items: Iterator[Item]) -> Iterator[tuple[Item, bool]]:
    """Each item, and whether it is the last one."""
    kept = next(items, None)
    while kept is not None:
        following = next(items, None)
        yield kept, following is None
        kept = following


def _learn(stage: Stage, total: torch.Tensor, step: int) -> None:
    for group in stage.optimizer.param_groups:
        group["lr"] = stage.lr * stage.rate(step) * group.get("share", 1.0)
    stage.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if stage.clip:
        nn.utils.clip_grad_norm_(stage.module.parameters(), stage.clip)
    stage.optimizer.step()
    _heap.used(1)


def _refuse_non_finite(total: torch.Tensor, losses: Losses, name: str, step: int, batch: Batch) -> None:
    if bool(torch.isfinite(total)):
        return
    parts = ", ".join(f"{loss} {value.item():g}" for loss, value in losses.items())
    raise TrainingError(
        f"stage {name}, step {step}",
        f"the loss is not a finite number ({parts}); images of the batch: {', '.join(batch.ids)}",
        "lower the learning rate, set a limit to the gradient (clip), or look at these images; the last saved "
        "state is intact",
    )


def finite(row: Row) -> Row:
    """The numbers of a row that can be written as JSON."""
    return {name: value for name, value in row.items() if math.isfinite(value)}
