"""Decomposition of group normalization: Wu and He 2018, arXiv:1803.08494.

x `[B, C, …]` is normalized over each of `groups` groups of C / groups channels, with all that each
channel has: `[B, groups, n]`. Its parameters belong to channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ostinato.compiler.capture.decompositions import named


def _by_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """`[C, 1, …]`, to be multiplied with x."""
    return parameter.view(-1, *[1] * (x.dim() - 2))


@named("native_group_norm")
def _group_norm(
    x: Tensor, weight: Any, bias: Any, B: int, C: int, inner: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x − μ) / √(σ² + ε) · w + b; μ and the factor."""
    grouped = x.reshape(x.shape[0], groups, -1)
    mean = grouped.mean(-1)
    centred = grouped - mean.unsqueeze(-1)
    scale = ((centred * centred).mean(-1) + eps).rsqrt()
    out = (centred * scale.unsqueeze(-1)).view(x.shape)
    if weight is not None:
        out = out * _by_channel(weight, x)
    if bias is not None:
        out = out + _by_channel(bias, x)
    return out, mean, scale


@named("native_group_norm_backward")
def _group_norm_backward(
    g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Any, B: int, C: int, inner: int,
    groups: int, wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients: scale · (g·w − mean(g·w) − z · mean(g·w·z)), z = (x − μ) · scale; Σ g·z; Σ g."""
    shape, each = (x.shape[0], groups, -1), scale.unsqueeze(-1)
    z = (x.reshape(shape) - mean.unsqueeze(-1)) * each
    dx = dw = db = None
    if wanted[0]:
        d = (g if weight is None else g * _by_channel(weight, x)).reshape(shape)
        d = d - d.mean(-1, keepdim=True) - z * (d * z).mean(-1, keepdim=True)
        dx = (d * each).view(x.shape)
    axes = [0, *range(2, x.dim())]
    if wanted[1]:
        dw = (g * z.view(x.shape)).sum(axes)
    if wanted[2]:
        db = g.sum(axes)
    return dx, dw, db
