"""The network of InstaSAM over a convolutional encoder.

The nuclei decoder (a pyramid and heads) gives foreground, horizontal and vertical distances, and classes; it needs
no points. The prompted decoder is that of the compact network: it gives the mask of a nucleus for its dot, and
only training uses it. Both see the same adapted maps. Parts have the names of `compact.net`, so that a compact
model's weights are a start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.encoder import conv
from wsi_nuc.models.compact.net import Asked, MaskDecoder, Pyramid
from wsi_nuc.models.compact.segmentor import enlarged
from wsi_nuc.models.compact.settings import MASK_STRIDE
from wsi_nuc.models.device import full_precision
from wsi_nuc.models.instasam.encoder import AdaptedEncoder
from wsi_nuc.models.instasam.settings import MAPS, Settings


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at B x 3 x H x W pixels gives."""

    fine: torch.Tensor
    """B x (3 + F) at stride 2: foreground, the two distances, and the features from which masks are made."""
    classes: torch.Tensor
    """B x C logits at stride 4."""
    context: tuple[torch.Tensor, torch.Tensor]
    """Maps at strides 4 and 8, from which dots are embedded."""

    @property
    def maps(self) -> torch.Tensor:
        """B x 3 x H x W: logits of the foreground; horizontal and vertical distance, -1..1, from the nucleus's
        centre to its edge on that side."""
        return F.interpolate(self.fine[:, :MAPS].float(), scale_factor=MASK_STRIDE, mode="bilinear")

    @property
    def features(self) -> torch.Tensor:
        """B x F, from which masks are made."""
        return self.fine[:, MAPS:]


class InstaSamNet(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        sizes, self._side = settings.net, settings.window_px // MASK_STRIDE
        width, coarse, features = sizes.pyramid[0], sizes.pyramid[1], sizes.mask_channels
        self.encoder = AdaptedEncoder(settings.encoder, sizes, settings.adapter)
        self.pyramid = Pyramid(sizes)
        self.point_tower = conv(width, width)
        self.class_head = nn.Conv2d(width, len(settings.classes), 1)
        self.mask_tower = conv(width, width)
        self.mask_head = nn.Conv2d(width, 4 * (features + MAPS), 1)
        self.mask_detail = nn.Conv2d(sizes.stem, features + MAPS, 3, padding=1)
        self.decoder = MaskDecoder(width + coarse, sizes)
        self.forget_distances()

    @torch.no_grad()
    def forget_distances(self) -> None:
        """Let both distances start at 0 everywhere."""
        fold = len(self.mask_head.weight) // len(self.mask_detail.weight)
        for part, outputs in ((self.mask_head, fold), (self.mask_detail, 1)):
            part.weight[outputs : MAPS * outputs] = 0
            part.bias[outputs : MAPS * outputs] = 0  # type: ignore[index]

    def forward(self, pixels: torch.Tensor, adapted: bool = True) -> Seen:
        """`pixels`: B x 3 x H x W of `normalise`, H and W multiples of 32. `adapted`: with the adapters."""
        stem, *maps = self.encoder(pixels, adapted)
        near, coarse, _ = self.pyramid(maps)
        seen = F.relu(self.point_tower(near))
        fine = F.pixel_shuffle(self.mask_head(F.relu(self.mask_tower(near))), 2) + self.mask_detail(stem)
        with full_precision(pixels):
            classes = self.class_head(seen.float())
        return Seen(fine, classes, (seen, coarse))

    def masks(
        self, seen: Seen, asked: Asked, at_once: int = 0, wanted: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """N x s x s logits of the nuclei at the dots, and the first pixel (x, y) of each, N x 2. `at_once`: dots
        in one call; 0: as many as there are. `wanted`: the only dots whose masks are made, in ascending order."""
        parts = []
        asked = asked if wanted is None else asked.select(wanted)
        for rows in torch.arange(len(asked.row)).split(at_once or len(asked.row)):  # type: ignore[no-untyped-call]
            chosen = asked.select(rows)
            embedding = self.decoder.embedding(seen.context, chosen)
            logits, origin = self.decoder.window(embedding, seen.features, chosen, self._side)
            parts.append((enlarged(logits), origin * MASK_STRIDE))
        logits, origin = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return logits, origin

    def trained(self) -> dict[str, nn.Parameter]:
        """By name, what training changes. Everything else is frozen."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}
