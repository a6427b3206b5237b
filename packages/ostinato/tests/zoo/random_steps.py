"""Random steps, out of the operations that PyTorch users put into one.

A step is drawn as a list of moves; each move takes tensors made so far, all `[B, width]`, and makes
another. `draw` is hypothesis' or anything with the same two methods: a seed will do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zoo.steps import Case, Kit

Move = Callable[[list[Tensor]], Tensor]


class Draw:
    """Choices by a seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, items: Any) -> Any:
        return items[self.integer(0, len(items) - 1)]


class Hypothesis:
    """Choices by hypothesis, which then looks for the smallest step that fails."""

    def __init__(self, data: st.DataObject):
        self.data = data

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def pick(self, items: Any) -> Any:
        return items[self.integer(0, len(items) - 1)]


UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.tanh, torch.sigmoid, torch.relu, torch.neg, torch.sin, torch.cos, torch.square,
    F.gelu, F.silu, F.softplus, F.elu, F.leaky_relu, F.logsigmoid, F.hardtanh, F.softsign,
    lambda a: F.gelu(a, approximate="tanh"),
    lambda a: torch.exp(-a.abs()), lambda a: torch.log(a.abs() + 1), lambda a: torch.log1p(a * a),
    lambda a: torch.sqrt(a * a + 0.1), lambda a: torch.rsqrt(a * a + 0.5),
    lambda a: torch.reciprocal(a.abs() + 1), lambda a: torch.expm1(a.clamp(-1, 1)),
    lambda a: torch.erf(a), lambda a: a.abs() ** 1.5, lambda a: a**3 / 4, lambda a: a.pow(2) / 2,
    lambda a: 0.5 * a, lambda a: a / 3, lambda a: 1 - a, lambda a: a + 0.25, lambda a: -a,
    lambda a: a.clamp(-0.5, 0.75), lambda a: a.clamp(min=-0.2), lambda a: a.clamp(max=0.3),
    lambda a: F.dropout(a, 0.5, training=False), lambda a: a.detach(),
    lambda a: a.clone().mul_(2).add_(0.1).tanh_(), lambda a: a.contiguous().sigmoid(),
    lambda a: torch.zeros_like(a) + a, lambda a: a.new_ones(a.shape) * a,
]  # fmt: skip
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, torch.max, torch.min,
    lambda a, b: a / (b.abs() + 1), lambda a, b: torch.where(a > b, a, b * 0.5),
    lambda a, b: torch.where(b <= 0.1, a, torch.tanh(b)), lambda a, b: a * (b > 0),
    lambda a, b: a.masked_fill(b > 0.5, 0.25), lambda a, b: torch.lerp(a, b, 0.3),
    lambda a, b: torch.add(a, b, alpha=0.5), lambda a, b: torch.sub(a, b, alpha=2),
    lambda a, b: a * torch.sigmoid(b) + (1 - torch.sigmoid(b)) * a.tanh(),
    lambda a, b: torch.relu(a - b) + b, lambda a, b: (a - b).abs(),
    lambda a, b: a.clone().add_(b).mul_(0.5), lambda a, b: a.clone().copy_(b) + a,
    lambda a, b: torch.where((a > 0) & (b > 0), a, b), lambda a, b: torch.where(a.eq(b), b, a),
    lambda a, b: torch.maximum(a, torch.where(b > 0, a, b)),  # ties
    lambda a, b: a / (c := b.square() + 1) / c,
]  # fmt: skip
TERNARY: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = [
    lambda a, b, c: torch.lerp(a, b, torch.sigmoid(c)),
    lambda a, b, c: a * b + c,
    lambda a, b, c: torch.addcmul(a, b, c, value=0.5),
    lambda a, b, c: torch.addcdiv(a, b, c.abs() + 1),
    lambda a, b, c: torch.where(a > 0, b, c),
]
ROWS: list[Callable[[Tensor], Tensor]] = [  # over the features of a row
    lambda a: torch.softmax(a, -1),
    lambda a: torch.log_softmax(a, 1) / 4,
    lambda a: a - a.mean(-1, keepdim=True),
    lambda a: a * a.sum(1, keepdim=True) / 8,
    lambda a: a * torch.rsqrt(a.square().mean(-1, keepdim=True) + 1e-3),
    lambda a: a / (1 + a.norm(dim=1, keepdim=True)),
    lambda a: F.layer_norm(a, a.shape[1:]),
    lambda a: (a - a.mean(1, keepdim=True)).square().sum(-1, keepdim=True) + a,
    lambda a: a.mean(1, keepdim=True).expand_as(a) + a,
    lambda a: a / (1 + a.var(-1, keepdim=True, correction=0)),
    lambda a: a / (1 + a.std(1, correction=0)[:, None]),
]


@dataclass
class Builder:
    kit: Kit
    draw: Any
    widths: list[int]  # of the tensors made so far, which the moves see in this order
    parameters: list[Tensor] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)

    def parameter(self, *shape: int) -> Tensor:
        """New or, if one of the shape is there, perhaps that one again; perhaps frozen."""
        same = [p for p in self.parameters if p.shape == shape]
        if same and self.draw.integer(0, 3) == 0:
            return self.draw.pick(same)
        made = self.kit.weight(*shape)
        made.requires_grad_(self.draw.integer(0, 5) > 0)
        self.parameters.append(made)
        return made

    def move(self, width: int, f: Move) -> int:
        self.moves.append(f)
        self.widths.append(width)
        return len(self.widths) - 1

    def any(self) -> int:
        """A tensor, rather a late one than an early one."""
        n = len(self.widths)
        return max(self.draw.integer(0, n - 1), self.draw.integer(0, n - 1))

    def like(self, i: int) -> int:
        """A tensor as wide as i, made if need be."""
        same = [j for j, w in enumerate(self.widths) if w == self.widths[i] and j != i]
        return self.draw.pick(same) if same else self.product(self.any(), self.widths[i])

    def product(self, i: int, width: int) -> int:
        k, kind = self.widths[i], self.draw.integer(0, 4)
        if kind == 0:
            W = self.parameter(k, width)
            return self.move(width, lambda v: v[i] @ W)
        if kind == 1:
            W, b = self.parameter(width, k), self.parameter(width)
            return self.move(width, lambda v: F.linear(v[i], W, b))
        if kind == 2:
            W, b = self.parameter(k, width), self.parameter(width)
            return self.move(width, lambda v: torch.addmm(b, v[i], W))
        if kind == 3:
            W = self.parameter(width, k)
            return self.move(width, lambda v: torch.mm(v[i], W.t()) * 0.5)
        W = self.parameter(k, width)  # derived within the step from what does not change
        return self.move(width, lambda v: v[i] @ (W * torch.sigmoid(W)))

    def random(self) -> None:
        i, kind = self.any(), self.draw.integer(0, 14)
        w = self.widths[i]
        if kind <= 2:
            f = self.draw.pick(UNARY)
            self.move(w, lambda v: f(v[i]))
        elif kind <= 4:
            j, g = self.like(i), self.draw.pick(BINARY)
            self.move(w, lambda v: g(v[i], v[j]))
        elif kind == 5:
            j, k, t = self.like(i), self.like(i), self.draw.pick(TERNARY)
            self.move(w, lambda v: t(v[i], v[j], v[k]))
        elif kind <= 7:
            self.product(i, self.draw.pick([1, 2, 3, 4, 6, 8]))
        elif kind == 8:
            f = self.draw.pick(ROWS)
            self.move(w, lambda v: f(v[i]))
        elif kind == 9:
            p, g = self.parameter(w), self.draw.pick(BINARY[:5])
            self.move(w, lambda v: g(v[i], p))
        elif kind == 10:
            j = self.any()
            self.move(w + self.widths[j], lambda v: torch.cat([v[i], v[j]], -1))
        elif kind == 11 and w > 1:
            a = self.draw.integer(0, w - 1)
            b = self.draw.integer(a + 1, w)
            self.move(b - a, lambda v: v[i][:, a:b])
        elif kind == 14:  # a number for each row, broadcast
            narrow = [j for j, width in enumerate(self.widths) if width == 1]
            j = self.draw.pick(narrow) if narrow else self.product(self.any(), 1)
            g, first = self.draw.pick(BINARY[:6]), self.draw.integer(0, 1)
            self.move(w, lambda v: g(v[i], v[j]) if first else g(v[j], v[i]))
        elif kind == 12 and w % 2 == 0:
            which = self.draw.integer(0, 1)
            self.move(w // 2, lambda v: v[i].chunk(2, dim=1)[which])
        else:
            b, g = self.parameter(1, w), self.parameter(w)
            self.move(w, lambda v: F.layer_norm(v[i], (w,), g, b[0]))


def random_case(draw: Any, dtype: torch.dtype = torch.float64) -> Case:
    """A step with its parameters and inputs: some states in some structure, some outputs."""
    kit = Kit(dtype, seed=draw.integer(0, 10_000))
    state_widths = [draw.pick([1, 2, 3, 4, 8]) for _ in range(draw.integer(1, 3))]
    x_widths = [draw.pick([1, 2, 4, 8]) for _ in range(draw.integer(1, 2))]
    builder = Builder(kit, draw, [*x_widths, *state_widths])
    for _ in range(draw.integer(2, 9)):
        builder.random()
    new = []
    for s, width in enumerate(state_widths):
        kind = draw.integer(0, 5)
        own = len(x_widths) + s
        if kind == 0:  # as it was
            new.append(own)
            continue
        last = builder.product(builder.any(), width)
        if kind == 1:  # a leak
            new.append(
                builder.move(
                    width, lambda v, own=own, last=last: 0.9 * v[own] + 0.1 * torch.tanh(v[last])
                )
            )
        else:
            f = draw.pick([torch.tanh, torch.sigmoid, F.softsign, torch.sin])
            new.append(builder.move(width, lambda v, f=f, last=last: f(v[last])))
    outs = [builder.any() for _ in range(draw.integer(0, 2))]
    own_outputs = bool(draw.integer(0, 2))
    structure = draw.pick(["tuple", "dict", "list"]) if len(state_widths) > 1 else "tensor"
    moves, n_x = builder.moves, len(x_widths)

    def packed(leaves: list[Tensor]) -> Any:
        if structure == "tensor":
            return leaves[0]
        if structure == "dict":
            return {f"s{i}": leaf for i, leaf in enumerate(leaves)}
        return tuple(leaves) if structure == "tuple" else list(leaves)

    def step(carry: Any, x: Any) -> Any:
        xs = [x] if n_x == 1 else list(x)
        if structure == "tensor":
            states = [carry]
        else:
            states = list(carry.values()) if structure == "dict" else list(carry)
        values = [*xs, *states]
        for move in moves:
            values.append(move(values))
        carry = packed([values[i] for i in new])
        return (carry, tuple(values[i] for i in outs)) if own_outputs else carry

    def x(B: int) -> Any:
        leaves = tuple(kit.normal(B, w) for w in x_widths)
        return leaves[0] if n_x == 1 else leaves

    def init(B: int) -> Any:
        return packed([kit.normal(B, w) * 0.5 for w in state_widths])

    return Case(step, builder.parameters, init, x)
