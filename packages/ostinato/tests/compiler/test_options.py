"""Combinations of options and layouts, with derivatives of every kind: as by the plain loop."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import tree
from zoo.small import assert_same, leaf, module

T, B, H = 7, 4, 3


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 2 * grads[0]


def _lstm(cell: Any) -> Any:
    def step(carry: Any, x: Tensor) -> Any:
        h, c = cell(x, carry)
        return (h, c), h * 2

    return step


# A layout is a step with its weights, init and xs.
Layout = tuple[Callable[[Any, Any], Any], list[Tensor], Any, Any]


def _plain() -> Layout:
    W = leaf(H, H)
    return lambda h, x: torch.tanh(x + h @ W), [W], leaf(B, H), leaf(T, B, H)


def _captured_rows() -> Layout:
    m = leaf(B, H)
    return lambda h, x: torch.tanh(h + x * m), [m], leaf(B, H), leaf(T, B, H)


def _captured_batch_second() -> Layout:
    m = leaf(5, B, H)
    return lambda h, x: torch.tanh(h + (x * m).sum(0)), [m], leaf(B, H), leaf(T, B, H)


def _attention_with_its_keys() -> Layout:
    """The keys are a product of captured rows alone, which PyTorch computes once."""
    W, encoded = leaf(H, H), leaf(B, 5, H)

    def step(h: Tensor, x: Tensor) -> Any:
        scores = torch.einsum("bh,bsh->bs", h, encoded @ W).softmax(-1)
        return torch.tanh(x + (scores[..., None] * encoded).sum(1)), scores

    return step, [W, encoded], leaf(B, H), leaf(T, B, H)


def _captured_and_a_custom_backward() -> Layout:
    m = leaf(B, H)
    return lambda h, x: torch.tanh(_Twice.apply(h) + x * m), [m], leaf(B, H), leaf(T, B, H)


def _a_carry_that_is_captured_too() -> Layout:
    first = leaf(B, H)
    return lambda h, x: torch.tanh(h * x + first), [first], first, leaf(T, B, H)


def _pair() -> Layout:
    cell, m = module(nn.LSTMCell, H, H), leaf(B, 1)
    step = _lstm(cell)
    return lambda c, x: step(c, x * m), [*cell.parameters(), m], (leaf(B, H),) * 2, leaf(T, B, H)


def _counting() -> Layout:
    """A leaf of whole numbers in the carry, and one that is handed on as it is."""
    W = leaf(H, H)

    def step(carry: Any, x: Any) -> Any:
        h, n, kept = carry
        h = torch.tanh(h @ W + x * kept) * (n % 2 + 1)[:, None]
        return (h, n + 1, kept), {"h": h, "n": n}

    return step, [W], (leaf(B, H), torch.arange(B), leaf(B, H)), leaf(T, B, H)


def _complex() -> Layout:
    w = leaf(B, H)
    init = torch.randn(B, H, dtype=torch.complex128).requires_grad_()
    return lambda h, x: 0.5 * h * torch.exp(1j * w) + x, [w], init, leaf(T, B, H)


def _batch_second() -> Layout:
    W, m = leaf(H, H), leaf(B, H)
    return lambda h, x: torch.tanh(x * m + h @ W), [W, m], leaf(2, B, H), leaf(T, B, H)


def _a_shared_leaf() -> Layout:
    m = leaf(B, H)
    return lambda h, dt: h + dt * torch.tanh(m - h), [m], leaf(B, H), leaf(T)


LAYOUTS = [
    _plain,
    _captured_rows,
    _captured_batch_second,
    _attention_with_its_keys,
    _captured_and_a_custom_backward,
    _a_carry_that_is_captured_too,
    _pair,
    _counting,
    _complex,
    _batch_second,
    _a_shared_leaf,
]
WITHOUT_SPANS = (_batch_second, _a_shared_leaf)  # for these the batch must be the first axis


def _options(layout: Any, chance: random.Random) -> dict[str, Any]:
    """A random combination."""
    options: dict[str, Any] = {
        "truncate": chance.choice([None, 1, 2, 3]),
        "reverse": chance.random() < 0.5,
        "memory": chance.choice([None, "1MB"]),
    }
    if layout not in WITHOUT_SPANS and chance.random() < 0.5:
        options["lengths"] = [chance.randint(0, T) for _ in range(B)]
    if layout not in WITHOUT_SPANS and chance.random() < 0.5:
        options["resets"] = torch.rand(T, B) < 0.3
    return options


def _derivatives(layout: Layout, options: dict[str, Any]) -> list[Tensor]:
    """Values; gradients as they are, differentiable and batched; second derivatives."""
    step, weights, init, xs = layout

    def outputs() -> list[Tensor]:
        leaves = tree.leaves(ostinato.scan(step, init, xs, **options))
        return [torch.view_as_real(o) if o.is_complex() else o for o in leaves]

    outs = outputs()
    given = [*weights, *tree.leaves(init), *tree.leaves(xs)]
    leaves = [*{id(t): t for t in given if t.requires_grad}.values()]

    def gradients(of: list[Tensor], weights: list[Tensor] | None = None, **how: Any) -> Any:
        found = torch.autograd.grad(of, leaves, weights, allow_unused=True, **how)
        return [torch.zeros(1) if g is None else g for g in found]

    total = sum((o * torch.linspace(1, 2, o.numel()).view_as(o)).square().sum() for o in outs)
    first = gradients([total], retain_graph=True)
    again = gradients([total], create_graph=True)
    second = gradients([sum(g.abs().square().sum() for g in again if g.requires_grad)])
    pairs = [(o, torch.stack([o.detach(), o.detach().cos()])) for o in outputs() if o.requires_grad]
    batched = gradients(*map(list, zip(*pairs, strict=True)), is_grads_batched=True)
    return [*outs, *first, *again, *second, *batched]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_derivative_is_the_loops(layout: Any, monkeypatch: Any) -> None:
    """Rounding is some 10⁻¹⁵, and a wrong term as large as the values: 10⁻¹⁰ tells them apart."""
    chance, case = random.Random(layout.__name__), layout()
    step, _, init, xs = case
    assert ostinato.explain(step, init, xs).native
    for _ in range(5):
        options = _options(layout, chance)
        monkeypatch.delenv("OSTINATO_ENGINE", raising=False)
        ours = _derivatives(case, options)
        monkeypatch.setenv("OSTINATO_ENGINE", "eager")
        theirs = _derivatives(case, options | {"memory": None})
        assert_same(ours, theirs, 1e-10)


@pytest.mark.parametrize("engine", ["native", "eager"])
def test_where_no_row_has_a_step_gradients_are_zeros(engine: str, monkeypatch: Any) -> None:
    """As where some rows have none; the padding may be NaN."""
    monkeypatch.setenv("OSTINATO_ENGINE", engine)
    step, weights, init, xs = _plain()
    with torch.no_grad():
        xs.fill_(torch.nan)
    carry, ys = ostinato.scan(step, init, xs, lengths=[0] * B)
    found = torch.autograd.grad(ys.sum() + carry.sum(), [*weights, xs, init])
    assert_same(found, [torch.zeros(H, H).to(xs), torch.zeros_like(xs), torch.ones_like(init)])
