"""Train the networks of `default` and `large` side by side: a quarter of an hour on a GPU, nights on a CPU.

python pipelines/train_default.py --data ../shared/data --out runs/default --minutes 12 --device cuda
python pipelines/train_default.py --data ../shared/data --out runs/default --set steps=18000

Both networks see the same crops in the same step. They start from the packaged weights unless `--fresh` is given,
and learn from `--teacher`, too: `--teacher large` also uses what `large` sees on images without labels. With
`--minutes` the learning rate follows the clock and reaches 0 when the time is up; what comes after it, the choice
of cuts, takes a few minutes more. Without it the training has `steps` steps. The same command goes on with a
stopped training.

OUT then holds `compact.safetensors` (a next `default`), `lite2.safetensors`, `large.safetensors` (both, averaged
over mirrored views) and `scores.csv`, which is printed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from wsi_nuc.cli.train_commands import training_progress
from wsi_nuc.datasets.images import load_images
from wsi_nuc.errors import ModelError
from wsi_nuc.models.compact.build import net_of, save_net
from wsi_nuc.models.compact.net import CompactNet
from wsi_nuc.models.compact.network import channels_last
from wsi_nuc.models.compact.packaged import checkpoint_of
from wsi_nuc.models.compact.settings import LITE, NetSettings, Settings
from wsi_nuc.models.compact.team import Team
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.compact.config import CompactTrainConfig
from wsi_nuc.training.compact.recipe import AVERAGE, STAGE, LossNet, optimizer_of, stage_of, train_images
from wsi_nuc.training.compact.tune import finished
from wsi_nuc.training.events import Emit
from wsi_nuc.training.loop import Losses, Row, Stage, finite, run_stage
from wsi_nuc.training.pretrained import lite_sizes, load_lite
from wsi_nuc.training.ranks import Ranks, join
from wsi_nuc.training.registry import load_train_config

VARIANTS = {
    "compact": NetSettings(),
    "lite2": replace(lite_sizes("efficientnet-lite2"), pyramid=(96, 128, 192)),
}
LARGE, LARGE_VIEWS = "large", 2
WARM = 0.03  # share of the time until the learning rate is steady


class SideBySide(nn.Module):
    """Several networks and their losses on the same batch."""

    def __init__(self, learners: dict[str, LossNet]) -> None:
        super().__init__()
        self.learners = nn.ModuleDict(learners)

    def forward(self, batch: Any) -> Losses:
        return {
            f"{name}_{part}": loss
            for name, learner in self.learners.items()
            for part, loss in learner(batch).items()
        }


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A training that ends with its time, and not after a number of steps."""

    seconds: float
    decay: float
    """Share of the time, at the end, over which the learning rate falls to 0."""
    started: list[float]
    """When the first batch was asked for; empty before."""

    @property
    def gone(self) -> float:
        """Share of the time, 0..1."""
        return min(1.0, (time.monotonic() - self.started[0]) / self.seconds) if self.started else 0.0

    def rate(self, step: int) -> float:
        return min(1.0, (self.gone + 1e-3) / WARM, (1 - self.gone) / max(self.decay, 1e-6))

    def batches(self, endless: Callable[[int], Iterator[Any]], first: int) -> Iterator[Any]:
        for batch in endless(first):
            if not self.started:
                self.started.append(time.monotonic())
            if self.gone >= 1:
                return
            yield batch


def main(
    data: Annotated[Path, typer.Option(help="Folder that holds the data sets.")],
    out: Annotated[Path, typer.Option(help="Where the training goes; the same folder resumes.")],
    config: Annotated[Path, typer.Option(help="What to train.")] = Path("configs/default_model.yaml"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    minutes: Annotated[float | None, typer.Option(min=0.05, help="Train for so long, instead of `steps`.")] = None,
    variants: Annotated[str, typer.Option(help="Which networks, separated by commas.")] = ",".join(VARIANTS),
    teacher: Annotated[list[str] | None, typer.Option(help="Models to learn from, such as large.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from random weights.")] = False,
    assign: Annotated[list[str] | None, typer.Option("--set", help="key=value of the configuration.")] = None,
) -> None:
    """Train, or go on with a training that was stopped."""
    given = {"out": out, "device": device, "teacher.models": tuple(teacher or ()) or None}
    settings = load_train_config(config, [*(assign or []), f"data.folder={data}"], given)
    assert isinstance(settings, CompactTrainConfig)
    with training_progress(quiet=False) as emit, join(settings.device) as ranks:
        files, sets = trained(settings, variants.split(","), ranks, minutes, fresh, emit)
    table(files, sets, settings.out)


def trained(
    config: CompactTrainConfig, names: Sequence[str], ranks: Ranks, minutes: float | None, fresh: bool, emit: Emit
) -> tuple[list[Path], list[str]]:
    """The finished files, `large` last, and the names of the validation sets."""
    loaded = [load_images([source], config.classes, config.mpp) for source in config.data.train]
    validation = [load_images([source], config.classes, config.mpp).images for source in config.data.validation]
    nets = {name: starting_net(name, config, fresh).to(ranks.device) for name in names}
    base = stage_of(config, loaded, (), ranks)
    stage = side_by_side(base, config, nets, [source for images in loaded for source in images.sources])
    if minutes is not None:
        # `steps` still is the most that it has.
        limit = TimeLimit(60 * minutes, config.decay, [])
        stage = replace(stage, rate=limit.rate, batches=partial(limit.batches, base.batches))
    run_stage(stage, ranks, emit)
    train = train_images(config, loaded)
    files = []
    for name in names:
        files.append(config.out / f"{name}.safetensors")
        finished(average(config, name), files[-1], *train, validation, device=str(ranks.device))
    if len(names) > 1:
        files.append(config.out / f"{LARGE}.safetensors")
        finished(joined(config, names), files[-1], *train, validation, device=str(ranks.device))
    return files, [images[0].source for images in validation]


def starting_net(name: str, config: CompactTrainConfig, fresh: bool) -> CompactNet:
    """The weights of the packaged network of the same sizes; for a fresh one, ImageNet's where they are installed,
    and random ones."""
    packaged = [net_of(checkpoint_of(model)) for model in ("default", LARGE)] if not fresh else []
    for net in (member for made in packaged for member in (made.members if isinstance(made, Team) else [made])):
        if net.settings == VARIANTS[name]:
            return channels_last(net)
    net = CompactNet(VARIANTS[name], len(config.classes))
    if VARIANTS[name].encoder in LITE:
        try:
            load_lite(net.encoder.body, VARIANTS[name].encoder)
        except ModelError as error:
            print(f"{name} begins with random weights: {error}")
    return channels_last(net)


def side_by_side(
    base: Stage, config: CompactTrainConfig, nets: dict[str, CompactNet], sources: Sequence[dict[str, object]]
) -> Stage:
    """The stage of one network, for several."""
    (teacher,) = base.module.teacher  # type: ignore[misc]
    module = SideBySide({name: LossNet(net, config, teacher) for name, net in nets.items()})
    together = nn.ModuleDict(nets)

    def save(averages: Any, row: Row) -> None:
        for name in nets:
            about = {"training_data": sources, "metrics": finite(row)}
            average(config, name).parent.mkdir(parents=True, exist_ok=True)
            save_net(average(config, name), averages[name], settings_of(config, name), about)

    return replace(
        base, module=module, net=together, optimizer=optimizer_of(together, config), save=save, scores=lambda _: {}
    )


def settings_of(config: CompactTrainConfig, name: str) -> Settings:
    return replace(config.settings(), net=VARIANTS[name])


def average(config: CompactTrainConfig, name: str) -> Path:
    return config.out / STAGE / name / AVERAGE


def joined(config: CompactTrainConfig, names: Sequence[str]) -> Path:
    """A file of all variants as one model, whose cuts are not chosen yet."""
    files = [open_checkpoint(average(config, name)) for name in names]
    team = Team([net_of(file) for file in files])  # type: ignore[misc]
    settings = replace(
        settings_of(config, names[0]),
        beside=tuple(VARIANTS[name] for name in names[1:]),
        use=replace(config.use, views=LARGE_VIEWS),
    )
    details = files[0].info.details
    about = {"training_data": details["training_data"], "metrics": details["metrics"]}
    save_net(config.out / STAGE / AVERAGE, team, settings, about)
    return config.out / STAGE / AVERAGE


def table(files: Sequence[Path], sets: Sequence[str], out: Path) -> None:
    """Print and write what each file reaches on each validation set, as its header says it."""
    lines = ["model,set,pq,aji,f1"]
    for of_set in sets:
        first = f"{of_set}_" if len(sets) > 1 else ""
        for file in files:
            metrics = open_checkpoint(file).info.details["metrics"]
            scores = ",".join(f"{metrics.get(first + key, math.nan):.3f}" for key in ("pq", "aji", "f1"))
            lines.append(f"{file.stem},{of_set},{scores}")
    (out / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
