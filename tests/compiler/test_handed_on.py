"""Leaves of the carry that a step hands on as they are: an encoded sequence, a graph, a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from zoo.playing import assert_close, loop, play, rows_apart
from zoo.steps import Case, Kit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]

PLACES, D, IN = 5, 4, 3
TAPE_OF_A_ROW = 2 * PLACES * D  # what would be kept of both leaves at each step


def attention(kit: Kit) -> Case:
    """Bahdanau et al. 2014, arXiv:1409.0473: keys and values differ from row to row."""
    W, R, v = kit.weight(D, D), kit.weight(IN + D, D), kit.weight(D)

    def step(carry: Any, x: Tensor) -> Any:
        h, keys, values = carry
        scores = torch.tanh(keys + (h @ W)[:, None]) @ v
        context = (scores.softmax(1)[..., None] * values).sum(1)
        h = torch.tanh(torch.cat([x, context], 1) @ R + h)
        return (h, keys, values), h

    def init(B: int) -> Any:
        return kit.normal(B, D), kit.normal(B, PLACES, D), kit.normal(B, PLACES, D)

    return Case(step, [W, R, v], init, lambda B: kit.normal(B, IN))


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("reverse", [False, True])
def test_it_is_the_loop(engine, reverse, monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", engine)
    case = attention(Kit(torch.float64))
    for B in (1, 4, 9):
        init, xs = case.init(B), case.xs(5, B)
        ours = play(ostinato.scan, case, init, xs, reverse=reverse)
        assert_close(ours, play(loop, case, init, xs, reverse=reverse), 1e-10)


def test_rows_of_several_lengths():
    case = attention(Kit(torch.float64))
    init, xs = case.init(9), case.xs(5, 9)
    lengths = torch.tensor([5, 0, 3, 1, 5, 4, 2, 2, 5])
    ours = play(ostinato.scan, case, init, xs, lengths=lengths)
    assert_close(ours, play(rows_apart, case, init, xs, lengths=lengths), 1e-10)


def test_no_step_keeps_it():
    case = attention(Kit(torch.float64))
    init, xs = case.init(4), case.xs(7, 4)
    found = ostinato.explain(case.step, init, xs)
    assert found.saved_bytes < 8 * 4 * 7 * TAPE_OF_A_ROW


@pytest.mark.parametrize("wanted", [(), (1,), (1, 2), (0, 2)])
def test_only_some_gradients_of_init_are_wanted(wanted):
    """A sum over all steps that nobody wants is not computed; the others are as ever."""
    case = attention(Kit(torch.float64))
    init, xs = case.init(4), case.xs(6, 4)

    def gradients(scan: Any) -> tuple[Tensor, ...]:
        leaves = tuple(t.detach().requires_grad_(i in wanted) for i, t in enumerate(init))
        carry, ys = scan(case.step, leaves, xs)
        total = (ys**2).sum() + sum((t**2).sum() for t in carry)
        return torch.autograd.grad(total, [*case.parameters, *(leaves[i] for i in wanted)])

    for ours, theirs in zip(gradients(ostinato.scan), gradients(loop), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_last_carry_is_a_copy():
    case = attention(Kit(torch.float32))
    init, xs = case.init(4), case.xs(3, 4)
    with torch.no_grad():
        (_, keys, _), _ = ostinato.scan(case.step, init, xs)
        assert torch.equal(keys, init[1])
        keys.zero_()
    assert init[1].abs().sum() > 0


def test_tapes_that_use_memory_again():
    """The next tape lies where one that was dropped lay; two at once have memory of their own."""
    W = torch.randn(IN, D, requires_grad=True)

    def step(S: Tensor, x: Tensor) -> Any:  # the state is no output
        S = torch.tanh(S + (x @ W)[:, :, None])
        return S, (S * S).sum(1)

    def trained(B: int) -> Tensor:
        _, ys = ostinato.scan(step, torch.zeros(B, D, D), torch.ones(7, B, IN))
        return torch.autograd.grad(ys.sum(), W)[0]

    first, other = trained(4), trained(8)
    for _ in range(3):
        torch.testing.assert_close(trained(4), first, rtol=0, atol=0)
        torch.testing.assert_close(trained(8), other, rtol=0, atol=0)
    x = torch.ones(7, 4, IN)
    (_, a), (_, b) = (ostinato.scan(step, torch.full((4, D, D), s), x) for s in (0.0, 1.0))
    d_a = torch.autograd.grad(a.sum(), W)[0]
    torch.testing.assert_close(d_a, first, rtol=0, atol=0)
    assert not torch.equal(torch.autograd.grad(b.sum(), W)[0], d_a)
