"""From trained weights to the file that is given to others: tuned, calibrated, with the sizes that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import evaluate_images
from wsi_nuc.evaluation.predict import predict_table
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.compact.build import assemble, load_weights, save_net
from wsi_nuc.models.compact.net import CompactNet
from wsi_nuc.models.compact.settings import Settings, UseSettings
from wsi_nuc.models.compact.spec import spec_of
from wsi_nuc.models.domain import limits_of, looks_of
from wsi_nuc.models.weights import open_checkpoint
from wsi_nuc.quality.resolution import FEWEST_NUCLEI
from wsi_nuc.quality.sample import Sample
from wsi_nuc.rings import Rings
from wsi_nuc.training.compact.tune import tune

SIZE_SLACK = 1.4  # organs that are not among the training images differ more


def finished(
    trained: Path,
    out: Path,
    train: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    tuned_as: Path | None = None,
) -> UseSettings:
    """Write `out` and return how the network is used. `tuned_as`: a finished file whose cuts are taken, where the
    validation images were trained on; without it and without such images the settings stay as they are."""
    checkpoint = open_checkpoint(trained)
    settings = Settings.from_header(checkpoint.info.details)
    net = CompactNet(settings.net, len(settings.classes))
    load_weights(net, checkpoint.tensors())
    use = settings.use
    if tuned_as is not None:
        use = Settings.from_header(open_checkpoint(tuned_as).info.details).use
    elif validation:
        use = tune(net, settings, validation, "cpu")
    settings = replace(settings, use=use, domain=_domain(train))
    details = checkpoint.info.details
    about: dict[str, Any] = {
        "training_data": details["training_data"],
        "training_steps": details["metrics"].get("step"),
        "metrics": _metrics(net, settings, validation),
        "nucleus_um": _sizes(net, settings, [image for image in train if image.instances is not None]),
    }
    save_net(out, net, settings, about)
    return use


def _domain(images: Sequence[LabelledImage]) -> dict[str, tuple[float, float]]:
    """How the training images looked."""
    looks = (looks_of(image.rgb) for image in images)
    return limits_of([numbers for numbers in looks if numbers is not None])


def _metrics(net: CompactNet, settings: Settings, validation: Sequence[LabelledImage]) -> dict[str, float]:
    if not validation:
        return {}
    means = image_means(evaluate_images(assemble(net, settings, "cpu", spec_of(settings, "")), validation))
    classes = {f"f1_{n}": one.f1 for n, one in zip(settings.classes, means.detection_by_class, strict=False)}
    found = means.overall | classes
    return {name: round(float(value), 4) for name, value in found.items() if np.isfinite(value)}


def _sizes(net: CompactNet, settings: Settings, images: Sequence[LabelledImage]) -> tuple[float, float] | None:
    """Smallest and largest size, see `quality.sample`, of images whose resolution is known; None without any."""
    model, sizes = assemble(net, settings, "cpu", spec_of(settings, "")), []
    for image in images:
        nuclei, scale = predict_table(model, image)
        if image.mpp is None or len(nuclei) < FEWEST_NUCLEI:
            continue
        area_px, _ = Rings(nuclei.xy / scale, nuclei.offsets).areas_and_centres()
        sizes.append(Sample(image.mpp, 2 * np.sqrt(area_px / np.pi) * image.mpp).size_um)
    return (round(min(sizes) / SIZE_SLACK, 2), round(max(sizes) * SIZE_SLACK, 2)) if sizes else None
