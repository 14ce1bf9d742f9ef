"""Random crops of images with dots. A crop follows from seed and number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.utils.data import Dataset

from wsi_nuc.datasets.record import Int32
from wsi_nuc.models.compact.segmentor import nearest_others
from wsi_nuc.training.compact.crops import cropped
from wsi_nuc.training.compact.scene import POINT_SPREAD, Scene
from wsi_nuc.training.instasam.config import CropConfig
from wsi_nuc.training.instasam.first import Dotted
from wsi_nuc.training.instasam.pseudo import IGNORED
from wsi_nuc.types import Bool, Float32, Int64, UInt8

# How scenes, whose labels are 16 bits without a sign, say "ignored".
HIDDEN = 65_535


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of S x S pixels with the P dots in it."""

    id: str
    """The name of the image."""
    rgb: UInt8
    """S x S x 3."""
    first: Int32
    """S x S: 0 background, p + 1 the nucleus of dot p, IGNORED."""
    known: Bool
    """S x S: where background is background. It is not where no dot was set, nor where the dot of a nucleus lies
    outside of the crop."""
    xy: Float32
    """P x 2."""
    negative: Float32
    """P x 2: the nearest other dot, NaN where there is none."""
    kind: Int64
    """P classes; -1: not known."""
    learned: Bool
    """P: whether the mask of the dot is learned in this step."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B crops; the dots of all crops one after the other, N of them."""

    ids: tuple[str, ...]
    rgb: torch.Tensor
    """B x S x S x 3."""
    first: torch.Tensor
    """B x S x S: as in `Crop`, but n + 1 for dot n of the batch."""
    known: torch.Tensor
    """B x S x S."""
    row: torch.Tensor
    """N: the crop of each dot."""
    xy: torch.Tensor
    """N x 2."""
    negative: torch.Tensor
    """N x 2."""
    kind: torch.Tensor
    """N."""
    learned: torch.Tensor
    """N."""

    def to(self, device: torch.device) -> Batch:
        moved = (getattr(self, field.name).to(device) for field in fields(self) if field.name != "ids")
        return Batch(self.ids, *moved)


def collate(crops: Sequence[Crop]) -> Batch:
    counts = np.array([len(crop.kind) for crop in crops])
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    first = [np.where(crop.first > 0, crop.first + n, crop.first) for crop, n in zip(crops, before, strict=True)]

    def stacked(arrays: Sequence[object]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays))  # type: ignore[arg-type]

    def joined(arrays: Sequence[object]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays))  # type: ignore[arg-type]

    return Batch(
        tuple(crop.id for crop in crops),
        stacked([crop.rgb for crop in crops]),
        stacked(first).long(),
        stacked([crop.known for crop in crops]),
        torch.from_numpy(np.repeat(np.arange(len(crops)), counts)),
        joined([crop.xy for crop in crops]),
        joined([crop.negative for crop in crops]),
        joined([crop.kind for crop in crops]),
        joined([crop.learned for crop in crops]),
    )


class Crops(Dataset[Crop]):
    """`crops[number]`. Images are visited as often as they have dots. Where not all of an image is known, a crop
    lies around one of its dots."""

    def __init__(self, images: Sequence[Dotted], config: CropConfig, seed: int) -> None:
        least = int(np.ceil(config.size_px * 2**0.5 / config.scale[0])) + 2
        self._scenes = [scene_of(image, least) for image in images]
        dots = np.array([max(1, len(image.xy)) for image in images], np.float64)
        self._chance, self._config, self._seed = dots / dots.sum(), config, seed

    def __getitem__(self, number: int) -> Crop:
        rng = np.random.default_rng((self._seed, number))
        scene = self._scenes[rng.choice(len(self._scenes), p=self._chance)]
        near = None
        if scene.xy is not None and len(scene.xy) and scene.region is not None and not scene.region.all():
            near = scene.xy[rng.integers(len(scene.xy))]
        return crop_of(cropped(scene, rng, self._config, near), rng, self._config.masks)


def scene_of(dotted: Dotted, least_px: int) -> Scene:
    """The image, grown to at least `least_px`. In what was added nothing is known."""
    height, width = dotted.image.rgb.shape[:2]
    below, beside = max(0, least_px - height), max(0, least_px - width)
    known = np.ones((height, width), np.bool_) if dotted.known is None else dotted.known
    first = np.where(dotted.first == IGNORED, HIDDEN, dotted.first)
    return Scene(
        id=dotted.image.id,
        rgb=np.ascontiguousarray(np.pad(dotted.image.rgb, ((0, below), (0, beside), (0, 0)), mode="symmetric")),
        instances=np.pad(first, ((0, below), (0, beside)), constant_values=HIDDEN).astype(np.int32),
        region=np.pad(known, ((0, below), (0, beside))),
        xy=dotted.xy,
        spread=np.tile(np.eye(2) * POINT_SPREAD, (len(dotted.xy), 1, 1)),
        kind=dotted.kinds,
    )


def crop_of(scene: Scene, rng: np.random.Generator, masks: int) -> Crop:
    """The crop with its dots; the masks of `masks` of them are learned."""
    assert scene.instances is not None
    assert scene.region is not None
    assert scene.xy is not None
    assert scene.kind is not None
    size = scene.rgb.shape[0]
    here = np.flatnonzero(((scene.xy >= 0) & (scene.xy < size)).all(1))
    # From the image's numbers to the crop's. Nuclei whose dots lie outside are ignored.
    number = np.full(len(scene.xy) + 2, IGNORED, np.int32)
    number[0], number[here + 1] = 0, np.arange(1, len(here) + 1)
    first = number[np.minimum(scene.instances, len(scene.xy) + 1)]
    away = (first == IGNORED) & (scene.instances != HIDDEN)
    xy = scene.xy[here]
    everything = np.arange(len(here))
    return Crop(
        id=scene.id,
        rgb=np.ascontiguousarray(scene.rgb),
        first=first,
        known=scene.region & ~away,
        xy=xy.astype(np.float32),
        negative=nearest_others(xy, everything, everything),
        kind=scene.kind[here],
        learned=np.asarray(rng.permutation(len(here)) < masks),
    )
