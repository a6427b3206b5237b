"""The step graph: identities keep the bits that they say they keep; and calls that were refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ostinato
from ostinato.compiler.graph.arrays import permuted, spread
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import ROWS, Node
from ostinato.engine.ops import OPS
from zoo.playing import loop
from zoo.small import B, D, H, T

# ------------------------------------------------------------------------------------ identities

_SPECIAL = [0, 1, 1.5, 3, 1e-45, 1e-38, 1.7e38, 3e38, np.inf, np.nan, np.pi, 2**-24]
SPECIAL = np.array([*_SPECIAL, *np.negative(_SPECIAL)], np.float32)
X, Y = (grid.ravel() for grid in np.meshgrid(SPECIAL, SPECIAL))
G = np.float32(0.3) * (1 + np.arange(X.size, dtype=np.float32))


def value(node: Node) -> Any:
    """Of a node made of x, y and g: what the engine computes, in float32."""
    given = {"x": X, "y": Y, "g": G}
    if node.op in given:
        return given[node.op]
    if node.op == "const":
        return np.full(X.size, node.s, np.float32)
    with np.errstate(all="ignore"):
        return np.asarray(OPS[node.op].meaning(*map(value, node.inputs), np.float32(node.s)), "f4")


def same_bits(a: Any, b: Any) -> bool:
    return bool(np.all((a.view("u4") == b.view("u4")) | (np.isnan(a) & np.isnan(b))))


# What is asked for, the operation that is made of it, and the same written out.
Make = Callable[[Builder, Node, Node, Node], Node]
EXACT: dict[str, tuple[Make, str, Callable[[], Any]]] = {
    "x - 0": (lambda b, x, y, g: b.op("sub", x, b.const(0)), "x", lambda: X - np.float32(0)),
    "x * 1": (lambda b, x, y, g: b.op("mul_s", x, s=1), "x", lambda: X * np.float32(1)),
    "x + -y": (lambda b, x, y, g: b.op("add", x, b.op("neg", y)), "sub", lambda: X + -Y),
    "-x + y": (lambda b, x, y, g: b.op("add", b.op("neg", x), y), "sub", lambda: -X + Y),
    "x - -y": (lambda b, x, y, g: b.op("sub", x, b.op("neg", y)), "add", lambda: X - -Y),
    "--x": (lambda b, x, y, g: b.op("neg", b.op("neg", x)), "x", lambda: X),
    "-x * y": (lambda b, x, y, g: b.op("mul", b.op("neg", x), y), "neg", lambda: -X * Y),
    "x / -y": (lambda b, x, y, g: b.op("div", x, b.op("neg", y)), "neg", lambda: X / -Y),
    "x / 8": (lambda b, x, y, g: b.op("div", x, b.const(8)), "mul_s", lambda: X / np.float32(8)),
    "x / 3": (lambda b, x, y, g: b.op("div", x, b.const(3)), "div", lambda: X / np.float32(3)),
    "x - 3": (lambda b, x, y, g: b.op("sub", x, b.const(3)), "add_s", lambda: X - np.float32(3)),
    "3 - x": (lambda b, x, y, g: b.op("sub", b.const(3), x), "rsub_s", lambda: np.float32(3) - X),
    "3 < x": (lambda b, x, y, g: b.op("lt", b.const(3), x), "gt_s", lambda: np.float32(X > 3)),
    "max": (
        lambda b, x, y, g: b.op(
            "select",
            b.op("lt", x, y),
            b.const(0),
            b.op("select", b.op("eq", y, x), b.op("div", g, b.const(2)), g),
        ),
        "max_backward",
        lambda: np.where(X < Y, np.float32(0), np.where(X == Y, G / np.float32(2), G)),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_same_bits(name):
    make, op, written_out = EXACT[name]
    b = Builder()
    node = make(b, *(b.node(n, (), (), "rows", (X.size,)) for n in "xyg"))
    assert node.op == op
    with np.errstate(all="ignore"):
        assert same_bits(value(node), written_out())


def test_bits_that_differ():
    """As identities.py says; and the comparison above can fail."""
    b = Builder()
    x = b.node("x", (), (), "rows", (X.size,))
    plus_zero = X + np.float32(0)
    assert b.op("add", x, b.const(0.0)) is x
    assert same_bits(np.where(X == 0, np.float32(0), X), plus_zero) and not same_bits(X, plus_zero)
    twice = b.op("mul_s", b.op("mul_s", x, s=3e38), s=1e-38)
    with np.errstate(all="ignore"):
        assert not same_bits(value(twice), X * np.float32(3e38) * np.float32(1e-38))


def test_a_value_that_is_used_twice_is_transposed_once(monkeypatch):
    """Its operands were, for every use: 3ⁿ operations of n layers."""
    n, b = 14, Builder()
    x, y = (b.node(name, (), (), "rows", (width,)) for name, width in (("x", 3), ("y", 5)))

    def layers(o: Node) -> Node:
        for _ in range(n):
            o = b.op("add", b.op("mul", o, b.op("sigmoid", o)), o)
        return o

    node = layers(b.op("sub", spread(b, x, 5, 1), spread(b, y, 3, 5)))
    wanted = layers(b.op("sub", spread(b, x, 5, 3), spread(b, y, 3, 1)))
    made, op = [], Builder.op

    def counted(*args: Any, **kwargs: Any) -> Node:
        made.append(args)
        assert len(made) <= 3 * n + 1
        return op(*args, **kwargs)

    monkeypatch.setattr(Builder, "op", counted)
    assert permuted(b, node, (3, 5), (1, 0)) is wanted
    assert len(made) == 3 * n + 1


# ----------------------------------------------------------------------------------------- calls


def test_columns_of_a_value_that_is_used_twice_are_cut_once(monkeypatch):
    """A chain of n operations that each read the last one twice has 2ⁿ ways through it."""
    b, cut = Builder(), []
    x = b.node("x", (), (), ROWS, (4,))
    for _ in range(12):
        x = b.op("mul", x, b.op("tanh", x))
    columns_of = Builder._columns_of
    monkeypatch.setattr(
        Builder, "_columns_of", lambda b, e, *at: cut.append(e) or columns_of(b, e, *at)
    )
    half = b.slice(x, 0, 2)
    assert (half.op, half.width, len(cut)) == ("mul", 2, 24)
    assert b.slice(x, 0, 2) is half and b.slice(x, 2, 4) is not half


def test_composite_calls_within_inference_mode():
    """Where autograd does not take them apart before they are recorded."""

    def step(h, x):
        with torch.inference_mode():
            z = torch.matmul(x.unsqueeze(2), h.unsqueeze(1)).sum(1).square().multiply(0.1)
            first, second = z.subtract(x).reshape(-1, H).chunk(2, -1)
            shift = torch.concat([second, first], -1).true_divide(2)
        return torch.tanh(h + shift)

    init, xs = torch.randn(B, H, dtype=D), torch.randn(T, B, H, dtype=D)
    assert ostinato.explain(step, init, xs).native
    torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


def test_an_absent_gradient_is_no_zero_and_beside_another_it_is():
    """As autograd's are; 0 · inf would be NaN."""
    W = torch.randn(H, H, dtype=D, requires_grad=True)

    def step(h, x):
        z = torch.tanh(x + h @ W)
        first, second = z.chunk(2, -1)  # the gradient of z concatenates theirs, and adds that of h
        return z * z, (first * torch.inf, second * 2)

    init, xs = torch.randn(B, H, dtype=D), torch.randn(T, B, H, dtype=D)
    assert ostinato.explain(step, init, xs).native
    gradients = []
    for play in (ostinato.scan, loop):
        infinite, ys = play(step, init, xs)[1]
        of_infinite = torch.autograd.grad(infinite.sum(), W, retain_graph=True)[0]
        assert not of_infinite.isfinite().all()  # so that a zero would be seen
        gradients.append(torch.autograd.grad(ys.sum(), W)[0])
    assert gradients[0].isfinite().all()
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-11)


class Doubled(torch.autograd.Function):
    """Gradients that are multiplied: autograd gives zeros in the place of an absent one."""

    @staticmethod
    def forward(ctx, a):
        return 2 * a, 3 * a

    @staticmethod
    def backward(ctx, first, second):
        return first * second


def test_a_custom_backward_pass_reads_an_absent_gradient_as_zeros():
    W = torch.randn(H, H, dtype=D, requires_grad=True)
    step = lambda h, x: (torch.tanh(x + h), Doubled.apply(torch.tanh(x + h @ W)))  # noqa: E731
    init, xs = torch.randn(B, H, dtype=D), torch.randn(T, B, H, dtype=D)
    assert ostinato.explain(step, init, xs).native
    for play in (ostinato.scan, loop):
        first, second = play(step, init, xs)[1]
        assert torch.autograd.grad(first.sum(), W, retain_graph=True)[0].eq(0).all()
        assert torch.autograd.grad((first + second).sum(), W)[0].ne(0).any()
