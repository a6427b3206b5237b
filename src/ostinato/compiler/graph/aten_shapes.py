"""Rules of calls that move, cut, join and make.

A row is flat in its node, so a view costs nothing, and so does moving the batch: `[H, B, D]` and
`[B, H, D]` are one node. Along the outermost axis of a row, pieces are columns that lie together;
along others they are taken element by element.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.node import ROWS, Node
from ostinato.compiler.graph.rules import (
    Context,
    Shape,
    Value,
    axis_in_row,
    batch_axis,
    columns,
    of_row,
    rule,
)

# ---- views


rule("detach", "alias", "clone", "contiguous", "lift_fresh", "lift_fresh_copy", "positive")(
    lambda c, a, *_, **__: a
)


@rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias")
def _view(c: Context, a: Value, *_: Any) -> Any:
    shape = c.shapes[0]
    if a.anywhere:
        return Value(a.node, shape)
    before, now = batch_axis(a.shape), batch_axis(shape)
    if a.node.kind == ROWS and before is None and now is None:  # for all rows
        return Value(a.node, shape)
    if a.node.kind != ROWS or before is None or now is None:
        raise c.refuse(f"makes {list(shape)} of {list(a.shape)}")
    # Elements that come before the batch, among those of a row: they stay as many.
    ahead = math.prod(of_row(a.shape[:before])) * a.outer
    outer, rest = divmod(ahead, math.prod(of_row(shape[:now])))
    if rest or outer == 0 or shape[now].times % outer:
        raise c.refuse(f"makes {list(shape)} of {list(a.shape)}, where rows of the batch mix")
    return Value(a.node, shape, outer)


@rule("t", "transpose", "permute", "movedim")
def _transpose(c: Context, a: Value, *args: Any) -> Any:
    order = list(range(len(a.shape)))
    if len(args) == 2:
        i, j = (int(x) % len(order) for x in args)
        order[i], order[j] = order[j], order[i]
    elif len(args) == 1:
        order = [int(x) % len(order) for x in args[0]]
    else:
        order.reverse()
    if a.node.width == 1:  # one column, or alike in all
        return Value(a.node, c.shapes[0], a.outer)
    return Value(arrays.permuted(c.b, a.node, of_row(a.shape), order), c.shapes[0], a.outer)


@rule("expand", "broadcast_to", "expand_as")
def _expand(c: Context, a: Value, *_: Any, **__: Any) -> Any:
    node = c.node(a)
    shape = c.shapes[0]
    if not a.rows:
        return Value(c.b.widen(node, node.width), shape)
    if node.width not in (1, columns(shape)):
        raise c.refuse(f"broadcasts {list(a.shape)} to {list(shape)}")
    return Value(node, shape, a.outer)


# ---- cutting and joining


def _cut(c: Context, a: Value, dim: int, start: int, stop: int, step: int = 1) -> Node:
    """Elements start, start + step, … of an axis."""
    if isinstance(a.shape[dim % len(a.shape)], Batch):
        raise c.refuse("takes part of the batch")
    places = np.arange(a.width).reshape(axis_in_row(a.shape, dim))
    return arrays.take(c.b, c.as_rows(a), places[:, start:stop:step].ravel())


def _embedded(
    c: Context, g: Value, shape: Shape, dim: int, start: int, stop: int, step: int = 1
) -> Node:
    """The gradient of what `_cut` takes of a value of this shape: absent, or zeros, elsewhere."""
    if isinstance(shape[dim % len(shape)], Batch):
        raise c.refuse("takes part of the batch")
    outer, size, inner = axis_in_row(shape, dim)
    node = c.as_rows(g)
    if outer == 1 and step == 1:
        pieces = [c.b.absent(start * inner), node, c.b.absent((size - stop) * inner)]
        return c.b.concat([n for n in pieces if n.width])
    places = np.full((outer, size, inner), -1)
    taken = places[:, start:stop:step]
    taken[...] = np.arange(taken.size).reshape(taken.shape)
    return arrays.take(c.b, node, places.ravel())


def _range(shape: Shape, dim: int, start: Any, end: Any, step: int) -> tuple[int, int, int]:
    low, high, step = slice(start, end, step).indices(shape[dim % len(shape)])
    return low, max(low, high), step


@rule("slice")
def _slice(
    c: Context, a: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    if c.shapes[0] == a.shape:
        return a
    if isinstance(a.shape[dim % len(a.shape)], Batch):
        raise c.refuse("takes part of the batch")
    return _cut(c, a, dim, *_range(a.shape, dim, start, end, step))


@rule("slice_backward")
def _slice_backward(c: Context, g: Value, _: Any, dim: int, start: Any, end: Any, step: int) -> Any:
    shape = c.shapes[0]
    if g.shape == shape:
        return g
    return _embedded(c, g, shape, dim, *_range(shape, dim, start, end, step))


rule("narrow")(lambda c, a, dim, start, length: _slice(c, a, dim, start, start + length))


@rule("select")
def _select(c: Context, a: Value, dim: int, index: int) -> Any:
    if isinstance(a.shape[dim % len(a.shape)], Batch):
        raise c.refuse("takes one row of the batch")
    at = index % a.shape[dim % len(a.shape)]
    return _cut(c, a, dim, at, at + 1)


@rule("select_backward")
def _select_backward(c: Context, g: Value, _: Any, dim: int, index: int) -> Any:
    at = index % c.shapes[0][dim % len(c.shapes[0])]
    return _embedded(c, g, c.shapes[0], dim, at, at + 1)


def _pieces(c: Context, a: Value, dim: int, sizes: list[int]) -> list[Node]:
    ends = np.cumsum(sizes).tolist()
    return [_cut(c, a, dim, end - n, end) for n, end in zip(sizes, ends, strict=True)]


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk",
      "unsafe_chunk")  # fmt: skip
def _split(c: Context, a: Value, _: Any, dim: int = 0) -> Any:
    """The sizes of the pieces were recorded, however they are asked for."""
    return _pieces(c, a, dim, [shape[dim % len(shape)] for shape in c.shapes])


rule("unbind")(lambda c, a, dim=0: _pieces(c, a, dim, [1] * len(c.shapes)))


@rule("cat", "concat", "stack")
def _cat(c: Context, tensors: list[Value], dim: int = 0) -> Any:
    shape = c.shapes[0]
    if isinstance(shape[dim % len(shape)], Batch):
        raise c.refuse("joins rows of the batch")
    outer, _, inner = axis_in_row(shape, dim)
    joined = c.b.concat([c.as_rows(v) for v in tensors])
    if outer == 1:
        return joined
    places = np.split(np.arange(columns(shape)), np.cumsum([v.width for v in tensors])[:-1])
    parts = [p.reshape(outer, -1, inner) for p in places]
    return arrays.take(c.b, joined, np.concatenate(parts, axis=1).ravel())


# ---- diagonals


@rule("diagonal")
def _diagonal(c: Context, a: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return arrays.take(c.b, c.as_rows(a), _on_diagonal(c, a.shape, offset, dim1, dim2))


@rule("diagonal_backward")
def _diagonal_backward(c: Context, g: Value, _: Any, offset: int, dim1: int, dim2: int) -> Any:
    shape = c.shapes[0]
    taken = _on_diagonal(c, shape, offset, dim1, dim2)
    places = np.full(columns(shape), -1)
    places[taken] = np.arange(len(taken))
    return arrays.take(c.b, c.as_rows(g), places)


def _on_diagonal(c: Context, shape: Shape, offset: int, dim1: int, dim2: int) -> arrays.Places:
    if any(isinstance(shape[dim % len(shape)], Batch) for dim in (dim1, dim2)):
        raise c.refuse("takes a diagonal along the batch")
    whole = np.arange(columns(shape)).reshape(of_row(shape))
    return np.diagonal(whole, offset, dim1, dim2).ravel()


# ---- constants


def _number(c: Context, value: Any) -> Node:
    if isinstance(value, Value):
        if value.node.op != "const":
            raise c.refuse("needs a number that is known when the step is recorded")
        value = value.node.s
    if isinstance(value, Batch):
        raise c.refuse("computes with the batch size")
    return c.b.const(float(value))


rule("zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty",
     "_efficientzerotensor")(lambda c, *_: c.b.const(0.0))  # fmt: skip
rule("ones", "ones_like", "new_ones")(lambda c, *_: c.b.const(1.0))
rule("full", "full_like", "fill")(lambda c, _, value: _number(c, value))
rule("new_full")(lambda c, a, size, value: _number(c, value))
rule("scalar_tensor")(_number)
