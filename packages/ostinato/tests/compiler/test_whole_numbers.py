"""Whole numbers in a step of floats: exact, or computed in the Python loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato import tree
from zoo.playing import counting, loop

B, F, T = 4, 3, 5
M = 2**24
TABLE = torch.tensor([M + 1, 5, -7])


def _state(of: Callable[[Tensor, Tensor], Any]) -> Any:
    """A step whose carry is a float state and whole numbers n; of(n, x) → the new n, or with y."""

    def step(carry: Any, x: Tensor) -> Any:
        h, n = carry
        new = of(n, x)
        new, y = new if isinstance(new, tuple) else (new, n)
        return (torch.tanh(h + x), new), y

    return step


# The whole numbers of a step; the first ones [B]; whether they stay below M, so that it is native.
STEPS: dict[str, tuple[Any, Any, bool]] = {
    "a counter": (lambda n, x: n + 1, 7, True),
    "a counter that reaches M": (lambda n, x: n + 1, M - 3, False),
    "down to −M": (lambda n, x: n - 1, 3 - M, False),
    "a large product, its small rest": (lambda n, x: (n * 245489) % 100, 70, False),
    "a small product": (lambda n, x: (n * 2454) % 100, 70, True),
    "a product that cancels": (lambda n, x: (n, n * 5001 - n * 5000), 4001, False),
    "large numbers compared": (lambda n, x: (n, n * M + 1 > n * M), 3, False),
    "hashes of 31 bits": (lambda n, x: (n * 1103515245 + 12345) % 2**31, 1, False),
    "a square": (lambda n, x: (n, n**2 % 7), 4097, False),
    "powers": (lambda n, x: (n, torch.stack([n**4, (-n) ** 5], 1)), 20, True),
    "a sum that cancels": (
        lambda n, x: (n, (n[:, None] * torch.tensor([M - 1, 2, 1 - M])).sum(1)),
        1,
        False,
    ),
    "a matrix of whole numbers": (
        lambda n, x: (n, (x > 0).long() @ torch.tensor([[1, 2], [3, 4], [5, 6]])),
        1,
        True,
    ),
    "one that cancels": (lambda n, x: (n, n[:, None] @ torch.tensor([[M - 1]])), 3, False),
    "flags, places and sums of them": (
        lambda n, x: (n, (x > 0).long().sum(1) * 100 + x.argmax(1) + x.argsort(1)[:, 0]),
        1,
        True,
    ),
    "captured numbers beyond M": (lambda n, x: (n, n[:, None] + TABLE), -100, False),
    "large numbers beside, not in": (lambda n, x: (n, n + TABLE[1]), -100, True),
    "a sum over the batch": (lambda n, x: (n, n.sum()), M // 2, True),
    "in place": (lambda n, x: (n, (n * 1).mul_(5000001).remainder_(1000)), 4, False),
    "of floats": (lambda n, x: (n, (x * 0 + 3e7).long() - 30000001), 4, False),
    "down and up again": (lambda n, x: (n, (n // 3) * 3 + n % 3), -M + 1, True),
    "half of them, then clamped": (lambda n, x: (n, n.clamp(-5, 5) * 1000 - n), 100, True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STEPS)
def test_whole_numbers_are_exact(name: str) -> None:
    """At every step, also on the way to a result. A first call with small numbers is compared with
    the loop, which must not be what notices large ones."""
    of, first, native = STEPS[name]
    step, zeros, xs = _state(of), torch.zeros(B, F), torch.randn(T, B, F)
    ostinato.scan(step, (zeros, torch.zeros(B, dtype=torch.int64)), xs)
    init = zeros, torch.arange(B) % 2 + first
    ours, theirs = ostinato.scan(step, init, xs), loop(step, init, xs)
    for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        assert a.dtype is b.dtype
        assert torch.allclose(a, b, rtol=1e-5) if a.is_floating_point() else torch.equal(a, b)
    with counting(step) as calls:
        ostinato.scan(step, init, xs)
    assert (calls[0] <= 1) is native  # the loop calls it T times
