"""Rules of calls with indices: rows of a table, elements of a row.

The engine computes whole numbers in the step's type. The rule depends on the index:

    with rows              compared with 0, 1, …, it gives a row of ones and zeros. The product with
                           a table is a row of that table. The product of its transpose with rows
                           adds them to the rows of a gradient, in the order of all sums
    known when recorded    takes columns
    a captured tensor      becomes a product with a matrix of ones and zeros, which PyTorch makes
                           once a scan
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.moves import moved, moved_back
from ostinato.compiler.graph.node import ROWS, Node
from ostinato.compiler.graph.rules import Context, Shape, Value, axis_in_row, columns, rule

MOST_LOOKED_UP = 64  # indices of one row; each becomes an operation


# ---- an index that has rows


def _ones(c: Context, index: Value, n: int, dim: int = 0) -> list[Node]:
    """One-hot rows of n elements, one for each index along an axis."""
    outer, k, inner = axis_in_row(index.shape, dim)
    if k > MOST_LOOKED_UP:
        raise c.refuse(f"looks up {k} indices a row; the engine does {MOST_LOOKED_UP}")
    numbers = c.node(
        Value(c.b.call("aten.arange.default", n, shape=(n,)), (n, 1)), (outer, n, inner)
    )
    each = [_element(c, index, dim, j) for j in range(k)]
    return [c.b.op("eq", arrays.spread(c.b, i, n, inner), numbers) for i in each]


def _element(c: Context, v: Value, dim: int, j: int) -> Node:
    """The elements at position j along an axis."""
    along = np.arange(v.width).reshape(axis_in_row(v.shape, dim))
    return arrays.take(c.b, c.as_rows(v), along[:, j].ravel())


def _from_the_end(c: Context, index: Node, n: int) -> Node:
    """The index with n added where it is negative."""
    later = c.b.op("add_s", index, s=float(n))
    return c.b.op("select", c.b.op("lt_s", index, s=0.0), later, index)


# ---- rows of a table, a captured tensor, at the indices of each row of the batch


def _rows_of(c: Context, table: Value, index: Value, n: int) -> Node:
    """The rows of a table of n rows at the elements of an index, side by side."""
    matrix = c.b.view(table.node, (n, math.prod(table.shape) // n))
    ones = _ones(c, Value(index.node, (index.width,)), n)
    return c.b.concat([c.b.matmul(one, matrix) for one in ones])


def _added_to_rows(c: Context, g: Value, index: Value, n: int, turned: bool = False) -> Node:
    """The gradient of a table, or if `turned` of its transpose: rows of g added at their index."""
    gradient, shape = c.as_rows(g), tuple(c.shapes[0])
    width = math.prod(shape) // n
    if gradient.width != width * index.width:
        raise c.refuse(
            f"adds {list(g.shape)} at {index.width} indices: give each index a row of {width}"
        )
    factors = [
        (one, c.b.slice(gradient, j * width, (j + 1) * width))
        for j, one in enumerate(_ones(c, Value(index.node, (index.width,)), n))
    ]
    if turned:
        total = c.b.outer([(0, b, a) for a, b in factors], (width, n))
    else:
        total = c.b.outer([(0, a, b) for a, b in factors], (n, width))
    return c.b.view(total, shape)


@rule("embedding")
def _embedding(
    c: Context,
    table: Value,
    index: Value,
    padding: int = -1,
    scaled: bool = False,
    sparse: bool = False,
) -> Any:
    if scaled or sparse:
        raise c.refuse("scale_grad_by_freq and sparse are not supported")
    if table.rows:
        raise c.refuse("looks up a table that the step computes; wanted a captured one")
    return _rows_of(c, table, index, table.shape[0])


@rule("embedding_dense_backward")
def _embedding_backward(
    c: Context, g: Value, index: Value, n: int, padding: int, scaled: bool
) -> Any:
    if padding >= 0:  # the padding row gets no gradient: index −1 matches no row
        node = c.as_rows(index)
        known = c.b.op("ne", node, c.b.const(float(padding)))
        node = c.b.op("select", known, node, c.b.const(-1.0))
        index = Value(node, index.shape)
    return _added_to_rows(c, g, index, n)


def _flat_index(c: Context, shape: Shape, indices: Sequence[Any]) -> tuple[Value, int] | None:
    """Indices of the first axes as one index into the flattened axes, and their number of elements.

    None if an index is missing, or if there are none.
    """
    if not indices or not all(isinstance(i, Value) for i in indices):
        return None
    largest = max((i.shape for i in indices), key=columns)
    flat = c.b.const(0.0)
    for index, n in zip(indices, shape, strict=False):
        node = _from_the_end(c, c.node(index, largest), n)
        flat = c.b.op("add", c.b.op("mul_s", flat, s=float(n)), node)
    return Value(flat, largest), math.prod(shape[: len(indices)])


def _of_columns(shape: Shape, indices: Sequence[Any]) -> bool:
    """Whether each row of the batch names a column of a matrix: W[:, i]."""
    if len(shape) != 2 or len(indices) != 2 or indices[0] is not None:
        return False
    return isinstance(indices[1], Value) and indices[1].rows and indices[1].shape == (Batch(1),)


# ---- calls with several indices


@rule("arange")
def _arange(c: Context, *numbers: Any) -> Any:
    """The number of each row, an index by which each row takes its own elements."""
    if numbers not in ((Batch(1),), (0, Batch(1))):
        raise c.refuse("computes with the batch size")
    return c.b.node("row_number", (), (), ROWS, (1,))


def _of_each_row(c: Context, shape: Shape, indices: Sequence[Any]) -> Value | None:
    """The second index as gather's `[B, 1, …]` if the first is the row numbers; otherwise None."""
    if len(indices) != 2 or not all(isinstance(i, Value) for i in indices):
        return None
    rows, index = indices
    if rows.node.op != "row_number" or index.shape != (Batch(1),):
        return None
    beside = shape[2:]
    i = c.b.widen(_from_the_end(c, index.node, shape[1]), columns((Batch(1), 1, *beside)))
    return Value(i, (Batch(1), 1, *beside))


@rule("index")
def _index(c: Context, a: Value, indices: list[Any]) -> Any:
    of_each = _of_each_row(c, a.shape, indices)
    if of_each is not None:
        return _gather(c, a, 1, of_each)
    if not a.rows:
        if _of_columns(a.shape, indices):
            turned = (a.shape[1], a.shape[0])
            a = Value(c.b.call("aten.t.default", a.node, shape=turned), turned)
            indices = indices[1:]
        flat = _flat_index(c, a.shape, indices)
        if flat is not None:
            return _rows_of(c, a, *flat)
    known = _known(indices)
    if known is not None:
        return moved(c, a, known)
    dim, index = _only_index(c, a, indices)
    return _by_product(c, a, dim, index, a.shape[dim])


@rule("index_put", "_index_put_impl")
def _index_put(
    c: Context, a: Value, indices: list[Any], values: Value, accumulate: bool = False, _: Any = 0
) -> Any:
    shape = tuple(c.shapes[0])
    of_each = _of_each_row(c, shape, indices)
    if of_each is not None:
        if values.rows:
            values = Value(values.node, of_each.shape)
        return _scattered(c, a, 1, of_each, values, add=accumulate)
    if accumulate and is_zero(a.node) and Batch(1) not in shape:  # the gradient of a table
        turned = _of_columns(shape, indices)
        flat = _flat_index(c, shape[turned:], indices[turned:])
        if flat is not None:
            return _added_to_rows(c, values, *flat, turned)
    like = Value(c.b.widen(c.node(a), columns(shape)), shape)
    if accumulate:
        return _added_to_columns(c, like, indices, values)
    known = _known(indices)
    if known is None:
        raise c.refuse("puts values at places that are not known when the step is recorded")
    return moved(c, like, known, values)


# ---- an index that all rows share


def _known(indices: Sequence[Any]) -> list[Any] | None:
    """The tensors of the indices if the step made all of them from numbers; otherwise None."""
    if any(i is not None and i.node.op != "literal" for i in indices):
        return None
    return [None if i is None else i.node.attrs[0].tensor for i in indices]


def _only_index(c: Context, a: Value, indices: Sequence[Any]) -> tuple[int, Value]:
    """The single indexed axis and its index. Raise Unsupported if rows differ in their index."""
    there = [(dim, i) for dim, i in enumerate(indices) if i is not None]
    if len(there) != 1 or there[0][1].rows:
        raise c.refuse(
            "takes other elements of each row by index; x.gather(-1, i) does that, with i of as "
            "many axes as x"
        )
    if not isinstance(a.shape[there[0][0]], int):
        raise c.refuse("takes rows of the batch by index")
    return there[0]


def _by_product(c: Context, a: Value, dim: int, index: Value, n: int, back: bool = False) -> Node:
    """The columns, of n, at a captured index, as a product with a matrix of ones and zeros.

    If `back`, the transposed product: the columns of a are added to n columns at the index.
    """
    if len(index.shape) != 1:
        raise c.refuse(f"takes columns by an index of {len(index.shape)} axes; wanted one axis")
    eye, axis = c.b.call("aten.eye.default", n, shape=(n, n)), 0 if back else 1
    positive = c.b.call("aten.remainder.Scalar", index.node, n, shape=index.shape)
    shape = (*index.shape, n) if back else (n, *index.shape)
    matrix = c.b.call("aten.index_select.default", eye, axis, positive, shape=shape)
    outer, _, inner = axis_in_row(a.shape, dim)
    for m, first in ((outer, True), (inner, False)):
        if m > 1:
            same = c.b.call("aten.eye.default", m, shape=(m, m))
            both = (same, matrix) if first else (matrix, same)
            shape = (matrix.shape[0] * m, matrix.shape[1] * m)
            matrix = c.b.call("aten.kron.default", *both, shape=shape)
    return c.b.matmul(c.as_rows(a), matrix)


def _added_to_columns(c: Context, a: Value, indices: Sequence[Any], values: Value) -> Node:
    """The row, with values added to the columns at the index."""
    known = _known(indices)
    if known is not None and len([i for i in known if i is not None]) > 1:  # a gradient
        return c.b.op("add", c.node(a), moved_back(c, values, _INDEX, a.shape, known))
    dim, index = _only_index(c, a, indices)
    shape = (*a.shape[:dim], index.shape[0], *a.shape[dim + 1 :])
    new = Value(c.b.widen(c.node(values, shape), columns(shape)), shape)
    if known is not None:
        added = moved_back(c, new, _INDEX, a.shape, known)
    else:
        added = _by_product(c, new, dim, index, a.shape[dim], back=True)
    return c.b.op("add", c.node(a), added)


_INDEX = torch.ops.aten.index.Tensor


@rule("unfold_backward")
def _unfold_backward(c: Context, g: Value, shape: Shape, *how: int) -> Any:
    return moved_back(c, g, torch.ops.aten.unfold.default, c.shapes[0], *how)


# ---- elements of each row by its own index


def _of_one_shape_beside(c: Context, a: Shape, index: Shape, dim: int) -> tuple[int, int, int]:
    """A row as `[outer, n, inner]`. Raise Unsupported if a and index differ beside the axis."""
    dim = dim % len(a)
    beside = [m for i, m in enumerate(a) if i != dim]
    if not isinstance(a[dim], int) or [m for i, m in enumerate(index) if i != dim] != beside:
        raise c.refuse(f"indexes axis {dim} of {list(a)} by {list(index)}: wanted the same axes")
    return axis_in_row(a, dim)


@rule("gather")
def _gather(c: Context, a: Value, dim: int, index: Value, sparse: bool = False) -> Any:
    outer, n, inner = _of_one_shape_beside(c, a.shape, index.shape, dim)
    row, zero = c.as_rows(a), c.b.const(0.0)
    found = [
        arrays.reduce(c.b, "row_sum", c.b.op("select", here, row, zero), n, inner)
        for here in _ones(c, index, n, dim)
    ]
    return arrays.permuted(c.b, c.b.concat(found), (len(found), outer, inner), (1, 0, 2))


def _scattered(c: Context, a: Value, dim: int, index: Value, source: Any, *, add: bool) -> Node:
    shape = c.shapes[0]
    _, n, inner = _of_one_shape_beside(c, shape, index.shape, dim)
    out, zero = c.b.widen(c.node(a), columns(shape)), c.b.const(0.0)
    for j, here in enumerate(_ones(c, index, n, dim)):
        value = c.node(source)
        if isinstance(source, Value) and value.width > 1:
            value = arrays.spread(c.b, _element(c, source, dim, j), n, inner)
        if add:
            out = c.b.op("add", out, c.b.op("select", here, value, zero))
        else:
            out = c.b.op("select", here, value, out)
    return out


rule("scatter")(partial(_scattered, add=False))
rule("scatter_add")(partial(_scattered, add=True))
