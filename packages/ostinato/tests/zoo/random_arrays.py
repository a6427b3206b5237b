"""Random steps whose rows are arrays: axes that broadcast, are reduced, multiplied and moved.

A step is drawn as a list of moves on tensors `[B, …]` of any shape; at the end each is brought to
the shape of the state. `draw` is one of `zoo.random_steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.steps import Case, Kit

SIZES = (1, 2, 3, 4)
Move = Callable[[list[Tensor]], Tensor]


def _shape(draw: Any) -> tuple[int, ...]:
    return tuple(draw.pick(SIZES) for _ in range(draw.integer(1, 3)))


def _axis(draw: Any, shape: tuple[int, ...]) -> int:
    return 1 + draw.integer(0, len(shape) - 1)


def _spread(draw: Any, i: int, shape: tuple[int, ...]) -> tuple[Move, tuple[int, ...]]:
    """Beside a captured tensor of some of its axes, or itself with an axis between."""
    if draw.integer(0, 1):
        dim = draw.integer(1, len(shape))
        n = draw.pick(SIZES)
        wider = (*shape[:dim], n, *shape[dim:]) if len(shape) < 3 else shape
        if len(shape) < 3:
            return lambda t: t[i].unsqueeze(dim + 1).expand(-1, *wider) * 0.9, wider
    kept = tuple(n if draw.integer(0, 1) else 1 for n in shape)
    other = torch.linspace(-1, 1, max(1, _count(kept)), dtype=torch.float64).view(kept)
    return lambda t: t[i] * other + other, shape


def _count(shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def _reduced(draw: Any, i: int, shape: tuple[int, ...]) -> tuple[Move, tuple[int, ...]]:
    dims = sorted({_axis(draw, shape) for _ in range(draw.integer(1, 2))})
    keep = bool(draw.integer(0, 1)) or len(dims) == len(shape)
    left = tuple(
        1 if d + 1 in dims else n for d, n in enumerate(shape) if keep or d + 1 not in dims
    )
    how = draw.pick(["sum", "mean", "logsumexp", "amax"])
    return lambda t: torch.tanh(getattr(torch, how)(t[i], dims, keepdim=keep)), left


def _normal(draw: Any, i: int, shape: tuple[int, ...]) -> tuple[Move, tuple[int, ...]]:
    dim = _axis(draw, shape)
    how = draw.pick([torch.softmax, torch.log_softmax])
    return lambda t: how(t[i], dim), shape


def _moved(draw: Any, i: int, shape: tuple[int, ...]) -> tuple[Move, tuple[int, ...]]:
    order = list(range(1, len(shape) + 1))
    at = draw.integer(0, len(order) - 1)
    order.append(order.pop(at))
    return lambda t: t[i].permute(0, *order), tuple(shape[d - 1] for d in order)


def _cut(draw: Any, i: int, shape: tuple[int, ...]) -> tuple[Move, tuple[int, ...]]:
    dim = _axis(draw, shape)
    n = shape[dim - 1]
    if n == 1:
        return lambda t: torch.cat([t[i], t[i] * 0.5], dim), _with(shape, dim, 2)
    half = n // 2

    def move(t: list[Tensor]) -> Tensor:
        a, b = t[i].split([half, n - half], dim)
        return torch.cat([torch.sin(b), a], dim)

    return move, shape


def _with(shape: tuple[int, ...], dim: int, n: int) -> tuple[int, ...]:
    return (*shape[: dim - 1], n, *shape[dim:])


def _multiplied(draw: Any, i: int, shape: tuple[int, ...]) -> tuple[Move, tuple[int, ...]]:
    """By itself transposed, or by a captured matrix for each of its first axis, or for all."""
    if len(shape) < 2:
        return lambda t: 0.3 * t[i].unsqueeze(2) * t[i].unsqueeze(1), (*shape, *shape)
    kind = draw.integer(0, 2)
    if kind == 0:
        return lambda t: 0.3 * t[i] @ t[i].transpose(-1, -2), (*shape[:-1], shape[-2])
    n = draw.pick(SIZES)
    lead = shape[:1] if kind == 1 and len(shape) == 3 else ()
    W = torch.linspace(-0.5, 0.5, _count(lead) * shape[-1] * n, dtype=torch.float64)
    W = W.view(*lead, shape[-1], n)
    return lambda t: t[i] @ W, (*shape[:-1], n)


MOVES = [_spread, _reduced, _normal, _moved, _cut, _multiplied]


def random_arrays(draw: Any, n_moves: int = 6) -> Case:
    kit = Kit(torch.float64, seed=draw.integer(0, 999))
    shape, of_x = _shape(draw), _shape(draw)
    gain = kit.weight(*shape)
    shapes = [shape, of_x]
    moves: list[Move] = []
    for _ in range(n_moves):
        i = draw.integer(0, len(shapes) - 1)
        move, made = draw.pick(MOVES)(draw, i, shapes[i])
        if _count(made) > 64:
            continue
        moves.append(move)
        shapes.append(made)

    def step(state: Tensor, x: Tensor) -> Any:
        there = [state, x]
        for move in moves:
            there.append(move(there))
        total = gain * state
        for t in there[1:]:
            total = total + 0.3 * torch.tanh(t.flatten(1).sum(1)).view(-1, *[1] * len(shape))
        for t in there[1:]:
            if t.shape == state.shape:
                total = total + 0.2 * torch.tanh(t)
        return torch.tanh(total), there[-1]

    return Case(
        step, [gain], lambda B: kit.normal(B, *shape) * 0.5, lambda B: kit.normal(B, *of_x) * 0.5
    )
