"""How InstaSAM is trained: first labels for all dots, then one stage.

The folder `out` then holds `instasam/` with the stage, in it `average.safetensors`, and `model.safetensors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.compact.settings import Settings as CompactSettings
from wsi_nuc.models.instasam.build import assemble, net_of, save_net
from wsi_nuc.models.instasam.net import InstaSamNet
from wsi_nuc.models.instasam.settings import COMPACT, LITE, NetSettings, Settings, spec_of
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.events import Emit, Noted
from wsi_nuc.training.instasam.config import InstaSamConfig
from wsi_nuc.training.instasam.crops import Batch, Crops, collate
from wsi_nuc.training.instasam.first import checkpoint_of, first_labels
from wsi_nuc.training.instasam.losses import LossNet
from wsi_nuc.training.instasam.start import load_frozen
from wsi_nuc.training.loop import Row, Stage, finite
from wsi_nuc.training.ranks import Ranks
from wsi_nuc.training.registry import MODEL

CONFIG = InstaSamConfig
STAGE = "instasam"
STEERED = ("report_every", "use")


def stages(config: InstaSamConfig, ranks: Ranks, emit: Emit) -> Iterator[Stage]:
    loaded = load_images(config.data.train, config.classes, config.mpp)
    validation = load_images(config.data.validation, config.classes, config.mpp)
    for kind, images in (("training", loaded), ("validation", validation)):
        for repair, count in images.repairs.items():
            emit(Noted(f"{kind} images: {repair}: {count}"))
    yield stage_of(config, loaded.images, loaded.sources, validation.images, ranks, emit)
    if ranks.first:
        net = net_of(open_checkpoint(config.average))
        details = open_checkpoint(config.average).info.details
        about = {"training_data": details["training_data"], "metrics": details["metrics"]}
        save_net(config.out / MODEL, net, settings_of(config), about)


def stage_of(
    config: InstaSamConfig,
    images: Sequence[LabelledImage],
    sources: Sequence[Mapping[str, Any]],
    validation: Sequence[LabelledImage],
    ranks: Ranks,
    emit: Emit,
) -> Stage:
    settings = settings_of(config)
    torch.manual_seed(config.seed)
    net = InstaSamNet(settings)
    load_frozen(net, config.frozen)
    net = net.to(ranks.device)
    trained = net.trained()
    share = sum(weight.numel() for weight in trained.values()) / sum(weight.numel() for weight in net.parameters())
    emit(Noted(f"{len(trained)} of the network's tensors are trained, {share:.1%} of its weights"))
    dotted = first_labels(config, images)
    crops = Crops(dotted, config.crop, config.seed)

    def save(average: Any, row: Row) -> None:
        save_net(config.average, average, settings, {"training_data": list(sources), "metrics": finite(row)})

    return Stage(
        name=STAGE,
        folder=config.average.parent,
        config=config,
        module=LossNet(net, config, settings.window_cells),
        net=net,
        optimizer=torch.optim.AdamW(trained.values(), lr=config.lr, weight_decay=config.weight_decay),
        lr=config.lr,
        rate=partial(rate, config),
        batches=partial(batches, crops, config, ranks),
        batch=config.batch,
        steps=config.steps,
        epoch_steps=config.report_every,
        scores=partial(_scores, config, settings, ranks, validation),
        save=save,
        ema=config.ema,
        best=False,
        steered=STEERED,
    )


def settings_of(config: InstaSamConfig) -> Settings:
    """The network's sizes follow from what is frozen."""
    kind, net = COMPACT, NetSettings()
    if config.frozen in LITE:
        stem, *widths = LITE[config.frozen]
        kind, net = config.frozen, NetSettings(stem, tuple(widths), (1, 1, 1, 1))
    else:
        info = checkpoint_of(config.frozen).info
        if info.architecture == COMPACT:
            net = CompactSettings.from_header(info.details).net
        else:
            given = Settings.from_header(info.details)
            kind, net = given.encoder, given.net
    return Settings(config.classes, config.mpp, kind, net, config.adapter, use=config.use)


def rate(config: InstaSamConfig, step: int) -> float:
    """Share of the learning rate at a step, as CosineAnnealingLR counts it: it falls over `t_max` and rises
    again."""
    unit = config.report_every if config.t_max_unit == "epochs" else 1
    whole = config.t_max * unit or config.steps
    done = step // unit * unit if config.t_max else step
    return (1 + math.cos(math.pi * done / whole)) / 2


def batches(crops: Crops, config: InstaSamConfig, ranks: Ranks, first: int) -> Iterator[Batch]:
    numbers = [
        list(range(step * config.batch, (step + 1) * config.batch))[ranks.rank :: ranks.world]
        for step in range(first, config.steps)
    ]
    loader: Any = DataLoader(
        crops,
        batch_sampler=numbers,
        collate_fn=collate,
        num_workers=config.data.workers,
        generator=torch.Generator(),
    )
    return iter(loader)


def _scores(
    config: InstaSamConfig, settings: Settings, ranks: Ranks, images: Sequence[LabelledImage], net: Any
) -> Row:
    if not images:
        return {}
    model = assemble(net, settings, str(ranks.device), spec_of(settings, ""))
    means = image_means(ranks.collect(evaluate_images(model, ranks.share(images))))
    return means.overall | {"precision": means.detection.precision, "recall": means.detection.recall}
