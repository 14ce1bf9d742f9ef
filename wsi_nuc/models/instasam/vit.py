"""The network of InstaSAM over SAM's vision transformer, as in the paper.

SAM is frozen. Adapters (Eq. 1) change what its blocks see. SAM's own decoder gives the mask of a nucleus for its
dot, and only training uses it. The nuclei decoder gives foreground, horizontal and vertical distances, and
classes, without points.

SAM sees windows of 256 px, which overlap in larger images. Two rules:

* in an overlap the maps of the windows are mixed, with weights that fall linearly towards a window's edge;
* a dot's mask is made in the window in which the dot lies most central.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from wsi_nuc.models.compact.net import Asked
from wsi_nuc.models.device import full_precision
from wsi_nuc.models.instasam.encoder import high_frequencies
from wsi_nuc.models.instasam.settings import MAPS, OVERLAP_PX, AdapterSettings, Settings
from wsi_nuc.models.promptnucseg.settings import WINDOW_PX
from wsi_nuc.models.promptnucseg.windows import Layout, Window, window_starts
from wsi_nuc.models.sam.decoder import (
    LOGITS_PER_TOKEN,
    NEGATIVE,
    NO_POINT,
    POSITIVE,
    TOKEN_PX,
    decode,
    embed_points,
    enlarge,
    first_tokens,
    near_logits,
    two_way,
)
from wsi_nuc.models.sam.model import PATCH_PX, SIZES, Sam, encode
from wsi_nuc.types import Float32, Int64

STRIDE = TOKEN_PX // LOGITS_PER_TOKEN
NEGATIVES = 4
"""The paper: "one positive point concatenated to four randomly selected negative points from other nuclei"."""
WINDOWS_PER_CALL = 32


class Adapters(nn.Module):
    """What is added to the tokens before each block, ``up(GELU(tune_i(F_hfc + F_pe)))`` (Eq. 1). `up` is shared.
    It starts as zero: nothing is changed."""

    def __init__(self, width: int, depth: int, settings: AdapterSettings) -> None:
        super().__init__()
        channels = settings.channels
        self._share = settings.frequencies
        self.embed = nn.Linear(width, channels)
        self.high = nn.Conv2d(3, channels, PATCH_PX, PATCH_PX)
        self.tune = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth))
        self.up = nn.Linear(channels, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, pixels: torch.Tensor, patches: torch.Tensor) -> list[torch.Tensor]:
        """`patches`: the patch embedding of the `pixels`, B x h x w x width; so is each of the results."""
        high = self.high(high_frequencies(pixels, self._share)).permute(0, 2, 3, 1)
        both = high + self.embed(patches)
        return [self.up(F.gelu(tune(both))) for tune in self.tune]


class NucleiDecoder(nn.Module):
    """SAM's mask decoder with one token and one MLP for each map in place of those of its masks. All maps share
    the rest. It starts with SAM's weights, except that distances and classes start as 0."""

    def __init__(self, decoder: Any, class_count: int) -> None:
        super().__init__()
        self.transformer = deepcopy(decoder.transformer)
        self.output_upscaling = deepcopy(decoder.output_upscaling)
        token, mlp = decoder.mask_tokens.weight[:1].detach(), decoder.output_hypernetworks_mlps[0]
        self.map_tokens = nn.Parameter(token.repeat(MAPS, 1))
        self.map_mlps = nn.ModuleList([deepcopy(mlp), *(_without_output(mlp) for _ in range(MAPS - 1))])
        self.class_tokens = nn.Parameter(token.repeat(class_count, 1))
        self.class_mlps = nn.ModuleList(_without_output(mlp) for _ in range(class_count))

    def forward(self, image: torch.Tensor, image_pe: torch.Tensor) -> torch.Tensor:
        """`image`: b x tokens x 256 -> b x (MAPS + classes) x 4h x 4w."""
        tokens = torch.cat([self.map_tokens, self.class_tokens]).expand(len(image), 1, -1, -1)
        tokens, seen = two_way(self.transformer, image, image_pe, tokens)
        mlps = [*self.map_mlps, *self.class_mlps]
        filters = torch.stack([mlp(tokens[:, 0, k]) for k, mlp in enumerate(mlps)], 1)
        side = round(seen.shape[2] ** 0.5)
        upscaled = self.output_upscaling(seen[:, 0].transpose(1, 2).reshape(len(image), -1, side, side))
        with full_precision(upscaled):
            return torch.einsum("nchw,nkc->nkhw", upscaled.float(), filters.float())


def _without_output(mlp: Any) -> Any:
    made = deepcopy(mlp)
    nn.init.zeros_(made.layers[-1].weight)
    nn.init.zeros_(made.layers[-1].bias)
    return made


@dataclass(frozen=True, slots=True)
class VitSeen:
    """What one look at B x 3 x H x W pixels gives."""

    coarse: torch.Tensor
    """B x (MAPS + C) at stride 4: foreground, the two distances, and logits of the classes."""
    embedding: torch.Tensor
    """W x 256 x 16 x 16: what the encoder says of each window."""
    layout: Layout
    windows: Sequence[Window]
    """W."""

    @property
    def maps(self) -> torch.Tensor:
        """B x 3 x H x W: logits of the foreground; horizontal and vertical distance, -1..1."""
        return F.interpolate(self.coarse[:, :MAPS].float(), scale_factor=STRIDE, mode="bilinear")

    @property
    def classes(self) -> torch.Tensor:
        """B x C logits at stride 4."""
        return self.coarse[:, MAPS:]


class VitNet(nn.Module):
    nuclei: NucleiDecoder

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        size = SIZES[settings.encoder]
        self.sam = Sam(settings.encoder, WINDOW_PX).requires_grad_(False)
        self.adapters = Adapters(size.width, size.depth, settings.adapter)
        self.start_nuclei_decoder()

    def start_nuclei_decoder(self) -> None:
        """Make the nuclei decoder from SAM's, as its weights are now."""
        made = NucleiDecoder(self.sam.mask_decoder, len(self._settings.classes)).requires_grad_(True)
        if self._settings.decoder == "tokens":
            made.transformer.requires_grad_(False)
            made.output_upscaling.requires_grad_(False)
        self.nuclei = made

    def forward(self, pixels: torch.Tensor, adapted: bool = True) -> VitSeen:
        """`pixels`: B x 3 x H x W of `normalise`, H and W multiples of 32. `adapted`: with the adapters."""
        batch, _, height, width = pixels.shape
        below, beside = max(0, WINDOW_PX - height), max(0, WINDOW_PX - width)
        pixels = F.pad(pixels, (0, beside, 0, below), mode="replicate")
        size = (height + below, width + beside)
        y, x = (window_starts(length, 0, OVERLAP_PX) for length in size)
        layout = Layout(x, y)
        windows = [window for row in range(batch) for window in layout.windows(row)]
        cut = torch.stack([pixels[w.row, :, w.y0 : w.y0 + WINDOW_PX, w.x0 : w.x0 + WINDOW_PX] for w in windows])
        calls = [self._look(part, adapted) for part in cut.split(WINDOWS_PER_CALL)]  # type: ignore[no-untyped-call]
        embedding, maps = (torch.cat(parts) for parts in zip(*calls, strict=True))
        coarse = mixed(maps, windows, (batch, size[0] // STRIDE, size[1] // STRIDE))
        return VitSeen(coarse[:, :, : height // STRIDE, : width // STRIDE], embedding, layout, windows)

    def _look(self, pixels: torch.Tensor, adapted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings and maps of windows."""
        changes = partial(self.adapters, pixels) if adapted else None
        embedding = encode(self.sam.image_encoder, pixels, changes)
        no_mask: Any = self.sam.prompt_encoder.no_mask_embed
        image = embedding.flatten(2).transpose(1, 2) + no_mask.weight
        return embedding, self.nuclei(image, self.sam.image_pe())

    def masks(
        self, seen: VitSeen, asked: Asked, at_once: int = 0, wanted: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """N x s x s logits of the nuclei at the dots, and the first pixel (x, y) of each, N x 2. The other dots of
        a window, wanted or not, are where the negative points come from. `at_once`: dots in one call; 0: as many
        as there are. `wanted`: the only dots whose masks are made, in ascending order."""
        row, xy = asked.row.cpu().numpy(), asked.xy.detach().cpu().numpy()
        owner, asked_for = seen.layout.owner(xy), np.full(len(row), wanted is None)
        if wanted is not None:
            asked_for[wanted.cpu().numpy()] = True
        parts, order = [], []
        for window, embedding in zip(seen.windows, seen.embedding, strict=True):
            corner = np.array([window.x0, window.y0])
            own = np.flatnonzero(asked_for & (row == window.row) & (owner == corner).all(1))
            if not len(own):
                continue
            inside = (xy >= corner) & (xy < corner + WINDOW_PX)
            others = np.flatnonzero((row == window.row) & inside.all(1))
            points, label = prompts_of(xy - corner, own, others)
            order.append(own)
            for first in range(0, len(own), at_once or len(own)):
                chosen = slice(first, first + (at_once or len(own)))
                logits, origin = self._decoded(embedding, points[chosen], label[chosen])
                parts.append((logits, origin + torch.from_numpy(corner).to(origin.device)))
        back = torch.from_numpy(np.concatenate(order).argsort()).to(asked.row.device)
        logits, origins = (torch.cat(tensors)[back] for tensors in zip(*parts, strict=True))
        return logits, origins

    def _decoded(self, embedding: torch.Tensor, xy: Float32, label: Int64) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for dots of one window, in its pixels."""
        points, kinds = (torch.from_numpy(array).to(embedding.device) for array in (xy, label))
        decoded = decode(self.sam, embedding[None], embed_points(self.sam.prompt_encoder, points, kinds)[None])
        side = self._settings.window_px // TOKEN_PX
        first = first_tokens(points[:, 0], WINDOW_PX // TOKEN_PX, side)
        logits = near_logits(self.sam.mask_decoder, decoded.image[0], decoded.filters[0], first, side)
        return enlarge(logits), first * TOKEN_PX

    def trained(self) -> dict[str, nn.Parameter]:
        """By name, what training changes. Everything else is frozen."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}


def prompts_of(xy: Float32, own: Int64, others: Int64) -> tuple[Float32, Int64]:
    """n x 5 x 2 points and n x 5 labels for the n dots `own`: the dot itself, and up to four of the `others` drawn
    at random. `others` holds `own` too, in ascending order, and the draw of a dot follows from it alone."""
    chance = np.random.default_rng(0).random((len(others), len(others)))[np.searchsorted(others, own)]
    chance[own[:, None] == others] = 2.0
    order = chance.argsort(1)[:, :NEGATIVES]
    members = np.full((len(own), 1 + NEGATIVES), -1, np.int64)
    members[:, 0] = own
    drawn = np.where(np.take_along_axis(chance, order, 1) < 1, others[order], -1)
    members[:, 1 : 1 + drawn.shape[1]] = drawn
    points = np.where(members[..., None] >= 0, xy[members], 0).astype(np.float32)
    label = np.where(members >= 0, NEGATIVE, NO_POINT)
    label[:, 0] = POSITIVE
    return points, label


def mixed(maps: torch.Tensor, windows: Sequence[Window], shape: tuple[int, int, int]) -> torch.Tensor:
    """Maps of the windows (W x K x s x s) -> maps of the images, B x K x h x w for a `shape` of B, h, w."""
    batch, height, width = shape
    side, ramp = maps.shape[2], OVERLAP_PX // STRIDE
    if len(windows) == batch:
        return maps
    steps = torch.arange(side, device=maps.device) + 0.5
    edge = torch.minimum(steps, side - steps).clamp(max=ramp)
    weight = edge[:, None] * edge
    total, out = maps.new_zeros(batch, 1, height, width), maps.new_zeros(batch, maps.shape[1], height, width)
    for of_window, window in zip(maps, windows, strict=True):
        y, x = window.y0 // STRIDE, window.x0 // STRIDE
        out[window.row, :, y : y + side, x : x + side] += of_window * weight
        total[window.row, :, y : y + side, x : x + side] += weight
    return out / total
