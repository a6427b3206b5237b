"""Rules of elementwise calls: arithmetic, comparisons, selections.

A new call that is one operation of the engine is an entry of ONE_OPERATION; docs/developing.md
lists the other tables that need a row. A call that is a composition of other calls, as `silu`, is
an entry of `capture/replaced/elementwise.py` instead. The gradient of a call is recorded as ATen
calls, too, and each new one needs an entry.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import torch

from ostinato.compiler.graph.rules import RULES, WHOLE, Context, Rule, Value, rule

# ---- calls that are one operation

_OF_THE_SAME_NAME = (
    "abs", "atan", "atan2", "ceil", "cos", "cosh", "eq", "erf", "erfc", "exp", "exp2",
    "expm1", "floor", "fmod", "le", "log", "log10", "log1p", "log2", "lt", "mul", "ne", "neg",
    "round", "sigmoid", "sigmoid_backward", "sign", "sin", "sinh", "sqrt", "tan", "tanh",
    "tanh_backward", "trunc",
)  # fmt: skip
ONE_OPERATION = {name: name for name in _OF_THE_SAME_NAME} | {  # ATen's name: the engine's
    "maximum": "max",
    "minimum": "min",
    "sgn": "sign",
    "special_erfcx": "erfcx",
}


def _one_operation(op: str, c: Context, *values: Any) -> Any:
    return c.elementwise(op, *values)


RULES.update({name: partial(_one_operation, op) for name, op in ONE_OPERATION.items()})


# ---- arithmetic


@rule("add")
def _add(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    if c.gives_truths:
        raise c.refuse("adds truth values; | says the same")
    if isinstance(b, Value) and alpha != 1:
        b = Value(c.b.op("mul_s", c.node(b), s=alpha), b.shape)
    elif alpha != 1:
        b = b * alpha
    return c.elementwise("add", a, b)


@rule("sub")
def _sub(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    return c.elementwise("sub", a, b) if alpha == 1 else _add(c, a, b, alpha=-alpha)


_POWERS: dict[float, Rule] = {
    -1.0: lambda c, a: c.elementwise("div", 1.0, a),
    -0.5: lambda c, a: c.b.op("rdiv_s", c.elementwise("sqrt", a), s=1.0),
    0.0: lambda c, a: c.b.const(1.0),
    0.5: lambda c, a: c.elementwise("sqrt", a),
    1.0: lambda c, a: a,
    2.0: lambda c, a: c.elementwise("mul", a, a),
    3.0: lambda c, a: c.b.op("mul", c.elementwise("mul", a, a), c.node(a)),
}


@rule("pow")
def _pow(c: Context, a: Any, exponent: Any) -> Any:
    if not isinstance(exponent, Value) and float(exponent) in _POWERS:
        return _POWERS[float(exponent)](c, a)
    if c.gives in WHOLE:  # products are exact
        if isinstance(exponent, Value) or not 0 < exponent < 64:
            raise c.refuse("whole numbers have powers with an exponent from 0 to 63")
        return reduce(partial(c.b.op, "mul"), [c.node(a)] * exponent)
    return c.elementwise("pow", a, exponent)


@rule("lerp")
def _lerp(c: Context, a: Value, b: Value, weight: Any) -> Any:
    if not isinstance(weight, Value) and abs(weight) >= 0.5:  # PyTorch starts from b, too
        back = c.b.op("mul_s", c.elementwise("sub", b, a), s=1 - weight)
        return c.b.op("sub", c.node(b), back)
    return c.elementwise("lerp", a, b, weight)


@rule("clamp")
def _clamp(c: Context, a: Value, min: Any = None, max: Any = None) -> Any:
    if min is not None:
        a = Value(c.elementwise("max", a, min), a.shape)
    if max is not None:
        a = Value(c.elementwise("min", a, max), a.shape)
    return a


@rule("masked_fill")
def _masked_fill(c: Context, a: Value, mask: Value, value: Any) -> Any:
    if c.gives_truths and not isinstance(value, Value):
        value = bool(value)
    return c.elementwise("select", mask, value, a)


# ---- whole numbers and truth values


@rule("_to_copy")
def _to_copy(c: Context, a: Any, **_: Any) -> Any:
    if not isinstance(a, Value):  # a number that vmap turns into a tensor
        return c.node(a)
    if c.gives_truths:
        return c.truth(0, a)
    if c.gives in WHOLE and c.dtypes[0] not in (torch.bool, *WHOLE):
        return Value(c.b.op("trunc", c.node(a)), a.shape)
    return a


@rule("div")
def _div(c: Context, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """The floor of a float32 quotient of whole numbers is their exact floored quotient."""
    quotient = c.elementwise("div", a, b)
    if rounding_mode is None:
        return quotient
    return c.b.op("floor" if rounding_mode == "floor" else "trunc", quotient)


rule("floor_divide")(partial(_div, rounding_mode="floor"))


def _of_truths(op: str, c: Context, a: Any, b: Any) -> Any:
    if c.reads_whole_numbers:
        raise c.refuse("works on the bits of whole numbers; the engine computes them as floats")
    return c.elementwise(op, a, b)


for _name, _op in (("and", "mul"), ("or", "max"), ("xor", "ne")):
    for _spelt in (f"__{_name}__", f"bitwise_{_name}"):
        RULES[_spelt] = lambda c, a, b, op=_op: _of_truths(op, c, a, b)


@rule("bitwise_not")
def _bitwise_not(c: Context, a: Value) -> Any:
    if c.reads_whole_numbers:  # −1 − a
        return c.b.op("rsub_s", c.node(a), s=-1.0)
    return c.elementwise("eq_s", a, s=0.0)


# ---- calls that are one expression

RULES.update(
    {
        "clamp_max": lambda c, a, high: c.elementwise("min", a, high),
        "clamp_min": lambda c, a, low: c.elementwise("max", a, low),
        "copy": lambda c, a, b, *_: c.elementwise("copy", c.truth(1, b) if c.gives_truths else b),
        "ge": lambda c, a, b: c.elementwise("le", b, a),
        "gt": lambda c, a, b: c.elementwise("lt", b, a),
        "hardtanh": lambda c, a, low=-1, high=1: _clamp(c, a, low, high),
        "logical_and": lambda c, a, b: c.elementwise("mul", c.truth(0, a), c.truth(1, b)),
        "logical_not": lambda c, a: c.elementwise("eq_s", a, s=0.0),
        "logical_or": lambda c, a, b: c.elementwise("max", c.truth(0, a), c.truth(1, b)),
        "reciprocal": _POWERS[-1.0],
        "relu": lambda c, a: c.elementwise("max", a, 0.0),
        "rsqrt": _POWERS[-0.5],
        "rsub": lambda c, a, b, alpha=1: _sub(c, b, a, alpha),
        "where": lambda c, condition, a, b: c.elementwise("select", condition, a, b),
    }
)


# ---- softplus, which is an operation of the engine


@rule("softplus")
def _softplus(c: Context, a: Value, beta: float = 1, threshold: float = 20) -> Any:
    """log(1 + e^(beta · a)) / beta, or a where beta · a is above the threshold."""
    x = c.node(a)
    z = c.b.op("mul_s", x, s=beta)
    soft = c.b.op("mul_s", c.b.op("softplus", z), s=1 / beta)
    return c.b.op("select", c.b.op("gt_s", z, s=threshold), x, soft)


@rule("log_sigmoid_forward")
def _log_sigmoid(c: Context, a: Value) -> Any:
    """log σ(a) = −log(1 + e^−a); PyTorch's second result is a buffer that only it reads."""
    return [c.b.op("neg", c.b.op("softplus", c.b.op("neg", c.node(a)))), c.b.const(0.0)]
