"""SAM's mask decoder for many prompts that share one image, by the parameters of a `MaskDecoder`.

Only mask token 0 is read out (one output per prompt), but all four take part: they see one another in
self-attention, so leaving three out would change the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from wsi_nuc.models.sam.cross_attention import image_to_tokens, image_to_tokens_shared, tokens_to_image
from wsi_nuc.models.sam.sizes import Sam


@dataclass(frozen=True, slots=True)
class Decoded:
    """b images, p prompts each. `image`: b p tokens 256, the image as each prompt sees it; `filters`: b p 32, one
    linear filter per prompt on the upscaled image; `predicted_iou`: b p; `class_logits`: b p C or None."""

    image: torch.Tensor
    filters: torch.Tensor
    predicted_iou: torch.Tensor
    class_logits: torch.Tensor | None


def decode(sam: Sam, embedding: torch.Tensor, prompt_tokens: torch.Tensor) -> Decoded:
    """`embedding`: b x 256 x h x w; `prompt_tokens`: b x p x t x 256 from `embed_points`."""
    decoder: Any = sam.mask_decoder
    learned = [decoder.iou_token.weight, decoder.mask_tokens.weight]
    learned += [decoder.cls_token.weight] if sam.class_count else []
    fixed = torch.cat(learned)
    tokens = torch.cat([fixed.expand(*prompt_tokens.shape[:2], -1, -1), prompt_tokens], 2)
    no_mask: Any = sam.prompt_encoder.no_mask_embed
    image = embedding.flatten(2).transpose(1, 2) + no_mask.weight
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
