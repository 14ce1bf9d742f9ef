"""How good the present weights are: the validation images through the code of inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wsi_nuc.datasets.record import LabelledImage
from wsi_nuc.evaluation.evaluate import Scoring, evaluate_images, quality
from wsi_nuc.evaluation.protocol import image_means
from wsi_nuc.models.promptnucseg.build import assemble, spec_of
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.training.promptnucseg.config import Part, TrainConfig
from wsi_nuc.training.promptnucseg.supervision import judged
from wsi_nuc.training.ranks import Ranks


class Validation:
    """The segmentor alone is given the annotated points; the prompter, as long as there is no trained segmentor,
    is judged by its points."""

    def __init__(
        self, config: TrainConfig, part: Part, known: set[str], images: Sequence[LabelledImage], ranks: Ranks
    ) -> None:
        self._settings, self._ranks, self._part = config.settings(), ranks, part
        masks = part != "prompter" or "segmentor" in known
        self._scoring = Scoring(oracle=part == "segmentor", masks=masks)
        self._images = judged(part, images)

    def scores(self, net: PromptNucSegNet) -> dict[str, float]:
        """Means over the images; none where there is nothing to validate on."""
        if not self._images:
            return {}
        model = assemble(net, self._settings, str(self._ranks.device), spec_of(self._settings, ""))
        with torch.no_grad():
            mine = evaluate_images(model, self._ranks.share(self._images), self._scoring)
        scores = self._ranks.collect(mine)
        return image_means(scores).overall | {"quality": quality(scores)}
