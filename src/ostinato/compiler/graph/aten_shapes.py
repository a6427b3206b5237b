"""Rules of calls that move, cut, join, make and multiply.

A row is flat in its node, so a view costs nothing, as long as rows do not mix. Cutting and joining
work on the outermost axis of a row: there the pieces are columns that lie together.
"""

from __future__ import annotations

import math
from typing import Any

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph.aten_indices import every_nth, every_nth_backward
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node
from ostinato.compiler.graph.rules import Context, Shape, Value, columns, rule

# ---- views


rule("detach", "alias", "clone", "contiguous", "lift_fresh", "lift_fresh_copy", "positive")(
    lambda c, a, *_, **__: a
)


@rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias")
def _view(c: Context, a: Value, *_: Any) -> Any:
    shape = c.shapes[0]
    if a.transposed or a.node.kind != ROWS:
        raise c.refuse("reshapes a transposed batch")
    if Batch(1) not in shape or math.prod(shape[: shape.index(Batch(1))]) != 1:
        raise c.refuse(f"makes {list(shape)} of {list(a.shape)}, where rows of the batch mix")
    return Value(a.node, shape)


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
    axes = [i for i in range(len(order)) if a.shape[i] != 1]
    moved = [i for i in order if a.shape[i] != 1]
    if moved == axes:
        return Value(a.node, c.shapes[0], a.transposed)
    if len(axes) == 2 and Batch(1) in a.shape:
        return Value(a.node, c.shapes[0], not a.transposed)
    raise c.refuse(f"permutes {list(a.shape)} within a row")


@rule("expand", "broadcast_to", "expand_as")
def _expand(c: Context, a: Value, *_: Any, **__: Any) -> Any:
    shape = c.shapes[0]
    if not a.rows:
        node = c.node(a)
        return Value(c.b.widen(node, node.width), shape)
    width = columns(shape)
    if a.node.width not in (1, width) or a.width not in (1, width):
        raise c.refuse(f"broadcasts {list(a.shape)} to {list(shape)}")
    return Value(a.node, shape, a.transposed)


# ---- cutting and joining


def _unit(c: Context, shape: Shape, dim: int) -> int:
    """Columns that one step along `dim` covers; the axes before it, but the batch, must be 1."""
    dim = dim % len(shape)
    if any(isinstance(n, Batch) for n in shape[dim:]) or columns(shape[:dim]) != 1:
        raise c.refuse(f"cuts or joins axis {dim} of {list(shape)}")
    return columns(shape[dim + 1 :])


def _slice_of(
    c: Context, shape: Shape, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> tuple[int, int]:
    """The first column of a slice, and the one behind its last."""
    size = shape[dim % len(shape)]
    if isinstance(size, Batch) or step != 1:
        raise c.refuse("takes part of the batch, or every n-th column")
    low, high, _ = slice(start, end).indices(size)
    unit = _unit(c, shape, dim)
    return low * unit, max(low, high) * unit


def _element_of(c: Context, shape: Shape, dim: int, index: int) -> tuple[int, int]:
    """The first column of an element, and the one behind its last."""
    size = shape[dim % len(shape)]
    if isinstance(size, Batch):
        raise c.refuse("takes one row of the batch")
    unit = _unit(c, shape, dim)
    return index % size * unit, (index % size + 1) * unit


def _embedded(c: Context, g: Value, shape: Shape, first: int, end: int) -> Node:
    """The gradient of some columns: absent outside of them."""
    pieces = [c.as_rows(g)]
    if first:
        pieces.insert(0, c.b.absent(first))
    if end < columns(shape):
        pieces.append(c.b.absent(columns(shape) - end))
    return c.b.concat(pieces)


@rule("slice")
def _slice(c: Context, a: Value, *args: Any) -> Any:
    if c.shapes[0] == a.shape:
        return a
    if len(args) == 4 and args[3] != 1 and not isinstance(a.shape[args[0]], Batch):
        return every_nth(c, a, args[0] % len(a.shape), *args[1:])
    first, end = _slice_of(c, a.shape, *args)
    return c.b.slice(c.as_rows(a), first, end)


@rule("slice_backward")
def _slice_backward(c: Context, g: Value, _: Any, *args: Any) -> Any:
    shape = c.shapes[0]
    if len(args) == 4 and args[3] != 1 and not isinstance(shape[args[0]], Batch):
        return every_nth_backward(c, g, shape, args[0] % len(shape), *args[1:])
    return g if g.shape == shape else _embedded(c, g, shape, *_slice_of(c, shape, *args))


rule("narrow")(lambda c, a, dim, start, length: _slice(c, a, dim, start, start + length))


@rule("select")
def _select(c: Context, a: Value, dim: int, index: int) -> Any:
    first, end = _element_of(c, a.shape, dim, index)
    return c.b.slice(c.as_rows(a), first, end)


@rule("select_backward")
def _select_backward(c: Context, g: Value, _: Any, dim: int, index: int) -> Any:
    return _embedded(c, g, c.shapes[0], *_element_of(c, c.shapes[0], dim, index))


def _pieces(c: Context, a: Value, dim: int) -> list[Node]:
    """The pieces of a, in order; their shapes were recorded."""
    _unit(c, a.shape, dim)
    whole, pieces, at = c.as_rows(a), [], 0
    for width in map(columns, c.shapes):
        pieces.append(c.b.slice(whole, at, at + width))
        at += width
    return pieces


rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk",
     "unsafe_chunk")(lambda c, a, sizes, dim=0: _pieces(c, a, dim))  # fmt: skip
rule("unbind")(lambda c, a, dim=0: _pieces(c, a, dim))


@rule("cat", "concat", "stack")
def _cat(c: Context, tensors: list[Value], dim: int = 0) -> Any:
    _unit(c, c.shapes[0], dim)
    return c.b.concat([c.as_rows(v) for v in tensors])


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


# ---- products


@rule("mm", "bmm", "matmul")
def _mm(c: Context, a: Value, w: Value) -> Any:
    """Rows times a captured matrix; or the transposed rows times rows, a sum over the batch."""
    if len(a.shape) == 3 and 1 not in (a.shape[0], w.shape[0]):
        raise c.refuse("multiplies several matrices at once")
    over_batch = a.shape[-1] == Batch(1)
    if a.rows and not over_batch and w.node.kind == ONCE:
        matrix = w.node if len(w.shape) == 2 else c.b.view(w.node, tuple(w.shape[-2:]), ONCE)
        return c.b.matmul(c.as_rows(a), matrix)
    if a.rows and over_batch and w.rows and w.shape[-2] == Batch(1):
        total = c.b.outer(c.b.widen(a.node, a.width), c.as_rows(w))
        return c.b.view(total, tuple(c.shapes[0]), SUM)
    if "absent" in (a.node.op, w.node.op):
        return c.b.absent()
    if is_zero(a.node) or is_zero(w.node):
        return c.b.const(0.0)
    raise c.refuse(
        f"multiplies {list(a.shape)} by {list(w.shape)}; wanted rows times a captured matrix"
    )


@rule("addmm", "baddbmm")
def _addmm(c: Context, bias: Value, a: Value, w: Value, beta: float = 1, alpha: float = 1) -> Any:
    if beta == 0 or alpha == 0:  # torch does not look at the other part, which may be NaN
        raise c.refuse("beta or alpha is 0: leave that part out")
    product: Any = _mm(c, a, w)
    if product.kind == SUM:
        raise c.refuse("adds to a sum over the batch")
    if alpha != 1:
        product = c.op("mul_s", product, s=float(alpha))
    scaled = bias if beta == 1 else Value(c.op("mul_s", c.node(bias), s=float(beta)), bias.shape)
    return c.elementwise("add", scaled, Value(product, c.shapes[0]))
