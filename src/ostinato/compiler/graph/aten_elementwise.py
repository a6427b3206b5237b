"""Rules of elementwise calls: arithmetic, comparisons, activations and their gradients.

A new call `f` that is one operation of the engine is a row in ONE_OPERATION, beside its rows in
native/ops.def and engine/ops.py. One that consists of operations which the engine has is a rule:
`_square` and `_silu` are short ones. The gradient of a call is recorded as ATen calls, too, and
needs rules for those that are new.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ostinato.compiler.graph.node import Node
from ostinato.compiler.graph.rules import Context, Value, rule

# ---- calls that are one operation

ONE_OPERATION = {  # ATen's name: the engine's
    # arithmetic
    "abs": "abs",
    "div": "div",
    "maximum": "max",
    "minimum": "min",
    "mul": "mul",
    "multiply": "mul",
    "neg": "neg",
    "sgn": "sign",
    "sign": "sign",
    "sqrt": "sqrt",
    "true_divide": "div",
    # functions
    "cos": "cos",
    "erf": "erf",
    "exp": "exp",
    "exp2": "exp2",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "sigmoid": "sigmoid",
    "sigmoid_backward": "sigmoid_backward",
    "sin": "sin",
    "tanh": "tanh",
    "tanh_backward": "tanh_backward",
    # comparisons, and truth values, which are 1 and 0
    "__and__": "mul",
    "__or__": "max",
    "bitwise_and": "mul",
    "bitwise_or": "max",
    "eq": "eq",
    "le": "le",
    "lt": "lt",
    "ne": "ne",
}


def _one_operation(op: str, c: Context, *values: Any) -> Any:
    return c.elementwise(op, *values)


for _name, _op in ONE_OPERATION.items():
    rule(_name)(partial(_one_operation, _op))


# ---- arithmetic


@rule("add")
def _add(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    if c.gives_truths:
        raise c.refuse("adds truth values; | says the same")
    if isinstance(b, Value) and alpha != 1:
        b = Value(c.op("mul_s", c.node(b), s=float(alpha)), b.shape)
    elif alpha != 1:
        b = b * alpha
    return c.elementwise("add", a, b)


@rule("sub", "subtract")
def _sub(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    return c.elementwise("sub", a, b) if alpha == 1 else _add(c, a, b, alpha=-alpha)


@rule("rsub")
def _rsub(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    return _sub(c, b, a, alpha=alpha)


@rule("reciprocal")
def _reciprocal(c: Context, a: Value) -> Any:
    return c.elementwise("div", 1.0, a)


@rule("rsqrt")
def _rsqrt(c: Context, a: Value) -> Any:
    return c.op("rdiv_s", c.elementwise("sqrt", a), s=1.0)


@rule("square")
def _square(c: Context, a: Value) -> Any:
    return c.elementwise("mul", a, a)


def _cube(c: Context, a: Value) -> Any:
    return c.op("mul", _square(c, a), c.node(a))


_POWERS: dict[float, Callable[[Context, Value], Any]] = {
    -1.0: _reciprocal,
    -0.5: _rsqrt,
    0.0: lambda c, a: c.b.const(1.0),
    0.5: lambda c, a: c.elementwise("sqrt", a),
    1.0: lambda c, a: a,
    2.0: _square,
    3.0: _cube,
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


@rule("addcmul")
def _addcmul(c: Context, a: Value, x: Value, y: Value, value: float = 1) -> Any:
    product = c.op("mul_s", c.elementwise("mul", x, y), s=float(value))
    return c.op("add", c.node(a), product)


@rule("addcdiv")
def _addcdiv(c: Context, a: Value, x: Value, y: Value, value: float = 1) -> Any:
    quotient = c.op("mul_s", c.elementwise("div", x, y), s=float(value))
    return c.op("add", c.node(a), quotient)


@rule("max")
def _max(c: Context, a: Value, *rest: Any) -> Any:
    if len(rest) == 1 and isinstance(rest[0], Value):
        return c.elementwise("max", a, rest[0])
    raise c.refuse("indices of the largest element are not supported; amax gives the value")


@rule("min")
def _min(c: Context, a: Value, *rest: Any) -> Any:
    if len(rest) == 1 and isinstance(rest[0], Value):
        return c.elementwise("min", a, rest[0])
    raise c.refuse("indices of the smallest element are not supported; amin gives the value")


@rule("clamp", "clip")
def _clamp(c: Context, a: Value, min: Any = None, max: Any = None) -> Any:
    if min is not None:
        a = Value(c.elementwise("max", a, min), a.shape)
    if max is not None:
        a = Value(c.elementwise("min", a, max), a.shape)
    return a


@rule("clamp_min")
def _clamp_min(c: Context, a: Value, low: Any) -> Any:
    return c.elementwise("max", a, low)


@rule("clamp_max")
def _clamp_max(c: Context, a: Value, high: Any) -> Any:
    return c.elementwise("min", a, high)


# ---- comparisons and truth values


@rule("gt")
def _gt(c: Context, a: Any, b: Any) -> Any:
    return c.elementwise("lt", b, a)


@rule("ge")
def _ge(c: Context, a: Any, b: Any) -> Any:
    return c.elementwise("le", b, a)


@rule("logical_not", "bitwise_not")
def _not(c: Context, a: Value) -> Any:
    return c.elementwise("eq_s", a, s=0.0)


@rule("logical_and")
def _and(c: Context, a: Value, b: Value) -> Any:
    return c.elementwise("mul", c.truth(0, a), c.truth(1, b))


@rule("logical_or")
def _or(c: Context, a: Value, b: Value) -> Any:
    return c.elementwise("max", c.truth(0, a), c.truth(1, b))


@rule("where")
def _where(c: Context, condition: Value, a: Any, b: Any) -> Any:
    return c.elementwise("select", condition, a, b)


@rule("masked_fill")
def _masked_fill(c: Context, a: Value, mask: Value, value: Any) -> Any:
    if c.gives_truths and not isinstance(value, Value):
        value = bool(value)
    return c.elementwise("select", mask, value, a)


@rule("copy")
def _copy(c: Context, a: Value, b: Value, *_: Any) -> Any:
    return c.elementwise("copy", c.truth(1, b) if c.gives_truths else b)


# ---- activations and their gradients. Where one is 0 it is selected, never multiplied: a gradient
# that is infinite, or NaN, does not pass a closed gate.


@rule("relu")
def _relu(c: Context, a: Value) -> Any:
    return c.elementwise("max", a, 0.0)


@rule("threshold_backward")
def _threshold_backward(c: Context, g: Value, y: Value, threshold: float) -> Any:
    closed = c.op("le_s", c.node(y), s=float(threshold))
    return c.op("select", closed, c.b.const(0.0), c.node(g))


def _inside(c: Context, x: Node, low: float, high: float) -> Node:
    """Whether low < x < high.

    NaN is outside, as in PyTorch's vector loop; the scalar loop over the last few has it inside.
    """
    return c.op("mul", c.op("gt_s", x, s=low), c.op("lt_s", x, s=high))


@rule("hardtanh")
def _hardtanh(c: Context, a: Value, low: float = -1, high: float = 1) -> Any:
    return _clamp(c, a, low, high)


@rule("hardtanh_backward")
def _hardtanh_backward(c: Context, g: Value, a: Value, low: float, high: float) -> Any:
    inside = _inside(c, c.node(a), float(low), float(high))
    return c.op("select", inside, c.node(g), c.b.const(0.0))


@rule("hardsigmoid")
def _hardsigmoid(c: Context, a: Value) -> Any:
    ramp = c.op("mul_s", c.op("add_s", c.node(a), s=3.0), s=1 / 6)
    return c.op("min_s", c.op("max_s", ramp, s=0.0), s=1.0)


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(c: Context, g: Value, a: Value) -> Any:
    inside = _inside(c, c.node(a), -3.0, 3.0)
    return c.op("select", inside, c.op("mul_s", c.node(g), s=1 / 6), c.b.const(0.0))


@rule("leaky_relu")
def _leaky_relu(c: Context, a: Value, slope: float = 0.01) -> Any:
    x = c.node(a)
    return c.op("select", c.op("gt_s", x, s=0.0), x, c.op("mul_s", x, s=float(slope)))


@rule("leaky_relu_backward")
def _leaky_relu_backward(c: Context, g: Value, a: Value, slope: float, _: bool) -> Any:
    d = c.node(g)
    return c.op("select", c.op("gt_s", c.node(a), s=0.0), d, c.op("mul_s", d, s=float(slope)))


@rule("elu")
def _elu(c: Context, a: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """scale · a where a > 0, else alpha · scale · (exp(input_scale · a) − 1)."""
    x = c.node(a)
    negative = c.op("expm1", c.op("mul_s", x, s=float(input_scale)))
    negative = c.op("mul_s", negative, s=float(alpha * scale))
    return c.op("select", c.op("gt_s", x, s=0.0), c.op("mul_s", x, s=float(scale)), negative)


@rule("elu_backward")
def _elu_backward(
    c: Context, g: Value, alpha: float, scale: float, input_scale: float, is_result: bool, a: Value
) -> Any:
    x, d = c.node(a), c.node(g)
    if is_result:
        slope = c.op("mul_s", c.op("add_s", x, s=float(alpha * scale)), s=float(input_scale))
    else:
        e = c.op("exp", c.op("mul_s", x, s=float(input_scale)))
        slope = c.op("mul_s", e, s=float(alpha * scale * input_scale))
    negative = c.op("mul", d, slope)
    return c.op("select", c.op("gt_s", x, s=0.0), c.op("mul_s", d, s=float(scale)), negative)


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
    z = c.op("mul_s", x, s=float(beta))
    soft = c.op("mul_s", c.op("softplus", z), s=1 / float(beta))
    return c.op("select", c.op("gt_s", z, s=float(threshold)), x, soft)


@rule("softplus_backward")
def _softplus_backward(c: Context, g: Value, a: Value, beta: float, threshold: float) -> Any:
    z, d = c.op("mul_s", c.node(a), s=float(beta)), c.node(g)
    soft = c.op("mul", d, c.op("sigmoid", z))
    return c.op("select", c.op("gt_s", z, s=float(threshold)), d, soft)
