"""Identities: elementwise operations that need no computing, or that another form computes better.

In: an operation that `Builder.op` is asked for, before it is a node. Out of `simplified`: the node
that already stands for its result, or None; out of `in_best_form`: the same operation, or another
one with the same result.

REWRITES names for each operation the identities to try, in order; the first that applies is taken.
Each says in a sentence why its result has the same bits, or where it has not.

*Absent* is the gradient of an output that the loss does not use, like autograd's undefined tensor.
It is no zero: 0 · inf would be NaN, while what is multiplied with an absent gradient is absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ostinato.compiler.graph.node import Node
from ostinato.engine.ops import OPS

if TYPE_CHECKING:
    from ostinato.compiler.graph.builder import Builder


class Elementwise(NamedTuple):
    """An elementwise operation on operands of `width` columns, or of one."""

    name: str
    operands: tuple[Node, ...]
    s: float
    width: int


Rewrite = Callable[["Builder", Elementwise], Node | None]


def simplified(b: Builder, e: Elementwise) -> Node | None:
    """The node that stands for the result without computing `e`, if an identity finds one."""
    for rewrite in (_absent, _folded, *REWRITES.get(e.name, ())):
        node = rewrite(b, e)
        if node is not None:
            return node
    return None


def is_zero(node: Node) -> bool:
    """Whether it is the constant 0 or −0."""
    return node.op == "const" and node.s == 0.0


def are_absent(nodes: Sequence[Node]) -> bool:
    """Whether they are absent gradients, at least one, and zeros that autograd put beside them."""
    return any(n.op == "absent" for n in nodes) and all(
        n.op == "absent" or is_zero(n) for n in nodes
    )


# ---- absent gradients: autograd would not have computed these at all

_LINEAR_IN_THE_FIRST = {  # operand, a gradient
    "copy", "div", "max_backward", "mul_s", "neg", "sigmoid_backward", "tanh_backward",
}  # fmt: skip


def _absent(b: Builder, e: Elementwise) -> Node | None:
    gone = [n.op == "absent" for n in e.operands]
    if e.name == "mul":
        absent = any(gone)
    elif e.name == "select":
        absent = are_absent(e.operands[1:])
    else:
        absent = all(gone) or (gone[0] and e.name in _LINEAR_IN_THE_FIRST)
    return b.absent(e.width) if absent else None


def _absent_term(b: Builder, e: Elementwise) -> Node | None:
    """The other term of a sum, or of a difference."""
    left, right = e.operands
    if right.op == "absent":
        return b.widen(left, e.width)
    if left.op == "absent":
        other = b.widen(right, e.width)
        return other if e.name == "add" else b.op("neg", other)
    return None


# ---- constants


def _folded(b: Builder, e: Elementwise) -> Node | None:
    """Computed in float64 and rounded once, where float32 would round after every operation."""
    if any(n.op != "const" for n in e.operands):
        return None
    values = [np.float64(n.s) for n in e.operands]
    with np.errstate(all="ignore"):
        return b.const(float(OPS[e.name].meaning(*values, np.float64(e.s))), e.width)


_NEUTRAL = {"add": 0, "add_s": 0, "div": 1, "mul": 1, "mul_s": 1, "sub": 0}


def _neutral(b: Builder, e: Elementwise) -> Node | None:
    """x + 0, x − 0, x · 1, x / 1 and a copy are x: the same bits, except that −0 + 0 would be 0.

    x − (−0) is taken as x + 0.
    """
    left, right, neutral = e.operands[0], e.operands[-1], _NEUTRAL.get(e.name)
    if e.name in ("add", "mul") and left.op == "const" and left.s == neutral:
        return b.widen(right, e.width)
    scalar = e.s if len(e.operands) == 1 else right.s if right.op == "const" else None
    return b.widen(left, e.width) if e.name == "copy" or scalar == neutral else None


def _scaled_twice(b: Builder, e: Elementwise) -> Node | None:
    """(x · p) · q = x · (p · q): rounded once less, so the last bit may differ."""
    (x,) = e.operands
    return b.op("mul_s", x.inputs[0], s=e.s * x.s) if x.op == "mul_s" else None


def _known_selection(b: Builder, e: Elementwise) -> Node | None:
    """The operand that a constant mask selects."""
    mask, there, elsewhere = e.operands
    if mask.op != "const":
        return None
    return b.widen(there if mask.s != 0 else elsewhere, e.width)


# ---- signs: rounding is symmetric about zero, so a sign may move without changing a bit


def _sign_within(b: Builder, e: Elementwise) -> Node | None:
    """x + (−y) = x − y, (−x) + y = y − x, x − (−y) = x + y, and −(−x) = x."""
    left, right = e.operands[0], e.operands[-1]
    if e.name == "neg":
        return b.widen(left.inputs[0], e.width) if left.op == "neg" else None
    if right.op == "neg":
        return b.op("sub" if e.name == "add" else "add", left, right.inputs[0])
    return b.op("sub", right, left.inputs[0]) if (e.name, left.op) == ("add", "neg") else None


def _sign_last(b: Builder, e: Elementwise) -> Node | None:
    """(−x) · y = −(x · y), and x / (−y) = −(x / y): a sum may then take the sign as its own."""
    for i, n in enumerate(e.operands):
        if n.op == "neg":
            positive = (*e.operands[:i], n.inputs[0], *e.operands[i + 1 :])
            return b.op("neg", b.op(e.name, *positive))
    return None


# ---- what autograd computes, in fewer operations


def _gradient_of_quotient(b: Builder, e: Elementwise) -> Node | None:
    """g · ((x / y) / y) = (g / y) · (x / y): autograd's gradient of x / y for y.

    g / y is its gradient for x, so that one division is saved. Not the same bits.
    """
    for g, twice in (e.operands, e.operands[::-1]):
        y = _divisor(twice)
        if y is not None and _divisor(twice.inputs[0]) is y and _divisor(g) is not y:
            return b.op("mul", b.op("div", g, y), twice.inputs[0])
    return None


def _divisor(node: Node) -> Node | None:
    return node.inputs[1] if node.op == "div" else None


REWRITES: dict[str, tuple[Rewrite, ...]] = {
    "add": (_absent_term, _neutral, _sign_within),
    "add_s": (_neutral,),
    "copy": (_neutral,),
    "div": (_neutral, _sign_last),
    "mul": (_neutral, _gradient_of_quotient, _sign_last),
    "mul_s": (_neutral, _scaled_twice),
    "neg": (_sign_within,),
    "select": (_known_selection,),
    "sub": (_absent_term, _neutral, _sign_within),
}


# ---- forms: the operation that the engine computes fastest


def in_best_form(b: Builder, e: Elementwise) -> Elementwise:
    """With a constant operand as the scalar of the instruction; and max_backward as one."""
    e = _selecting_scalar(e) if e.name == "select" else _with_scalar(e)
    return _gradient_of_max(b, e)


# operation → the one whose scalar is the constant, where that is its first operand, or its second.
# The bits are the same, except that the maximum or minimum of 0 and −0 may be either.
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
    "sub": ("rsub_s", None),
}


def _with_scalar(e: Elementwise) -> Elementwise:
    forms = _SCALAR_FORMS.get(e.name)
    if forms is None:
        return e
    for position, form in enumerate(forms):
        n, other = e.operands[position], e.operands[1 - position]
        if n.op != "const" or n.width not in (1, other.width):
            continue
        if form is not None:
            return e._replace(name=form, operands=(other,), s=n.s)
        if e.name == "sub":  # x − c = x + (−c)
            return e._replace(name="add_s", operands=(other,), s=-n.s)
        if e.name == "div" and _is_power_of_two(n.s):  # x / c = x · (1 / c), which is exact
            return e._replace(name="mul_s", operands=(other,), s=1 / n.s)
    return e


def _is_power_of_two(s: float) -> bool:
    """Whether it is one, and its reciprocal a normal float32."""
    mantissa, exponent = math.frexp(s)
    return abs(mantissa) == 0.5 and abs(exponent) < 100


def _selecting_scalar(e: Elementwise) -> Elementwise:
    mask, a, b = e.operands
    for n, other, form in ((a, b, "select_s"), (b, a, "select_else_s")):
        if n.op == "const" and n.width in (1, max(mask.width, other.width)):
            return e._replace(name=form, operands=(mask, other), s=n.s)
    return e


def _gradient_of_max(b: Builder, e: Elementwise) -> Elementwise:
    """x < y ? 0 : (x = y ? g / 2 : g), autograd's gradient of max(x, y) for x, as max_backward.

    Three selections and a division in one, with the same bits; and that of min(y, x) for y.
    """
    if e.name != "select_s" or e.s != 0:
        return e
    less, other = e.operands
    if less.op == "lt" and other.op == "select":
        x, y = less.inputs
        equal, half, g = other.inputs
        halved = b.op("div", g, b.const(2.0))
        if equal.op == "eq" and {*equal.inputs} == {x, y} and half is halved:
            return e._replace(name="max_backward", operands=(g, x, y))
    return e
