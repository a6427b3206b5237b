"""ATen calls that are elementwise: arithmetic, comparisons, activations and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ostinato.compiler.graph.node import Node
from ostinato.compiler.graph.rules import Context, Value, rule


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
    if alpha != 1:
        return _add(c, a, b, alpha=-alpha)
    return c.elementwise("sub", a, b)


@rule("rsub")
def _rsub(c: Context, a: Any, b: Any, alpha: float = 1) -> Any:
    return _sub(c, b, a, alpha=alpha)


for _name, _op in {
    "mul": "mul", "multiply": "mul", "div": "div", "true_divide": "div", "neg": "neg",
    "tanh": "tanh",
    "sigmoid": "sigmoid", "exp": "exp", "log": "log", "log1p": "log1p", "expm1": "expm1",
    "sqrt": "sqrt", "abs": "abs", "sgn": "sign", "sign": "sign", "erf": "erf", "sin": "sin",
    "cos": "cos", "maximum": "max", "minimum": "min", "tanh_backward": "tanh_backward",
    "sigmoid_backward": "sigmoid_backward", "lt": "lt", "le": "le", "eq": "eq", "ne": "ne",
    "bitwise_and": "mul", "__and__": "mul", "bitwise_or": "max", "__or__": "max",
}.items():  # fmt: skip

    def _direct(c: Context, *values: Any, _op: str = _op) -> Any:
        return c.elementwise(_op, *values)

    rule(_name)(_direct)


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


@rule("copy")
def _copy(c: Context, a: Value, b: Value, *_: Any) -> Any:
    return c.elementwise("copy", c.truth(1, b) if c.gives_truths else b)


@rule("where")
def _where(c: Context, condition: Value, a: Any, b: Any) -> Any:
    return c.elementwise("select", condition, a, b)


@rule("masked_fill")
def _masked_fill(c: Context, a: Value, mask: Value, value: Any) -> Any:
    if c.gives_truths and not isinstance(value, Value):
        value = bool(value)
    return c.elementwise("select", mask, value, a)


@rule("reciprocal")
def _reciprocal(c: Context, a: Value) -> Any:
    return c.elementwise("div", 1.0, a)


@rule("rsqrt")
def _rsqrt(c: Context, a: Value) -> Any:
    return c.op("rdiv_s", c.elementwise("sqrt", a), s=1.0)


@rule("square")
def _square(c: Context, a: Value) -> Any:
    return c.elementwise("mul", a, a)


@rule("pow")
def _pow(c: Context, a: Any, exponent: Any) -> Any:
    if not isinstance(exponent, Value):
        simple: dict[float, Callable[[], Any]] = {
            0.0: lambda: c.b.const(1.0),
            1.0: lambda: a,
            2.0: lambda: c.elementwise("mul", a, a),
            3.0: lambda: c.op("mul", c.elementwise("mul", a, a), c.node(a)),
            0.5: lambda: c.elementwise("sqrt", a),
            -1.0: lambda: _reciprocal(c, a),
            -0.5: lambda: _rsqrt(c, a),
        }
        if float(exponent) in simple:
            return simple[float(exponent)]()
    return c.elementwise("pow", a, exponent)


@rule("clamp", "clip")
def _clamp(c: Context, a: Value, min: Any = None, max: Any = None) -> Any:
    node: Any = a
    if min is not None:
        node = Value(c.elementwise("max", node, min), a.shape)
    if max is not None:
        node = Value(c.elementwise("min", node, max), a.shape)
    return node


@rule("clamp_min")
def _clamp_min(c: Context, a: Value, low: Any) -> Any:
    return c.elementwise("max", a, low)


@rule("clamp_max")
def _clamp_max(c: Context, a: Value, high: Any) -> Any:
    return c.elementwise("min", a, high)


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


# ---- activations and their gradients, from the operations the engine has


def _gated(c: Context, g: Value, open_if: Node) -> Node:
    """g where the gate is open, 0 elsewhere: selected, never multiplied."""
    if g.node.op == "absent":
        return g.node
    return c.op("select", open_if, c.node(g), c.b.const(0.0))


@rule("relu")
def _relu(c: Context, a: Value) -> Any:
    return c.elementwise("max", a, 0.0)


@rule("threshold_backward")
def _threshold_backward(c: Context, g: Value, y: Value, threshold: float) -> Any:
    if g.node.op == "absent":
        return g
    closed = c.op("le_s", c.node(y), s=float(threshold))
    return c.op("select", closed, c.b.const(0.0), c.node(g))


@rule("hardtanh")
def _hardtanh(c: Context, a: Value, low: float = -1, high: float = 1) -> Any:
    return _clamp(c, a, low, high)


@rule("hardtanh_backward")
def _hardtanh_backward(c: Context, g: Value, a: Value, low: float, high: float) -> Any:
    # NaN is outside, as where PyTorch takes whole vectors; in the rest of them it is inside.
    inside = c.op(
        "mul", c.op("gt_s", c.node(a), s=float(low)), c.op("lt_s", c.node(a), s=float(high))
    )
    return _gated(c, g, inside)


@rule("hardsigmoid")
def _hardsigmoid(c: Context, a: Value) -> Any:
    ramp = c.op("mul_s", c.op("add_s", c.node(a), s=3.0), s=1 / 6)
    return c.op("min_s", c.op("max_s", ramp, s=0.0), s=1.0)


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(c: Context, g: Value, a: Value) -> Any:
    x = c.node(a)
    inside = c.op("mul", c.op("gt_s", x, s=-3.0), c.op("lt_s", x, s=3.0))
    return _gated(c, Value(c.op("mul_s", c.node(g), s=1 / 6), g.shape), inside)


@rule("leaky_relu")
def _leaky_relu(c: Context, a: Value, slope: float = 0.01) -> Any:
    x = c.node(a)
    return c.op("select", c.op("gt_s", x, s=0.0), x, c.op("mul_s", x, s=float(slope)))


@rule("leaky_relu_backward")
def _leaky_relu_backward(c: Context, g: Value, a: Value, slope: float, _: bool) -> Any:
    if g.node.op == "absent":
        return g
    d = c.node(g)
    return c.op("select", c.op("gt_s", c.node(a), s=0.0), d, c.op("mul_s", d, s=float(slope)))


@rule("elu")
def _elu(c: Context, a: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    x = c.node(a)
    negative = c.op("expm1", c.op("mul_s", x, s=float(input_scale)))
    scaled = c.op("mul_s", negative, s=float(alpha * scale))
    return c.op("select", c.op("gt_s", x, s=0.0), c.op("mul_s", x, s=float(scale)), scaled)


@rule("elu_backward")
def _elu_backward(
    c: Context, g: Value, alpha: float, scale: float, input_scale: float, is_result: bool, a: Value
) -> Any:
    if g.node.op == "absent":
        return g
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
    return c.op("mul", c.node(a), c.elementwise("sigmoid", a))


@rule("silu_backward")
def _silu_backward(c: Context, g: Value, a: Value) -> Any:
    """g · σ(a) · (1 + a · (1 − σ(a)))"""
    x = c.node(a)
    s = c.op("sigmoid", x)
    slope = c.op("add_s", c.op("mul", x, c.op("rsub_s", s, s=1.0)), s=1.0)
    return c.op("mul", c.node(g), c.op("mul", s, slope))


@rule("gelu")
def _gelu(c: Context, a: Value, approximate: str = "none") -> Any:
    x = c.node(a)
    if approximate == "tanh":
        return c.op(
            "mul",
            c.op("mul_s", x, s=0.5),
            c.op("add_s", c.op("tanh", _gelu_inner(c, x)), s=1.0),
        )
    return c.op("mul", x, _normal_cdf(c, x))


def _normal_cdf(c: Context, x: Node) -> Node:
    e = c.op("erf", c.op("mul_s", x, s=math.sqrt(0.5)))
    return c.op("mul_s", c.op("add_s", e, s=1.0), s=0.5)


def _gelu_inner(c: Context, x: Node) -> Node:
    cubic = c.op("mul", c.op("mul", x, x), x)
    return c.op("mul_s", c.op("add", x, c.op("mul_s", cubic, s=0.044715)), s=math.sqrt(2 / math.pi))


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
    return [c.op("neg", c.op("softplus", c.op("neg", c.node(a)))), c.b.const(0.0)]


@rule("log_sigmoid_backward")
def _log_sigmoid_backward(c: Context, g: Value, a: Value, _: Any) -> Any:
    return c.op("mul", c.node(g), c.op("sigmoid", c.op("neg", c.node(a))))


@rule("softplus")
def _softplus(c: Context, a: Value, beta: float = 1, threshold: float = 20) -> Any:
    x = c.node(a)
    z = c.op("mul_s", x, s=float(beta))
    soft = c.op("mul_s", c.op("softplus", z), s=1 / float(beta))
    return c.op("select", c.op("gt_s", z, s=float(threshold)), x, soft)


@rule("softplus_backward")
def _softplus_backward(c: Context, g: Value, a: Value, beta: float, threshold: float) -> Any:
    if g.node.op == "absent":
        return g
    z, d = c.op("mul_s", c.node(a), s=float(beta)), c.node(g)
    soft = c.op("mul", d, c.op("sigmoid", z))
    return c.op("select", c.op("gt_s", z, s=float(threshold)), d, soft)
