"""Identities: elementwise operations that need no computing, or that have a faster form.

In: an elementwise operation requested from `Builder.op`, as a node that is not entered yet.
`simplified` returns the node that already has its result, or None. `in_best_form` returns the
same operation, or another one with the same result.

The functions of `IDENTITIES` are tried in turn. Each of their cases is an equation: a pattern, and
the node that has the same bits. Where the bits may differ, the function's docstring names it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ostinato.compiler.graph.node import Node
from ostinato.engine.ops import OPS

if TYPE_CHECKING:
    from ostinato.compiler.graph.builder import Builder


def simplified(b: Builder, e: Node) -> Node | None:
    """The node that an identity gives for `e`, or None."""
    for identity in IDENTITIES:
        node = identity(b, e)
        if node is not None:
            return b.widen(node, e.width)
    return None


def is_zero(node: Node) -> bool:
    """Whether the node is the constant 0 or −0."""
    return node.op == "const" and node.s == 0.0


# ---- constants


def _folded(b: Builder, e: Node) -> Node | None:
    """An operation on constants, computed in float64: rounded once, not after every operation."""
    if any(n.op != "const" for n in e.inputs):
        return None
    values = [np.float64(n.s) for n in e.inputs]
    with np.errstate(all="ignore"):
        return b.const(float(OPS[e.op].meaning(*values, np.float64(e.s))))


def _neutral(b: Builder, e: Node) -> Node | None:
    """x + 0 = x · 1 = x: the same bits, except that −0 + 0 and −0 − (−0) would be 0."""
    match e.op, *[n.s if n.op == "const" else n for n in e.inputs], e.s:
        case (
            ("add" | "sub", Node() as x, 0, _)
            | ("mul" | "div", Node() as x, 1, _)
            | ("add", 0, Node() as x, _)
            | ("mul", 1, Node() as x, _)
            | ("add_s", Node() as x, 0)
            | ("mul_s", Node() as x, 1)
            | ("copy", Node() as x, _)
        ):
            return x
    return None


def _known_selection(b: Builder, e: Node) -> Node | None:
    """The operand that a constant mask selects."""
    match e:
        case Node("select", (Node("const") as mask, there, elsewhere)):
            return there if mask.s != 0 else elsewhere
    return None


def _scaled_twice(b: Builder, e: Node) -> Node | None:
    """(x · p) · q = x · (p · q): rounded once less, so the last bit may differ."""
    match e:
        case Node("mul_s", (Node("mul_s", (x,), (p,)),)):
            return b.op("mul_s", x, s=e.s * p)
    return None


# ---- signs: rounding is symmetric about zero, so a sign may move without changing a bit


def _sign(b: Builder, e: Node) -> Node | None:
    """A sign becomes part of a sum, or moves out of a product or quotient to its reader."""
    match e:
        case Node("neg", (Node("neg", (x,)),)):
            return x
        case Node("add", (x, Node("neg", (y,)))):
            return b.op("sub", x, y)
        case Node("add", (Node("neg", (x,)), y)):
            return b.op("sub", y, x)
        case Node("sub", (x, Node("neg", (y,)))):
            return b.op("add", x, y)
        case Node("mul" | "div", (Node("neg", (x,)), y) | (x, Node("neg", (y,)))):
            return b.op("neg", b.op(e.op, x, y))
    return None


# ---- gradients of autograd in fewer operations


def _gradient_of_quotient(b: Builder, e: Node) -> Node | None:
    """g · ((x / y) / y) = (g / y) · (x / y): autograd's gradient of x / y for y.

    g / y is also the gradient for x, so this saves one division. The bits may differ.
    """
    for g, twice in (e.inputs, e.inputs[::-1]) if e.op == "mul" else ():
        match g, twice:
            case Node("div", (_, d)), Node("div", (_, y)) if d is y:
                pass  # already in this form
            case _, Node("div", (Node("div", (_, y)) as once, d)) if d is y:
                return b.op("mul", b.op("div", g, y), once)
    return None


IDENTITIES = (
    _folded,
    _neutral,
    _known_selection,
    _scaled_twice,
    _gradient_of_quotient,
    _sign,
)


# ---- forms: the fastest operation of the engine


def in_best_form(b: Builder, e: Node) -> Node:
    """The operation with a constant operand as its scalar; max_backward as one operation."""
    return _gradient_of_max(b, _with_scalar(e) if e.op in _SCALAR_FORMS else e)


# operation → its forms with a scalar: for a constant second to last operand, for a constant last
# one. The bits are the same, except that the maximum or minimum of 0 and −0 may be either.
_SCALAR_FORMS: dict[str, tuple[str | None, str | None]] = {
    "add": ("add_s", "add_s"),
    "div": ("rdiv_s", None),
    "eq": ("eq_s", "eq_s"),
    "le": ("ge_s", "le_s"),
    "lt": ("gt_s", "lt_s"),
    "max": ("max_s", "max_s"),
    "min": ("min_s", "min_s"),
    "mul": ("mul_s", "mul_s"),
    "pow": (None, "pow_s"),
    "select": ("select_s", "select_else_s"),
    "sub": ("rsub_s", None),
}


def _with_scalar(e: Node) -> Node:
    *mask, left, right = e.inputs
    for form, n, other in zip(_SCALAR_FORMS[e.op], (left, right), (right, left), strict=True):
        operands = (*mask, other)
        if n.op != "const" or n.width not in (1, max(o.width for o in operands)):
            continue
        if form is not None:
            return replace(e, op=form, inputs=operands, attrs=(n.s,))
        if e.op == "sub":  # x − c = x + (−c)
            return replace(e, op="add_s", inputs=operands, attrs=(-n.s,))
        if e.op == "div" and _is_power_of_two(n.s):  # x / c = x · (1 / c), which is exact
            return replace(e, op="mul_s", inputs=operands, attrs=(1 / n.s,))
    return e


def _is_power_of_two(s: float) -> bool:
    """Whether s is a power of two whose reciprocal is a normal float32."""
    mantissa, exponent = math.frexp(s)
    return abs(mantissa) == 0.5 and abs(exponent) < 100


def _gradient_of_max(b: Builder, e: Node) -> Node:
    """x < y ? 0 : (x = y ? g / 2 : g), autograd's gradient of max(x, y) for x, as max_backward.

    One operation replaces two selections, two comparisons and a division, with the same bits. The
    gradient of min(y, x) for y has the same form.
    """
    match e:
        case Node(
            "select_s", (Node("lt", (x, y)), Node("select", (Node("eq", pair), half, g))), (0,)
        ):
            if {*pair} == {x, y} and half is b.op("div", g, b.const(2.0)):
                return replace(e, op="max_backward", inputs=(g, x, y))
    return e
