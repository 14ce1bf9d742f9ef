"""From a batch to its losses: the one forward pass that training differentiates."""

from __future__ import annotations

import torch
from torch import nn

from wsi_nuc.models.promptnucseg.net import PromptNucSegNet, Proposed
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX
from wsi_nuc.models.sam.decoder import Decoded, decode
from wsi_nuc.models.sam.encoder import encode, normalise
from wsi_nuc.models.sam.masks import enlarge, full_logits
from wsi_nuc.models.sam.prompts import embed_points
from wsi_nuc.training.promptnucseg.batches import Batch
from wsi_nuc.training.promptnucseg.config import LossConfig, Part
from wsi_nuc.training.promptnucseg.losses import Losses, focal_classes, prompter_losses, segmentor_losses

# Of SAM's four masks only the first is used; the tokens of the others still take part in self-attention.
UNUSED = ("segmentor.prompt_encoder.", "segmentor.mask_decoder.output_hypernetworks_mlps.")
USED = "segmentor.mask_decoder.output_hypernetworks_mlps.0."


class LossNet(nn.Module):
    """Both networks and what is asked of them in this stage. A module, so that several GPUs can share the work."""

    def __init__(self, net: PromptNucSegNet, part: Part, shared_encoder: bool, loss: LossConfig) -> None:
        super().__init__()
        self.net, self.loss = net, loss
        self._prompts, self._masks, self._shared = part != "segmentor", part != "prompter", shared_encoder
        prefixes = tuple({"prompter": "prompter.", "segmentor": "segmentor.", "together": ""}[part].split())
        for name, parameter in net.named_parameters():
            frozen = name.startswith(UNUSED) and not name.startswith(USED)
            parameter.requires_grad_(name.startswith(prefixes or ("",)) and not frozen)

    def forward(self, batch: Batch) -> Losses:
        pixels = normalise(batch.rgb)
        losses: Losses = {}
        embedding = encode(self.net.segmentor.image_encoder, pixels) if self._masks else None
        if self._masks and embedding is not None:
            losses |= self._segment(embedding, batch)
        if self._prompts:
            losses |= self._propose(pixels if embedding is None or not self._shared else embedding, batch)
        return losses

    def _propose(self, source: torch.Tensor, batch: Batch) -> Losses:
        proposed: Proposed = self.net.prompter(source, (WINDOW_PX, WINDOW_PX), with_mask=self.loss.mask > 0)
        return prompter_losses(proposed, self.net.prompter.space_px, batch, self.loss)

    def _segment(self, embedding: torch.Tensor, batch: Batch) -> Losses:
        sam = self.net.segmentor
        tokens = embed_points(sam.prompt_encoder, batch.prompt_xy, batch.prompt_label)
        decoded = decode(sam, embedding, tokens)
        real = batch.prompt_id.flatten() > 0
        image, filters = decoded.image.flatten(0, 1)[real], decoded.filters.flatten(0, 1)[real]
        row = torch.arange(len(batch.ids), device=real.device)[:, None].expand_as(batch.prompt_id).flatten()[real]
        target = batch.instances[row] == batch.prompt_id.flatten()[real][:, None, None]
        logits = enlarge(full_logits(sam.mask_decoder, image, filters)) if len(image) else filters * 0
        losses = segmentor_losses(logits, decoded.predicted_iou.flatten()[real], target, self.loss.omega)
        return losses | self._classify(decoded, batch, real)

    def _classify(self, decoded: Decoded, batch: Batch, real: torch.Tensor) -> Losses:
        if decoded.class_logits is None:
            return {}
        types = batch.prompt_type.flatten()
        known = real & (types >= 0)
        rows = decoded.class_logits.flatten(0, 1)[known].float()
        loss = focal_classes(rows, types[known]).mean() if len(rows) else decoded.class_logits.sum() * 0
        return {"token": self.loss.classes * loss}
