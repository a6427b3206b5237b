"""Decomposition of scaled_dot_product_attention: Vaswani et al. 2017, arXiv:1706.03762.

q `[…, L, E]`, k `[…, S, E]`, v `[…, S, D]`. What PyTorch fuses is written out, without dropout.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.decompositions import named


def _scores(q: Tensor, k: Tensor, is_causal: bool, mask: Any, scale: float) -> Tensor:
    """q kᵀ · scale + mask."""
    scores = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        scores = scores + mask
    if is_causal:
        rows, columns = torch.arange(q.shape[-2]), torch.arange(k.shape[-2])
        scores = scores.masked_fill(columns > rows.unsqueeze(-1), -math.inf)
    return scores


def _scale(q: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


@named("_scaled_dot_product_flash_attention_for_cpu")
def _attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, is_causal: bool = False, *,
    attn_mask: Any = None, scale: float | None = None,
) -> Any:  # fmt: skip
    """softmax(scores) v, and log Σ exp(scores)."""
    if dropout != 0:
        return NotImplemented
    scores = _scores(q, k, is_causal, attn_mask, _scale(q, scale))
    largest = scores.amax(-1, keepdim=True)
    e = (scores - largest).exp()
    total = e.sum(-1, keepdim=True)
    return (e / total) @ v, (largest + total.log()).squeeze(-1)


@named("_scaled_dot_product_flash_attention_for_cpu_backward")
def _attention_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, total: Tensor, dropout: float,
    is_causal: bool, *, attn_mask: Any = None, scale: float | None = None,
) -> Any:  # fmt: skip
    """With p = softmax(scores): dv = pᵀ g, and d(scores) = p · (g vᵀ − Σ g · out)."""
    if dropout != 0:
        return NotImplemented
    by = _scale(q, scale)
    p = (_scores(q, k, is_causal, attn_mask, by) - total.unsqueeze(-1)).exp()
    d = p * (g @ v.transpose(-1, -2) - (g * out).sum(-1, keepdim=True)) * by
    return d @ k, d.transpose(-1, -2) @ q, p.transpose(-1, -2) @ g
