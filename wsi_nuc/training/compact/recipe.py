"""How the compact network is trained: one stage, then the cuts that the validation images choose.

The folder `out` then holds `compact/` with the stage, and in it `average.safetensors`, the running average of the
weights; and `model.safetensors`, the same weights with cuts, calibration and the sizes of nuclei that they give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import nn

from wsi_nuc.datasets.images import Loaded, load_images
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.compact.build import assemble, load_weights, save_net
from wsi_nuc.models.compact.net import CompactNet
from wsi_nuc.models.compact.network import channels_last
from wsi_nuc.models.compact.packaged import single_checkpoint_of
from wsi_nuc.models.compact.settings import MASK_STRIDE, spec_of
from wsi_nuc.models.compact.team import AnyNet
from wsi_nuc.models.torch_ops import normalise
from wsi_nuc.training.compact.agreement import agreement_loss
from wsi_nuc.training.compact.config import CompactTrainConfig
from wsi_nuc.training.compact.crops import Batch, Crops, collate
from wsi_nuc.training.compact.losses import losses
from wsi_nuc.training.compact.teaching import teacher_of, teaching_losses
from wsi_nuc.training.compact.tune import finished
from wsi_nuc.training.events import Emit, Noted
from wsi_nuc.training.loop import Losses, Row, Stage, batches, finite
from wsi_nuc.training.ranks import Ranks
from wsi_nuc.training.registry import MODEL

CONFIG = CompactTrainConfig
STAGE, AVERAGE = "compact", "average.safetensors"
STEERED = ("steps", "decay", "lr", "report_every", "data", "use", "init", "tuned_as")


class LossNet(nn.Module):
    """From pixels and labels to the losses."""

    def __init__(self, net: CompactNet, config: CompactTrainConfig, teacher: AnyNet | None = None) -> None:
        super().__init__()
        self.net, self._config, self._side = net, config, config.use.window_px // MASK_STRIDE
        # Not a part of the module, so it is neither trained nor saved with it.
        self.teacher = (teacher,)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._config.keep_norms:
            for norm in (module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d)):
                norm.eval()
        return self

    def forward(self, batch: Batch) -> Losses:
        pixels = normalise(batch.rgb).contiguous(memory_format=torch.channels_last)
        maps, (teacher,) = self.net(pixels), self.teacher
        learned = losses(self.net, maps, batch, self._config.loss, self._side)
        if weight := self._config.loss.agreement:
            learned["agreement"] = weight * agreement_loss(self.net, maps, pixels, batch, self._side)
        if teacher is None:
            return learned
        with torch.no_grad():
            told = teacher(pixels)
        settings = self._config.teacher
        taught = teaching_losses(self.net, maps, teacher, told, settings.prompts, self._side)
        return learned | {name: settings.weight * loss for name, loss in taught.items()}


def stages(config: CompactTrainConfig, ranks: Ranks, emit: Emit) -> Iterator[Stage]:
    loaded, validation = (
        [load_images([source], config.classes, config.mpp) for source in sources]
        for sources in (config.data.train, config.data.validation)
    )
    for kind, sets in (("training", loaded), ("validation", validation)):
        for repair, count in ((repair, count) for images in sets for repair, count in images.repairs.items()):
            emit(Noted(f"{kind} images: {repair}: {count}"))
    yield stage_of(config, loaded, [image for images in validation for image in images.images], ranks)
    if ranks.first:
        _finish(config, loaded, [images.images for images in validation], emit)


def stage_of(
    config: CompactTrainConfig, loaded: Sequence[Loaded], validation: Sequence[LabelledImage], ranks: Ranks
) -> Stage:
    net = starting_net(config).to(ranks.device)
    weights = [source.weight for source in config.data.train]
    shifts = [source.stain_px for source in config.data.train]
    crops = Crops([images.images for images in loaded], weights, config.crop, config.seed, shifts)
    teacher = teacher_of(config.teacher, config.classes, str(ranks.device))
    sources = [
        source | {"weight": weight}
        for images, weight in zip(loaded, weights, strict=True)
        for source in images.sources
    ]

    def save(average: Any, row: Row) -> None:
        about = {"training_data": sources, "metrics": finite(row)}
        save_net(config.out / STAGE / AVERAGE, average, config.settings(), about)

    return Stage(
        name=STAGE,
        folder=config.out / STAGE,
        config=config,
        module=LossNet(net, config, teacher),
        net=net,
        optimizer=optimizer_of(net, config),
        lr=config.lr,
        rate=partial(rate, config),
        batches=partial(batches, crops, collate, config.batch, config.steps, config.data.workers, ranks),
        batch=config.batch,
        steps=config.steps,
        epoch_steps=config.report_every,
        scores=partial(_scores, config, ranks, validation),
        save=save,
        clip=config.clip,
        ema=config.ema,
        best=False,
        steered=STEERED,
    )


def _finish(
    config: CompactTrainConfig,
    loaded: Sequence[Loaded],
    validation: Sequence[Sequence[LabelledImage]],
    emit: Emit,
) -> None:
    """Write the averaged network, with the cuts that the validation images or the file `tuned_as` give."""
    average = config.out / STAGE / AVERAGE
    made = finished(average, config.out / MODEL, *train_images(config, loaded), validation, config.tuned_as)
    emit(Noted(f"cuts: threshold {made.threshold:g}, least score {made.least_score:g}, mask {made.mask_logit:g}"))


def train_images(
    config: CompactTrainConfig, loaded: Sequence[Loaded]
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """All images of the sources, and those of sources whose resolution is known."""
    pairs = list(zip(config.data.train, loaded, strict=True))
    known = [image for source, images in pairs if source.known_mpp for image in images.images]
    return [image for _, images in pairs for image in images.images], known


def starting_net(config: CompactTrainConfig) -> CompactNet:
    torch.manual_seed(config.seed)
    net = CompactNet(config.net, len(config.classes))
    if config.init:
        load_weights(net, single_checkpoint_of(str(config.init)).tensors())
    return channels_last(net)


def rate(config: CompactTrainConfig, step: int) -> float:
    """Share of the learning rate at a step: it rises, is steady, then falls to 0 in a straight line."""
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min(1.0, (step + 1) / max(1, config.warmup), left)


def optimizer_of(net: nn.Module, config: CompactTrainConfig) -> torch.optim.Optimizer:
    decayed = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr)


def _scores(config: CompactTrainConfig, ranks: Ranks, images: Sequence[LabelledImage], net: Any) -> Row:
    if not images:
        return {}
    model = assemble(net, config.settings(), str(ranks.device), spec_of(config.settings(), ""))
    means = image_means(ranks.collect(evaluate_images(model, ranks.share(images))))
    return means.overall | {"precision": means.detection.precision, "recall": means.detection.recall}
