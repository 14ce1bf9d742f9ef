"""Attention of SAM's image encoder and of its mask decoder, ordered so that little is computed.

**Image encoder.** Windowed attention on a grid that its windows do not divide, without computing the padding.
segment-anything pads 16 x 16 tokens to 28 x 28 for its windows of 14. Padded tokens are zero *after* the norm, so
every padded key is the key bias and every padded value the value bias; they take part in the softmax and cannot
be masked. But a query sees all of them through one number: with s the scale and r_h, r_w the relative-position
logits of its row and column,

    sum over padded (i, j) of exp(s q.b_k + r_h[i] + r_w[j])
        = exp(s q.b_k) * (sum_padded exp(r_h) * sum_all exp(r_w) + sum_real exp(r_h) * sum_padded exp(r_w)),

so one extra key b_k with value b_v (the *sink*), whose additive logit is the log of the bracket, is the same
softmax. Queries, keys, values and projections are then computed on real tokens only.

**Mask decoder.** Attention between a few prompt tokens and many image tokens. An image holds 256 tokens, a prompt
about 8, and a head is 16 of 256 channels wide. Projecting the image's tokens costs 256 x 256 x 128 products;
moving the projection to the side of the few tokens, q (K W) = (q W') K, costs 256 x 256 x (8 heads x 8 tokens).
Both orders give the same product. Where all prompts of an image see the same image tokens (the first layer), the
image tokens are projected instead, once per image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

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
    """The same for image tokens that differ between prompts: `image` and `value` b p i c."""
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


def attend(attention: Any, tokens: torch.Tensor, window: int) -> torch.Tensor:
    """segment-anything's Attention on B x H x W x C normalised tokens, in windows of `window` (0: one window)."""
    batch, height, width, channels = tokens.shape
    heads = attention.num_heads
    qkv = attention.qkv(tokens).view(batch, height, width, 3, heads, channels // heads)
    sink = attention.qkv.bias.view(3, heads, channels // heads)[1:].to(qkv.dtype)
    step_h, step_w = window or height, window or width
    tables = (_relative(attention.rel_pos_h, step_h, qkv), _relative(attention.rel_pos_w, step_w, qkv))
    rows = []
    for top in range(0, height, step_h):
        row = [
            _attend_window(qkv[:, top : top + step_h, left : left + step_w], sink, tables)
            for left in range(0, width, step_w)
        ]
        rows.append(torch.cat(row, 2) if len(row) > 1 else row[0])
    mixed = torch.cat(rows, 1) if len(rows) > 1 else rows[0]
    projected: torch.Tensor = attention.proj(mixed)
    return projected


def _relative(table: torch.Tensor, size: int, like: torch.Tensor) -> torch.Tensor:
    """size x size x d: the vector for each pair of query and key positions along one axis."""
    if len(table) != 2 * size - 1:
        raise ValueError(f"relative positions for {(len(table) + 1) // 2} tokens, the window has {size}")
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place[None, :] + size - 1].to(like.dtype)


def _attend_window(
    qkv: torch.Tensor, sink: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """`qkv`: B x h x w x 3 x heads x d of the real tokens of one window. Returns B x h x w x (heads * d)."""
    batch, height, width, _, heads, dim = qkv.shape
    query, key, value = qkv.permute(3, 0, 4, 1, 2, 5)
    logit_h = torch.einsum("bnhwd,hkd->bnhwk", query, tables[0][:height])
    logit_w = torch.einsum("bnhwd,wkd->bnhwk", query, tables[1][:width])
    bias = (logit_h[..., :height, None] + logit_w[..., None, :width]).reshape(batch, heads, height * width, -1)
    query, key, value = (part.reshape(batch, heads, height * width, dim) for part in (query, key, value))
    if logit_h.shape[-1] > height or logit_w.shape[-1] > width:
        padded = _log_padded_mass(logit_h.float(), logit_w.float(), height, width)
        bias = torch.cat([bias, padded.reshape(batch, heads, -1, 1).to(bias.dtype)], 3)
        ends = sink[:, None, :, None].expand(2, batch, heads, 1, dim)
        key, value = torch.cat([key, ends[0]], 2), torch.cat([value, ends[1]], 2)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return mixed.transpose(1, 2).reshape(batch, height, width, heads * dim)


def _log_padded_mass(logit_h: torch.Tensor, logit_w: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Log of the sum of exp(r_h + r_w) over the positions of a window that hold no token."""
    below = logit_h[..., height:].logsumexp(-1) + logit_w.logsumexp(-1)
    beside = logit_h[..., :height].logsumexp(-1) + logit_w[..., width:].logsumexp(-1)
    return torch.logaddexp(below, beside)
