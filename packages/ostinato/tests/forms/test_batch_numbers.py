"""The size of the batch as a Python number that a step reads from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import compiler
from zoo.playing import counting, loop
from zoo.small import D, H, T, assert_same, gradients, weight

W = weight()
B_GLOBAL = 0
B_FIRST = 7


class Module(nn.Module):
    def __init__(self, B: int) -> None:
        super().__init__()
        self.B, self.H, self.sizes, self.linear = B, H, {"rows": B}, nn.Linear(H, H, dtype=D)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        h = torch.tanh(h.view(self.B, self.H) + self.linear(x))
        return h.expand(self.sizes["rows"], self.H)


def selecting(B: int) -> Callable[[Tensor, Tensor], Any]:
    table = torch.randn(B, 3, H, dtype=D)

    def step(h: Tensor, x: Tensor) -> Any:
        i = (x[:, 0] > 0).long()
        return torch.tanh(h + x + table[torch.arange(B), i]), torch.zeros(B, 2, dtype=D) + h[:, :2]

    return step


def a_global(B: int) -> Callable[[Tensor, Tensor], Any]:
    global B_GLOBAL
    B_GLOBAL = B

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh((h @ W).reshape(B_GLOBAL, 2, -1).flip(1).reshape(B_GLOBAL, H) + x)

    return step


def asking(B: int) -> Callable[[Tensor, Tensor], Any]:
    def step(h: Tensor, x: Tensor) -> Tensor:
        h = h + torch.zeros(B, H, dtype=D)
        return h * 0 if (x > 99).any() else torch.tanh(h + x)

    return step


STEPS: dict[str, Callable[[int], Any]] = {
    "attributes and items": Module,
    "a closure": selecting,
    "a global": a_global,
    "and a branch on the batch": asking,
}


def leaves(B: int, n: int = T) -> tuple[Tensor, Tensor]:
    return torch.randn(B, H, dtype=D), torch.randn(n, B, H, dtype=D)


@pytest.fixture
def recordings(monkeypatch: Any) -> list[int]:
    count, whole = [0], compiler.compile_step

    def counted(*arguments: Any) -> Any:
        count[0] += 1
        return whole(*arguments)

    monkeypatch.setattr(compiler, "compile_step", counted)
    return count


@pytest.mark.parametrize("name", STEPS)
def test_one_recording_plays_every_size(name: str, recordings: list[int]) -> None:
    """The first size is also the number of features: the second may tell numbers apart."""
    for i, B in enumerate((H, 7, 3, 2)):
        step = STEPS[name](B)
        init, xs = leaves(B)
        if i == 0:
            ostinato.forget(step)
        assert ostinato.explain(step, init, xs).native
        if i == 1:
            found = recordings[0]
        weights = [*step.parameters()] if isinstance(step, nn.Module) else [W]
        ours, theirs = (gradients(how, step, weights, init, xs) for how in (ostinato.scan, loop))
        assert_same(ours, theirs)
        with counting(step) as calls:
            ostinato.scan(step, init, xs)
        assert calls[0] == 0
    assert recordings[0] == found


@pytest.mark.filterwarnings("ignore:scan plays")
def test_a_number_that_is_not_the_batch_any_more_is_a_number() -> None:
    """The step then computes something else, or fails, as in the loop."""
    n = 6
    step = lambda h, x: torch.tanh(h + x).reshape(n, -1, H).flip(1).reshape(-1, H)  # noqa: E731
    init, xs = leaves(6)
    assert ostinato.explain(step, init, xs).native
    assert_same(ostinato.scan(step, init, xs), loop(step, init, xs))
    init, xs = leaves(12)
    assert_same(ostinato.scan(step, init, xs), loop(step, init, xs))
    n = 12
    assert_same(ostinato.scan(step, init, xs), loop(step, init, xs))
    init, xs = leaves(7)
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        ostinato.scan(step, init, xs)
    assert n == 12


def test_the_same_text_compiled_again_is_recorded_with_its_numbers() -> None:
    """As where a second model of one class is given to accelerate."""
    text = "def make(B):\n def step(h, x): return (h + x).view(B, -1)\n return step"
    for _ in range(2):
        names: dict[str, Any] = {}
        exec(compile(text, "again", "exec"), names)
        step, init, xs = names["make"](B_FIRST), torch.zeros(B_FIRST, H), torch.ones(T, B_FIRST, H)
        ostinato.scan(step, init, xs)
        with counting(step) as calls:
            ostinato.scan(step, init, xs)
        assert calls[0] <= 1
