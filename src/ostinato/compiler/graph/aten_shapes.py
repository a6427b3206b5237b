"""ATen calls that move, cut, join, make and multiply."""

from __future__ import annotations

import math
from typing import Any

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node
from ostinato.compiler.graph.rules import Context, Value, rule

# ---- views


@rule(
    "detach",
    "alias",
    "clone",
    "contiguous",
    "lift_fresh",
    "lift_fresh_copy",
    "positive",
)
def _same(c: Context, a: Value, *_: Any, **__: Any) -> Any:
    return a


@rule("_to_copy")
def _to_copy(c: Context, a: Value, **_: Any) -> Any:
    return c.truth(0, a) if c.gives_truths else a


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
    if a.rows:
        width = math.prod(n for n in shape if not isinstance(n, Batch))
        if a.node.width not in (1, width) or a.width not in (1, width):
            raise c.refuse(f"broadcasts {list(a.shape)} to {list(shape)}")
        return Value(a.node, shape, a.transposed)
    if a.node.kind == SUM:
        raise c.refuse("a sum over the batch flows back into the rows")
    return Value(c.b.widen(c.node(a), max(1, c.node(a).width)), shape)


def _last_axis(c: Context, a: Value, dim: int) -> int:
    """Elements that one step along `dim` covers; the axes before it, but the batch, must be 1."""
    dim = dim % len(a.shape)
    if (
        any(isinstance(n, Batch) for n in a.shape[dim:])
        or math.prod(n for n in a.shape[:dim] if not isinstance(n, Batch)) != 1
    ):
        raise c.refuse(f"cuts or joins axis {dim} of {list(a.shape)}")
    return math.prod(a.shape[dim + 1 :])


@rule("slice")
def _slice(
    c: Context, a: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    size = a.shape[dim % len(a.shape)]
    if c.shapes[0] == a.shape:
        return a
    if isinstance(size, Batch) or step != 1:
        raise c.refuse("takes part of the batch, or every n-th column")
    unit = _last_axis(c, a, dim)
    start, length = _bounds(start, end, size)
    return c.b.slice(c.as_rows(a), start * unit, (start + length) * unit)


def _bounds(start: Any, end: Any, size: int) -> tuple[int, int]:
    low, high, _ = slice(start, end).indices(size)
    return low, max(0, high - low)


@rule("narrow")
def _narrow(c: Context, a: Value, dim: int, start: int, length: int) -> Any:
    return _slice(c, a, dim, start, start + length)


@rule("select")
def _select(c: Context, a: Value, dim: int, index: int) -> Any:
    size = a.shape[dim % len(a.shape)]
    if isinstance(size, Batch):
        raise c.refuse("takes one row of the batch")
    unit = _last_axis(c, a, dim)
    index %= size
    return c.b.slice(c.as_rows(a), index * unit, (index + 1) * unit)


@rule(
    "split",
    "split_with_sizes",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "chunk",
    "unsafe_chunk",
    "unbind",
)
def _split(c: Context, a: Value, *args: Any) -> Any:
    """Pieces in order; their shapes were recorded."""
    dim = args[1] if len(args) > 1 else 0
    if "unbind" in c.name:
        dim = args[0] if args else 0
    _last_axis(c, a, dim)
    whole, pieces, at = c.as_rows(a), [], 0
    for shape in c.shapes:
        width = math.prod(n for n in shape if not isinstance(n, Batch))
        pieces.append(c.b.slice(whole, at, at + width))
        at += width
    return pieces


@rule("cat", "concat")
def _cat(c: Context, tensors: list[Value], dim: int = 0) -> Any:
    for v in tensors:
        _last_axis(c, Value(v.node, c.shapes[0]), dim)
    return c.b.concat([c.as_rows(v) for v in tensors])


@rule("stack")
def _stack(c: Context, tensors: list[Value], dim: int = 0) -> Any:
    _last_axis(c, Value(tensors[0].node, c.shapes[0]), dim)
    return c.b.concat([c.as_rows(v) for v in tensors])


@rule("slice_backward")
def _slice_backward(
    c: Context, g: Value, sizes: Any, dim: int, start: int, end: int, step: int
) -> Any:
    size = c.shapes[0][dim % len(sizes)]
    if g.shape == c.shapes[0]:
        return g
    if isinstance(size, Batch) or step != 1:
        raise c.refuse("takes part of the batch, or every n-th column")
    unit = _last_axis(c, Value(g.node, c.shapes[0]), dim)
    start, length = _bounds(start, end, size)
    return _embedded(c, c.as_rows(g), start * unit, (size - start - length) * unit)


@rule("select_backward")
def _select_backward(c: Context, g: Value, sizes: Any, dim: int, index: int) -> Any:
    size = c.shapes[0][dim % len(sizes)]
    if isinstance(size, Batch):
        raise c.refuse("takes one row of the batch")
    unit = _last_axis(c, Value(g.node, c.shapes[0]), dim)
    index %= size
    return _embedded(c, c.as_rows(g), index * unit, (size - index - 1) * unit)


def _embedded(c: Context, node: Node, before: int, after: int) -> Node:
    pieces = [node]
    if before:
        pieces.insert(0, c.b.absent(before))
    if after:
        pieces.append(c.b.absent(after))
    return c.b.concat(pieces)


# ---- constants


@rule(
    "zeros", "zeros_like", "new_zeros", "empty_like", "new_empty", "empty", "_efficientzerotensor"
)
def _zeros(c: Context, *_: Any) -> Any:
    return c.b.const(0.0)


@rule("ones", "ones_like", "new_ones")
def _ones(c: Context, *_: Any) -> Any:
    return c.b.const(1.0)


@rule("full", "full_like", "new_full", "fill")
def _full(c: Context, _: Any, value: Any) -> Any:
    return c.b.const(_number(c, value))


@rule("scalar_tensor")
def _scalar_tensor(c: Context, value: Any) -> Any:
    return c.b.const(float(value))


def _number(c: Context, value: Any) -> float:
    if isinstance(value, Value):
        if value.node.op != "const":
            raise c.refuse("needs a number that is known when the step is recorded")
        return value.node.s
    if isinstance(value, Batch):
        raise c.refuse("computes with the batch size")
    return float(value)


# ---- products


@rule("mm", "bmm", "matmul")
def _mm(c: Context, a: Value, w: Value) -> Any:
    if len(a.shape) == 3 and 1 not in (a.shape[0], w.shape[0]) and a.shape[0] != 1:
        raise c.refuse("multiplies several matrices at once")
    over_batch = a.shape[-1] == Batch(1)
    if a.rows and not over_batch and w.node.kind == ONCE:
        return c.b.matmul(c.as_rows(a), _matrix(c, w))
    if a.rows and over_batch and w.rows and w.shape[-2] == Batch(1):
        left = c.b.widen(c.node(Value(a.node, a.shape)), a.width)
        total = c.b.outer(left, c.as_rows(w))
        if len(c.shapes[0]) == 2:
            return total
        return c.b.view(total, tuple(c.shapes[0]), SUM)
    if "const" in (a.node.op, w.node.op) or "absent" in (a.node.op, w.node.op):
        return c.b.absent()
    raise c.refuse(
        f"multiplies {list(a.shape)} by {list(w.shape)}; wanted rows times a captured matrix"
    )


def _matrix(c: Context, w: Value) -> Node:
    if len(w.shape) == 2:
        return w.node
    return c.b.view(w.node, tuple(w.shape[-2:]), ONCE)


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
