"""SAM's prompt encoder and mask decoder for many prompts that share an image: points to tokens to mask logits.

The functions use the parameters of segment-anything's `PromptEncoder` and `MaskDecoder`. Only mask token 0 is read
out (one output per prompt), but all four take part: they see each other in self-attention, so leaving three out
would change the result.

Mask logits are made of the whole input or of the prompt's neighbourhood only. Both transposed convolutions have
stride 2 and kernel 2, and the norm between them is per pixel, so every image token is upscaled on its own. The
4 x 4 logits of a token near the prompt are therefore the same whether or not the other tokens are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from wsi_nuc.models.device import full_precision
from wsi_nuc.models.sam.attention import image_to_tokens, image_to_tokens_shared, tokens_to_image
from wsi_nuc.models.sam.model import EMBEDDING, Sam

POSITIVE, NEGATIVE, NO_POINT = 1, 0, -1
LOGITS_PER_TOKEN = 4  # along each side
TOKEN_PX = 16


def embed_points(encoder: Any, xy: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """... x N x 2 points and ... x N labels (POSITIVE, NEGATIVE or NO_POINT) -> ... x (N + 1) x 256 tokens.

    `xy` counts from the corner of the first pixel, in pixels of the encoder's input (segment-anything counts from
    that pixel's centre). The last token is the end mark, a NO_POINT.
    """
    xy = torch.cat([xy, xy.new_zeros(*xy.shape[:-2], 1, 2)], -2)
    label = torch.cat([label, label.new_full((*label.shape[:-1], 1), NO_POINT)], -1)[..., None]
    height, width = encoder.input_image_size
    # In bf16, places would be off by a third of a pixel.
    with full_precision(xy):
        place = encoder.pe_layer._pe_encoding(xy / xy.new_tensor([width, height]))
    place = torch.where(label == NO_POINT, torch.zeros_like(place), place)
    kinds = [encoder.not_a_point_embed.weight[0], *(kind.weight[0] for kind in encoder.point_embeddings[:2])]
    return place + torch.stack(kinds)[label[..., 0].long() + 1]


def full_logits(decoder: Any, image: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """n x tokens x 256 and n x 32 -> n x 4h x 4w logits of the whole (square) input, a quarter of its pixels."""
    side = round(image.shape[1] ** 0.5)
    return _logits(decoder, image.transpose(1, 2).reshape(len(image), -1, side, side), filters)


def near_logits(
    decoder: Any, image: torch.Tensor, filters: torch.Tensor, first: torch.Tensor, side: int
) -> torch.Tensor:
    """The same for `side` x `side` tokens from token `first` (n x 2 int64, column and row) of each prompt."""
    grid = round(image.shape[1] ** 0.5)
    steps = torch.arange(side, device=image.device)
    index = (first[:, 1, None] + steps)[:, :, None] * grid + (first[:, 0, None] + steps)[:, None, :]
    rows = torch.arange(len(image), device=image.device)[:, None]
    near = image[rows, index.flatten(1)].transpose(1, 2).reshape(len(image), -1, side, side)
    return _logits(decoder, near, filters)


def first_tokens(xy: torch.Tensor, grid: int, side: int) -> torch.Tensor:
    """n x 2 int64: where the neighbourhood of `side` tokens around each point (n x 2 pixels) begins. It is kept
    inside the grid."""
    return ((xy / TOKEN_PX).floor().long() - side // 2).clamp(0, grid - side)


def enlarge(logits: torch.Tensor) -> torch.Tensor:
    """n x h x w logits -> n x 4h x 4w at the resolution of the input, bilinear as the published method does."""
    scale = TOKEN_PX // LOGITS_PER_TOKEN
    return F.interpolate(logits[:, None].float(), scale_factor=scale, mode="bilinear", align_corners=False)[:, 0]


def touches_edge(logits: torch.Tensor, first: torch.Tensor, grid: int, mask_logit: float = 0.0) -> torch.Tensor:
    """n bool: whether the mask reaches an edge of the neighbourhood that is not an edge of the input."""
    side = logits.shape[-1] // LOGITS_PER_TOKEN
    inside = logits > mask_logit
    low, high = first > 0, first + side < grid
    return (
        (inside[:, :, 0].any(1) & low[:, 0])
        | (inside[:, :, -1].any(1) & high[:, 0])
        | (inside[:, 0].any(1) & low[:, 1])
        | (inside[:, -1].any(1) & high[:, 1])
    )


def _logits(decoder: Any, image: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    upscaled = decoder.output_upscaling(image)
    return torch.einsum("nchw,nc->nhw", upscaled, filters.to(upscaled.dtype))


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder gives for b images with p prompts each."""

    image: torch.Tensor
    """b x p x tokens x 256: the image as each prompt sees it."""
    filters: torch.Tensor
    """b x p x 32: one linear filter per prompt on the upscaled image."""
    predicted_iou: torch.Tensor
    """b x p."""
    class_logits: torch.Tensor | None
    """b x p x C; None without the [cls] token."""


def decode(sam: Sam, embedding: torch.Tensor, prompt_tokens: torch.Tensor) -> Decoded:
    """`embedding`: b x C x h x w, the first 256 channels of which are the image's tokens; `prompt_tokens`: b x p x
    t x 256 from `embed_points`."""
    decoder: Any = sam.mask_decoder
    learned = [decoder.iou_token.weight, decoder.mask_tokens.weight]
    learned += [decoder.cls_token.weight] if sam.class_count else []
    fixed = torch.cat(learned)
    tokens = torch.cat([fixed.expand(*prompt_tokens.shape[:2], -1, -1), prompt_tokens], 2)
    no_mask: Any = sam.prompt_encoder.no_mask_embed
    image = embedding[:, :EMBEDDING].flatten(2).transpose(1, 2) + no_mask.weight
    tokens, image = two_way(decoder.transformer, image, sam.image_pe(), tokens)
    return Decoded(
        image=image,
        filters=decoder.output_hypernetworks_mlps[0](tokens[:, :, 1]),
        predicted_iou=decoder.iou_prediction_head(tokens[:, :, 0])[..., 0],
        class_logits=decoder.cls_head(tokens[:, :, len(fixed) - 1]) if sam.class_count else None,
    )


def two_way(
    transformer: Any, image: torch.Tensor, image_pe: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`image` b i c, `image_pe` 1 i c, `tokens` b p t c -> tokens b p t c, image b p i c."""
    place, queries = tokens, tokens
    for layer in transformer.layers:
        queries = _self_attention(layer, queries, place)
        look = image_to_tokens_shared if image.ndim == 3 else image_to_tokens
        seen = look(layer.cross_attn_token_to_image, image + image_pe, image, queries + place)
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))
        change = tokens_to_image(layer.cross_attn_image_to_token, image + image_pe, queries + place, queries)
        image = layer.norm4((image[:, None] if image.ndim == 3 else image) + change)
    seen = image_to_tokens(transformer.final_attn_token_to_image, image + image_pe, image, queries + place)
    return transformer.norm_final_attn(queries + seen), image


def _self_attention(layer: Any, queries: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    flat, flat_place = queries.flatten(0, 1), place.flatten(0, 1)
    if layer.skip_first_layer_pe:
        flat = layer.self_attn(q=flat, k=flat, v=flat)
    else:
        with_place = flat + flat_place
        flat = flat + layer.self_attn(q=with_place, k=with_place, v=flat)
    normed: torch.Tensor = layer.norm1(flat)
    return normed.view_as(queries)
