"""The decoder's attention between a few prompt tokens and many image tokens, ordered so that little is computed.

An image holds 256 tokens, a prompt about 8, and a head is 16 of 256 channels wide. Projecting the image's tokens
costs 256 x 256 x 128 products; moving the projection to the side of the few tokens, q (K W) = (q W') K, costs
256 x 256 x (8 heads x 8 tokens). Both orders are the same product. Where all prompts of an image see the same
image tokens (the first layer), those are projected once an image instead.
"""

from __future__ import annotations

from typing import Any

import torch

# Shapes below: b images, p prompts of one image, t tokens of a prompt, i tokens of the image, n heads,
# d channels of a head, c channels.


def image_to_tokens_shared(
    attention: Any, image: torch.Tensor, value: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Prompt tokens look at an image that all prompts share: `image` (keys), `value` b i c; `tokens` b p t c."""
    query, heads = attention.q_proj(tokens), attention.num_heads
    key, seen = (_split(part, heads) for part in (attention.k_proj(image), attention.v_proj(value)))
    logits = torch.einsum("bptnd,bind->bnpti", _split(query, heads), key)
    mixed = torch.einsum("bnpti,bind->bptnd", _soft(logits, key.shape[-1]), seen)
    return _project(attention, mixed.flatten(-2))


def image_to_tokens(
    attention: Any, image: torch.Tensor, value: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """The same for image tokens that differ by prompt: `image` and `value` b p i c."""
    query = _split(attention.q_proj(tokens), attention.num_heads)
    # q . b_k is the same for every key of a softmax and drops out; the weights sum to 1, so b_v is added once.
    query_c = torch.einsum("bptnd,ndc->bpntc", query, _heads_first(attention.k_proj.weight, attention))
    weights = _soft(query_c.flatten(2, 3) @ image.transpose(-1, -2), query.shape[-1])
    mixed_c = (weights @ value).view_as(query_c)
    mixed = torch.einsum("bpntc,ndc->bptnd", mixed_c, _heads_first(attention.v_proj.weight, attention))
    return _project(attention, mixed.flatten(-2) + attention.v_proj.bias)


def tokens_to_image(attention: Any, image: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Image tokens look at prompt tokens. `image`: b i c where shared, else b p i c; `key`, `value` b p t c."""
    heads = attention.num_heads
    key = _split(attention.k_proj(key), heads)
    if image.ndim == 3:
        query = _split(attention.q_proj(image), heads)
        logits = torch.einsum("bptnd,bind->bpnti", key, query)
    else:
        key_c = torch.einsum("bptnd,ndc->bpntc", key, _heads_first(attention.q_proj.weight, attention))
        offset = torch.einsum("bptnd,nd->bpnt", key, attention.q_proj.bias.view(heads, -1))
        logits = torch.einsum("bpntc,bpic->bpnti", key_c, image) + offset[..., None]
    # Over the few tokens, but not along the last axis: there a softmax of 8 numbers at a time is slow.
    weights = _soft(logits, key.shape[-1], axis=3)
    value = _split(attention.v_proj(value), heads)
    out_weight = attention.out_proj.weight.view(-1, heads, value.shape[-1])
    value_c = torch.einsum("bptnd,cnd->bpntc", value, out_weight)
    mixed = weights.flatten(2, 3).transpose(-1, -2) @ value_c.flatten(2, 3)
    changed: torch.Tensor = mixed + attention.out_proj.bias
    return changed


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.view(*x.shape[:-1], heads, -1)


def _heads_first(weight: torch.Tensor, attention: Any) -> torch.Tensor:
    return weight.view(attention.num_heads, -1, weight.shape[-1])


def _soft(logits: torch.Tensor, dim: int, axis: int = -1) -> torch.Tensor:
    return torch.softmax(logits * dim**-0.5, axis).to(logits.dtype)


def _project(attention: Any, mixed: torch.Tensor) -> torch.Tensor:
    projected: torch.Tensor = attention.out_proj(mixed)
    return projected
