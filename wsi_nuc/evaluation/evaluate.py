"""Score a model on labelled images: every image through the code of a run, then the protocols of the papers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.predict import predict_image, propose_points, truth_of
from wsi_nuc.evaluation.protocol import ImageScore, Means, Nuclei, image_means, score_image
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.stitch import StitchRule
from wsi_nuc.types import Int64


@dataclass(frozen=True, slots=True)
class Scoring:
    """`oracle`: annotated points are the prompts. `classes`: the model's class name -> the data set's, where they
    differ. `rule`: when two outlines are one nucleus. `mpp`: for images that do not tell theirs. `masks` False
    judges the prompter alone, by its points."""

    oracle: bool = False
    masks: bool = True
    classes: Mapping[str, str] | None = None
    rule: StitchRule | None = None
    mpp: float | None = None


def evaluate_images(
    model: NucleiModel,
    images: Iterable[LabelledImage],
    scoring: Scoring | None = None,
    done: Callable[[ImageScore], None] | None = None,
) -> list[ImageScore]:
    """One score an image. Images of which only the foreground is known cannot be scored and are an error."""
    scores = []
    for image in images:
        scores.append(evaluate_image(model, image, scoring or Scoring()))
        if done is not None:
            done(scores[-1])
    return scores


def evaluate_image(model: NucleiModel, image: LabelledImage, scoring: Scoring) -> ImageScore:
    if image.mpp is None:
        image = replace(image, mpp=scoring.mpp or model.spec.mpp)
    table = class_table(model.spec.classes, image, scoring.classes or {})
    truth = truth_of(image) if table is not None else without_types(truth_of(image))
    if scoring.masks:
        found = predict_image(model, _named_as(image, table, model), scoring.oracle, scoring.rule)
    else:
        found = propose_points(model, image)
    found = without_types(found) if table is None else with_types(found, table[found.points.types])
    count = 0 if table is None else len(true_classes(image))
    return score_image(truth, found, mpp=image.mpp, classes=count, id=image.id, group=image.group)


def true_classes(image: LabelledImage) -> tuple[str, ...]:
    return image.classes if image.instances is not None else image.point_classes


def class_table(classes: tuple[str, ...], image: LabelledImage, mapping: Mapping[str, str]) -> Int64 | None:
    """The data set's number of each of the model's classes and, last, -1 for an unknown one. None where the two
    do not speak of the same classes: only outlines are compared then."""
    own = true_classes(image)
    names = [mapping.get(name, name) for name in classes]
    if len(own) < 2 or not set(names) & set(own):
        return None
    return np.array([own.index(name) if name in own else -1 for name in names] + [-1], np.int64)


def _named_as(image: LabelledImage, table: Int64 | None, model: NucleiModel) -> LabelledImage:
    """The same image with types in the model's numbers, for the oracle to hand over as classes."""
    back = np.full(len(true_classes(image)) + 1, -1, np.int64)
    if table is not None:
        for number in range(len(model.spec.classes)):
            if table[number] >= 0:
                back[table[number]] = number
    types = image.types if image.instances is not None else image.point_types
    known = back[types] if types is not None and true_classes(image) else None
    if image.instances is not None:
        return replace(image, types=known, points_xy=None, point_types=None)
    return replace(image, point_types=known)


def with_types(nuclei: Nuclei, types: Int64) -> Nuclei:
    return replace(nuclei, points=replace(nuclei.points, types=types))


def without_types(nuclei: Nuclei) -> Nuclei:
    return with_types(nuclei, np.full(len(nuclei.points.xy), -1, np.int64))


def quality(scores: list[ImageScore]) -> float:
    """The number that the best checkpoint has the most of: PQ, or detection F1 where only points are known."""
    means: Means = image_means(scores)
    best = means.detection.f1 if np.isnan(means.pq) else means.pq
    return -1.0 if np.isnan(best) else float(best)
