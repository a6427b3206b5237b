"""The derivative of a backward pass is a scan of the step's jvp, and its backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato import scan
from ostinato.compiler.play.autograd import ScanCall
from zoo.playing import loop, rows_apart
from zoo.small import B, D, H, T, assert_same, both, leaf, rnn


@pytest.fixture
def natively(monkeypatch) -> Iterator[Any]:
    """A context of calls that run nothing in the Python loop."""

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the Python loop ran")

    yield lambda: monkeypatch.setattr(ScanCall, "replay", refused)
    monkeypatch.undo()


def derivatives(
    how: Any, step: Any, leaves: list[Tensor], init: Any, xs: Any, **options: Any
) -> Any:
    """First and second derivatives along fixed directions."""
    torch.manual_seed(1)
    carry, ys = how(step, init, xs, **options)
    outs = [t for t in (*_flat(carry), *_flat(ys)) if t.requires_grad]
    total = sum((o.sin() * torch.linspace(0.5, 1, o.numel()).view(o.shape)).sum() for o in outs)
    first = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
    along = [torch.randn_like(t) for t in leaves]
    again = sum((g * u).sum() for g, u in zip(first, along, strict=True) if g is not None)
    second = torch.autograd.grad(again, leaves, allow_unused=True)
    return [_dense(g, t) for g, t in zip((*first, *second), [*leaves, *leaves], strict=True)]


def _dense(g: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if g is None else g.detach()


def _flat(structure: Any) -> list[Tensor]:
    if isinstance(structure, Tensor):
        return [structure]
    return [t for part in structure for t in _flat(part)]


W, V, init, xs = leaf(H, H), leaf(H, H), leaf(B, H), leaf(T, B, H)
memory, b = leaf(B, H), leaf(H)
counter = torch.zeros(B, 1, dtype=torch.int64)


def gated(h: Tensor, x: Tensor) -> Tensor:
    z = torch.sigmoid(x @ V + h @ W + b)
    return z * h + (1 - z) * torch.tanh(x + h @ V.t())


def of_two(carry: Any, x: Tensor) -> Any:
    h, c = carry
    c = c * torch.sigmoid(h @ V) + torch.tanh(x @ W)
    return (torch.tanh(c) * h, c), (h.square().sum(-1), c)


def counting(carry: Any, x: Tensor) -> Any:
    h, n = carry
    h = torch.tanh(h @ W + x) * torch.where(n % 2 == 0, 1.0, 0.5)
    return (h, n + 1), (h, n)


def attending(h: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(h @ W + torch.softmax(h * memory, -1) * x)


def partly_without_gradient(h: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(h @ V)
    return torch.tanh(x @ W + h * gate)


CASES = {
    "a gated cell": (gated, init, [W, V, b, init, xs], {}),
    "in reverse": (gated, init, [W, V, b, init, xs], {"reverse": True}),
    "two leaves": (of_two, (init, memory), [W, V, init, memory, xs], {}),
    "a counter": (counting, (init, counter), [W, init, xs], {}),
    "a captured row for each": (attending, init, [W, memory, init, xs], {}),
    "under no_grad": (partly_without_gradient, init, [W, init, xs], {}),
    "a sum over the batch": (lambda h, x: (gated(h, x), h.square().sum()), init, [W, V, init], {}),
    "a mean over the batch": (lambda h, x: (gated(h, x), h.exp().mean(0)), init, [W, V, xs], {}),
    "ragged": (gated, init, [W, V, init, xs], {"lengths": torch.tensor([5, 2, 0])}),
    "ragged in reverse": (
        gated,
        init,
        [W, V, init, xs],
        {"lengths": torch.tensor([1, 5, 3]), "reverse": True},
    ),
    "resets": (gated, init, [W, V, init, xs], {"resets": torch.rand(T, B) < 0.4}),
    "xs alone": (gated, init, [xs], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name: str, natively: Any):
    step, first, leaves, options = CASES[name]

    def f(how: Any) -> Any:
        return derivatives(how, step, leaves, first, xs, **options)

    expected = f(rows_apart if {"lengths", "resets"} & options.keys() else loop)
    assert_same(f(scan), expected)
    natively()
    assert_same(f(scan), expected)


def test_batches_of_other_sizes(natively: Any):
    expected = []
    for play in range(2):
        for n in (1, 2, 7):
            torch.manual_seed(n)
            first, elements = leaf(n, H), leaf(T, n, H)
            if not play:
                expected.append(derivatives(loop, gated, [W, first, elements], first, elements))
                derivatives(scan, gated, [W, first, elements], first, elements)
            else:
                natively()
                ours = derivatives(scan, gated, [W, first, elements], first, elements)
                assert_same(ours, expected.pop(0))


def test_third_derivatives(natively: Any):
    def f(how: Any) -> Any:
        total = how(gated, init, xs)[1].sin().sum()
        for _ in range(2):
            found = torch.autograd.grad(total, [W, xs], create_graph=True)
            total = sum(g.sin().sum() for g in found)
        return torch.autograd.grad(total, [W, init, xs])

    both(f)
    expected = f(loop)
    natively()
    assert_same(f(scan), expected)


def test_a_gradient_that_is_not_used_further():
    """Of the gradients only those of xs are differentiated: a gradient penalty."""

    def f(how: Any) -> Any:
        critic = how(rnn(W), init, xs)[1].square().sum()
        (slope,) = torch.autograd.grad(critic, xs, create_graph=True)
        penalty = (slope.flatten(1).norm(2, 1) - 1).square().mean()
        return torch.autograd.grad(critic + penalty, [W, init])

    both(f)


@pytest.mark.parametrize("function", ["hvp", "vhp", "hessian", "jacobian"])
def test_functional(function: str):
    def f(how: Any) -> Any:
        def total(W: Tensor) -> Tensor:
            ys: Tensor = how(rnn(W), init, xs)[1]
            return ys if function == "jacobian" else ys.square().sum()

        of = getattr(torch.autograd.functional, function)
        return of(total, W, V) if function in ("hvp", "vhp") else of(total, W)

    both(f)


def test_a_value_that_changed_before_the_second_derivative():
    """It is of the numbers that the forward pass had."""
    held = {"scale": 1.0}

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h @ W + x) * held["scale"]

    def f(how: Any) -> Any:
        total = how(step, init, xs)[1].square().sum()
        if how is scan:
            held["scale"] = 3.0
        (first,) = torch.autograd.grad(total, W, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), [W, xs])
        held["scale"] = 1.0
        return second

    both(f)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}], ids=str)
def test_layers(kind: str, options: Any, natively: Any):
    layer = getattr(ostinato.nn, kind)(H, H, **options).to(D)
    theirs = getattr(torch.nn, kind)(H, H, **options).to(D)
    theirs.load_state_dict(layer.state_dict())

    def f(layer: Any) -> Any:
        torch.manual_seed(0)
        leaves = [*layer.parameters(), xs]
        out, last = layer(xs)
        total = out.sin().sum() + sum(t.square().sum() for t in _flat(last))
        first = torch.autograd.grad(total, leaves, create_graph=True)
        again = sum((g * torch.randn_like(g)).sum() for g in first)
        return torch.autograd.grad(again, leaves)

    expected = f(theirs)
    assert_same(f(layer), expected)
    natively()
    assert_same(f(layer), expected)
