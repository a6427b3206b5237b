"""Rules of calls that reduce: over the columns of a row, or over the batch.

A reduction over a row is an operation of the engine: row_sum, row_max. One over the batch is a node
of kind sum, a column_sum: a gradient of a captured tensor, which no row may read.
"""

from __future__ import annotations

import math
from typing import Any

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph.node import SUM, Node, Slot
from ostinato.compiler.graph.rules import Context, Value, columns, rule


def _axes(a: Value, dims: Any) -> list[int]:
    """The axes reduced: None and () are all."""
    n = len(a.shape)
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(n))
    return sorted(int(d) % n for d in ([dims] if isinstance(dims, int) else dims))


def _row(c: Context, a: Value, dims: Any, what: str) -> Node:
    """The operand of a reduction over all that a row has."""
    axes = _axes(a, dims)
    if a.shape.index(Batch(1)) in axes:
        raise c.refuse(f"takes the {what} over the batch")
    if columns(tuple(n for i, n in enumerate(a.shape) if i not in axes)) != 1:
        raise c.refuse(f"reduces axes {axes} of {list(a.shape)}; wanted all axes of a row")
    return c.node(a)


def _sum_of(c: Context, x: Node, n: int) -> Node:
    return c.b.reduce("row_sum", x, n)


def _mean_of(c: Context, x: Node, n: int) -> Node:
    return c.op("mul_s", _sum_of(c, x, n), s=1 / n)


def _sum_of_squares(c: Context, x: Node, n: int) -> Node:
    return _sum_of(c, c.op("mul", x, x), n)


def _over_batch(c: Context, x: Node, shape: tuple[int, ...]) -> Node:
    return c.b.view(c.b.column_sum(x), shape, SUM)


@rule("sum")
def _sum(c: Context, a: Value, dims: Any = None, keepdim: bool = False) -> Any:
    axes, batch = _axes(a, dims), a.shape.index(Batch(1))
    of_row = columns(tuple(a.shape[i] for i in axes))  # elements that are added within a row
    if batch not in axes:
        if of_row == 1:
            return Value(a.node, c.shapes[0])
        return _sum_of(c, _row(c, a, dims, "sum"), a.width)
    x = c.as_rows(a)
    if of_row == 1:
        return _over_batch(c, x, tuple(c.shapes[0]))
    whole = _over_batch(c, x, tuple(1 if isinstance(n, Batch) else n for n in a.shape))
    args = (Slot(0), tuple(axes), keepdim)
    return c.b.call("aten.sum.dim_IntList", (whole,), args, SUM, c.shapes[0])


@rule("var")
def _var(c: Context, a: Value, dims: Any = None, correction: Any = 1, keepdim: Any = 0) -> Any:
    """Σ (x − μ)² / (n − correction)."""
    x, n = _row(c, a, dims, "variance"), a.width
    correction = 1 if correction is None else correction
    if n <= correction:
        raise c.refuse(f"of {n} columns, less {correction}, there is no variance")
    centred = c.op("sub", x, _mean_of(c, x, n))
    return c.op("mul_s", _sum_of_squares(c, centred, n), s=1 / (n - correction))


rule("mean")(lambda c, a, dims=None, keepdim=False: _mean_of(c, _row(c, a, dims, "mean"), a.width))
rule("std")(lambda c, a, *args, **kwargs: c.op("sqrt", _var(c, a, *args, **kwargs)))


@rule("amax")
def _amax(c: Context, a: Value, dims: Any = (), keepdim: bool = False) -> Any:
    return c.b.reduce("row_max", _row(c, a, dims, "maximum"), a.width)


@rule("amin")
def _amin(c: Context, a: Value, dims: Any = (), keepdim: bool = False) -> Any:
    negative = c.op("neg", _row(c, a, dims, "maximum"))
    return c.op("neg", c.b.reduce("row_max", negative, a.width))


@rule("linalg_vector_norm")
def _norm(c: Context, a: Value, order: float = 2, dims: Any = None, keepdim: bool = False) -> Any:
    if order != 2 or a.shape.index(Batch(1)) in _axes(a, dims):
        raise c.refuse("only the 2-norm of a row is supported")
    return c.op("sqrt", _sum_of_squares(c, _row(c, a, dims, "norm"), a.width))


# ---- softmax


def _all_columns(c: Context, a: Value, dim: int) -> tuple[Node, int]:
    """The operand of a softmax, and how many columns it has."""
    wide = [i for i, n in enumerate(a.shape) if not isinstance(n, Batch) and n != 1]
    if wide != [dim % len(a.shape)]:
        raise c.refuse("wanted over all columns of a row")
    return c.as_rows(a), a.width


@rule("_softmax")
def _softmax(c: Context, a: Value, dim: int, _: bool) -> Any:
    x, n = _all_columns(c, a, dim)
    e = c.op("exp", c.op("sub", x, c.b.reduce("row_max", x, n)))
    return c.op("div", e, _sum_of(c, e, n))


@rule("_softmax_backward_data")
def _softmax_backward(c: Context, g: Value, y: Value, dim: int, _: Any) -> Any:
    """p · (g − Σ g·p)."""
    p, n = _all_columns(c, y, dim)
    d = c.as_rows(g)
    return c.op("mul", p, c.op("sub", d, _sum_of(c, c.op("mul", d, p), n)))


@rule("_log_softmax")
def _log_softmax(c: Context, a: Value, dim: int, _: bool) -> Any:
    x, n = _all_columns(c, a, dim)
    shifted = c.op("sub", x, c.b.reduce("row_max", x, n))
    return c.op("sub", shifted, c.op("log", _sum_of(c, c.op("exp", shifted), n)))


@rule("_log_softmax_backward_data")
def _log_softmax_backward(c: Context, g: Value, y: Value, dim: int, _: Any) -> Any:
    """g − exp(y) · Σ g."""
    out, n = _all_columns(c, y, dim)
    d = c.as_rows(g)
    total = _sum_of(c, d, n)
    return c.op("sub", d, c.op("mul", c.op("exp", out), total))


# ---- layer normalization: Ba, Kiros, Hinton 2016, arXiv:1607.06450


@rule("native_layer_norm")
def _layer_norm(c: Context, a: Value, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """(x − μ) / √(σ² + ε) · w + b, over a row."""
    if math.prod(shape) != a.width:
        raise c.refuse("wanted over all columns of a row")
    x, n = c.as_rows(a), a.width
    mean = _mean_of(c, x, n)
    centred = c.op("sub", x, mean)
    variance = c.op("mul_s", _sum_of_squares(c, centred, n), s=1 / n)
    scale = c.op("rdiv_s", c.op("sqrt", c.op("add_s", variance, s=eps)), s=1.0)
    out = c.op("mul", centred, scale)
    if weight is not None:
        out = c.op("mul", out, c.node(weight))
    if bias is not None:
        out = c.op("add", out, c.node(bias))
    return [out, mean, scale]


@rule("native_layer_norm_backward")
def _layer_norm_backward(
    c: Context, g: Value, a: Value, shape: Any, mean: Value, scale: Value, weight: Any, *_: Any
) -> Any:
    """Of a: scale · (g·w − mean(g·w) − z · mean(g·w·z)), z = (x − μ) · scale; Σ g·z; and Σ g."""
    x, d, n = c.as_rows(a), c.as_rows(g), a.width
    normal = c.op("mul", c.op("sub", x, mean.node), scale.node)
    dn = d if weight is None else c.op("mul", d, c.node(weight, a.shape))
    mean_d = _mean_of(c, dn, n)
    mean_dn = _mean_of(c, c.op("mul", dn, normal), n)
    inner = c.op("sub", c.op("sub", dn, mean_d), c.op("mul", normal, mean_dn))
    dx = c.op("mul", inner, scale.node)
    return [dx, *(_over_batch(c, y, tuple(shape)) for y in (c.op("mul", d, normal), d))]
