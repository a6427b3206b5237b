"""Decompositions of softmax, and of normalizations: of a layer (Ba, Kiros, Hinton 2016,
arXiv:1607.06450), of groups of channels (Wu and He 2018, arXiv:1803.08494), and by statistics that
were gathered before.

z = (x − μ) / √(σ² + ε), with mean and variance over some axes. The result is z · w + b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.decompositions import DECOMPOSITIONS, named

# ---- softmax


@named("_softmax")
def _softmax(x: Tensor, dim: int, _: bool) -> Tensor:
    e = (x - x.amax(dim, True)).exp()
    return e / e.sum(dim, True)


@named("_log_softmax")
def _log_softmax(x: Tensor, dim: int, _: bool) -> Tensor:
    x = x - x.amax(dim, True)
    return x - x.exp().sum(dim, True).log()


DECOMPOSITIONS.update({
    "_softmax_backward_data": lambda g, p, dim, _: p * (g - (g * p).sum(dim, True)),
    "_log_softmax_backward_data": lambda g, y, dim, _: g - y.exp() * g.sum(dim, True),
})  # fmt: skip


# ---- mean and variance


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


def _normalized(x: Tensor, axes: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """z, μ and the factor 1 / √(σ² + ε), the latter two with axes of 1."""
    mean = x.mean(axes, True)
    centred = x - mean
    scale = ((centred * centred).mean(axes, True) + eps).rsqrt()
    return centred * scale, mean, scale


def _gradient(d: Tensor, z: Tensor, scale: Tensor, axes: list[int]) -> Tensor:
    """The gradient of x, given that of z: scale · (d − mean(d) − z · mean(d · z))."""
    return (d - d.mean(axes, True) - z * (d * z).mean(axes, True)) * scale


def _scaled(z: Tensor, weight: Any, bias: Any = None) -> Tensor:
    z = z if weight is None else z * weight
    return z if bias is None else z + bias


# ---- of a layer: over the last axes, of which each element has parameters


@named("native_layer_norm")
def _layer_norm(x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    z, mean, scale = _normalized(x, list(range(-len(shape), 0)), eps)
    # Copies, since these outputs have no gradient, and the values that they are of have one.
    return _scaled(z, weight, bias), mean.clone(), scale.clone()


@named("native_layer_norm_backward")
def _layer_norm_backward(
    g: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, scale: Tensor, weight: Any,
    bias: Any, wanted: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    z = (x - mean) * scale
    dx = _gradient(_scaled(g, weight), z, scale, list(range(-len(shape), 0)))
    others = list(range(x.dim() - len(shape)))
    return dx, (g * z).sum(others) if wanted[1] else None, g.sum(others) if wanted[2] else None


# ---- of groups of channels, `[B, C, …]`: each channel has parameters


def _by_channel(parameter: Any, x: Tensor) -> Any:
    """`[C, 1, …]`, to be multiplied with x."""
    return None if parameter is None else parameter.view(-1, *[1] * (x.dim() - 2))


def _of_parameters(
    g: Tensor, z: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of weight and bias: Σ g · z and Σ g over all but the channels."""
    axes = [0, *range(2, g.dim())]
    return (g * z).sum(axes) if wanted[1] else None, g.sum(axes) if wanted[2] else None


@named("native_group_norm")
def _group_norm(
    x: Tensor, weight: Any, bias: Any, B: int, C: int, inner: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    z, mean, scale = _normalized(x.reshape(x.shape[0], groups, -1), [-1], eps)
    out = _scaled(z.view(x.shape), _by_channel(weight, x), _by_channel(bias, x))
    return out, mean.squeeze(-1), scale.squeeze(-1)


@named("native_group_norm_backward")
def _group_norm_backward(
    g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Any, B: int, C: int, inner: int,
    groups: int, wanted: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    shape, each = (x.shape[0], groups, -1), scale.unsqueeze(-1)
    z = (x.reshape(shape) - mean.unsqueeze(-1)) * each
    d = _scaled(g, _by_channel(weight, x)).reshape(shape)
    dx = _gradient(d, z, each, [-1]).view(x.shape)
    return dx, *_of_parameters(g, z.view(x.shape), wanted)


# ---- by statistics that were gathered before


@named("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, *more: Any) -> Any:
    training, eps = (more[0], more[2]) if len(more) == 3 else (False, more[1])
    if training:
        return NotImplemented
    z = (x - _by_channel(mean, x)) * _by_channel((var + eps).rsqrt(), x)
    out = _scaled(z, _by_channel(weight, x), _by_channel(bias, x))
    return out, x.new_zeros(1), x.new_zeros(1)  # PyTorch's are empty: of no step that is trained


@named("native_batch_norm_backward")
def _batch_norm_backward(
    g: Tensor, x: Tensor, weight: Any, mean: Tensor, var: Tensor, _: Any, __: Any, training: bool,
    eps: float, wanted: Sequence[bool],
) -> Any:  # fmt: skip
    if training:
        return NotImplemented
    scale = _by_channel((var + eps).rsqrt(), x)
    z = (x - _by_channel(mean, x)) * scale
    return g * _scaled(scale, _by_channel(weight, x)), *_of_parameters(g, z, wanted)
