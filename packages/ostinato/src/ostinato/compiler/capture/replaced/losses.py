"""Decompositions of losses and of their gradients, of each element or reduced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.replaced.elementwise import columns, named, zero


def _share(gradient: Tensor, like: Tensor, reduction: int) -> Tensor:
    """The gradient of each element of a loss that is reduced."""
    return gradient / like.numel() if reduction == 1 else gradient


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return (loss, loss.mean(), loss.sum())[reduction]


# ---- losses


@named("huber_loss")
def _huber(a: Tensor, b: Tensor, reduction: int = 1, delta: float = 1.0) -> Tensor:
    """c (z − c / 2), where c is z within ±δ: of |z|, the second derivative would be 0 at 0."""
    z = a - b
    near = z.clamp(-delta, delta)
    return _reduced(near * (z - near / 2), reduction)


@named("smooth_l1_loss")
def _smooth_l1(a: Tensor, b: Tensor, reduction: int = 1, beta: float = 1.0) -> Tensor:
    if beta == 0:
        return _reduced((a - b).abs(), reduction)
    return _huber(a, b, reduction, beta) / beta


@named("mse_loss_backward")
def _mse_backward(g: Tensor, a: Tensor, b: Tensor, reduction: int) -> Tensor:
    return 2 * (a - b) * _share(g, a, reduction)


@named("smooth_l1_loss_backward")
def _smooth_l1_backward(g: Tensor, a: Tensor, b: Tensor, reduction: int, beta: float) -> Tensor:
    z, each = a - b, _share(g, a, reduction)
    return torch.where(z.abs() >= beta, z.sign() * each, z / beta * each)  # NaN at NaN


@named("huber_loss_backward")
def _huber_backward(g: Tensor, a: Tensor, b: Tensor, reduction: int, delta: float) -> Tensor:
    z = a - b
    return z.clamp(-delta, delta) * _share(g, a, reduction)


@named("nll_loss_forward", "nll_loss2d_forward")
def _nll(x: Tensor, target: Tensor, weight: Any, reduction: int, ignored: int) -> Any:
    """The weighted mean over the rows that are not ignored: a quotient of two sums."""
    here, counts = target.unsqueeze(1) == columns(x, 1), target != ignored
    loss = -torch.where(here, x if weight is None else x * weight, zero(x)).sum(1)
    loss = torch.where(counts, loss, zero(x))
    if reduction == 0:
        return loss, x.new_zeros(())
    if reduction == 2:
        return loss.sum(), x.new_zeros(())
    of_each = 1 + zero(x) if weight is None else torch.where(here, weight, zero(x)).sum(1)
    total = torch.where(counts, of_each, zero(x)).sum()
    return loss.sum() / total, total


@named("nll_loss_backward", "nll_loss2d_backward")
def _nll_backward(
    g: Tensor, x: Tensor, target: Tensor, weight: Any, reduction: int, ignored: int, total: Tensor
) -> Any:
    here = (target.unsqueeze(1) == columns(x, 1)) & (target != ignored).unsqueeze(1)
    d = -g.unsqueeze(1) if reduction == 0 else -(g / total if reduction == 1 else g)
    return torch.where(here, d if weight is None else d * weight, zero(g))
