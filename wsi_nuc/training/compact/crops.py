"""Random crops of labelled images, with the targets of the losses. A crop follows from seed and number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.models.compact.segmentor import nearest_others
from wsi_nuc.models.compact.settings import MASK_STRIDE, POINT_STRIDE
from wsi_nuc.training.compact.config import CropConfig, Cropping
from wsi_nuc.training.compact.scene import Scene, scene_of, vary, warp
from wsi_nuc.types import Float32, Float64, Int64

LEAST_PX = 20  # a nucleus that the edge cuts to fewer pixels is not used as a prompt
UNIT_TOWARDS_PX = 16.0
RAGGED = ("prompt_xy", "negative", "prompt_id")


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of S x S pixels with its targets. Each weight is 0 where nothing is known."""

    id: str
    """The name of the image."""
    rgb: npt.NDArray[np.uint8]
    """S x S x 3."""
    instances: npt.NDArray[np.int32]
    """S x S labels; all 0 where outlines are not known."""
    heat: Float32
    """h x w at stride 4, 0..1: 1 where a centre lies in the cell."""
    heat_weight: Float32
    """h x w."""
    offset: Float32
    """2 x h x w at stride 4: x and y to the centre, in cells."""
    offset_weight: Float32
    """h x w."""
    kind: Int64
    """h x w at stride 4: the class; -1: not known."""
    kind_weight: Float32
    """h x w."""
    region: Float32
    """h x w at stride 2: share of foreground, 0..1."""
    region_weight: Float32
    """h x w."""
    towards: Float32
    """2 x h x w at stride 2: x and y to the centre of the pixel's nucleus, in units of 16 px."""
    towards_weight: Float32
    """h x w."""
    prompt_xy: Float32
    """P x 2 pixels; the first pixel's centre lies at 0.5."""
    negative: Float32
    """P x 2 pixels: the nearest other point, NaN where none is given."""
    prompt_id: Int64
    """P labels in `instances`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops stacked, their prompts one after the other. The fields of `Crop` are attributes of the batch."""

    ids: tuple[str, ...]
    """The name of each crop's image."""
    crops: dict[str, torch.Tensor]
    """Field of `Crop` -> its values of all crops."""
    prompt_row: torch.Tensor
    """The crop of each prompt."""

    def __getattr__(self, name: str) -> torch.Tensor:
        return self.crops[name]

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device, non_blocking=True) for name, value in self.crops.items()}
        return Batch(self.ids, moved, self.prompt_row.to(device))


def collate(crops: Sequence[Crop]) -> Batch:
    joined = {}
    for name in (f.name for f in fields(Crop) if f.name != "id"):
        arrays = [getattr(crop, name) for crop in crops]
        joined[name] = torch.from_numpy(np.concatenate(arrays) if name in RAGGED else np.stack(arrays))
    counts = [len(crop.prompt_id) for crop in crops]
    ids = tuple(crop.id for crop in crops)
    return Batch(ids, joined, torch.from_numpy(np.repeat(np.arange(len(crops)), counts)))


class Crops(Dataset[Crop]):
    """`crops[number]`. Sources of images are visited according to their weights, the images of a source evenly."""

    def __init__(
        self,
        sources: Sequence[Sequence[LabelledImage]],
        weights: Sequence[float],
        config: CropConfig,
        seed: int,
        stain_px: Sequence[tuple[float, float]] = (),
    ) -> None:
        """`stain_px`: for each source, how far right and down of its labels the stain lies."""
        least = int(np.ceil(config.size_px * 2**0.5 / config.scale[0])) + 2
        shifts = stain_px or [(0.0, 0.0)] * len(sources)
        self._scenes = [
            [scene_of(image, least, shift) for image in images]
            for images, shift in zip(sources, shifts, strict=True)
        ]
        self._chance = np.asarray(weights, np.float64) / np.sum(weights)
        self._config, self._seed = config, seed

    def __getitem__(self, number: int) -> Crop:
        rng = np.random.default_rng((self._seed, number))
        scenes = self._scenes[rng.choice(len(self._scenes), p=self._chance)]
        scene = cropped(scenes[rng.integers(len(scenes))], rng, self._config)
        return targets(scene, rng, self._config)


def cropped(scene: Scene, rng: np.random.Generator, config: Cropping, near: Float64 | None = None) -> Scene:
    """A crop at a random place, turned, mirrored, enlarged and stained at random. `near`: a point in it."""
    angle, size = rng.uniform(0, 2 * np.pi), config.size_px
    scale = np.exp(rng.uniform(*np.log(config.scale)))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) * [rng.choice([-1.0, 1.0]), 1.0]
    reach = size / 2 * (abs(cos) + abs(sin)) / scale
    sides = np.array(scene.rgb.shape[1::-1], np.float64)
    low, high = np.minimum(reach, sides / 2), np.maximum(sides - reach, sides / 2)
    if near is not None:
        # Half of the greatest distance at which a crop that is turned by any angle still holds the point.
        low, high = (np.clip(near + side * size / scale / 4, low, high) for side in (-1, 1))
    middle = rng.uniform(low, high)
    made = warp(scene, matrix, size / 2 - matrix @ middle, size)
    rgb = vary(made.rgb, rng, config.colour)
    return Scene(made.id, rgb, made.instances, made.region, made.xy, made.spread, made.kind)


def targets(scene: Scene, rng: np.random.Generator, config: CropConfig) -> Crop:
    size = config.size_px
    points, fine = size // POINT_STRIDE, size // MASK_STRIDE
    instances = np.zeros((size, size), np.int32) if scene.instances is None else scene.instances
    heat, offset, near = point_targets(scene, points)
    region = np.zeros((size, size), np.bool_) if scene.region is None else scene.region
    kind, kind_weight = kind_targets(scene, instances, points)
    towards, inside = _towards(scene, instances, fine)
    prompts = _prompts(scene, instances, rng, config)
    return Crop(
        id=scene.id,
        rgb=np.ascontiguousarray(scene.rgb),
        instances=instances,
        heat=heat,
        heat_weight=_heat_weight(scene, region, points),
        offset=offset,
        offset_weight=near,
        kind=kind,
        kind_weight=kind_weight,
        region=region.reshape(fine, 2, fine, 2).mean((1, 3), dtype=np.float32),
        region_weight=np.full((fine, fine), scene.region is not None, np.float32),
        towards=towards,
        towards_weight=inside,
        prompt_xy=prompts[0],
        negative=prompts[1],
        prompt_id=prompts[2],
    )


def _heat_weight(scene: Scene, region: npt.NDArray[np.bool_], cells: int) -> Float32:
    """cells x cells. Where only the foreground is known, the background still shows where there is no nucleus."""
    if scene.xy is not None:
        return np.ones((cells, cells), np.float32)
    if scene.region is None:
        return np.zeros((cells, cells), np.float32)
    inside = region.reshape(cells, POINT_STRIDE, cells, POINT_STRIDE).any((1, 3))
    return np.asarray(~inside, np.float32)


def point_targets(scene: Scene, cells: int) -> tuple[Float32, Float32, Float32]:
    """Heat, offset and the weight of the offset.

    Heat is a hill at each centre, a fifth as long and wide as the nucleus, and 1 in the centre's own cell. The
    offset leads from the cells around a centre to the centre; elsewhere its weight is 0.
    """
    heat, offset = np.zeros((cells, cells), np.float32), np.zeros((2, cells, cells), np.float32)
    near = np.zeros((cells, cells), np.float32)
    if scene.xy is None or scene.spread is None or not len(scene.xy):
        return heat, offset, near
    xy, spread = scene.xy / POINT_STRIDE, (0.2 * scene.spread + 2.0 * np.eye(2)) / POINT_STRIDE**2
    close = ((xy > -3) & (xy < cells + 3)).all(1)
    xy, spread = xy[close], spread[close]
    if not len(xy):
        return heat, offset, near
    grid = np.arange(cells) + 0.5
    dx, dy = (grid - xy[:, :1]).astype(np.float32), (grid - xy[:, 1:]).astype(np.float32)
    sharp = np.linalg.inv(spread).astype(np.float32)
    power = (
        sharp[:, 0, 0, None, None] * dx[:, None, :] ** 2
        + sharp[:, 1, 1, None, None] * dy[:, :, None] ** 2
        + 2 * sharp[:, 0, 1, None, None] * dx[:, None, :] * dy[:, :, None]
    )
    heat = np.exp(-0.5 * power.min(0))
    inside = ((xy >= 0) & (xy < cells)).all(1)
    column, row = xy[inside].astype(np.int64).T
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            r, c = np.clip(row + step_y, 0, cells - 1), np.clip(column + step_x, 0, cells - 1)
            offset[0, r, c], offset[1, r, c] = xy[inside, 0] - (c + 0.5), xy[inside, 1] - (r + 0.5)
            near[r, c] = 1
    offset[0, row, column], offset[1, row, column] = xy[inside, 0] - (column + 0.5), xy[inside, 1] - (row + 0.5)
    heat[row, column] = 1
    return heat, offset, near


def kind_targets(scene: Scene, instances: npt.NDArray[np.int32], cells: int) -> tuple[Int64, Float32]:
    """Class of the nucleus in each cell, and a weight by which small nuclei count as much as large ones."""
    kind: Int64 = np.full((cells, cells), -1, np.int64)
    weight: Float32 = np.zeros((cells, cells), np.float32)
    if scene.kind is None or scene.xy is None:
        return kind, weight
    if scene.instances is not None:
        ids = instances[POINT_STRIDE // 2 :: POINT_STRIDE, POINT_STRIDE // 2 :: POINT_STRIDE]
        share = 1 / np.sqrt(np.maximum(np.bincount(ids.ravel(), minlength=len(scene.kind) + 1), 1))
        kind = np.where(ids > 0, np.append(scene.kind, -1)[ids - 1], -1)
        weight = np.where(kind >= 0, share[ids], 0).astype(np.float32)
        return kind, weight
    inside = ((scene.xy >= 0) & (scene.xy < cells * POINT_STRIDE)).all(1)
    column, row = (scene.xy[inside] / POINT_STRIDE).astype(np.int64).T
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            kind[np.clip(row + step_y, 0, cells - 1), np.clip(column + step_x, 0, cells - 1)] = scene.kind[inside]
    return kind, np.asarray((kind >= 0) / 3, np.float32)


def _towards(scene: Scene, instances: npt.NDArray[np.int32], fine: int) -> tuple[Float32, Float32]:
    if scene.instances is None or scene.xy is None:
        return np.zeros((2, fine, fine), np.float32), np.zeros((fine, fine), np.float32)
    ids = instances[1::MASK_STRIDE, 1::MASK_STRIDE]
    centre = np.vstack([np.zeros((1, 2)), scene.xy])[ids]
    y, x = np.mgrid[:fine, :fine] * MASK_STRIDE + MASK_STRIDE / 2
    towards = np.stack([centre[..., 0] - x, centre[..., 1] - y]) / UNIT_TOWARDS_PX
    return np.where(ids > 0, towards, 0).astype(np.float32), (ids > 0).astype(np.float32)


def _prompts(
    scene: Scene, instances: npt.NDArray[np.int32], rng: np.random.Generator, config: CropConfig
) -> tuple[Float32, Float32, Int64]:
    """Points near the centres of chosen nuclei, the nearest other point of most of them, and their labels."""
    if scene.instances is None or scene.xy is None or scene.spread is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    size = config.size_px
    area = np.bincount(instances.ravel(), minlength=len(scene.xy) + 1)[1:]
    seen = np.flatnonzero(((scene.xy >= 0) & (scene.xy < size)).all(1) & (area >= LEAST_PX))
    points = jittered(scene.xy[seen], scene.spread[seen], instances, seen + 1, rng)
    chosen = rng.permutation(len(seen))[: config.prompts]
    negative = nearest_others(points, chosen, np.arange(len(seen)))
    negative[rng.random(len(chosen)) > config.negatives] = np.nan
    return points[chosen].astype(np.float32), negative, seen[chosen] + 1


def jittered(
    xy: Float64, spread: Float64, instances: npt.NDArray[np.int32], ids: Int64, rng: np.random.Generator
) -> Float64:
    """Points where a prompter might put them: normally distributed, a third as wide as the nucleus, never outside
    it."""
    factor = np.linalg.cholesky(spread + 1e-3 * np.eye(2))
    moved = xy + 0.35 * np.einsum("nij,nj->ni", factor, rng.normal(size=xy.shape))
    limit = instances.shape[0] - 1e-3
    pixel = np.clip(moved, 0, limit).astype(np.int64)
    on_it = (instances[pixel[:, 1], pixel[:, 0]] == ids) & (moved >= 0).all(1) & (moved < limit).all(1)
    return np.where(on_it[:, None], moved, np.clip(xy, 0, limit))
