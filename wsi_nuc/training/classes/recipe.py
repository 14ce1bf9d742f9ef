"""How classes alone are learned: the model looks at all images, then one stage learns heads on what it saw.

The folder `out` then holds `classes/` with the stage, in it `learned.safetensors`, and `model.safetensors`, the
same with the scores on validation images. Both are the given model with another class head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from wsi_nuc.datasets.images import load_images
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import ModelError, UsageError
from wsi_nuc.evaluation.evaluate import truth_of
from wsi_nuc.models.compact.build import load_weights, net_of, save_net
from wsi_nuc.models.compact.net import CompactNet, PooledClasses
from wsi_nuc.models.compact.packaged import PACKAGED, single_checkpoint_of
from wsi_nuc.models.compact.settings import ARCHITECTURE, Settings
from wsi_nuc.models.registry import is_file
from wsi_nuc.models.weights import Checkpoint, open_checkpoint
from wsi_nuc.training.classes.config import ClassesConfig
from wsi_nuc.training.classes.heads import Batch, Heads, Learned
from wsi_nuc.training.classes.nuclei import inputs, look_at, looking
from wsi_nuc.training.compact.tune import metrics_of
from wsi_nuc.training.dots.images import enough, images_of
from wsi_nuc.training.events import Emit, Noted
from wsi_nuc.training.loop import Row, Stage, finite
from wsi_nuc.training.ranks import Ranks
from wsi_nuc.training.registry import MODEL

CONFIG = ClassesConfig
STAGE, LEARNED = "classes", "learned.safetensors"
WARM_SHARE = 0.2


def stages(config: ClassesConfig, ranks: Ranks, emit: Emit) -> Iterator[Stage]:
    model = source_of(config.model)
    mpp = model.info.mpp
    if "mpp" in config.model_fields_set and not math.isclose(config.mpp, mpp):
        raise UsageError(f"mpp = {config.mpp:g}", f"the model works at {mpp:g} um per pixel", "leave mpp out")
    images, sources, config = _images(config.model_copy(update={"mpp": mpp}), emit)
    training = Training(config, model, images, sources, str(ranks.device), emit)
    yield training.stage(ranks)
    if ranks.first:
        _finish(config, emit)


def source_of(model: str) -> Checkpoint:
    """The file of the model whose classes are replaced."""
    remedy = "give default, or a file that `wsi-nuc train compact` or `wsi-nuc train classes` wrote"
    if model not in PACKAGED and not is_file(model):
        raise ModelError(f"model {model!r}", "has no class head that can be learned anew", remedy)
    checkpoint = single_checkpoint_of(model)
    if checkpoint.info.architecture != ARCHITECTURE:
        cause = f"the family {checkpoint.info.architecture} has no class head that can be learned anew"
        raise ModelError(model, cause, remedy)
    return checkpoint


def _images(
    config: ClassesConfig, emit: Emit
) -> tuple[tuple[LabelledImage, ...], tuple[dict[str, object], ...], ClassesConfig]:
    """Images with dots, what they are from, and the settings with the classes of the dots if none were given."""
    loaded: Any
    if config.dots is not None:
        loaded = images_of(config.dots, config.mpp, config.classes or None)
        enough(loaded, config.dots)
        config = config.model_copy(update={"classes": loaded.classes})
    else:
        assert config.data is not None
        loaded = load_images(config.data.train, config.classes, config.mpp)
    for repair, count in loaded.repairs.items():
        emit(Noted(f"training images: {repair}: {count}"))
    if len(config.classes) < 2:
        raise UsageError(
            "classes",
            f"there is nothing to tell apart ({', '.join(config.classes) or 'the dots have no class'})",
            "give dots of at least two classes; a model with other nuclei is trained by `train compact`",
        )
    return loaded.images, loaded.sources, config


@dataclass(frozen=True)
class Training:
    """The one stage, and what its callbacks share."""

    config: ClassesConfig
    model: Checkpoint
    images: Sequence[LabelledImage]
    sources: Sequence[dict[str, object]]
    device: str
    emit: Emit

    @cached_property
    def settings(self) -> Settings:
        return Settings.from_header(self.model.info.details)

    @cached_property
    def learned(self) -> Learned:
        """What the model sees. It is looked at when the first batch is needed, and not if all is done already."""
        net = self._net(self.settings)
        nuclei = look_at(looking(net, self.settings, self.device), self.images, self.config, self.emit)
        return Learned.of(nuclei, self.config.folds, self.config.seed)

    def stage(self, ranks: Ranks) -> Stage:
        config = self.config
        heads = Heads(inputs(self.settings.net), config, self._class_weight()).to(ranks.device)
        return Stage(
            name=STAGE,
            folder=config.out / STAGE,
            config=config,
            module=heads,
            net=heads,
            optimizer=torch.optim.Adam(heads.parameters(), lr=config.lr),
            lr=config.lr,
            rate=partial(rate, config),
            batches=lambda first: self._batches(first, ranks),
            batch=config.batch,
            steps=config.steps,
            epoch_steps=config.report_every,
            scores=self._scores,
            save=self._save,
            best=False,
        )

    def _batches(self, first: int, ranks: Ranks) -> Iterator[Batch]:
        if first == self.config.steps:
            return iter(())
        return self.learned.batches(self.config, first, ranks.rank, ranks.world)

    def _class_weight(self) -> list[float]:
        """Of each class, so that a dot has 1 on the average."""
        types = np.concatenate([truth_of(image).points.types for image in self.images])
        count = np.maximum(np.bincount(types[types >= 0], minlength=len(self.config.classes)), 1)
        weight = (1.0 / count) ** self.config.balance
        return [float(value) for value in weight * count.sum() / (weight * count).sum()]

    def _scores(self, heads: Any) -> Row:
        row: Row = heads.held_out(self.learned)[1]
        return row

    def _save(self, heads: Any, row: Row) -> None:
        """The model with the head that the held-out nuclei choose."""
        strength, _ = heads.held_out(self.learned)
        hidden = replace(self.settings.net, class_hidden=self.config.hidden)
        settings = replace(self.settings, classes=self.config.classes, net=hidden)
        net = self._net(self.settings)
        net.class_head = PooledClasses(settings.net, len(settings.classes))
        net.class_head.load_state_dict(heads.head(strength, self.learned, settings.net.pyramid[0]))
        details = self.model.info.details
        about = {
            "training_data": [*details["training_data"], *({**s, "learned": "classes"} for s in self.sources)],
            "training_steps": details.get("training_steps"),
            "nucleus_um": details.get("nucleus_um"),
            "based_on": self.model.info.sha256,
            "metrics": {f"held_out_{name}": row[name] for name in ("f1", "accuracy")},
            "penalty": self.config.strengths[strength],
        }
        save_net(self.config.out / STAGE / LEARNED, net, settings, about)

    def _net(self, settings: Settings) -> CompactNet:
        net = CompactNet(settings.net, len(settings.classes))
        load_weights(net, self.model.tensors())
        return net


def _finish(config: ClassesConfig, emit: Emit) -> None:
    """Write the learned file again, with the scores on the validation images, if there are any."""
    checkpoint = open_checkpoint(config.out / STAGE / LEARNED)
    settings, details = Settings.from_header(checkpoint.info.details), checkpoint.info.details
    net = net_of(checkpoint)
    sources = () if config.data is None else config.data.validation
    validation = load_images(sources, config.classes, config.mpp)
    metrics = finite({**details["metrics"], **metrics_of(net, settings, validation.images)})
    kept = ("training_data", "training_steps", "nucleus_um", "based_on", "penalty")
    save_net(config.out / MODEL, net, settings, {name: details.get(name) for name in kept} | {"metrics": metrics})
    emit(Noted("of dots in groups that were held back: " + ", ".join(f"{n} {v:.3f}" for n, v in metrics.items())))


def rate(config: ClassesConfig, step: int) -> float:
    """Share of the learning rate at a step: it rises, then falls along a cosine."""
    warm = max(1.0, WARM_SHARE * config.steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return (1 + math.cos(math.pi * (step - warm) / max(1.0, config.steps - warm))) / 2
