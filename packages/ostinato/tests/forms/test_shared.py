"""Leaves of init and xs without a batch: one row, or shared by all rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from zoo.playing import assert_close, assert_played_as_by_the_loop, loop, play
from zoo.steps import Case, Kit
from zoo.suites import since

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]

N, H, WORDS = 5, 6, 11  # features, units
Make = Callable[[Kit], Case]


def _rnn(kit: Kit, step: Callable[..., Any], init: Any, x: Any) -> Case:
    """A case of a step that takes its weights U and W first."""
    U, W = kit.weight(N, H), kit.weight(H, H)
    return Case(lambda h, x: step(U, W, h, x), [U, W], lambda B: init(kit, B), lambda B: x(kit, B))


def _unit(kit: Kit, B: int) -> Tensor:
    return kit.normal(H) * 0.3


def _units(kit: Kit, B: int) -> Tensor:
    return kit.normal(B, H) * 0.3


def _words(kit: Kit, B: int) -> Tensor:
    return torch.randint(0, WORDS, (), generator=kit.random)


def _embedded(kit: Kit, init: Any) -> Case:
    E, W = kit.weight(WORDS, H), kit.weight(H, H)
    return Case(
        lambda h, x: torch.tanh(E[x] + h @ W),
        [E, W],
        lambda B: init(kit, B),
        lambda B: _words(kit, B),
    )


def _average(kit: Kit) -> Case:
    rate = nn.Parameter(torch.tensor(0.7, dtype=kit.dtype))
    return Case(
        lambda h, x: rate * h + (1 - rate) * x,
        [rate],
        lambda B: kit.normal(),
        lambda B: kit.normal(),
    )


def _counted(U: Tensor, W: Tensor, carry: Any, x: Tensor) -> Any:
    h, n = carry
    h = torch.tanh(x @ U + h @ W)
    return (h, n + 1), (h / (n + 1), n)


def _timed(U: Tensor, W: Tensor, carry: Any, x: Tensor) -> Any:
    h, t = carry
    even = t % 2 == 0
    h = torch.where(even, torch.tanh(x @ U + h @ W), h)
    return (h, t + 1), (h, t)


def _slow(U: Tensor, W: Tensor, carry: Any, x: Tensor) -> Any:
    h, gain = carry
    return (torch.tanh(x @ U + h @ W) * gain, gain * 0.9 + 0.1 * W.diagonal()), h


OF_WORDS = since((2, 13), "torch.func.vmap over an embedding")
STEPS: dict[str, Make] = {
    "one row of words": lambda kit: _embedded(kit, _unit),
    "one row: numbers": _average,
    "one row: a number a step": lambda kit: _rnn(
        kit, lambda U, W, h, x: torch.tanh(h @ W + x * U[0]), _unit, lambda kit, B: kit.normal()),
    "one row: a state in two parts": lambda kit: _rnn(
        kit, _counted, lambda kit, B: (_unit(kit, B), torch.zeros((), dtype=kit.dtype)),
        lambda kit, B: kit.normal(N)),
    "xs [T]: dt": lambda kit: _rnn(
        kit, lambda U, W, h, x: h + x * torch.tanh(h @ W), _units, lambda kit, B: kit.normal()),
    "xs [T]: a position": lambda kit: _rnn(
        kit, lambda U, W, h, x: torch.tanh(h @ W + torch.sin(x * U[0])), _units,
        lambda kit, B: kit.normal()),
    "xs [T, F]": lambda kit: _rnn(
        kit, lambda U, W, h, x: (torch.tanh(x @ U + h @ W), x * 2), _units,
        lambda kit, B: kit.normal(N)),
    "xs in two parts": lambda kit: _rnn(
        kit, lambda U, W, h, x: h + x[1] * torch.tanh(x[0] @ U + h @ W), _units,
        lambda kit, B: (kit.normal(B, N), kit.normal())),
    "xs of words": lambda kit: _embedded(kit, _units),
    "xs [T] of truth values": lambda kit: _rnn(
        kit, lambda U, W, h, x: torch.where(x[1], torch.tanh(x[0] @ U + h @ W), h), _units,
        lambda kit, B: (kit.normal(B, N), kit.normal() > 0)),
    "a counter in the carry": lambda kit: _rnn(
        kit, _timed, lambda kit, B: (_units(kit, B), torch.zeros((), dtype=torch.int64)),
        lambda kit, B: kit.normal(B, N)),
    "a number in the carry": lambda kit: _rnn(
        kit, _counted, lambda kit, B: (_units(kit, B), torch.zeros((), dtype=kit.dtype)),
        lambda kit, B: kit.normal(B, N)),
    "a vector in the carry": lambda kit: _rnn(
        kit, _slow, lambda kit, B: (_units(kit, B), _unit(kit, B)),
        lambda kit, B: kit.normal(B, N)),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=OF_WORDS) if n == "one row of words" else n for n in STEPS],
)
def test_a_leaf_without_a_batch_is_the_loop(name: str) -> None:
    assert_played_as_by_the_loop(STEPS[name](Kit(torch.float64)), (4, 1, 9), T=5)


def test_one_step_with_and_without_a_batch() -> None:
    """Each has a recording of its own: neither plays the other's."""
    kit = Kit(torch.float64)
    W = kit.weight(H, H)

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(h @ W + x)
        return h, h.softmax(-1)

    case = Case(step, [W], lambda B: kit.normal(H), lambda B: kit.normal(H))
    for init, xs in [
        (kit.normal(H), kit.normal(4, H)),
        (kit.normal(1, H), kit.normal(4, 1, H)),
        (kit.normal(3, H), kit.normal(4, 3, H)),
        (kit.normal(3, H), kit.normal(4, H)),
        (kit.normal(H), kit.normal(4)),
    ] * 2:
        assert_close(play(ostinato.scan, case, init, xs), play(loop, case, init, xs), 1e-10)
        assert ostinato.explain(step, init, xs).native


def test_what_only_looks_shared_plays_the_loop() -> None:
    """Elements of a shared x are rows' elements once each row has a copy: refused, not mistaken."""
    kit = Kit(torch.float64)
    W = kit.weight(H, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h @ W * x[0] + x[1])

    case = Case(step, [W], lambda B: kit.normal(B, H), lambda B: kit.normal(2))
    for B in (2, 3):
        init, xs = case.init(B), kit.normal(4, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = play(ostinato.scan, case, init, xs)
        assert_close(ours, play(loop, case, init, xs), 1e-10)
