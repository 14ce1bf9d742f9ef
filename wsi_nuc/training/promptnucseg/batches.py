"""Which images a stage learns from and is judged by, and the batches that are made of them.

That depends on what is known of an image: masks, points, or the foreground alone. Only seed and step decide the
order of the batches, so a resumed training sees exactly the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.models.sam.decoder import NO_POINT
from wsi_nuc.training.promptnucseg.augment import Augmentation, Sample, Truth, make_sample
from wsi_nuc.training.promptnucseg.config import Part, TrainConfig

Images = tuple[LabelledImage, ...]

# A foreground alone teaches only the prompter's region mask.
LEARNS_FROM: dict[Part, tuple[str, ...]] = {
    "segmentor": ("masks",),
    "prompter": ("masks", "points", "foreground"),
    "together": ("masks", "points", "foreground"),
}
NEEDS: dict[Part, tuple[str, ...]] = {
    "segmentor": ("masks",), "prompter": ("masks", "points"), "together": ("masks",),
}  # fmt: skip
JUDGED_BY: dict[Part, tuple[str, ...]] = {
    "segmentor": ("masks",), "prompter": ("masks", "points"), "together": ("masks", "points"),
}  # fmt: skip
Key = tuple[int, int]


def taking_part(part: Part, images: Sequence[LabelledImage]) -> Images:
    """The images that the stage can learn from. UsageError if none of them has what the stage needs."""
    if not any(image.supervision in NEEDS[part] for image in images):
        cause = f"none of {len(images)} images has {' or '.join(NEEDS[part])}, which the stage {part} learns from"
        raise UsageError("data.train", cause, "add such images, or leave the stage out of `stages`")
    return tuple(image for image in images if image.supervision in LEARNS_FROM[part])


def judged(part: Part, images: Sequence[LabelledImage]) -> Images:
    """The images by which the stage can be judged."""
    return tuple(image for image in images if image.supervision in JUDGED_BY[part])


def left_out(part: Part, train: Sequence[LabelledImage], validation: Sequence[LabelledImage]) -> list[str]:
    """A line for each kind of image that the stage cannot use."""
    idle = {
        "training": (train, len(train) - len(taking_part(part, train)), LEARNS_FROM[part]),
        "validation": (validation, len(validation) - len(judged(part, validation)), JUDGED_BY[part]),
    }
    return [
        f"{part}: {count} of {len(images)} {kind} images are not used, they lack {' or '.join(wanted)}"
        for kind, (images, count, wanted) in idle.items()
        if count
    ]


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples, stacked. The prompts of each are filled up to P with blanks."""

    ids: tuple[str, ...]
    """The name of each sample's image."""
    rgb: torch.Tensor
    """B x h x h x 3; h is 256 for a segmentor."""
    instances: torch.Tensor
    """B x h x h labels."""
    region: torch.Tensor
    """B x h x h: the foreground, empty where it is not known."""
    has_region: torch.Tensor
    """B: whether the foreground is known."""
    points: tuple[torch.Tensor | None, ...]
    """Of each sample N x 3: x and y as pixel indices (first pixel's centre at 0) and class (-1: not known). None
    where points are not known."""
    prompt_xy: torch.Tensor
    """B x P x (1 + K) x 2."""
    prompt_label: torch.Tensor
    """B x P x (1 + K)."""
    prompt_id: torch.Tensor
    """B x P labels in `instances`, 0 for a blank."""
    prompt_type: torch.Tensor
    """B x P classes; -1: not known."""

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)


def collate(samples: Sequence[Sample]) -> Batch:
    most = max(1, *(len(sample.prompt_id) for sample in samples))
    blank = np.zeros(samples[0].rgb.shape[:2], np.bool_)
    return Batch(
        ids=tuple(sample.id for sample in samples),
        rgb=torch.from_numpy(np.stack([sample.rgb for sample in samples])),
        instances=torch.from_numpy(np.stack([sample.instances for sample in samples])),
        region=torch.from_numpy(np.stack([blank if s.region is None else s.region for s in samples])),
        has_region=torch.tensor([sample.region is not None for sample in samples]),
        points=tuple(_points(sample) for sample in samples),
        prompt_xy=_filled([sample.prompt_xy for sample in samples], most, 0),
        prompt_label=_filled([sample.prompt_label for sample in samples], most, NO_POINT),
        prompt_id=_filled([sample.prompt_id for sample in samples], most, 0),
        prompt_type=_filled([sample.prompt_type for sample in samples], most, -1),
    )


def _points(sample: Sample) -> torch.Tensor | None:
    if sample.points_xy is None or sample.point_types is None:
        return None
    return torch.from_numpy(np.column_stack([sample.points_xy - 0.5, sample.point_types]).astype(np.float32))


def _filled(arrays: Sequence[np.ndarray[Any, Any]], most: int, value: int) -> torch.Tensor:
    out = np.full((len(arrays), most, *arrays[0].shape[1:]), value, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)


class Crops(Dataset[Sample]):
    """`crops[epoch, index]`: a crop of image number `index % images`, the same one every time."""

    def __init__(self, images: Sequence[LabelledImage], config: TrainConfig, part: Part) -> None:
        self._images, self._config = images, config
        self._augmentation = Augmentation.of(config, part)
        self._truth = Truth.of(config, part)
        self._prompts = None if part == "prompter" else config.prompts

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        seed = int(np.random.SeedSequence((self._config.seed, epoch, index)).generate_state(1)[0])
        image = self._images[index % len(self._images)]
        return make_sample(image, self._augmentation, self._prompts, self._config.use, seed, self._truth)


@dataclass(frozen=True, slots=True)
class Order:
    """Which crops make up each step.

    Every epoch has a shuffled order of its own; its last batch is filled up with the first crops of that order.
    Each of `world` processes takes its share of every batch, and the batch as a whole does not depend on `world`.
    """

    crops: int
    """Crops per epoch."""
    batch: int
    """Crops per step, over all processes."""
    seed: int
    rank: int = 0
    """This process's number, from 0."""
    world: int = 1
    """Number of processes."""

    def __post_init__(self) -> None:
        if self.batch % self.world:
            cause = f"{self.batch} images cannot be shared evenly by {self.world} processes"
            raise UsageError("batch", cause, f"use a multiple of {self.world}")

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.crops // self.batch)

    def keys(self, step: int) -> list[Key]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.crops)
        rows = np.resize(order, self.steps_per_epoch * self.batch).reshape(-1, self.batch)[place]
        return [(epoch, int(index)) for index in rows[self.rank :: self.world]]

    def from_step(self, first: int, end: int) -> Iterator[list[Key]]:
        return (self.keys(step) for step in range(first, end))


class _Steps:
    """The batch sampler: an iterable that has a length."""

    def __init__(self, order: Order, first: int, end: int) -> None:
        self._order, self._first, self._end = order, first, end

    def __iter__(self) -> Iterator[list[Key]]:
        return self._order.from_step(self._first, self._end)

    def __len__(self) -> int:
        return max(0, self._end - self._first)


def batches(crops: Crops, order: Order, first: int, end: int, workers: int) -> Iterator[Batch]:
    """The batches of steps `first` to `end`, made ahead by `workers` processes (0: by this one)."""
    steps: Any = _Steps(order, first, end)
    # A loader draws a number when it starts. Drawn from the common generator, it would change the numbers of a
    # resumed training.
    own = torch.Generator().manual_seed(0)
    loader: Any = DataLoader(crops, batch_sampler=steps, collate_fn=collate, num_workers=workers, generator=own)
    return iter(loader)
