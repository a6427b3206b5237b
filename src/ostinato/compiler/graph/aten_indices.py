"""Rules of calls with whole numbers: rows of a table, elements of a row, and conversions.

The engine computes whole numbers in the step's type. An index that has rows is compared with
0, 1, …, which gives a row of ones and zeros: its product with a table is a row of that table, the
product of its transpose with rows adds them to the rows of a gradient, in the order of all sums.
An index that is known when the step is recorded takes columns; one that is a captured tensor
multiplies by a matrix of ones and zeros, which PyTorch makes once a scan.
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
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node, Slot
from ostinato.compiler.graph.rules import RULES, Context, Shape, Value, axis_in_row, columns, rule

MOST_LOOKED_UP = 64  # indices of one row, each of which is an operation of its own


# ---- conversions and divisions


@rule("_to_copy")
def _to_copy(c: Context, a: Any, **_: Any) -> Any:
    if not isinstance(a, Value):  # a number, which vmap makes a tensor of
        return c.node(a)
    if c.gives_truths:
        return c.truth(0, a)
    if c.gives_whole and not (c.whole[0] or c.truths[0]):
        return Value(c.op("trunc", c.node(a)), a.shape)
    return a


@rule("div")
def _div(c: Context, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """The quotient of whole numbers, rounded to float32, rounds down to the right one."""
    quotient = c.elementwise("div", a, b)
    if rounding_mode is None:
        return quotient
    return c.op("floor" if rounding_mode == "floor" else "trunc", quotient)


rule("floor_divide")(partial(_div, rounding_mode="floor"))


def _of_truths(op: str, c: Context, a: Any, b: Any) -> Any:
    if any(c.whole):
        raise c.refuse("works on the bits of whole numbers; the engine computes them as floats")
    return c.elementwise(op, a, b)


for _name, _op in (("and", "mul"), ("or", "max"), ("xor", "ne")):
    for _spelt in (f"__{_name}__", f"bitwise_{_name}"):
        RULES[_spelt] = lambda c, a, b, op=_op: _of_truths(op, c, a, b)


@rule("bitwise_not")
def _bitwise_not(c: Context, a: Value) -> Any:
    if any(c.whole):  # −1 − a
        return c.op("rsub_s", c.node(a), s=-1.0)
    return c.elementwise("eq_s", a, s=0.0)


# ---- an index that has rows


def _numbers(c: Context, n: int) -> Node:
    """0, 1, … n − 1."""
    return c.b.call("aten.arange.default", (), (n,), ONCE, (n,))


def _one_hot(c: Context, index: Node, n: int) -> Node:
    """An index `[B, 1]` as rows `[B, n]` of zeros, with a one in its column."""
    return c.op("eq", index, _numbers(c, n))


def _each(c: Context, index: Value) -> list[Node]:
    """The columns of an index, each `[B, 1]`."""
    if index.width > MOST_LOOKED_UP:
        raise c.refuse(f"looks up {index.width} indices a row; the engine does {MOST_LOOKED_UP}")
    whole = c.as_rows(index)
    return [c.b.slice(whole, j, j + 1) for j in range(index.width)]


def _from_the_end(c: Context, index: Node, n: int) -> Node:
    """Negative indices count from the end."""
    later = c.op("add_s", index, s=float(n))
    return c.op("select", c.op("lt_s", index, s=0.0), later, index)


def _flat_index(c: Context, indices: Sequence[Value], sizes: Sequence[int]) -> Value:
    """Indices of the first axes as one of all their elements."""
    shape = max((i.shape for i in indices), key=columns)
    flat: Node | None = None
    for index, n in zip(indices, sizes, strict=True):
        node = _from_the_end(c, c.node(index, shape), n)
        flat = node if flat is None else c.op("add", c.op("mul_s", flat, s=float(n)), node)
    assert flat is not None
    return Value(flat, shape)


def _rows_of(c: Context, table: Value, index: Value, n: int) -> Node:
    """The rows of a table of n that the columns of an index name, side by side."""
    width = math.prod(table.shape) // n
    matrix = c.b.view(table.node, (n, width), ONCE)
    return c.b.concat([c.b.matmul(_one_hot(c, i, n), matrix) for i in _each(c, index)])


def _added_to_rows(c: Context, g: Value, index: Value, n: int, shape: Shape) -> Node:
    """The gradient of a table: each row's gradient, added where its index says."""
    gradient, at = c.as_rows(g), 0
    width = gradient.width // index.width
    total: Node | None = None
    for i in _each(c, index):
        part = c.b.outer(_one_hot(c, i, n), c.b.slice(gradient, at, at + width))
        at += width
        total = part if total is None else c.b.add_sums(total, part)
        if total is None:
            raise c.refuse("adds up gradients of a table in several places")
    assert total is not None
    return c.b.view(total, tuple(shape), SUM)


@rule("embedding")
def _embedding(
    c: Context, table: Value, index: Value, padding: int = -1, scaled: bool = False,
    sparse: bool = False,
) -> Any:  # fmt: skip
    if scaled or sparse:
        raise c.refuse("scale_grad_by_freq and sparse are not supported")
    if table.rows:
        raise c.refuse("looks up a table that the step computes; wanted a captured one")
    return _rows_of(c, table, index, table.shape[0])


@rule("embedding_dense_backward")
def _embedding_backward(
    c: Context, g: Value, index: Value, n: int, padding: int, scaled: bool
) -> Any:
    if padding >= 0:  # that row gets no gradient: no row has the index −1
        node = c.as_rows(index)
        known = c.op("ne", node, c.b.const(float(padding)))
        node = c.op("select", known, node, c.b.const(-1.0))
        index = Value(node, index.shape)
    return _added_to_rows(c, g, index, n, c.shapes[0])


def _leading(indices: Sequence[Any]) -> bool:
    """Whether the first axes are indexed, and by rows."""
    return bool(indices) and all(isinstance(i, Value) for i in indices)


@rule("arange")
def _arange(c: Context, *numbers: Any) -> Any:
    """The numbers of the rows: an index with which each row takes of itself."""
    if numbers not in ((Batch(1),), (0, Batch(1))):
        raise c.refuse("computes with the batch size")
    return c.b.node("row_number", (), (), ROWS, (1,))


def _of_each_row(indices: Sequence[Any]) -> Value | None:
    """i, where the indices are the numbers of the rows and i."""
    if len(indices) == 2 and _leading(indices) and indices[0].node.op == "row_number":
        index: Value = indices[1]
        return Value(index.node, (Batch(1), 1)) if index.shape == (Batch(1),) else None
    return None


def _transposed_table(c: Context, a: Value, indices: Sequence[Any]) -> Value | None:
    """i, where the second axis of a matrix is indexed by rows: W[:, i]."""
    if len(indices) == 2 and indices[0] is None and isinstance(indices[1], Value):
        index = indices[1]
        if len(a.shape) == 2 and index.rows and index.shape == (Batch(1),):
            return Value(_from_the_end(c, index.node, a.shape[1]), index.shape)
    return None


@rule("index")
def _index(c: Context, a: Value, indices: list[Any]) -> Any:
    of_each = _of_each_row(indices)
    if of_each is not None:
        index = Value(_from_the_end(c, of_each.node, a.shape[1]), of_each.shape)
        return _gather(c, a, 1, index)
    if not a.rows:
        column = _transposed_table(c, a, indices)
        if column is not None:
            turned = (a.shape[1], a.shape[0])
            table = c.b.call("aten.t.default", (a.node,), (Slot(0),), ONCE, turned)
            rows = _rows_of(c, Value(table, turned), column, turned[0])
            return Value(rows, c.shapes[0])
    if not a.rows and _leading(indices):
        sizes = [int(n) for n in a.shape[: len(indices)]]
        return _rows_of(c, a, _flat_index(c, indices, sizes), math.prod(sizes))
    known = _known(indices)
    if known is not None:
        return moved(c, a, known)
    return _columns_of(c, a, *_only_index(c, a, indices))


@rule("index_put", "_index_put_impl")
def _index_put(
    c: Context, a: Value, indices: list[Any], values: Value, accumulate: bool = False, _: Any = 0
) -> Any:
    shape = c.shapes[0]
    of_each = _of_each_row(indices)
    if of_each is not None:
        index = Value(_from_the_end(c, of_each.node, shape[1]), of_each.shape)
        return _scattered(c, a, 1, index, values, add=accumulate)
    turned = _transposed_table(c, Value(a.node, shape), indices)
    if turned is not None and accumulate and values.shape[-1] == Batch(1) and a.node.op == "const":
        return c.b.view(
            c.b.outer(values.node, _one_hot(c, turned.node, shape[1])), tuple(shape), SUM
        )
    if accumulate and is_zero(a.node) and _leading(indices) and Batch(1) not in shape:
        sizes = shape[: len(indices)]  # the gradient of a table
        return _added_to_rows(c, values, _flat_index(c, indices, sizes), math.prod(sizes), shape)
    like = Value(c.b.widen(c.node(a), columns(shape)), shape)
    if accumulate:
        return _added_to_columns(c, like, indices, values)
    known = _known(indices)
    if known is None:
        raise c.refuse("puts values at places that are not known when the step is recorded")
    return moved(c, like, known, values)


def _only_index(c: Context, a: Value, indices: Sequence[Any]) -> tuple[int, Value]:
    """The axis that is indexed, and its index, which all rows share."""
    there = [(dim, i) for dim, i in enumerate(indices) if i is not None]
    if len(there) != 1 or there[0][1].rows:
        raise c.refuse(
            "takes other elements of each row by index; x.gather(-1, i) does that, with i of as "
            "many axes as x"
        )
    if not isinstance(a.shape[there[0][0]], int):
        raise c.refuse("takes rows of the batch by index")
    return there[0]


# ---- an index that all rows share


def _known(indices: Sequence[Any]) -> list[Any] | None:
    """The tensors of indices, where the step made all of them of numbers."""
    if any(i is not None and i.node.op != "literal" for i in indices):
        return None
    return [None if i is None else i.node.attrs[0].tensor for i in indices]


def _outer_and_inner(a: Value, dim: int) -> tuple[int, int]:
    return columns(a.shape[:dim]), columns(a.shape[dim + 1 :])


def _matrix(c: Context, index: Node, n: int, back: bool = False) -> Node:
    """Ones and zeros `[n, N]`: what multiplies a row of n so that N columns of it remain.

    back: `[N, n]`, which adds N columns to those of n.
    """
    (size,) = index.shape
    positive = c.b.call("aten.remainder.Scalar", (index,), (Slot(0), n), ONCE, (size,))
    # Not transposed afterwards: torch.kron fails on matrices that do not lie row by row.
    lying, standing = _numbers(c, n), positive
    if not back:
        lying, standing = standing, lying
    rows, width = standing.shape[0], lying.shape[0]
    column = c.b.view(standing, (rows, 1), ONCE)
    return c.b.call("aten.eq.Tensor", (lying, column), (Slot(0), Slot(1)), ONCE, (rows, width))


def _by_product(c: Context, a: Value, dim: int, matrix: Node) -> Node:
    """An axis of a row times a matrix of ones and zeros."""
    outer, inner = _outer_and_inner(a, dim)
    for n, first in ((outer, True), (inner, False)):
        if n > 1:
            eye = c.b.call("aten.eye.default", (), (n,), ONCE, (n, n))
            shape = (matrix.shape[0] * n, matrix.shape[1] * n)
            both = (eye, matrix) if first else (matrix, eye)
            matrix = c.b.call("aten.kron.default", both, (Slot(0), Slot(1)), ONCE, shape)
    return c.b.matmul(c.as_rows(a), matrix)


def _columns_of(c: Context, a: Value, dim: int, index: Value) -> Node:
    if len(index.shape) != 1:
        raise c.refuse(f"takes columns by an index of {len(index.shape)} axes; wanted one axis")
    return _by_product(c, a, dim, _matrix(c, index.node, a.shape[dim]))


def _added_to_columns(c: Context, a: Value, indices: Sequence[Any], values: Value) -> Node:
    """The row, with values added to the columns that the index names."""
    known = _known(indices)
    if known is not None and len([i for i in known if i is not None]) > 1:  # a gradient
        return c.op("add", c.node(a), moved_back(c, values, _INDEX, a.shape, known))
    dim, index = _only_index(c, a, indices)
    shape = (*a.shape[:dim], index.shape[0], *a.shape[dim + 1 :])
    new = Value(c.b.widen(c.node(values, shape), columns(shape)), shape)
    if known is not None:
        added = moved_back(c, new, _INDEX, a.shape, known)
    else:
        added = _by_product(c, new, dim, _matrix(c, index.node, a.shape[dim], back=True))
    return c.op("add", c.node(a), added)


_INDEX = torch.ops.aten.index.Tensor


@rule("unfold_backward")
def _unfold_backward(c: Context, g: Value, shape: Shape, *how: int) -> Any:
    return moved_back(c, g, torch.ops.aten.unfold.default, c.shapes[0], *how)


# ---- elements of each row by its own index


def _of_one_shape_beside(c: Context, a: Shape, index: Shape, dim: int) -> tuple[int, int, int]:
    """A row as `[outer, n, inner]`, in which an index of the same axes names elements of n."""
    dim = dim % len(a)
    beside = [m for i, m in enumerate(a) if i != dim]
    if not isinstance(a[dim], int) or [m for i, m in enumerate(index) if i != dim] != beside:
        raise c.refuse(f"indexes axis {dim} of {list(a)} by {list(index)}: wanted the same axes")
    return axis_in_row(a, dim)


def _element(c: Context, v: Value, dim: int, j: int) -> Node:
    """The elements whose number along an axis is j."""
    along = np.arange(v.width).reshape(axis_in_row(v.shape, dim))
    return arrays.take(c.b, c.as_rows(v), along[:, j].ravel())


def _named(c: Context, index: Value, dim: int, n: int) -> list[Node]:
    """For each index along an axis: a one at the element of n that it names, else zeros."""
    outer, k, inner = axis_in_row(index.shape, dim)
    if k > MOST_LOOKED_UP:
        raise c.refuse(f"looks up {k} indices a row; the engine does {MOST_LOOKED_UP}")
    numbers = tuple(np.broadcast_to(np.arange(n)[:, None], (outer, n, inner)).ravel().tolist())
    of_n = c.b.node("whole_numbers", (), numbers, ONCE, (len(numbers),))
    each = [_element(c, index, dim, j) for j in range(k)]
    return [c.op("eq", arrays.spread(c.b, i, n, inner), of_n) for i in each]


@rule("gather")
def _gather(c: Context, a: Value, dim: int, index: Value, sparse: bool = False) -> Any:
    outer, n, inner = _of_one_shape_beside(c, a.shape, index.shape, dim)
    row, zero = c.as_rows(a), c.b.const(0.0)
    found = [
        arrays.reduce(c.b, "row_sum", c.op("select", here, row, zero), n, inner)
        for here in _named(c, index, dim, n)
    ]
    return arrays.permuted(c.b, c.b.concat(found), (len(found), outer, inner), (1, 0, 2))


def _scattered(c: Context, a: Value, dim: int, index: Value, source: Any, *, add: bool) -> Node:
    shape = c.shapes[0]
    _, n, inner = _of_one_shape_beside(c, shape, index.shape, dim)
    out, zero = c.b.widen(c.node(a), columns(shape)), c.b.const(0.0)
    for j, here in enumerate(_named(c, index, dim, n)):
        value = c.node(source)
        if isinstance(source, Value) and value.width > 1:
            value = arrays.spread(c.b, _element(c, source, dim, j), n, inner)
        if add:
            out = c.op("add", out, c.op("select", here, value, zero))
        else:
            out = c.op("select", here, value, out)
    return out


rule("scatter")(partial(_scattered, add=False))
rule("scatter_add")(partial(_scattered, add=True))
