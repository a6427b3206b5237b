"""Decompositions of softmax, variance, and the normalization of a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.decompositions import DECOMPOSITIONS, named

DECOMPOSITIONS["_softmax_backward_data"] = lambda g, p, dim, _: p * (g - (g * p).sum(dim, True))


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


DECOMPOSITIONS.update({
    "std": lambda x, *a, **k: _root(x.var(*a, **k)),
    "std_mean": lambda x, *a, **k: (x.std(*a, **k), _mean(x, *a, **k)),
    "var_mean": lambda x, *a, **k: (x.var(*a, **k), _mean(x, *a, **k)),
})  # fmt: skip


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
    # Copies, since these outputs have no gradient, and the values that they are of have one.
    return z if bias is None else z + bias, mean.clone(), scale.clone()


@named("native_layer_norm_backward")
def _layer_norm_backward(
    g: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, scale: Tensor, weight: Any,
    bias: Any, wanted: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """dx = scale · (d − mean(d) − z · mean(d · z)), where d is the gradient of z."""
    axes, others = list(range(-len(shape), 0)), list(range(x.dim() - len(shape)))
    z, d = (x - mean) * scale, g if weight is None else g * weight
    dx = (d - d.mean(axes, True) - z * (d * z).mean(axes, True)) * scale
    return dx, (g * z).sum(others) if wanted[1] else None, g.sum(others) if wanted[2] else None
