"""Windowed attention on a token grid that no window divides, without computing the padding.

segment-anything pads 16 x 16 tokens to 28 x 28 for its windows of 14. Padded tokens are zero *after* the norm, so
every padded key is the key bias and every padded value the value bias; they take part in the softmax and cannot
be masked. But a query sees all of them through one number: with s the scale and r_h, r_w the relative-position
logits of its row and column,

    sum over padded (i, j) of exp(s q.b_k + r_h[i] + r_w[j])
        = exp(s q.b_k) * (sum_padded exp(r_h) * sum_all exp(r_w) + sum_real exp(r_h) * sum_padded exp(r_w)),

so one extra key b_k with value b_v (the *sink*), whose additive logit is the log of the bracket, is the same
softmax. Queries, keys, values and projections are then computed on real tokens only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


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
