"""How PromptNucSeg is trained: its stages one after the other, each from the best weights of those before.

How good the present weights are is measured with the code of inference on the validation images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from wsi_nuc.datasets.images import Loaded, load_images
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images, quality
from wsi_nuc.evaluation.protocol import ImageScore, image_means, mean, pannuke_means
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.training.compact.tune import scores_of
from wsi_nuc.training.events import Emit, Noted
from wsi_nuc.training.loop import Row, Stage, finite
from wsi_nuc.training.promptnucseg.batches import Crops, Order, batches, judged, left_out, taking_part
from wsi_nuc.training.promptnucseg.config import Part, StageConfig, TrainConfig
from wsi_nuc.training.promptnucseg.start import PARTS, LossNet, best_file, save_parts, starting_net
from wsi_nuc.training.promptnucseg.tune import told, tune
from wsi_nuc.training.ranks import Ranks
from wsi_nuc.training.registry import MODEL

CONFIG = TrainConfig
STEERED = ("train", "use", "cuts")


class Validation:
    """Scores of the present weights. The segmentor alone gets the annotated points; the prompter is judged by its
    points as long as there is no trained segmentor."""

    def __init__(
        self, config: TrainConfig, part: Part, known: set[str], images: Sequence[LabelledImage], ranks: Ranks
    ) -> None:
        self._settings, self._ranks, self._part = config.settings(), ranks, part
        masks = part != "prompter" or "segmentor" in known
        self._scoring = Scoring(oracle=part == "segmentor", masks=masks)
        self._images = judged(part, images)
        self._points_by_class = part == "prompter" and not config.prompter.class_agnostic

    def scores(self, net: PromptNucSegNet) -> dict[str, float]:
        """Means over the images; empty without images. `quality` is what the best weights have most of: mPQ, or
        the F1 of the classes of a prompter's points; without classes PQ, or F1."""
        if not self._images:
            return {}
        model = assemble(net, self._settings, str(self._ranks.device), spec_of(self._settings, ""))
        scores = self._scored(model, self._scoring)
        row = image_means(scores).overall | {"quality": quality(scores)}
        if len(self._settings.classes) == 1:
            return row
        if self._points_by_class and self._scoring.masks:
            scores = self._scored(model, Scoring(masks=False))
        return row | by_class(scores, self._points_by_class)

    def _scored(self, model: NucleiModel, scoring: Scoring) -> list[ImageScore]:
        with torch.no_grad():
            own = evaluate_images(model, self._ranks.share(self._images), scoring)
        return self._ranks.collect(own)


def by_class(scores: Sequence[ImageScore], points: bool) -> Row:
    """The mean F1 of the classes of points, or the mPQ of masks, which is then the quality; without known classes
    the quality stays as it is."""
    if points:
        name, value = "class_f1", mean(counts.f1 for counts in image_means(scores).detection_by_class)
    else:
        # Several sources may have images of one name.
        name, value = "mpq", pannuke_means([replace(s, id=str(i)) for i, s in enumerate(scores)]).mpq
    return {name: value} if math.isnan(value) else {name: value, "quality": value}


@dataclass(frozen=True, slots=True)
class Data:
    """The images of a training."""

    train: Loaded
    validation: Loaded


def stages(config: TrainConfig, ranks: Ranks, emit: Emit) -> Iterator[Stage]:
    data = Data(
        load_images(config.data.train, config.classes, config.mpp),
        load_images(config.data.validation, config.classes, config.mpp),
    )
    _tell(config, data, emit)
    if ranks.first and config.init:
        starting_net(config, None)  # converts foreign files once, instead of in every process
    ranks.wait()
    for part in config.stages:
        yield stage_of(config, part, data, ranks)
    if ranks.first:
        _finish(config, data.validation.images, str(ranks.device), emit)


def stage_of(config: TrainConfig, part: Part, data: Data, ranks: Ranks) -> Stage:
    plan: StageConfig = getattr(config.train, part)
    net, known = starting_net(config, part)
    net = net.to(ranks.device)
    module = LossNet(net, part, config)
    images = taking_part(part, data.train.images)
    order = Order(len(images) * config.data.crops_per_image, plan.batch, config.seed, ranks.rank, ranks.world)
    steps, crops = plan.epochs * order.steps_per_epoch, Crops(images, config, part)

    def save(average: Any, row: Row) -> None:
        about = {"training_data": list(data.train.sources), "metrics": finite(row)}
        save_parts(best_file(config.out, part), average, config.settings(), set(PARTS[part]), about)

    return Stage(
        name=part,
        folder=config.out / part,
        config=config,
        module=module,
        net=net,
        optimizer=_optimizer(module, plan),
        lr=plan.lr,
        rate=_rate(plan, steps),
        batches=partial(batches, crops, order, end=steps, workers=config.data.workers),
        batch=plan.batch,
        steps=steps,
        epoch_steps=order.steps_per_epoch,
        scores=Validation(config, part, known, data.validation.images, ranks).scores,  # type: ignore[arg-type]
        save=save,
        clip=plan.clip,
        ema=plan.ema,
        ema_copied=plan.ema_after * order.steps_per_epoch,
        validate_every=plan.validate_every,
        save_every=plan.save_every,
        steered=STEERED,
    )


def _finish(config: TrainConfig, validation: Sequence[LabelledImage], device: str, emit: Emit) -> None:
    """Write all trained parts to one file. Where they are a whole model, the validation images choose its cuts;
    otherwise the metrics are those of the last stage, which saw the parts together."""
    (net, known), settings = starting_net(config, part=None), config.settings()
    last = open_checkpoint(best_file(config.out, config.stages[-1])).info.details
    about = {"training_data": last["training_data"], "metrics": last["metrics"]}
    outlined = judged("segmentor", validation)
    chosen = config.cuts == "validation" and config.use.mode == "default"
    if chosen and outlined and known == {*PARTS["together"]}:
        net.to(device)
        settings = replace(settings, use=tune(net, settings, outlined, device))
        about["metrics"] = scores_of(assemble(net, settings, device, spec_of(settings, "")), outlined)
        emit(Noted(told(settings.use)))
    save_parts(config.out / MODEL, net, settings, known, about)


def _tell(config: TrainConfig, data: Data, emit: Emit) -> None:
    """Say what was repaired in the labels and which images a stage does not use, before anything is trained."""
    for kind, loaded in (("training", data.train), ("validation", data.validation)):
        for repair, count in loaded.repairs.items():
            emit(Noted(f"{kind} images: {repair}: {count}"))
    for part in config.stages:
        for line in left_out(part, data.train.images, data.validation.images):
            emit(Noted(line))


def _optimizer(module: LossNet, plan: StageConfig) -> torch.optim.Optimizer:
    slow = {id(parameter) for part in module.before for parameter in part.parameters()}
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    parameters = [
        {"params": [parameter for parameter in learning if (id(parameter) in slow) == is_slow], "share": share}
        for is_slow, share in ((False, 1.0), (True, plan.encoder))
    ]
    kind: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[plan.optimizer]
    made: torch.optim.Optimizer = kind(parameters, lr=plan.lr, weight_decay=plan.weight_decay)
    return made


def _rate(plan: StageConfig, steps: int) -> Callable[[int], float]:
    def share(step: int) -> float:
        rise = min(1.0, (step + 1) / max(1, plan.warmup_steps))
        if plan.schedule == "cosine":
            return rise * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        passed = sum(step * plan.epochs >= milestone * steps for milestone in plan.milestones)
        return rise * plan.decay**passed if plan.schedule == "steps" else rise

    return share
