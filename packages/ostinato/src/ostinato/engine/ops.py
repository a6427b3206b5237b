"""The elementwise operations, defined in NumPy.

One row per operation, by the names of `native/kernels/ops.def`; tests compare the two tables.
Operands are arrays that broadcast against each other; `s` is the scalar of the instruction. Truth
values are 1 and 0.

An operation is *expensive* if computing it again in the backward pass costs more than keeping its
result. Keeping sixteen float32 values costs one cache line written and two read. exp, exp2, tanh,
sigmoid and all faster operations are not expensive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any


class Op(NamedTuple):
    """One elementwise operation: its number of operands, and its meaning."""

    arity: int
    meaning: Callable[..., Array]  # meaning(operands…, s)
    expensive: bool = False  # its result is kept for the backward pass, not computed again


_erf = np.vectorize(math.erf, otypes=[float])
_erfc = np.vectorize(math.erfc, otypes=[float])


def erfcx(a: Array) -> Array:
    """e^(a²) erfc(a); above 25, where erfc vanishes, the asymptotic series (DLMF 7.12.1)."""
    x = np.asarray(a, np.float64)
    with np.errstate(all="ignore"):
        u = 0.5 / (x * x)
        series = 1 - u * (1 - 3 * u * (1 - 5 * u * (1 - 7 * u * (1 - 9 * u * (1 - 11 * u)))))
        product = np.exp(x * x) * _erfc(x)
        return np.where(x > 25, series / (x * math.sqrt(math.pi)), product).astype(a.dtype)


def _truth(mask: Array, like: Array) -> Array:
    return mask.astype(like.dtype)


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^−a); 0 where e^−a overflows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-a))


def softplus(a: Array) -> Array:
    """log(1 + e^a) = max(a, 0) + log(1 + e^−|a|)."""
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


OPS: dict[str, Op] = {
    "copy": Op(1, lambda a, s: a),
    "fill": Op(0, lambda s: s),
    "neg": Op(1, lambda a, s: -a),
    "abs": Op(1, lambda a, s: np.abs(a)),
    "sign": Op(1, lambda a, s: (a > 0) * 1.0 - (a < 0)),  # 0 for NaN, as in PyTorch
    "sqrt": Op(1, lambda a, s: np.sqrt(a)),
    "exp": Op(1, lambda a, s: np.exp(a)),
    "exp2": Op(1, lambda a, s: np.exp2(a)),
    "log": Op(1, lambda a, s: np.log(a), expensive=True),
    "log1p": Op(1, lambda a, s: np.log1p(a), expensive=True),
    "expm1": Op(1, lambda a, s: np.expm1(a), expensive=True),
    "erf": Op(1, lambda a, s: _erf(a).astype(a.dtype), expensive=True),
    "sin": Op(1, lambda a, s: np.sin(a), expensive=True),
    "cos": Op(1, lambda a, s: np.cos(a), expensive=True),
    "tan": Op(1, lambda a, s: np.tan(a), expensive=True),
    "atan": Op(1, lambda a, s: np.arctan(a), expensive=True),
    "sinh": Op(1, lambda a, s: np.sinh(a), expensive=True),
    "cosh": Op(1, lambda a, s: np.cosh(a), expensive=True),
    "log2": Op(1, lambda a, s: np.log2(a), expensive=True),
    "log10": Op(1, lambda a, s: np.log10(a), expensive=True),
    "erfc": Op(1, lambda a, s: _erfc(a).astype(a.dtype), expensive=True),
    "erfcx": Op(1, lambda a, s: erfcx(a), expensive=True),
    "floor": Op(1, lambda a, s: np.floor(a)),
    "ceil": Op(1, lambda a, s: np.ceil(a)),
    "round": Op(1, lambda a, s: np.rint(a)),  # to the even one of two, as in PyTorch
    "trunc": Op(1, lambda a, s: np.trunc(a)),
    "tanh": Op(1, lambda a, s: np.tanh(a)),
    "sigmoid": Op(1, lambda a, s: sigmoid(a)),
    "softplus": Op(1, lambda a, s: softplus(a), expensive=True),
    "add": Op(2, lambda a, b, s: a + b),
    "sub": Op(2, lambda a, b, s: a - b),
    "mul": Op(2, lambda a, b, s: a * b),
    "div": Op(2, lambda a, b, s: a / b),
    "max": Op(2, lambda a, b, s: np.maximum(a, b)),
    "min": Op(2, lambda a, b, s: np.minimum(a, b)),
    "lt": Op(2, lambda a, b, s: _truth(a < b, a)),
    "le": Op(2, lambda a, b, s: _truth(a <= b, a)),
    "eq": Op(2, lambda a, b, s: _truth(a == b, a)),
    "ne": Op(2, lambda a, b, s: _truth(a != b, a)),
    "pow": Op(2, lambda a, b, s: np.power(a, b), expensive=True),
    "fmod": Op(2, lambda a, b, s: np.fmod(a, b), expensive=True),  # the sign of a
    "atan2": Op(2, lambda a, b, s: np.arctan2(a, b), expensive=True),
    "add_s": Op(1, lambda a, s: a + s),
    "mul_s": Op(1, lambda a, s: a * s),
    "rsub_s": Op(1, lambda a, s: s - a),
    "rdiv_s": Op(1, lambda a, s: s / a),
    "max_s": Op(1, lambda a, s: np.maximum(a, s)),
    "min_s": Op(1, lambda a, s: np.minimum(a, s)),
    "lt_s": Op(1, lambda a, s: _truth(a < s, a)),
    "gt_s": Op(1, lambda a, s: _truth(a > s, a)),
    "le_s": Op(1, lambda a, s: _truth(a <= s, a)),
    "ge_s": Op(1, lambda a, s: _truth(a >= s, a)),
    "eq_s": Op(1, lambda a, s: _truth(a == s, a)),
    "pow_s": Op(1, lambda a, s: np.power(a, s), expensive=True),
    "fma": Op(3, lambda a, b, c, s: a * b + c),
    "select": Op(3, lambda a, b, c, s: np.where(a != 0, b, c)),
    "select_s": Op(2, lambda a, b, s: np.where(a != 0, s, b)),
    "select_else_s": Op(2, lambda a, b, s: np.where(a != 0, b, s)),
    "lerp": Op(3, lambda a, b, c, s: a + c * (b - a)),
    "tanh_backward": Op(2, lambda a, b, s: a * (1 - b * b)),
    "sigmoid_backward": Op(2, lambda a, b, s: a * b * (1 - b)),
    # The gradient of b, from a, the gradient of max(b, c): half of a where b = c, as in PyTorch.
    "max_backward": Op(3, lambda a, b, c, s: np.where(b < c, 0, np.where(b == c, a * 0.5, a))),
}
