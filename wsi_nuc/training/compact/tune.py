"""From trained weights to the file that is passed on.

Cuts and calibration are chosen on the validation images and on nothing else. The file also states how the training
images looked and which sizes of nuclei the network gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.datasets.overlaps import overlaps_of_labels
from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import as_labels, evaluate_images, predict_table, truth_of, without_types
from wsi_nuc.evaluation.protocol import image_means, mean, score_image
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.compact.build import assemble, net_of, save_net
from wsi_nuc.models.compact.segmentor import calibrated, logit
from wsi_nuc.models.compact.settings import Settings, UseSettings, spec_of
from wsi_nuc.models.compact.team import AnyNet
from wsi_nuc.models.domain import domain_of
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.nuclei import GridNuclei
from wsi_nuc.quality.resolution import FEWEST_NUCLEI, Sample
from wsi_nuc.rings import Rings
from wsi_nuc.types import Bool, Box, Float64

LEAST_THRESHOLD = 0.08
MASK_LOGITS = (-0.6, -0.3, 0.0, 0.3)
CUTS = tuple(np.round(np.arange(0.2, 0.65, 0.05), 2).tolist())
RIGHT_IOU = 0.5
SIZED_IMAGES = 150  # most images whose nuclei are measured, spread evenly

Predicted = tuple[LabelledImage, GridNuclei, float]  # an image, its nuclei, and the scale of `predict_table`
SIZE_SLACK = 1.4  # nuclei of organs that are not among the training images differ more in size


def tune(net: AnyNet, settings: Settings, sets: Sequence[Sequence[LabelledImage]], device: str) -> UseSettings:
    """The settings with the greatest mean quality of the sets of images. So a kind of tissue counts the same,
    however many images show it."""
    tried: list[tuple[float, UseSettings]] = []
    for mask_logit in MASK_LOGITS:
        loose = replace(settings.use, threshold=LEAST_THRESHOLD, least_score=0.0, calibration=(1.0, 0.0, 0.0))
        use = replace(loose, mask_logit=mask_logit)
        predictions = [look_at(net, replace(settings, use=use), images, device) for images in sets]
        weights = calibrate([predicted for of_set in predictions for predicted in of_set])
        for cut in CUTS:
            chosen = replace(use, calibration=weights, least_score=cut)
            tried.append((mean(_quality(of_set, chosen) for of_set in predictions), chosen))
    return max(tried, key=lambda scored_use: scored_use[0])[1]


def look_at(net: AnyNet, settings: Settings, images: Sequence[LabelledImage], device: str) -> list[Predicted]:
    model = assemble(net, settings, device, spec_of(settings, ""))
    known = (replace(image, mpp=image.mpp or settings.mpp) for image in images)
    return [(image, *predict_table(model, image)) for image in known]


def calibrate(predictions: Sequence[Predicted]) -> tuple[float, float, float]:
    """Logistic regression, on both scores, of whether an annotated nucleus is met with an IoU over one half.
    Images without outlines do not tell."""
    outlined = [predicted for predicted in predictions if predicted[0].instances is not None]
    features, right = (np.concatenate(parts) for parts in zip(*map(_samples, outlined), strict=True))
    weights = logistic(features, right)
    return (round(float(weights[0]), 4), round(float(weights[1]), 4), round(float(weights[2]), 4))


def logistic(features: Float64, right: Bool, steps: int = 50) -> Float64:
    """One weight per column, by Newton's method with a little damping."""
    weights = np.zeros(features.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (right - p) - 1e-3 * weights
        curve = (features * (p * (1 - p))[:, None]).T @ features + 1e-3 * np.eye(len(weights))
        change = np.linalg.solve(curve, slope)
        weights += change
        if np.abs(change).max() < 1e-8:
            break
    return weights


def scored(table: GridNuclei, use: UseSettings) -> GridNuclei:
    """The table as these settings would give it: with their scores, and without the rows that they leave out."""
    score = calibrated(table.prompt_score, table.predicted_iou, use.calibration)
    return replace(table, score=score).select(score >= use.least_score)


def _samples(predicted: Predicted) -> tuple[Float64, Bool]:
    image, table, scale = predicted
    table = table.select(np.argsort(table.score, kind="stable"))
    truth = truth_of(image).labels
    features = np.column_stack([logit(table.prompt_score), logit(table.predicted_iou), np.ones(len(table))])
    assert truth is not None
    rings = Rings(table.xy / scale, table.offsets)
    labels = rings.fill(np.arange(1, len(rings) + 1), Box(0, 0, truth.shape[1], truth.shape[0]))
    overlaps = overlaps_of_labels(truth, labels)
    best = np.zeros(len(table))
    np.maximum.at(best, overlaps.predicted_ids[overlaps.predicted] - 1, overlaps.iou)
    return features, best > RIGHT_IOU


def _quality(predictions: Sequence[Predicted], use: UseSettings) -> float:
    """The mean of PQ and AJI over a set of images, or the F1 of detection where only points are annotated."""
    scores = []
    for image, table, scale in predictions:
        nuclei = as_labels(scored(table, use), scale, image.rgb.shape[:2])
        truth = without_types(truth_of(image))
        scores.append(score_image(truth, without_types(nuclei), mpp=image.mpp, classes=0))
    means = image_means(scores)
    return means.detection.f1 if np.isnan(means.pq) else (means.pq + means.aji) / 2


def finished(
    trained: Path,
    out: Path,
    train: Sequence[LabelledImage],
    sized: Sequence[LabelledImage],
    validation: Sequence[Sequence[LabelledImage]],
    tuned_as: Path | None = None,
    device: str = "cpu",
) -> UseSettings:
    """Write `out` and return how the network is used.

    `sized`: those of the training images that show how large nuclei are. `validation`: sets of images, each of a
    kind of tissue. `tuned_as`: a finished file whose cuts are used, for a
    training on all images. Without it all sets together choose the cuts; if none of them has outlines, the
    settings stay as they are.
    """
    checkpoint = open_checkpoint(trained)
    settings = Settings.from_header(checkpoint.info.details)
    net = net_of(checkpoint)
    use = settings.use
    if tuned_as is not None:
        use = Settings.from_header(open_checkpoint(tuned_as).info.details).use
    elif any(image.instances is not None for images in validation for image in images):
        use = tune(net, settings, validation, device)
    settings = replace(settings, use=use, domain=domain_of(image.rgb for image in train))
    details = checkpoint.info.details
    about: dict[str, Any] = {
        "training_data": details["training_data"],
        "training_steps": details["metrics"].get("step"),
        "metrics": _metrics_of_sets(net, settings, validation, device),
        "nucleus_um": _sizes(net, settings, [image for image in sized if image.instances is not None], device),
    }
    save_net(out, net, settings, about)
    return use


def _metrics_of_sets(
    net: AnyNet, settings: Settings, sets: Sequence[Sequence[LabelledImage]], device: str
) -> dict[str, float]:
    """The means over each set. Where there are several, their names come first, such as `consep_pq`."""
    return {
        f"{images[0].source}_{name}" if len(sets) > 1 else name: value
        for images in sets
        for name, value in metrics_of(net, settings, images, device).items()
    }


def metrics_of(
    net: AnyNet, settings: Settings, validation: Sequence[LabelledImage], device: str = "cpu"
) -> dict[str, float]:
    return scores_of(assemble(net, settings, device, spec_of(settings, "")), validation)


def scores_of(model: NucleiModel, validation: Sequence[LabelledImage]) -> dict[str, float]:
    """Means over the validation images, and the F1 of each class if they have classes; nothing without images."""
    if not validation:
        return {}
    means = image_means(evaluate_images(model, validation))
    typed = any((kinds >= 0).any() for i in validation for kinds in (i.types, i.point_types) if kinds is not None)
    by_class = zip(model.spec.classes, means.detection_by_class if typed else (), strict=False)
    numbers = means.overall | {f"f1_{name}": detection.f1 for name, detection in by_class}
    return {name: round(float(value), 4) for name, value in numbers.items() if np.isfinite(value)}


def _sizes(
    net: AnyNet, settings: Settings, images: Sequence[LabelledImage], device: str
) -> tuple[float, float] | None:
    """Smallest and largest size (`Sample.size_um` of room `quality`) on images whose resolution is known; None
    without any."""
    model, sizes = assemble(net, settings, device, spec_of(settings, "")), []
    for image in images[:: -(-len(images) // SIZED_IMAGES) or 1]:
        nuclei, scale = predict_table(model, image)
        if image.mpp is None or len(nuclei) < FEWEST_NUCLEI:
            continue
        area_px, _ = Rings(nuclei.xy / scale, nuclei.offsets).areas_and_centres()
        sizes.append(Sample(image.mpp, 2 * np.sqrt(area_px / np.pi) * image.mpp).size_um)
    return (round(min(sizes) / SIZE_SLACK, 2), round(max(sizes) * SIZE_SLACK, 2)) if sizes else None
