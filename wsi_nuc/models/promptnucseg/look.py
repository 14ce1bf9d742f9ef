"""What the networks see in one batch. The settings choose how points and masks are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wsi_nuc.models.base import Fetch, PromptedLook, Ready
from wsi_nuc.models.promptnucseg.embedder import PointEmbedder
from wsi_nuc.models.promptnucseg.net import PromptNucSegNet
from wsi_nuc.models.promptnucseg.parity import ParitySegmentor
from wsi_nuc.models.promptnucseg.prompter import NetPrompter, SharedPrompter
from wsi_nuc.models.promptnucseg.runner import Runner
from wsi_nuc.models.promptnucseg.segmentor import NetSegmentor
from wsi_nuc.models.promptnucseg.settings import UseSettings
from wsi_nuc.models.promptnucseg.whole import AveragingSegmentor
from wsi_nuc.models.promptnucseg.windows import WindowEncoder
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch


@dataclass(frozen=True, slots=True)
class Networks:
    """What all looks of a model share and none of them changes."""

    net: PromptNucSegNet
    runner: Runner
    use: UseSettings
    shared_encoder: bool
    """Whether points come from the segmentor's image embeddings."""
    classes: int


class PromptNucSegLook(PromptedLook):
    """Windows are encoded when points, masks or embeddings first need them, once for all looks at the batch."""

    def __init__(self, networks: Networks, batch: TileBatch) -> None:
        self._networks, self._batch = networks, batch
        use = networks.use
        multiple_px = use.multiple_px if use.mode == "parity" else 1
        self._encoder = WindowEncoder(networks.net.segmentor, networks.runner, batch.rgb, multiple_px)

    def used(self, use: UseSettings) -> PromptNucSegLook:
        """What the same networks, used in another way, see in the batch. Windows that are encoded stay so."""
        look = PromptNucSegLook(replace(self._networks, use=use), self._batch)
        look._encoder = self._encoder
        return look

    def _propose(self) -> Prompts:
        shared = self._networks
        if shared.shared_encoder:
            over_windows = SharedPrompter(shared.net.prompter, self._encoder, shared.runner, shared.use)
            return self._of_all_classes(over_windows.propose(self._batch.rgb))
        prompter = NetPrompter(shared.net.prompter, shared.runner, shared.use)
        return self._of_all_classes(prompter.propose(self._batch.rgb))

    def _of_all_classes(self, prompts: Prompts) -> Prompts:
        """The points of a class-agnostic prompter are as likely of any class; the segmentor will say which."""
        count, classes = self._networks.classes, prompts.class_probs.shape[1]
        if classes == count:
            return prompts
        return replace(prompts, class_probs=np.full((len(prompts.class_probs), count), 1 / count, np.float32))

    def masks(self, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        if not len(wanted):
            return Ready([])
        shared = self._networks
        kind = segmentor_for(shared.use)
        segmentor = kind(shared.net.segmentor, self._encoder, shared.runner, shared.use)
        return segmentor.segment(self._prompts, wanted)

    def embed(self, xy_tile: Float32, row: Int64) -> Fetch[Float32]:
        embedder = PointEmbedder(self._encoder, self._networks.runner, self._networks.use)
        return Ready(embedder.embed(xy_tile, row))


def segmentor_for(use: UseSettings) -> type[ParitySegmentor] | type[AveragingSegmentor] | type[NetSegmentor]:
    """How masks are made: as the authors' program does, averaged over views of the tile, or from each window."""
    if use.mode == "parity":
        return ParitySegmentor
    return AveragingSegmentor if use.tta else NetSegmentor
