"""Rules of calls that reduce: over axes of a row, or over the batch.

A reduction of a row is an operation of the engine: row_sum, row_max. A reduction over the batch is
a column_sum, a node of kind sum: the gradient of a captured tensor, which no row may read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import SUM, Node
from ostinato.compiler.graph.rules import Context, Shape, Value, batch_axis, of_row, rule


def axes_of(a: Value, dims: Any) -> list[int]:
    """The axes to reduce; None and () mean all."""
    n = len(a.shape)
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(n))
    return sorted(int(d) % n for d in ([dims] if isinstance(dims, int) else dims))


def _size(shape: Shape, axes: Sequence[int]) -> int:
    """The number of elements of a row that are reduced to one."""
    return math.prod(of_row(shape)[i] for i in axes)


def reduced(b: Builder, name: str, x: Node, shape: Shape, axes: Sequence[int]) -> Node:
    """sum, mean, max or min of a row of this shape over axes; adjacent axes are reduced at once."""
    if name == "mean":
        return b.op("mul_s", reduced(b, "sum", x, shape, axes), s=1 / _size(shape, axes))
    if name == "min":
        return b.op("neg", reduced(b, "max", b.op("neg", x), shape, axes))
    sizes = [(n, i in axes) for i, n in enumerate(of_row(shape)) if n != 1]
    inner = 1
    for gone, neighbours in groupby(reversed(sizes), key=lambda axis: axis[1]):
        size = math.prod(n for n, _ in neighbours)
        if gone:
            x = arrays.reduce(b, f"row_{name}", x, size, inner)
        else:
            inner *= size
    return x


def _within_rows(c: Context, name: str, a: Value, dims: Any) -> Node:
    axes = axes_of(a, dims)
    if batch_axis(a.shape) in axes:
        raise c.refuse(f"takes the {name} over the batch")
    return reduced(c.b, name, c.as_rows(a), a.shape, axes)


rule("mean")(lambda c, a, dims=None, keepdim=False: _within_rows(c, "mean", a, dims))
rule("amax")(lambda c, a, dims=(), keepdim=False: _within_rows(c, "max", a, dims))
rule("amin")(lambda c, a, dims=(), keepdim=False: _within_rows(c, "min", a, dims))


@rule("sum")
def _sum(c: Context, a: Value, dims: Any = None, keepdim: bool = False) -> Any:
    axes = axes_of(a, dims)
    if batch_axis(a.shape) not in axes:
        return _within_rows(c, "sum", a, dims)
    x, shape = c.as_rows(a), tuple(c.shapes[0])
    n = _size(a.shape, axes)
    if 1 < n < a.width:  # within each row first: fewer columns to sum over the batch
        x, n = reduced(c.b, "sum", x, a.shape, axes), 1
    if n == 1:
        return c.b.view(c.b.column_sum(x), shape)
    whole = c.b.view(c.b.column_sum(x), of_row(a.shape))
    return c.b.call("aten.sum.dim_IntList", whole, axes, keepdim, shape=shape, kind=SUM)
