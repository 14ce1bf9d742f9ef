"""The cuts of a trained model, chosen on the validation images and on nothing else.

They are the least probability of a point, the distance within which two points are one, the level of the masks,
and whether the region mask drops points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_image, quality
from wsi_nuc.models.base import NucleiModel
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.look import PromptNucSegLook
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.settings import Settings, UseSettings
from wsi_nuc.training.compact.tune import MASK_LOGITS
from wsi_nuc.types import TileBatch

# One key after the other, each from the best values of those before. The first comes again at the end, since it
# depends on the others.
Tried = tuple[tuple[str, tuple[Any, ...]], ...]
TRIED: Tried = (
    ("threshold", (0.2, 0.3, 0.4, 0.5, 0.6)),
    ("mask_filter", (True, False)),
    ("nms_radius_px", (4.0, 6.0, 8.0, 10.0, 12.0)),
    ("mask_logit", MASK_LOGITS),
    ("threshold", (0.15, 0.25, 0.35, 0.45, 0.55)),
)


@torch.no_grad()
def tune(
    net: PromptNucSegNet,
    settings: Settings,
    images: Sequence[LabelledImage],
    device: str,
    tried: Tried = TRIED,
) -> UseSettings:
    """The settings of use with the greatest mean PQ over the images, all of which have outlines."""
    first = replace(settings.use, **{tried[0][0]: tried[0][1][0]})
    models = [_remembering(assemble(net, settings, device, spec_of(settings, ""))) for _ in images]

    def pq(use: UseSettings) -> float:
        pairs = zip(models, images, strict=True)
        return quality([evaluate_image(model(use), image, Scoring()) for model, image in pairs])

    best, reached = first, pq(first)
    for key, values in tried:
        for value in values:
            use = replace(best, **{key: value})
            if use != best and (scored := pq(use)) > reached:
                best, reached = use, scored
    return best


def _remembering(model: NucleiModel) -> Callable[[UseSettings], NucleiModel]:
    """From settings of use to the model used so on one image, whose windows are encoded only once."""
    known: list[PromptNucSegLook] = []

    def used(use: UseSettings) -> NucleiModel:
        def look(batch: TileBatch) -> PromptNucSegLook:
            if not known:
                known.append(model.look(batch))  # type: ignore[arg-type]
            return known[0].used(use)

        return replace(model, look=look)

    return used


def told(use: UseSettings) -> str:
    """The cuts in words, for the user."""
    points = "more probable than background" if use.threshold is None else f"probability {use.threshold:g}"
    region = "with" if use.mask_filter else "without"
    return f"cuts: {points}, {region} the region mask, NMS {use.nms_radius_px:g} px, mask level {use.mask_logit:g}"
