"""Each operation of a step graph in ONNX: one row per operation, as in engine/ops.py.

    ELEMENTWISE   name → nodes, on operands that broadcast against each other; s is the scalar
    ROWS          name → nodes, for operations on a whole row

A row of a table gets a `Writer`, the names of the operands, and, if elementwise, the scalar, or
else the node. It returns the name of the result. All of them work on the last axis, so that they
apply to rows `[B, width]` and to rows of all steps `[T, B, width]`. Truth values are 1 and 0.

ONNX lacks some, and 1 + a loses the digits of a small a:

    log1p(a)    log(u) · a / (u − 1) with u = 1 + a, or a where u = 1    (Kahan, in Goldberg 1991)
    expm1(a)    tanh(a / 2) · (eᵃ + 1)
    erfc(a)     1 − erf(a): right to ε absolutely, so that its tail has no digits
    erfcx(a)    a polynomial in (|a| − c) / (|a| + c), over |a| + c; where a < 0, 2 e^(a²) less that
    atan2(a, b) by the angle of (|b|, |a|), in which −0 counts as 0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ostinato.internal import axis_of
from ostinato_learn.export.onnx.writer import Writer

Elementwise = Callable[..., str]  # (writer, operands…, s) → the name of the result


def _op(name: str) -> Elementwise:
    """An operation that ONNX has."""
    return lambda w, *operands_s: w.node(name, *operands_s[:-1])


def _with_scalar(name: str) -> Elementwise:
    return lambda w, a, s: w.node(name, a, w.number(s))


def _scalar_first(name: str) -> Elementwise:
    return lambda w, a, s: w.node(name, w.number(s), a)


def _truth(name: str) -> Elementwise:
    return lambda w, a, b, s: w.float(w.node(name, a, b))


def _truth_with_scalar(name: str) -> Elementwise:
    return lambda w, a, s: w.float(w.node(name, a, w.number(s)))


def _sign(w: Writer, a: str, s: float) -> str:
    """Not ONNX's Sign, whose result for NaN is undefined."""
    zero = w.number(0)
    return w.node("Sub", w.float(w.node("Greater", a, zero)), w.float(w.node("Less", a, zero)))


def _log1p(w: Writer, a: str, s: float) -> str:
    one = w.number(1)
    u = w.node("Add", a, one)
    correction = w.node("Div", a, w.node("Sub", u, one))
    small = w.node("Mul", w.node("Log", u), correction)
    # From u = 2 on, log(u) alone is exact enough; u = ∞ would give ∞ / ∞.
    finite = w.node("Where", w.node("Less", u, w.number(2)), small, w.node("Log", u))
    return w.node("Where", w.node("Equal", u, one), a, finite)


def _expm1(w: Writer, a: str, s: float) -> str:
    half = w.node("Tanh", w.node("Mul", a, w.number(0.5)))
    return w.node("Mul", half, w.node("Add", w.node("Exp", a), w.number(1)))


# (x + c) · e^(x²) erfc(x) from x = 0 on, as a polynomial in (x − c) / (x + c): coefficients, the
# constant first, fitted to be off by 6·10⁻⁹ of the value at most.
_ERFCX_C = 2.5
_ERFCX = (
    1.0540318,
    -0.80465192,
    0.45391440,
    -0.17124969,
    0.028357606,
    0.0083838794,
    -0.0047999579,
    -0.00041496244,
    0.00066223560,
    2.7484717e-05,
    -7.1326082e-05,
)


def _erfcx(w: Writer, a: str, s: float) -> str:
    x, c = w.node("Abs", a), w.number(_ERFCX_C)
    above = w.node("Add", x, c)
    # Not (x − c) / (x + c), which is ∞ / ∞ at ∞.
    z = w.node("Sub", w.number(1), w.node("Div", w.number(2 * _ERFCX_C), above))
    polynomial = w.number(_ERFCX[-1])
    for coefficient in reversed(_ERFCX[:-1]):
        polynomial = w.node("Add", w.node("Mul", polynomial, z), w.number(coefficient))
    right = w.node("Div", polynomial, above)
    # e^(a²) = e^(b²) · e^((x − b) · (x + b)) with b of few bits, so that b² is exact.
    x = w.node("Min", x, w.number(10))  # 2 e^100 is ∞
    b = w.node("Div", w.node("Floor", w.node("Mul", x, w.number(64))), w.number(64))
    rest = w.node("Mul", w.node("Sub", x, b), w.node("Add", x, b))
    power = w.node("Mul", w.node("Exp", w.node("Mul", b, b)), w.node("Exp", rest))
    left = w.node("Sub", w.node("Mul", w.number(2), power), right)
    return w.node("Where", w.node("Less", a, w.number(0)), left, right)


def _scaled_log(base: float) -> Elementwise:
    return lambda w, a, s: w.node("Mul", w.node("Log", a), w.number(1 / math.log(base)))


def _trunc(w: Writer, a: str, s: float) -> str:
    negative = w.node("Less", a, w.number(0))
    return w.node("Where", negative, w.node("Ceil", a), w.node("Floor", a))


def _atan2(w: Writer, a: str, b: str, s: float) -> str:
    zero = w.number(0)
    slope = w.node("Div", w.node("Abs", a), w.node("Abs", b))
    level = w.node("Equal", a, zero)  # 0 / 0 would be no slope
    angle = w.node("Where", level, zero, w.node("Atan", slope))
    left = w.node("Less", b, zero)
    angle = w.node("Where", left, w.node("Sub", w.number(math.pi), angle), angle)
    return w.node("Where", w.node("Less", a, zero), w.node("Neg", angle), angle)


def _lerp(w: Writer, a: str, b: str, c: str, s: float) -> str:
    return w.node("Add", a, w.node("Mul", c, w.node("Sub", b, a)))


def _tanh_backward(w: Writer, a: str, b: str, s: float) -> str:
    return w.node("Mul", a, w.node("Sub", w.number(1), w.node("Mul", b, b)))


def _sigmoid_backward(w: Writer, a: str, b: str, s: float) -> str:
    return w.node("Mul", w.node("Mul", a, b), w.node("Sub", w.number(1), b))


def _max_backward(w: Writer, a: str, b: str, c: str, s: float) -> str:
    half = w.node("Mul", a, w.number(0.5))
    rest = w.node("Where", w.node("Equal", b, c), half, a)
    return w.node("Where", w.node("Less", b, c), w.number(0), rest)


ELEMENTWISE: dict[str, Elementwise] = {
    "copy": _op("Identity"),
    "fill": lambda w, s: w.number(s),
    "neg": _op("Neg"),
    "abs": _op("Abs"),
    "sign": _sign,
    "sqrt": _op("Sqrt"),
    "exp": _op("Exp"),
    "exp2": lambda w, a, s: w.node("Pow", w.number(2), a),
    "log": _op("Log"),
    "log1p": _log1p,
    "expm1": _expm1,
    "erf": _op("Erf"),
    "sin": _op("Sin"),
    "cos": _op("Cos"),
    "tan": _op("Tan"),
    "atan": _op("Atan"),
    "sinh": _op("Sinh"),
    "cosh": _op("Cosh"),
    "log2": _scaled_log(2),
    "log10": _scaled_log(10),
    "erfc": lambda w, a, s: w.node("Sub", w.number(1), w.node("Erf", a)),
    "erfcx": _erfcx,
    "floor": _op("Floor"),
    "ceil": _op("Ceil"),
    "round": _op("Round"),
    "trunc": _trunc,
    "tanh": _op("Tanh"),
    "sigmoid": _op("Sigmoid"),
    "softplus": _op("Softplus"),
    "add": _op("Add"),
    "sub": _op("Sub"),
    "mul": _op("Mul"),
    "div": _op("Div"),
    "max": _op("Max"),
    "min": _op("Min"),
    "lt": _truth("Less"),
    "le": _truth("LessOrEqual"),
    "eq": _truth("Equal"),
    "ne": lambda w, a, b, s: w.float(w.node("Not", w.node("Equal", a, b))),
    "pow": _op("Pow"),
    "fmod": lambda w, a, b, s: w.node("Mod", a, b, fmod=1),
    "atan2": _atan2,
    "add_s": _with_scalar("Add"),
    "mul_s": _with_scalar("Mul"),
    "rsub_s": _scalar_first("Sub"),
    "rdiv_s": _scalar_first("Div"),
    "max_s": _with_scalar("Max"),
    "min_s": _with_scalar("Min"),
    "lt_s": _truth_with_scalar("Less"),
    "gt_s": _truth_with_scalar("Greater"),
    "le_s": _truth_with_scalar("LessOrEqual"),
    "ge_s": _truth_with_scalar("GreaterOrEqual"),
    "eq_s": _truth_with_scalar("Equal"),
    "pow_s": _with_scalar("Pow"),
    "fma": lambda w, a, b, c, s: w.node("Add", w.node("Mul", a, b), c),
    "select": lambda w, a, b, c, s: w.node("Where", w.truth(a), b, c),
    "select_s": lambda w, a, b, s: w.node("Where", w.truth(a), w.number(s), b),
    "select_else_s": lambda w, a, b, s: w.node("Where", w.truth(a), b, w.number(s)),
    "lerp": _lerp,
    "tanh_backward": _tanh_backward,
    "sigmoid_backward": _sigmoid_backward,
    "max_backward": _max_backward,
}


Rows = Callable[[Writer, Any, tuple[str, ...]], str]  # (writer, node, operands) → the result


def _array(w: Writer, a: str, *sizes: int) -> str:
    """Rows as arrays of these sizes; a vector without batch as one array."""
    return w.node("Reshape", a, _shape(w, a, *sizes))


def _shape(w: Writer, like: str, *sizes: int) -> str:
    return w.node("Concat", w.node("Shape", like, start=0, end=-1), w.integers(*sizes), axis=0)


def _spread(w: Writer, n: Any, x: tuple[str, ...]) -> str:
    """`[outer, inner]` to `[outer, times, inner]`."""
    (a,), (times, inner) = x, axis_of(n)
    outer = n.width // (times * inner)
    if outer * inner == 1:
        return w.expand(a, a, n.width)
    lying = _array(w, a, outer, 1, inner)
    wide = w.node("Expand", lying, _shape(w, a, outer, times, inner))
    return w.node("Reshape", wide, _shape(w, a, n.width))


def _reduced(name: str) -> Rows:
    """`[outer, times, inner]` to `[outer, inner]`."""

    def rows(w: Writer, n: Any, x: tuple[str, ...]) -> str:
        (a,), (times, inner) = x, axis_of(n)
        outer = n.width // inner
        if outer * inner == 1:
            return w.node(name, a, w.integers(-1), keepdims=1)
        lying = _array(w, a, outer, times, inner)
        return w.node(
            "Reshape", w.node(name, lying, w.integers(-2), keepdims=0), _shape(w, a, n.width)
        )

    return rows


def _take(w: Writer, n: Any, x: tuple[str, ...]) -> str:
    """Elements by runs (start, count, step) of places; a run that starts at −1 is zeros."""
    (a,), width = x, n.inputs[0].width
    places: list[int] = []
    for start, count, step in n.attrs:
        places += [width] * count if start < 0 else [start + step * i for i in range(count)]
    if width in places:
        a = w.node("Concat", a, w.expand(w.number(0), a, 1), axis=-1)
    return w.node("Gather", a, w.integers(*places), axis=-1)


def _product(w: Writer, n: Any, x: tuple[str, ...]) -> str:
    """`[groups, M, K]` times `[groups, K, N]`, or across `[groups, N, K]`, matrix by matrix."""
    groups, M, K, N, across = n.attrs
    a = _array(w, x[0], groups, M, K)
    if across:
        b = _array(w, x[1], groups, N, K)
        left, right = ("..." if i.kind == "rows" else "" for i in n.inputs)
        product = w.node("Einsum", a, b, equation=f"{left}gmk,{right}gnk->...gmn")
    else:
        product = w.node("MatMul", a, _array(w, x[1], groups, K, N))
    like = x[0] if n.inputs[0].kind == "rows" else x[1]
    return w.node("Reshape", product, _shape(w, like, n.width))


ROWS: dict[str, Rows] = {
    "spread": _spread,
    "slice": lambda w, n, x: w.slice(x[0], n.attrs[0], n.attrs[0] + n.width),
    "concat": lambda w, n, x: w.node("Concat", *x, axis=-1),
    "row_sum": _reduced("ReduceSum"),
    "row_max": _reduced("ReduceMax"),
    "take": _take,
    "product": _product,
}
