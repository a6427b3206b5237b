"""Rules of elementwise calls: arithmetic, comparisons, activations and their gradients.

A new call that is one operation of the engine is an entry of ONE_OPERATION, beside its rows in
native/kernels/ops.def and engine/ops.py. One that consists of operations which the engine has is a
rule: `square` and `silu` are short ones. The gradient of a call is recorded as ATen calls, too, and
needs rules for those that are new.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ostinato.compiler.graph.node import Node
from ostinato.compiler.graph.rules import RULES, Context, Rule, Value, rule

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
    "multiply": "mul",
    "sgn": "sign",
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
        b = Value(c.op("mul_s", c.node(b), s=alpha), b.shape)
    elif alpha != 1:
        b = b * alpha
    return c.elementwise("add", a, b)


@rule("sub", "subtract")
def _sub(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    return c.elementwise("sub", a, b) if alpha == 1 else _add(c, a, b, alpha=-alpha)


_POWERS: dict[float, Rule] = {
    -1.0: lambda c, a: c.elementwise("div", 1.0, a),
    -0.5: lambda c, a: c.op("rdiv_s", c.elementwise("sqrt", a), s=1.0),
    0.0: lambda c, a: c.b.const(1.0),
    0.5: lambda c, a: c.elementwise("sqrt", a),
    1.0: lambda c, a: a,
    2.0: lambda c, a: c.elementwise("mul", a, a),
    3.0: lambda c, a: c.op("mul", c.elementwise("mul", a, a), c.node(a)),
}


@rule("pow")
def _pow(c: Context, a: Any, exponent: Any) -> Any:
    if not isinstance(exponent, Value) and float(exponent) in _POWERS:
        return _POWERS[float(exponent)](c, a)
    return c.elementwise("pow", a, exponent)


@rule("lerp")
def _lerp(c: Context, a: Value, b: Value, weight: Any) -> Any:
    if not isinstance(weight, Value) and abs(weight) >= 0.5:  # from b on, as PyTorch
        back = c.op("mul_s", c.elementwise("sub", b, a), s=1 - weight)
        return c.op("sub", c.node(b), back)
    return c.elementwise("lerp", a, b, weight)


def _plus_scaled(op: str, c: Context, a: Value, x: Value, y: Value, value: float = 1) -> Any:
    scaled = c.op("mul_s", c.elementwise(op, x, y), s=value)
    return c.op("add", c.node(a), scaled)


def _larger(name: str, which: str, c: Context, a: Value, *rest: Any) -> Any:
    if len(rest) == 1 and isinstance(rest[0], Value):
        return c.elementwise(name, a, rest[0])
    raise c.refuse(f"indices of the {which} element are not supported; a{name} gives the value")


@rule("clamp", "clip")
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


# ---- calls that are one expression

RULES.update({
    "addcdiv": partial(_plus_scaled, "div"),
    "addcmul": partial(_plus_scaled, "mul"),
    "clamp_max": lambda c, a, high: c.elementwise("min", a, high),
    "clamp_min": lambda c, a, low: c.elementwise("max", a, low),
    "copy": lambda c, a, b, *_: c.elementwise("copy", c.truth(1, b) if c.gives_truths else b),
    "ge": lambda c, a, b: c.elementwise("le", b, a),
    "gt": lambda c, a, b: c.elementwise("lt", b, a),
    "hardtanh": lambda c, a, low=-1, high=1: _clamp(c, a, low, high),
    "logical_and": lambda c, a, b: c.elementwise("mul", c.truth(0, a), c.truth(1, b)),
    "logical_not": lambda c, a: c.elementwise("eq_s", a, s=0.0),
    "logical_or": lambda c, a, b: c.elementwise("max", c.truth(0, a), c.truth(1, b)),
    "max": partial(_larger, "max", "largest"),
    "min": partial(_larger, "min", "smallest"),
    "reciprocal": _POWERS[-1.0],
    "relu": lambda c, a: c.elementwise("max", a, 0.0),
    "rsqrt": _POWERS[-0.5],
    "rsub": lambda c, a, b, alpha=1: _sub(c, b, a, alpha),
    "square": _POWERS[2.0],
    "where": lambda c, condition, a, b: c.elementwise("select", condition, a, b),
})  # fmt: skip


# ---- activations and their gradients. Where one is 0 it is selected, never multiplied: a gradient
# that is infinite, or NaN, does not pass a closed gate.


@rule("threshold_backward")
def _threshold_backward(c: Context, g: Value, y: Value, threshold: float) -> Any:
    closed = c.op("le_s", c.node(y), s=threshold)
    return c.op("select", closed, c.b.const(0.0), c.node(g))


def _inside(c: Context, x: Node, low: float, high: float) -> Node:
    """Whether low < x < high.

    NaN is outside, as in PyTorch's vector loop; the scalar loop over the last few has it inside.
    """
    return c.op("mul", c.op("gt_s", x, s=low), c.op("lt_s", x, s=high))


@rule("hardtanh_backward")
def _hardtanh_backward(c: Context, g: Value, a: Value, low: float, high: float) -> Any:
    inside = _inside(c, c.node(a), low, high)
    return c.op("select", inside, c.node(g), c.b.const(0.0))


@rule("hardsigmoid")
def _hardsigmoid(c: Context, a: Value) -> Any:
    ramp = c.op("mul_s", c.op("add_s", c.node(a), s=3.0), s=1 / 6)
    return c.op("min_s", c.op("max_s", ramp, s=0.0), s=1.0)


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(c: Context, g: Value, a: Value) -> Any:
    """The slope is PyTorch's: float32's sixth, also in float64."""
    inside = _inside(c, c.node(a), -3.0, 3.0)
    slope = c.op("mul_s", c.node(g), s=float(np.float32(1 / 6)))
    return c.op("select", inside, slope, c.b.const(0.0))


@rule("leaky_relu")
def _leaky_relu(c: Context, a: Value, slope: float = 0.01) -> Any:
    x = c.node(a)
    return c.op("select", c.op("gt_s", x, s=0.0), x, c.op("mul_s", x, s=slope))


@rule("leaky_relu_backward")
def _leaky_relu_backward(c: Context, g: Value, a: Value, slope: float, _: bool) -> Any:
    d = c.node(g)
    return c.op("select", c.op("gt_s", c.node(a), s=0.0), d, c.op("mul_s", d, s=slope))


@rule("elu")
def _elu(c: Context, a: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """scale · a where a > 0, else alpha · scale · (exp(input_scale · a) − 1)."""
    x = c.node(a)
    negative = c.op("expm1", c.op("mul_s", x, s=input_scale))
    negative = c.op("mul_s", negative, s=alpha * scale)
    return c.op("select", c.op("gt_s", x, s=0.0), c.op("mul_s", x, s=scale), negative)


@rule("elu_backward")
def _elu_backward(
    c: Context, g: Value, alpha: float, scale: float, input_scale: float, is_result: bool, a: Value
) -> Any:
    x, d = c.node(a), c.node(g)
    if is_result:
        slope = c.op("mul_s", c.op("add_s", x, s=alpha * scale), s=input_scale)
    else:
        e = c.op("exp", c.op("mul_s", x, s=input_scale))
        slope = c.op("mul_s", e, s=alpha * scale * input_scale)
    negative = c.op("mul", d, slope)
    return c.op("select", c.op("gt_s", x, s=0.0), c.op("mul_s", d, s=scale), negative)


@rule("silu")
def _silu(c: Context, a: Value) -> Any:
    """a · σ(a)."""
    x = c.node(a)
    return c.op("mul", x, c.op("sigmoid", x))


@rule("silu_backward")
def _silu_backward(c: Context, g: Value, a: Value) -> Any:
    """g · σ(a) · (1 + a · (1 − σ(a)))."""
    x = c.node(a)
    s = c.op("sigmoid", x)
    slope = c.op("add_s", c.op("mul", x, c.op("rsub_s", s, s=1.0)), s=1.0)
    return c.op("mul", c.node(g), c.op("mul", s, slope))


@rule("gelu")
def _gelu(c: Context, a: Value, approximate: str = "none") -> Any:
    """a · Φ(a), or ½a · (1 + tanh(√(2/π) · (a + 0.044715 a³)))."""
    x = c.node(a)
    if approximate == "none":
        return c.op("mul", x, _normal_cdf(c, x))
    half = c.op("mul_s", x, s=0.5)
    return c.op("mul", half, c.op("add_s", c.op("tanh", _gelu_inner(c, x)), s=1.0))


def _normal_cdf(c: Context, x: Node) -> Node:
    """Φ(x)."""
    e = c.op("erf", c.op("mul_s", x, s=math.sqrt(0.5)))
    return c.op("mul_s", c.op("add_s", e, s=1.0), s=0.5)


def _gelu_inner(c: Context, x: Node) -> Node:
    cubic = c.op("mul", c.op("mul", x, x), x)
    total = c.op("add", x, c.op("mul_s", cubic, s=0.044715))
    return c.op("mul_s", total, s=math.sqrt(2 / math.pi))


@rule("gelu_backward")
def _gelu_backward(c: Context, g: Value, a: Value, approximate: str = "none") -> Any:
    x, d = c.node(a), c.node(g)
    if approximate == "none":  # Φ(x) + x·φ(x)
        density = c.op("exp", c.op("mul_s", c.op("mul", x, x), s=-0.5))
        density = c.op("mul_s", density, s=1 / math.sqrt(2 * math.pi))
        return c.op("mul", d, c.op("add", _normal_cdf(c, x), c.op("mul", x, density)))
    t = c.op("tanh", _gelu_inner(c, x))  # ½(1 + t) + ½x(1 − t²)·k·(1 + 3·0.044715·x²)
    inner = c.op("add_s", c.op("mul_s", c.op("mul", x, x), s=3 * 0.044715), s=1.0)
    inner = c.op("mul_s", inner, s=math.sqrt(2 / math.pi))
    left = c.op("mul_s", c.op("add_s", t, s=1.0), s=0.5)
    right = c.op("mul", c.op("mul_s", x, s=0.5), c.op("tanh_backward", inner, t))
    return c.op("mul", d, c.op("add", left, right))


@rule("log_sigmoid_forward")
def _log_sigmoid(c: Context, a: Value) -> Any:
    """log σ(a) = −log(1 + e^−a); PyTorch's second result is a buffer that only it reads."""
    return [c.op("neg", c.op("softplus", c.op("neg", c.node(a)))), c.b.const(0.0)]


@rule("log_sigmoid_backward")
def _log_sigmoid_backward(c: Context, g: Value, a: Value, _: Any) -> Any:
    return c.op("mul", c.node(g), c.op("sigmoid", c.op("neg", c.node(a))))


@rule("softplus")
def _softplus(c: Context, a: Value, beta: float = 1, threshold: float = 20) -> Any:
    """log(1 + e^(beta · a)) / beta, or a where beta · a is above the threshold."""
    x = c.node(a)
    z = c.op("mul_s", x, s=beta)
    soft = c.op("mul_s", c.op("softplus", z), s=1 / beta)
    return c.op("select", c.op("gt_s", z, s=threshold), x, soft)


@rule("softplus_backward")
def _softplus_backward(c: Context, g: Value, a: Value, beta: float, threshold: float) -> Any:
    z, d = c.op("mul_s", c.node(a), s=beta), c.node(g)
    soft = c.op("mul", d, c.op("sigmoid", z))
    return c.op("select", c.op("gt_s", z, s=threshold), d, soft)
