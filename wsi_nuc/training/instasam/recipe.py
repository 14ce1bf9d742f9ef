"""How InstaSAM is trained: first labels for all dots, then one stage, then the page about it.

The folder `out` then holds `instasam/` with the stage, in it `average.safetensors`; `model.safetensors`; and, if
it was trained from dots, `report.html` and `labels.png`, and a folder for each point of the report's curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.domain import domain_of
from wsi_nuc.models.instasam.build import assemble, net_of, network, save_net
from wsi_nuc.models.instasam.settings import Settings, spec_of
from wsi_nuc.models.registry import load_model
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.dots.holdback import held_back
from wsi_nuc.training.dots.images import enough, images_of
from wsi_nuc.training.events import Emit, Noted
from wsi_nuc.training.instasam.config import STAGE, InstaSamConfig
from wsi_nuc.training.instasam.crops import Crops, collate
from wsi_nuc.training.instasam.first import Dotted, first_labels
from wsi_nuc.training.instasam.losses import LossNet
from wsi_nuc.training.instasam.report import Dots, dots_found, write_report
from wsi_nuc.training.instasam.start import load_frozen, settings_of
from wsi_nuc.training.loop import Row, Stage, batches, finite
from wsi_nuc.training.ranks import Ranks
from wsi_nuc.training.registry import MODEL

CONFIG = InstaSamConfig
STEERED = ("report_every", "use", "curve", "curve_steps")


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, and what is not."""

    images: Sequence[LabelledImage]
    held_back: Sequence[LabelledImage]
    """Images that no step sees."""
    classes: tuple[str, ...]
    sources: Sequence[Mapping[str, Any]]
    """For the record in the trained file."""
    notes: Sequence[str]
    """What was noticed while reading."""


def stages(config: InstaSamConfig, ranks: Ranks, emit: Emit) -> Iterator[Stage]:
    material = _material(config)
    for note in material.notes:
        emit(Noted(note))
    settings = settings_of(config, material.classes)
    dotted = first_labels(config, material.images)
    yield stage_of(config, settings, dotted, material, ranks, emit)
    if ranks.first:
        _finish(config, settings, material)
    if config.dots is None:
        return
    curve: list[tuple[int, Dots]] = []
    for share in config.curve:
        part = [_thinned(image, share, config.seed) for image in dotted]
        folder = config.out / f"dots-{share:g}"
        short = config.model_copy(update={"steps": config.curve_steps, "report_every": config.curve_steps})
        yield replace(stage_of(short, settings, part, material, ranks, emit, folder), name=folder.name)
        if ranks.first:
            found = dots_found(load_model(str(folder / "average.safetensors")), material.held_back)
            curve.append((sum(len(image.xy) for image in part), found))
    if ranks.first:
        model = load_model(str(config.out / MODEL))
        page = write_report(config, model, dotted, material.held_back, curve, material.notes)
        emit(Noted(f"see {page}"))


def _material(config: InstaSamConfig) -> Material:
    if config.dots is not None:
        gathered = images_of(config.dots, config.mpp, config.classes or None)
        enough(gathered, config.dots)
        split = held_back(gathered.images, seed=config.seed)
        notes = [f"{what}: {count}" for what, count in gathered.repairs.items()]
        notes.append(f"{gathered.dots} dots; held back for the report: {split.rule}")
        classes = gathered.classes or ("nucleus",)
        return Material(split.training, split.held_back, classes, gathered.sources, notes)
    assert config.data is not None
    train = load_images(config.data.train, config.classes, config.mpp)
    validation = load_images(config.data.validation, config.classes, config.mpp)
    notes = [
        f"{kind} images: {repair}: {count}"
        for kind, loaded in (("training", train), ("validation", validation))
        for repair, count in loaded.repairs.items()
    ]
    return Material(train.images, validation.images, config.classes, train.sources, notes)


def stage_of(
    config: InstaSamConfig,
    settings: Settings,
    dotted: Sequence[Dotted],
    material: Material,
    ranks: Ranks,
    emit: Emit,
    folder: Path | None = None,
) -> Stage:
    """`folder`: of the stage; None: the main one. Only the main one is validated while it runs."""
    folder = folder or config.average.parent
    torch.manual_seed(config.seed)
    net = network(settings)
    load_frozen(net, config.frozen)
    net = net.to(ranks.device)
    trained = net.trained()
    share = sum(weight.numel() for weight in trained.values()) / sum(weight.numel() for weight in net.parameters())
    main = folder == config.average.parent
    if main:
        emit(Noted(f"{share:.1%} of the network's weights are trained"))
    crops = Crops(dotted, config.crop, config.seed)

    def save(average: Any, row: Row) -> None:
        about = {"training_data": list(material.sources), "metrics": finite(row)}
        save_net(folder / "average.safetensors", average, settings, about)

    return Stage(
        name=STAGE,
        folder=folder,
        config=config,
        module=LossNet(net, config),
        net=net,
        optimizer=torch.optim.AdamW(trained.values(), lr=config.lr, weight_decay=config.weight_decay),
        lr=config.lr,
        rate=partial(rate, config),
        batches=partial(batches, crops, collate, config.batch, config.steps, config.workers, ranks),
        batch=config.batch,
        steps=config.steps,
        epoch_steps=config.report_every,
        scores=partial(_scores, config, settings, ranks, material.held_back if main else ()),
        save=save,
        ema=config.ema,
        best=False,
        steered=STEERED,
    )


def rate(config: InstaSamConfig, step: int) -> float:
    """Share of the learning rate at a step, as CosineAnnealingLR counts it: it falls over `t_max` and rises
    again."""
    unit = config.report_every if config.t_max_unit == "epochs" else 1
    whole = config.t_max * unit or config.steps
    done = step // unit * unit if config.t_max else step
    return (1 + math.cos(math.pi * done / whole)) / 2


def _scores(
    config: InstaSamConfig, settings: Settings, ranks: Ranks, images: Sequence[LabelledImage], net: Any
) -> Row:
    if not images:
        return {}
    model = assemble(net, settings, str(ranks.device), spec_of(settings, ""))
    if config.dots is not None:
        found = dots_found(model, images)
        return {"quality": found.share, "found": found.share}
    means = image_means(ranks.collect(evaluate_images(model, ranks.share(images))))
    return means.overall | {"precision": means.detection.precision, "recall": means.detection.recall}


def _finish(config: InstaSamConfig, settings: Settings, material: Material) -> None:
    """The averaged network once more, with how its training images looked."""
    checkpoint = open_checkpoint(config.average)
    about = {name: checkpoint.info.details[name] for name in ("training_data", "metrics")}
    domain = domain_of(image.rgb for image in material.images)
    save_net(config.out / MODEL, net_of(checkpoint), replace(settings, domain=domain), about)


def _thinned(dotted: Dotted, share: float, seed: int) -> Dotted:
    """A share of the image's dots, as if the others had never been set: only their surroundings are known."""
    if share >= 1:
        return dotted
    order = np.random.default_rng((seed, len(dotted.xy))).permutation(len(dotted.xy))
    kept = np.sort(order[: max(1, round(share * len(order)))])
    return dotted.with_dots(kept)
