"""Decompositions of softmax, variance, the normalization of a layer, and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler import torch_compat
from ostinato.compiler.capture.replaced.elementwise import DECOMPOSITIONS, named

# ---- softmax. Less the maximum, no power overflows


def _log_softmax(x: Tensor, dim: int, _: bool) -> Tensor:
    """x − log Σ eˣ."""
    x = x - x.amax(dim, True)
    return x - x.exp().sum(dim, True).log()


DECOMPOSITIONS.update(
    {
        "_log_softmax": _log_softmax,
        "_log_softmax_backward_data": lambda g, y, dim, _: g - y.exp() * g.sum(dim, True),
        "_softmax_backward_data": lambda g, p, dim, _: p * (g - (g * p).sum(dim, True)),
    }
)


@named("_softmax")
def _softmax(x: Tensor, dim: int, _: bool) -> Tensor:
    """eˣ / Σ eˣ."""
    powers = (x - x.amax(dim, True)).exp()
    return powers / powers.sum(dim, True)


@named("_safe_softmax")
def _safe_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """Zeros, where all of x is −∞: in attention to nothing."""
    x = x if dtype is None else x.to(dtype)
    top = x.amax(dim, True)
    of_nothing = top == -math.inf
    powers = (x - torch.where(of_nothing, 0, top)).exp()
    return powers / torch.where(of_nothing, 1, powers.sum(dim, True))


# ---- variance


@named("var")
def _var(x: Tensor, dims: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """Σ (x − μ)² / (n − correction)."""
    dims = dims or list(range(x.dim()))
    n = math.prod(x.shape[d] for d in dims) - (1 if correction is None else correction)
    if n <= 0:
        return NotImplemented
    centred = x - x.mean(dims, True)
    return (centred * centred).sum(dims, keepdim) * (1 / n)


def _mean(x: Tensor, dims: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    return x.mean(dims, keepdim)


def _root(x: Tensor) -> Tensor:
    """√x, of which the gradient is 0 at 0."""
    return torch.where(x == 0, 0, torch.where(x == 0, 1, x).sqrt())


DECOMPOSITIONS.update(
    {
        "std": lambda x, *a, **k: _root(x.var(*a, **k)),
        "std_mean": lambda x, *a, **k: (x.std(*a, **k), _mean(x, *a, **k)),
        "var_mean": lambda x, *a, **k: (x.var(*a, **k), _mean(x, *a, **k)),
    }
)


@named("linalg_vector_norm")
def _vector_norm(
    x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    if ord == 2:
        x = x if dtype is None else x.to(dtype)
        return _root((x * x).sum(dim, keepdim))
    composition = torch_compat.composition("linalg_vector_norm", "default")
    return NotImplemented if composition is None else composition(x, ord, dim, keepdim, dtype=dtype)


# ---- of a layer: Ba, Kiros, Hinton 2016, arXiv:1607.06450


@named("native_layer_norm")
def _layer_norm(x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    """z · w + b, where z = (x − μ) / √(σ² + ε), with mean and variance over the last axes."""
    axes = list(range(-len(shape), 0))
    mean = x.mean(axes, True)
    centred = x - mean
    scale = ((centred * centred).mean(axes, True) + eps).rsqrt()
    z = centred * scale
    z = z if weight is None else z * weight
    z = z if bias is None else z + bias
    # Under autocast x has half precision, and the parameters do not. The other outputs are copies,
    # since they have no gradient, and the original values have one.
    return z.to(x.dtype), mean.clone(), scale.clone()


@named("native_layer_norm_backward")
def _layer_norm_backward(
    g: Tensor,
    x: Tensor,
    shape: Sequence[int],
    mean: Tensor,
    scale: Tensor,
    weight: Any,
    bias: Any,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """dx = scale · (d − mean(d) − z · mean(d · z)), where d is the gradient of z."""
    axes, others = list(range(-len(shape), 0)), list(range(x.dim() - len(shape)))
    z, d = (x - mean) * scale, g if weight is None else g * weight
    dx = (d - d.mean(axes, True) - z * (d * z).mean(axes, True)) * scale
    return dx, (g * z).sum(others) if wanted[1] else None, g.sum(others) if wanted[2] else None


# ---- scaled_dot_product_attention: Vaswani et al. 2017, arXiv:1706.03762


def _scale(q: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


@named("_scaled_dot_product_flash_attention_for_cpu")
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Any = None,
    scale: float | None = None,
) -> Any:
    """p v, where p = softmax(q kᵀ · scale + mask): q `[…, L, E]`, k `[…, S, E]`, v `[…, S, D]`.

    Autograd gets p itself instead of log Σ exp(…), from which it would compute p.
    """
    if dropout != 0:
        return NotImplemented
    scores = q @ _for_heads(q, k).transpose(-1, -2) * _scale(q, scale)
    if is_causal:
        rows, columns = torch.arange(q.shape[-2]), torch.arange(k.shape[-2])
        scores = scores.masked_fill(columns > rows.unsqueeze(-1), -math.inf)
    p = scores.softmax(-1) if attn_mask is None else _safe_softmax(scores + attn_mask, -1)
    return p @ _for_heads(q, v), p


def _for_heads(q: Tensor, k: Tensor) -> Tensor:
    """k for each head of q, if several share one: Ainslie et al. 2023, arXiv:2305.13245."""
    n = q.shape[-3] // k.shape[-3]
    return k if n == 1 else k.repeat_interleave(n, -3)


def _of_heads(d: Tensor, k: Tensor) -> Tensor:
    """The gradient of k, from that of `_for_heads`."""
    return d if d.shape == k.shape else d.unflatten(-3, (k.shape[-3], -1)).sum(-3)


@named("_scaled_dot_product_flash_attention_for_cpu_backward")
def _attention_backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    p: Tensor,
    *_: Any,
    attn_mask: Any = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """dv = pᵀ g, and d(scores) = p · (g vᵀ − Σ g · out)."""
    dp = g @ _for_heads(q, v).transpose(-1, -2) - (g * out).sum(-1, keepdim=True)
    d = p * dp * _scale(q, scale)
    dk, dv = d.transpose(-1, -2) @ q, p.transpose(-1, -2) @ g
    return d @ _for_heads(q, k), _of_heads(dk, k), _of_heads(dv, v)
