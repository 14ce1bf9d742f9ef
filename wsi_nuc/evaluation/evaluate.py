"""Score a model on labelled images, by the protocols of the papers.

Every image goes through the same code as in a run: the model's points and masks, tracing, stitching. The masks of
the nuclei that are left are scored, and beside that the outlines, which are what a run publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wsi_nuc.datasets.images import pixels_at
from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import Points
from wsi_nuc.evaluation.painting import Masks, Predicted, points_of, target_points
from wsi_nuc.evaluation.protocol import ImageScore, Means, Nuclei, image_means, nuclei_of_labels, score_image
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import Fetch, Look, NucleiModel, PromptedLook, Ready
from wsi_nuc.nuclei import GridNuclei, NucleiTable
from wsi_nuc.rings import Rings
from wsi_nuc.stitch import RegionCandidates, StitchGeometry, StitchRule, stitch
from wsi_nuc.types import Box, Float32, Int64, MaskCrops, Prompts, Tile, TileBatch


def truth_of(image: LabelledImage, types: Int64 | None = None) -> Nuclei:
    """What is annotated. `types` replaces the classes, to number them as the caller does."""
    if image.instances is not None:
        return nuclei_of_labels(image.instances, image.types if types is None else types)
    if image.points_xy is None:
        raise UsageError(image.id, "only its foreground is known", "evaluate on images with masks or points")
    known = image.point_types if types is None else types
    count = len(image.points_xy)
    return Nuclei(
        Points(image.points_xy, np.ones(count), np.full(count, -1, np.int64) if known is None else known)
    )


def predict_image(
    model: NucleiModel, image: LabelledImage, oracle: bool = False, rule: StitchRule | None = None
) -> Nuclei:
    """What the model finds, as labels in pixels of the image. `oracle`: annotated points are the prompts."""
    return as_labels(*predict_table(model, image, oracle, rule), image.rgb.shape[:2])


def predict_table(
    model: NucleiModel, image: LabelledImage, oracle: bool = False, rule: StitchRule | None = None
) -> tuple[GridNuclei, float]:
    """What the model finds, in pixels of its resolution, and the scale: the length in these pixels of one pixel of
    the image."""
    predicted = predict_masks(model, image, oracle, rule)
    return predicted.outlines, predicted.scale


def predict_masks(
    model: NucleiModel, image: LabelledImage, oracle: bool = False, rule: StitchRule | None = None
) -> Predicted:
    rgb, scale = pixels_at(image, model.spec.mpp)
    if oracle:
        model = with_oracle(model, truth_of(image), scale)
    height, width = rgb.shape[:2]
    box = Box(0, 0, width, height)
    batch = TileBatch(rgb[None], (Tile(0, box, box),))
    looks: list[_Seen] = []

    def look(batch: TileBatch) -> Look:
        looks.append(_Seen(model.look(batch)))
        return looks[-1]

    nuclei, own = predict(replace(_one_image_per_call(model), look=look), batch)
    # Stitched as if the image at the model's resolution were a slide: its pixels are those of level 0.
    table = NucleiTable.framed(nuclei)
    edge, spec = float(max(width, height) + 1), model.spec
    geometry = StitchGeometry(edge, float(spec.margin_px), float(spec.largest_nucleus_px + 1), edge)
    region = RegionCandidates((0.0, 0.0, edge, edge), table, own)
    kept = NucleiTable.concat(list(stitch([region], geometry, rule)) or [table])
    masks, prompts = Masks.of(looks[-1].crops), looks[-1].prompts.get()
    bottom_up = masks.by_predicted_iou() if spec.as_published else masks.kept(prompts, table, own, kept)
    return Predicted(prompts, masks, bottom_up, GridNuclei.framed(kept), scale, image.rgb.shape[:2])


class _Seen(PromptedLook):
    """A look that keeps the masks which it was asked for."""

    def __init__(self, look: Look) -> None:
        self._look, self.crops = look, list[MaskCrops]()

    def _propose(self) -> Prompts:
        return self._look.prompts.get()

    def masks(self, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        self.crops = list(self._look.masks(wanted).get())
        return Ready(self.crops)

    def embed(self, xy_tile: Float32, row: Int64) -> Fetch[Float32]:
        return self._look.embed(xy_tile, row)


def propose_points(model: NucleiModel, image: LabelledImage) -> Nuclei:
    """The model's points alone, in pixels of the image."""
    rgb, scale = pixels_at(image, model.spec.mpp)
    box = Box(0, 0, rgb.shape[1], rgb.shape[0])
    return points_of(model.look(TileBatch(rgb[None], (Tile(0, box, box),))).prompts.get(), scale)


def _one_image_per_call(model: NucleiModel) -> NucleiModel:
    """Images differ in size, so a batch holds one of them. Blank images beside it would only cost time."""
    return replace(model, spec=replace(model.spec, batch=1))


def as_labels(table: GridNuclei, scale: float, size: tuple[int, ...]) -> Nuclei:
    """The nuclei as labels of an image of this height and width."""
    # Where two nuclei still overlap, the better one lies on top.
    table = table.select(np.argsort(table.score, kind="stable"))
    rings = Rings(table.xy / scale, table.offsets)
    labels = rings.fill(np.arange(1, len(rings) + 1), Box(0, 0, size[1], size[0]))
    rows, ids = compact(labels)
    return nuclei_of_labels(rows, table.class_id[ids - 1], table.score[ids - 1].astype(np.float64))


def with_oracle(model: NucleiModel, truth: Nuclei, scale: float) -> NucleiModel:
    """The model with the annotated points in place of its own (Table 7)."""
    points = _inside(truth)

    def look(batch: TileBatch) -> Look:
        return model.look(batch).prompted(oracle_prompts(points, scale, len(model.spec.classes), batch))

    return replace(model, look=look)


def oracle_prompts(points: Points, scale: float, classes: int, batch: TileBatch) -> Prompts:
    """Exactly these points as prompts. A point of unknown type (-1) has even probabilities of all classes."""
    count = len(points.xy)
    probs = np.full((count, classes), 1 / classes, np.float32)
    known = np.flatnonzero((points.types >= 0) & (points.types < classes))
    probs[known] = np.eye(classes, dtype=np.float32)[points.types[known]]
    # After rounding to 32 bits, a point on the far edge of the last pixel would lie outside.
    limit = np.nextafter(np.array(batch.rgb.shape[2:0:-1], np.float32), np.float32(0))
    xy_tile = np.minimum((points.xy * scale).astype(np.float32), limit)
    return Prompts(xy_tile, np.ones(count, np.float32), probs, np.zeros(count, np.int64))


def _inside(truth: Nuclei) -> Points:
    """One point inside each nucleus: the centre of mass of a bent one may lie outside of it."""
    points = truth.points
    if truth.labels is None or not len(points.xy):
        return points
    xy = points.xy.copy()
    for row in np.flatnonzero(_label_at(truth.labels, xy) != np.arange(1, len(xy) + 1)):
        y, x = np.nonzero(truth.labels == row + 1)
        nearest = np.argmin((x + 0.5 - xy[row, 0]) ** 2 + (y + 0.5 - xy[row, 1]) ** 2)
        xy[row] = x[nearest] + 0.5, y[nearest] + 0.5
    return replace(points, xy=xy)


def _label_at(labels: Any, xy: Any) -> Any:
    return labels[xy[:, 1].astype(np.int64), xy[:, 0].astype(np.int64)]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a model is scored."""

    oracle: bool = False
    """The annotated points are the prompts."""
    masks: bool = True
    """False judges the prompter alone, by its points."""
    classes: Mapping[str, str] | None = None
    """The model's class name -> the data set's, where they differ."""
    rule: StitchRule | None = None
    """When two outlines are the same nucleus."""
    mpp: float | None = None
    """Microns per pixel of images that do not state it; None: the model's."""


def evaluate_images(
    model: NucleiModel,
    images: Iterable[LabelledImage],
    scoring: Scoring | None = None,
    done: Callable[[ImageScore], None] | None = None,
) -> list[ImageScore]:
    """One score per image. An image of which only the foreground is known cannot be scored and is an error."""
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
    count = 0 if table is None else len(true_classes(image))
    if not scoring.masks:
        points = propose_points(model, image)
        return _score(image, _true_points(truth, image, model), points, table, count)
    predicted = predict_masks(model, _named_as(image, table, model), scoring.oracle, scoring.rule)
    score = _score(image, truth, predicted.painted(predicted.bottom_up), table, count)
    score = score.with_traced(truth, as_labels(predicted.outlines, predicted.scale, predicted.size))
    if not model.spec.as_published:
        return score
    types = _numbered(predicted.masks.types, table)[predicted.bottom_up]
    detected = _score(image, _true_points(truth, image, model), predicted.points, table, count)
    return replace(
        score,
        panoptic_by_class=tuple(
            predicted.panoptic_of(c, truth, types) for c in range(len(score.panoptic_by_class))
        ),
        detection=detected.detection,
        detection_by_class=detected.detection_by_class,
    )


def _true_points(truth: Nuclei, image: LabelledImage, model: NucleiModel) -> Nuclei:
    """What the model's points are compared with."""
    if truth.labels is None or not model.spec.as_published:
        return replace(truth, labels=None)
    return Nuclei(target_points(truth.labels, truth.points.types, len(true_classes(image)) > 1))


def _score(image: LabelledImage, truth: Nuclei, predicted: Nuclei, table: Int64 | None, count: int) -> ImageScore:
    predicted = with_types(predicted, _numbered(predicted.points.types, table))
    return score_image(truth, predicted, mpp=image.mpp, classes=count, id=image.id, group=image.group)


def _numbered(types: Int64, table: Int64 | None) -> Int64:
    """The data set's number of each of the model's classes; -1 where no classes are compared."""
    return np.full(len(types), -1, np.int64) if table is None else table[types]


def true_classes(image: LabelledImage) -> tuple[str, ...]:
    return image.classes if image.instances is not None else image.point_classes


def class_table(classes: tuple[str, ...], image: LabelledImage, mapping: Mapping[str, str]) -> Int64 | None:
    """The data set's number of each of the model's classes and, at the end, -1 for an unknown class.

    None where model and data set have no class in common; then only outlines are compared.
    """
    own = true_classes(image)
    names = [mapping.get(name, name) for name in classes]
    if len(own) < 2 or not set(names) & set(own):
        return None
    return np.array([own.index(name) if name in own else -1 for name in names] + [-1], np.int64)


def _named_as(image: LabelledImage, table: Int64 | None, model: NucleiModel) -> LabelledImage:
    """The same image with its types in the model's numbers, which the oracle passes on as classes."""
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
    """The number that selects the best checkpoint: PQ, or the F1 of detection where only points are known."""
    means: Means = image_means(scores)
    best = means.detection.f1 if np.isnan(means.pq) else means.pq
    return -1.0 if np.isnan(best) else float(best)
