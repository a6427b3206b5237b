"""Leaves of the carry that a step hands on as they are: an encoded sequence, a graph, a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from zoo.modern import MODERN
from zoo.playing import loop
from zoo.small import assert_same
from zoo.steps import Kit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]

D, IN = 4, 3


def test_no_step_keeps_it():
    W, kept = torch.randn(D, D, requires_grad=True), torch.randn(4, 20, D, requires_grad=True)

    def step(carry: Any, x: Tensor) -> Any:
        h, kept = carry
        h = torch.tanh(x + (h[:, None] * kept).sum(1) @ W)
        return (h, kept), h

    found = ostinato.explain(step, (torch.zeros(4, D), kept), torch.randn(7, 4, D))
    assert 0 < found.saved_bytes < 4 * 7 * kept.numel()


@pytest.mark.parametrize("wanted", [(), (0,), (1,)])
def test_only_some_gradients_of_init_are_wanted(wanted):
    """A sum over all steps that nobody wants is not computed; the others are as ever."""
    case = MODERN["bahdanau"](Kit(torch.float64))
    init, xs = case.init(4), case.xs(6, 4)

    def gradients(how: Any) -> tuple[Tensor, ...]:
        leaves = tuple(t.detach().requires_grad_(i in wanted) for i, t in enumerate(init))
        carry, ys = how(case.step, leaves, xs)
        total = sum((t**2).sum() for t in (*carry, *ys))
        return torch.autograd.grad(total, [*case.parameters, *(leaves[i] for i in wanted)])

    assert_same(gradients(ostinato.scan), gradients(loop), 1e-10)


def test_the_last_carry_is_a_copy():
    case = MODERN["bahdanau"](Kit(torch.float32))
    init, xs = case.init(4), case.xs(3, 4)
    with torch.no_grad():
        (_, encoded), _ = ostinato.scan(case.step, init, xs)
        assert torch.equal(encoded, init[1])
        encoded.zero_()
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
