"""Rules of calls that reduce: over axes of a row, or over the batch.

A reduction of a row is an operation of the engine: row_sum, row_max. One over the batch is a node
of kind sum, a column_sum: a gradient of a captured tensor, which no row may read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.node import SUM, Node, Slot
from ostinato.compiler.graph.rules import Context, Shape, Value, batch_axis, columns, of_row, rule


def axes_of(a: Value, dims: Any) -> list[int]:
    """The axes reduced: None and () are all."""
    n = len(a.shape)
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(n))
    return sorted(int(d) % n for d in ([dims] if isinstance(dims, int) else dims))


@dataclass(frozen=True)
class Axes:
    """The axes of a row, neighbours in one where all or none are reduced: (size, reduced)."""

    c: Context
    sizes: tuple[tuple[int, bool], ...]

    @staticmethod
    def of(c: Context, shape: Shape, reduced: list[int]) -> Axes:
        axes = [(n, i in reduced) for i, n in enumerate(of_row(shape)) if n != 1]
        grouped = groupby(axes, key=lambda axis: axis[1])
        return Axes(c, tuple([(math.prod(n for n, _ in g), gone) for gone, g in grouped]))

    @property
    def n(self) -> int:
        """Elements that become one."""
        return math.prod(size for size, reduced in self.sizes if reduced)

    def reduce(self, name: str, x: Node) -> Node:
        inner = 1
        for size, reduced in reversed(self.sizes):
            if reduced:
                x = arrays.reduce(self.c.b, name, x, size, inner)
            else:
                inner *= size
        return x

    def sum(self, x: Node) -> Node:
        return self.reduce("row_sum", x)

    def max(self, x: Node) -> Node:
        return self.reduce("row_max", x)

    def mean(self, x: Node) -> Node:
        return self.c.op("mul_s", self.sum(x), s=1 / self.n)

    def sum_of_squares(self, x: Node) -> Node:
        return self.sum(self.c.op("mul", x, x))

    def spread(self, y: Node) -> Node:
        """The reduced value, over the axes that it lost; one column is as wide as it is read."""
        if y.width == 1:
            return y
        inner = 1
        for size, reduced in reversed(self.sizes):
            if reduced:
                y = self.c.b.spread(y, size, inner)
            inner *= size
        return y


def _row(c: Context, a: Value, dims: Any, what: str) -> tuple[Node, Axes]:
    """The operand of a reduction that leaves the batch, and its axes."""
    axes = axes_of(a, dims)
    if batch_axis(a.shape) in axes:
        raise c.refuse(f"takes the {what} over the batch")
    return c.as_rows(a), Axes.of(c, a.shape, axes)


def _over_batch(c: Context, x: Node, shape: tuple[int, ...]) -> Node:
    return c.b.view(c.b.column_sum(x), shape, SUM)


@rule("sum")
def _sum(c: Context, a: Value, dims: Any = None, keepdim: bool = False) -> Any:
    axes, batch = axes_of(a, dims), batch_axis(a.shape)
    if batch not in axes:
        x, of = _row(c, a, dims, "sum")
        return of.sum(x)
    x = c.as_rows(a)
    of = Axes.of(c, a.shape, axes)
    if of.n == 1:
        return _over_batch(c, x, tuple(c.shapes[0]))
    if len(of.sizes) > 1:  # within each row first: what is summed over the batch is smaller
        return _over_batch(c, of.sum(x), tuple(c.shapes[0]))
    whole = _over_batch(c, x, of_row(a.shape))
    args = (Slot(0), tuple(axes), keepdim)
    return c.b.call("aten.sum.dim_IntList", (whole,), args, SUM, c.shapes[0])


@rule("var")
def _var(c: Context, a: Value, dims: Any = None, correction: Any = 1, keepdim: Any = 0) -> Any:
    """Σ (x − μ)² / (n − correction)."""
    x, of = _row(c, a, dims, "variance")
    correction = 1 if correction is None else correction
    if of.n <= correction:
        raise c.refuse(f"of {of.n} columns, less {correction}, there is no variance")
    centred = c.op("sub", x, of.spread(of.mean(x)))
    return c.op("mul_s", of.sum_of_squares(centred), s=1 / (of.n - correction))


@rule("mean")
def _mean(c: Context, a: Value, dims: Any = None, keepdim: bool = False) -> Any:
    x, of = _row(c, a, dims, "mean")
    return of.mean(x)


rule("std")(lambda c, a, *args, **kwargs: c.op("sqrt", _var(c, a, *args, **kwargs)))


@rule("amax")
def _amax(c: Context, a: Value, dims: Any = (), keepdim: bool = False) -> Any:
    x, of = _row(c, a, dims, "maximum")
    return of.max(x)


@rule("amin")
def _amin(c: Context, a: Value, dims: Any = (), keepdim: bool = False) -> Any:
    x, of = _row(c, a, dims, "minimum")
    return c.op("neg", of.max(c.op("neg", x)))


# ---- softmax


@rule("_softmax")
def _softmax(c: Context, a: Value, dim: int, _: bool) -> Any:
    x, of = _row(c, a, dim, "softmax")
    e = c.op("exp", c.op("sub", x, of.spread(of.max(x))))
    return c.op("div", e, of.spread(of.sum(e)))


@rule("_softmax_backward_data")
def _softmax_backward(c: Context, g: Value, y: Value, dim: int, _: Any) -> Any:
    """p · (g − Σ g·p)."""
    p, of = _row(c, y, dim, "softmax")
    d = c.as_rows(g)
    return c.op("mul", p, c.op("sub", d, of.spread(of.sum(c.op("mul", d, p)))))


@rule("_log_softmax")
def _log_softmax(c: Context, a: Value, dim: int, _: bool) -> Any:
    x, of = _row(c, a, dim, "softmax")
    shifted = c.op("sub", x, of.spread(of.max(x)))
    return c.op("sub", shifted, of.spread(c.op("log", of.sum(c.op("exp", shifted)))))


@rule("_log_softmax_backward_data")
def _log_softmax_backward(c: Context, g: Value, y: Value, dim: int, _: Any) -> Any:
    """g − exp(y) · Σ g."""
    out, of = _row(c, y, dim, "softmax")
    d = c.as_rows(g)
    return c.op("sub", d, c.op("mul", c.op("exp", out), of.spread(of.sum(d))))


# ---- layer normalization: Ba, Kiros, Hinton 2016, arXiv:1607.06450


def _normalized(c: Context, a: Value, shape: Any) -> tuple[Node, Axes]:
    """The operand, and its last axes, which are those of `shape`."""
    first = len(a.shape) - len(shape)
    return _row(c, a, list(range(first, len(a.shape))), "layer norm")


@rule("native_layer_norm")
def _layer_norm(c: Context, a: Value, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """(x − μ) / √(σ² + ε) · w + b, over the last axes."""
    x, of = _normalized(c, a, shape)
    mean = of.mean(x)
    centred = c.op("sub", x, of.spread(mean))
    variance = c.op("mul_s", of.sum_of_squares(centred), s=1 / of.n)
    scale = c.op("rdiv_s", c.op("sqrt", c.op("add_s", variance, s=eps)), s=1.0)
    out = c.op("mul", centred, of.spread(scale))
    if weight is not None:
        out = c.op("mul", out, c.node(weight))
    if bias is not None:
        out = c.op("add", out, c.node(bias))
    return [out, mean, scale]


@rule("native_layer_norm_backward")
def _layer_norm_backward(
    c: Context, g: Value, a: Value, shape: Any, mean: Value, scale: Value, weight: Any, *_: Any
) -> Any:
    """Gradients: scale · (g·w − mean(g·w) − z · mean(g·w·z)), z = (x − μ) · scale; Σ g·z; Σ g."""
    x, of = _normalized(c, a, shape)
    d = c.as_rows(g)
    by = of.spread(scale.node)
    normal = c.op("mul", c.op("sub", x, of.spread(mean.node)), by)
    dn = d if weight is None else c.op("mul", d, c.node(weight, a.shape))
    mean_d = of.spread(of.mean(dn))
    mean_dn = of.spread(of.mean(c.op("mul", dn, normal)))
    inner = c.op("sub", c.op("sub", dn, mean_d), c.op("mul", normal, mean_dn))
    dx = c.op("mul", inner, by)
    times = columns(a.shape) // of.n  # normalized rows within a row
    dw, db = (arrays.reduce(c.b, "row_sum", y, times, of.n) for y in (c.op("mul", d, normal), d))
    return [dx, *(_over_batch(c, y, tuple(shape)) for y in (dw, db))]
