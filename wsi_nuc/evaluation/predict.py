"""One labelled image through the very code of a run: the model's prompter and segmentor, tracing, stitching."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from wsi_nuc.datasets.images import pixels_at
from wsi_nuc.datasets.overlaps import compact
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.errors import UsageError
from wsi_nuc.evaluation.detection import Points
from wsi_nuc.evaluation.protocol import Nuclei, nuclei_of_labels
from wsi_nuc.inference.predict import predict
from wsi_nuc.models.base import Look, NucleiModel
from wsi_nuc.rings import Rings
from wsi_nuc.stitch import RegionCandidates, StitchGeometry, StitchRule, stitch
from wsi_nuc.types import Box, GridNuclei, Int64, NucleiTable, Prompts, Tile, TileBatch


def truth_of(image: LabelledImage, types: Int64 | None = None) -> Nuclei:
    """What is annotated; `types` replaces the classes (by the scorer's own numbers)."""
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
    """What the model finds, as labels in the image's own pixels. `oracle`: annotated points are the prompts."""
    return as_labels(*predict_table(model, image, oracle, rule), image.rgb.shape[:2])


def predict_table(
    model: NucleiModel, image: LabelledImage, oracle: bool = False, rule: StitchRule | None = None
) -> tuple[GridNuclei, float]:
    """What the model finds, in pixels of its resolution, and how many of them make one of the image's."""
    rgb, scale = pixels_at(image, model.spec.mpp)
    if oracle:
        model = with_oracle(model, truth_of(image), scale)
    height, width = rgb.shape[:2]
    box = Box(0, 0, width, height)
    found, own = predict(_one_image_a_call(model), TileBatch(rgb[None], (Tile(0, box, box),)))
    # Stitched as if the image at the model's resolution were a slide: its pixels are those of level 0.
    table = NucleiTable.framed(found)
    edge, spec = float(max(width, height) + 1), model.spec
    geometry = StitchGeometry(edge, float(spec.margin_px), float(spec.largest_nucleus_px + 1), edge)
    region = RegionCandidates((0.0, 0.0, edge, edge), table, own)
    kept = list(stitch([region], geometry, rule)) or [table]
    return GridNuclei.framed(NucleiTable.concat(kept)), scale


def propose_points(model: NucleiModel, image: LabelledImage) -> Nuclei:
    """The model's points alone, in the image's own pixels."""
    rgb, scale = pixels_at(image, model.spec.mpp)
    box = Box(0, 0, rgb.shape[1], rgb.shape[0])
    found = model.look(TileBatch(rgb[None], (Tile(0, box, box),))).prompts.get()
    types = found.class_probs.argmax(1).astype(np.int64)
    return Nuclei(Points(found.xy_tile.astype(np.float64) / scale, found.score.astype(np.float64), types))


def _one_image_a_call(model: NucleiModel) -> NucleiModel:
    """Images come in all sizes, so a batch is one of them; blank ones would only cost time."""
    return replace(model, spec=replace(model.spec, batch=1))


def as_labels(table: GridNuclei, scale: float, size: tuple[int, ...]) -> Nuclei:
    """As labels of an image of this height and width."""
    # The better one lies on top where two still overlap.
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
    """Exactly these points; types of -1 spread evenly over the classes."""
    count = len(points.xy)
    probs = np.full((count, classes), 1 / classes, np.float32)
    known = np.flatnonzero((points.types >= 0) & (points.types < classes))
    probs[known] = np.eye(classes, dtype=np.float32)[points.types[known]]
    # At half precision a point on the last pixel's far edge would lie outside.
    limit = np.nextafter(np.array(batch.rgb.shape[2:0:-1], np.float32), np.float32(0))
    xy_tile = np.minimum((points.xy * scale).astype(np.float32), limit)
    return Prompts(xy_tile, np.ones(count, np.float32), probs, np.zeros(count, np.int64))


def _inside(truth: Nuclei) -> Points:
    """One point a nucleus, inside it: a centre of mass may lie outside a bent one."""
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
