"""What a model sees in and around its nuclei, taken through the code of a run, and the dots on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from wsi_nuc.datasets.record import DataError, Int32, LabelledImage
from wsi_nuc.evaluation.evaluate import predict_table, truth_of
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.compact.build import assemble
from wsi_nuc.models.compact.net import CompactNet, PooledClasses, around
from wsi_nuc.models.compact.settings import NetSettings, Settings, spec_of
from wsi_nuc.rings import Rings
from wsi_nuc.training.classes.config import ClassesConfig
from wsi_nuc.training.compact.scene import vary
from wsi_nuc.training.events import Clock, Emit, Noted, StepDone
from wsi_nuc.types import Bool, Box, Float32, Float64, Int64

LOOKING = "looking"
IN, NEAR = "dots in a nucleus of the model", "dots in none, with one near"
MISSED = "dots without a nucleus, which the model misses (not used)"
SECOND = "second dots on a nucleus (not used)"
UNNAMED = "dots without a class (not used)"


@dataclass(frozen=True, slots=True)
class Nuclei:
    """N nuclei of which a class is known, or that they have no dot: those of all views."""

    seen: Float32
    """N x `inputs(net)`, in the order in which `Seen` gives them."""
    kind: Int64
    """N classes; the number of classes stands for a nucleus without a dot where every nucleus has one."""
    group: Int64
    """N numbers of groups of images, from 0."""
    first_view: int
    """So many rows, at the start, are of the images as they are."""


class Seen(PooledClasses):
    """A stand-in for the head: what the pipeline takes for probabilities is the mean of the head's inputs."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, seen: torch.Tensor, coarse: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        wide = torch.cat([coarse, around(coarse, region)], 1)
        return torch.cat([seen, F.interpolate(wide, scale_factor=2.0, mode="nearest")], 1)

    def told(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def inputs(net: NetSettings) -> int:
    return net.pyramid[0] + 2 * net.pyramid[1]


def looking(net: CompactNet, settings: Settings, device: str) -> NucleiModel:
    """The model with `Seen` in place of its head."""
    net.class_head = Seen()
    names = tuple(map(str, range(inputs(settings.net))))
    return assemble(net, settings, device, spec_of(replace(settings, classes=names), ""))


def look_at(model: NucleiModel, images: Sequence[LabelledImage], config: ClassesConfig, emit: Emit) -> Nuclei:
    """The nuclei with dots of all images and views. Too few dots of a class are an error."""
    names = sorted({image.group or image.id for image in images})
    clock, total = Clock(1, 0), len(images) * config.views
    seen, kind, group, counts = [], [], [], Counter[str]()
    for view in range(config.views):
        for number, image in enumerate(images):
            rng = np.random.default_rng((config.seed, view, number))
            found, kinds, noted = _of_image(model, varied(image, rng, config.colour) if view else image, config)
            seen.append(found)
            kind.append(kinds)
            group.append(np.full(len(kinds), names.index(image.group or image.id), np.int64))
            counts += Counter() if view else noted
            done = view * len(images) + number + 1
            speed, left = clock.tell(done, total)
            emit(StepDone(LOOKING, view + 1, config.views, done, total, None, speed, left))
        if not view:
            _tell(np.concatenate(kind), counts, config, emit)
    first = sum(len(kinds) for kinds in kind[: len(images)])
    return Nuclei(np.concatenate(seen), np.concatenate(kind), np.concatenate(group), first)


def _tell(kind: Int64, counts: Counter[str], config: ClassesConfig, emit: Emit) -> None:
    for what in (IN, NEAR, MISSED, SECOND, UNNAMED):
        if counts[what]:
            emit(Noted(f"{what}: {counts[what]}"))
    dotted = kind[kind < len(config.classes)]
    of_class = dict(zip(config.classes, np.bincount(dotted, minlength=len(config.classes)).tolist(), strict=True))
    few = [f"{name} {count}" for name, count in of_class.items() if count < config.least_dots_of_class]
    if few:
        raise DataError(
            "dots",
            f"too few lie on nuclei of the model: {', '.join(few)}; a class needs {config.least_dots_of_class}",
            'add dots of this class, or map it to another one or to "" in `classes` of the dots',
        )
    listed = ", ".join(f"{name} {count}" for name, count in of_class.items())
    emit(Noted(f"nuclei to learn from: {listed}; without a dot {len(kind) - len(dotted)}"))


def _of_image(
    model: NucleiModel, image: LabelledImage, config: ClassesConfig
) -> tuple[Float32, Int64, Counter[str]]:
    points = truth_of(image).points
    table, scale = predict_table(model, image)
    table = table.select(np.argsort(table.score, kind="stable"))
    rings = Rings(table.xy / scale, table.offsets)
    labels = rings.fill(np.arange(1, len(rings) + 1), Box(0, 0, image.rgb.shape[1], image.rgb.shape[0]))
    named = points.types >= 0
    reach = config.distance_um / (image.mpp or model.spec.mpp)
    centres = rings.areas_and_centres()[1]
    nucleus, counts = owners(points.xy, labels, centres, reach)
    counts[UNNAMED] += int(np.count_nonzero(~named))
    kind = np.where(_known(image, centres), len(config.classes), -1)
    kind[nucleus[nucleus >= 0]] = points.types[nucleus >= 0]
    kept = np.flatnonzero(kind >= 0)
    return table.class_probs[kept], kind[kept], counts


def _known(image: LabelledImage, centres: Float64) -> Bool:
    """Of which nuclei it is known that a dot would be on them if they were right."""
    if image.known is None:
        return np.ones(len(centres), np.bool_)
    height, width = image.known.shape
    column, row = np.floor(centres).astype(np.int64).T.reshape(2, -1)
    return np.asarray(image.known[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)])


def owners(xy: Float64, labels: Int32, centres: Float64, reach: float) -> tuple[Int64, Counter[str]]:
    """For each point the nucleus that it belongs to, -1 for none, and how many there are of each kind.

    A point belongs to the nucleus that holds it (`labels` - 1); of several points in one, the nearest to its
    centre does. A point in none belongs to the nearest nucleus that is left, if its centre is within `reach`.
    """
    height, width = labels.shape
    column, row = np.floor(xy).astype(np.int64).T.reshape(2, -1)
    holder = labels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.int64) - 1
    nucleus = np.full(len(xy), -1, np.int64)
    away = np.hypot(*(xy - centres[np.maximum(holder, 0)]).T) if len(centres) else np.zeros(len(xy))
    left = np.ones(len(centres), np.bool_)
    for point in np.argsort(away, kind="stable"):
        if holder[point] >= 0 and left[holder[point]]:
            nucleus[point], left[holder[point]] = holder[point], False
    inside, lone = int(np.count_nonzero(nucleus >= 0)), np.flatnonzero(holder < 0)
    for point, other in _near_pairs(xy[lone], centres, reach):
        if nucleus[lone[point]] < 0 and left[other]:
            nucleus[lone[point]], left[other] = other, False
    near = int(np.count_nonzero(nucleus[lone] >= 0))
    second = int(np.count_nonzero(holder >= 0)) - inside
    return nucleus, Counter({IN: inside, NEAR: near, MISSED: len(lone) - near, SECOND: second})


def _near_pairs(xy: Float64, centres: Float64, reach: float) -> Iterator[tuple[int, int]]:
    """Pairs of a point and a centre that are within `reach`, the nearest first."""
    if not len(xy) or not len(centres):
        return
    pairs = [
        (float(np.hypot(*(xy[point] - centres[other]))), point, other)
        for point, near in enumerate(cKDTree(centres).query_ball_point(xy, reach))
        for other in near
    ]
    yield from ((point, other) for _, point, other in sorted(pairs))


def varied(image: LabelledImage, rng: np.random.Generator, colour: float) -> LabelledImage:
    """The image mirrored or turned at random, as another laboratory might show it, and its dots."""
    points, rgb = truth_of(image).points, image.rgb
    known = np.ones(rgb.shape[:2], np.bool_) if image.known is None else image.known
    xy = points.xy
    if rng.random() < 0.5:
        xy = np.column_stack([rgb.shape[1] - xy[:, 0], xy[:, 1]])
        rgb, known = rgb[:, ::-1], known[:, ::-1]
    if rng.random() < 0.5:
        xy = np.column_stack([xy[:, 0], rgb.shape[0] - xy[:, 1]])
        rgb, known = rgb[::-1], known[::-1]
    if rng.random() < 0.5:
        rgb, known, xy = rgb.transpose(1, 0, 2), known.T, xy[:, ::-1]
    bare = replace(image, points_xy=xy, point_types=points.types, instances=None, foreground=None, known=known)
    return replace(bare, rgb=vary(np.ascontiguousarray(rgb), rng, colour))
