"""A small RNN with its inputs, a small module, and comparisons of any scan with the loop's."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ostinato import scan
from zoo.playing import loop

D = torch.float64
T, B, H = 5, 3, 4


def leaf(*shape: int, dtype: torch.dtype = D) -> Tensor:
    return (torch.randn(*shape, dtype=D) / 2).to(dtype).requires_grad_()


def inputs(dtype: torch.dtype = D) -> tuple[Tensor, Tensor, Tensor]:
    """W, init, xs."""
    return leaf(H, H, dtype=dtype), leaf(B, H, dtype=dtype), leaf(T, B, H, dtype=dtype)


def rnn(W: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda h, x: torch.tanh(x + h @ W)


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-11) -> None:
    for a, b in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def both(f: Callable[[Any], Any]) -> None:
    """`f(how)` is the same for the loop and for scan; twice, as found and as remembered."""
    expected = f(loop)
    for _ in range(2):
        assert_same(f(scan), expected)


def gradients(how: Any, step: Any, leaves: list[Tensor], init: Tensor, xs: Tensor) -> Any:
    carry, ys = how(step, init, xs)
    return carry, ys, torch.autograd.grad(ys.square().sum() + carry.sum(), leaves)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape or (H, H), dtype=D) / 2)


def module(kind: Callable[..., Any], *args: Any) -> Any:
    return kind(*args).to(D)


def outcome(how: Any, step: Any, init: Tensor, xs: Tensor, leaves: list[Tensor]) -> list[Any]:
    init, xs = init.clone().requires_grad_(), xs.clone().requires_grad_()
    carry, ys = how(step, init, xs)
    outs = [*pytree.tree_leaves(carry), *pytree.tree_leaves(ys)]
    if not torch.is_grad_enabled():
        return outs
    total = sum((o * o).sum() for o in outs)
    grads = torch.autograd.grad(total, [init, xs, *leaves], allow_unused=True)
    zeros = [torch.zeros_like(t) for t in (init, xs, *leaves)]
    return outs + [z if g is None else g for g, z in zip(grads, zeros, strict=True)]


def assert_like_the_loop(step: Any, leaves: list[Tensor], when: str = "") -> None:
    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    theirs = outcome(loop, step, init, xs, leaves)
    ours = outcome(scan, step, init, xs, leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11), f"{when}: {(a - b).abs().max()}"


class Cell(nn.Module):
    gain = 1.0

    def __init__(self):
        super().__init__()
        self.W = weight()
        self.act: Any = nn.Tanh()
        self.drop = nn.Dropout(0.5)
        self.config = types.SimpleNamespace(scale=1.0)
        self._scales = [1.0]
        self.listed = [torch.ones(H, dtype=D)]
        self.register_buffer("shift", torch.zeros(H, dtype=D))

    def squash(self, a):
        return self.act(a) * SCALE

    def forward(self, h, x):
        a = self.squash(x + h @ self.W + self.shift) * self.config.scale * self._scales[0]
        return a * self.gain * self.listed[0] * (1 if self.training else 0.5)


SCALE = 1.0
