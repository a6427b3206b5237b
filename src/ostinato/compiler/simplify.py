"""From recorded ATen calls to the step graph: what each call means in terms of `Builder`.

One function per call, found by the call's name. A value is a node with the shape that PyTorch gave
it; views change the shape and leave the node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostinato.compiler.graph import ONCE, ROWS, SUM, Builder, Node, Slot, Unsupported
from ostinato.compiler.record import Batch, Recording, Ref

Shape = tuple[Any, ...]  # ints, and Batch(1) where the batch is


@dataclass(frozen=True)
class Value:
    node: Node
    shape: Shape
    transposed: bool = False  # the node's rows are this value's columns: `[K, B]`

    @property
    def rows(self) -> bool:
        return self.node.kind == ROWS

    @property
    def width(self) -> int:
        """Elements of one row."""
        return math.prod(n for n in self.shape if not isinstance(n, Batch))


@dataclass(frozen=True)
class Forward:
    """One step: what it computes, and from what."""

    states: tuple[Node, ...]
    xs: tuple[Node, ...]
    new_states: tuple[Node, ...]
    ys: tuple[Node, ...]


@dataclass(frozen=True)
class Backward:
    """The gradients of one step, from those of its new carry and its outputs."""

    d_new_states: tuple[Node, ...]
    d_ys: tuple[Node, ...]
    d_captured: tuple[Node | None, ...]  # sums
    d_states: tuple[Node, ...]  # absent where no gradient flows
    d_xs: tuple[Node | None, ...]


class StepGraph:
    """The graph of a recorded step. Its backward part depends on which outputs were used.

    Args:
        dtype: the floating-point type that every value must have (or bool).
    """

    def __init__(self, recording: Recording, dtype: Any):
        self.recording = recording
        self.dtype = dtype
        self.b = Builder()
        self.values: dict[int, Value] = {}
        self.forward = self._forward()

    def _forward(self) -> Forward:
        r = self.recording
        self._check_dtypes()
        for position, i in enumerate(r.captured):
            self.values[i] = Value(self.b.captured(position, _fixed(r.shapes[i])), r.shapes[i])
        states = tuple(self._input("state", p, i) for p, i in enumerate(r.states))
        xs = tuple(self._input("x", p, i) for p, i in enumerate(r.xs))
        for i, tensor in r.constants.items():
            if tensor.dim() != 0:
                raise Unsupported(
                    "the step makes a tensor from Python values other than one number"
                )
            self.values[i] = Value(self.b.const(float(tensor)), ())
        for call in r.calls[: r.n_forward]:
            self._translate(call)
        new_states = tuple(self._whole(i) for i in r.new_states)
        return Forward(states, xs, new_states, tuple(self._whole(i) for i in r.ys))

    def backward(self, y_used: tuple[bool, ...]) -> Backward:
        """The gradients, where those of the outputs with `y_used` false are absent."""
        r = self.recording
        forward_values = dict(self.values)
        d_new = tuple(self._input("d_state", p, i) for p, i in enumerate(r.d_new_states))
        d_ys = tuple(
            self._input("d_y", p, i) if used else self._absent(i)
            for p, (i, used) in enumerate(zip(r.d_ys, y_used, strict=True))
        )
        for call in r.calls[r.n_forward :]:
            self._translate(call)
        result = Backward(
            d_new_states=d_new,
            d_ys=d_ys,
            d_captured=tuple(None if i is None else self._sum(i) for i in r.d_captured),
            d_states=tuple(
                self.b.absent(state.width) if i is None else self._whole(i)
                for state, i in zip(self.forward.states, r.d_states, strict=True)
            ),
            d_xs=tuple(None if i is None else self._whole(i) for i in r.d_xs),
        )
        self.values = forward_values
        return result

    def _check_dtypes(self) -> None:
        import torch

        for call in self.recording.calls:
            for i in call.outs:
                if i is not None and self.recording.dtypes[i] not in (self.dtype, torch.bool):
                    raise Unsupported(
                        f"the step computes in {self.recording.dtypes[i]} beside {self.dtype}",
                        call.name,
                    )
        for i in (*self.recording.captured, *self.recording.states, *self.recording.xs):
            if self.recording.dtypes[i] not in (self.dtype, torch.bool):
                raise Unsupported(
                    f"a tensor of {self.recording.dtypes[i]} beside {self.dtype}; give the carry, "
                    "xs and the parameters one floating-point type"
                )

    def _input(self, name: str, position: int, i: int) -> Node:
        shape: Shape = self.recording.shapes[i]
        if not shape or shape[0] != Batch(1) or any(isinstance(n, Batch) for n in shape[1:]):
            raise Unsupported(
                f"{name} {position} has the shape {list(shape)}; the batch must come first"
            )
        node = self.b.node(name, (), (position,), ROWS, (math.prod(shape[1:]),))
        self.values[i] = Value(node, shape)
        return node

    def _absent(self, i: int) -> Node:
        shape: Shape = self.recording.shapes[i]
        node = self.b.absent(math.prod(shape[1:]))
        self.values[i] = Value(node, shape)
        return node

    def _whole(self, i: int) -> Node:
        """A value as rows of its full width: an output."""
        v = self.values[i]
        if not v.shape or v.shape[0] != Batch(1) or v.transposed or v.node.kind == SUM:
            raise Unsupported(
                f"the step returns {list(v.shape)}; every output needs the batch first"
            )
        return self.b.widen(v.node, v.width)

    def _sum(self, i: int) -> Node:
        v = self.values[i]
        if v.node.kind != SUM:
            if v.node.op in ("const", "absent") and (v.node.op == "absent" or v.node.s == 0):
                return self.b.node("zeros", (), v.shape, SUM, v.shape)
            raise Unsupported("the gradient of a captured tensor is not a sum over the batch")
        return v.node

    # ---- one call

    def _translate(self, call: Any) -> None:
        name = call.name.removeprefix("aten.").rsplit(".", 1)[0]
        read: list[Value] = []

        def get(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                read.append(self.values[leaf.index])
                return self.values[leaf.index]
            if isinstance(leaf, (list, tuple)):
                return type(leaf)(get(x) for x in leaf)
            return leaf

        args = [get(a) for a in call.args]
        kwargs = {k: get(v) for k, v in call.kwargs.items()}
        shapes = [None if i is None else self.recording.shapes[i] for i in call.outs]
        kinds = {v.node.kind for v in read if v.node.op not in ("const", "absent")}
        batched = any(isinstance(n, Batch) for s in shapes if s is not None for n in s)
        rule = _RULES.get(name)
        if ROWS not in kinds and not batched and (kinds or rule is None):
            outs = self._left_to_torch(call, read, shapes, SUM if SUM in kinds else ONCE)
        elif rule is None:
            raise Unsupported(f"the engine has no {call.name.removesuffix('.default')}", call.name)
        else:
            if SUM in kinds and name not in ("add", "mul"):
                raise Unsupported("a sum over the batch flows back into the rows", call.name)
            call_outs = rule(
                _Context(self.b, shapes, call.name), *args, **_without_placement(kwargs)
            )
            outs = call_outs if isinstance(call_outs, list) else [call_outs]
        for i, shape, out in zip(call.outs, shapes, outs, strict=False):
            if i is None or out is None:
                continue
            self.values[i] = out if isinstance(out, Value) else Value(out, shape)  # type: ignore[arg-type]

    def _left_to_torch(
        self, call: Any, read: list[Value], shapes: list[Any], kind: str
    ) -> list[Node]:
        if kind == SUM and call.name == "aten.add.Tensor":
            both = (
                self.b.add_sums(read[0].node, read[1].node)
                if len(read) == 2 and not call.kwargs
                else None
            )
            if both is not None:
                return [both]
        if call.name in ("aten.view.default", "aten._unsafe_view.default") and kind == SUM:
            return [self.b.view(read[0].node, _fixed(shapes[0]), kind)]
        nodes: list[Node] = []

        def slot(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                value = self.values[leaf.index]
                node = value.node
                if node.kind == ROWS:  # a constant
                    node = self.b.node(
                        "full", (), (node.s if node.op == "const" else 0.0,), kind, value.shape
                    )
                nodes.append(node)
                return Slot(len(nodes) - 1)
            if isinstance(leaf, (list, tuple)):
                return tuple(slot(x) for x in leaf)
            return leaf

        args = slot(tuple(call.args)), tuple((k, slot(v)) for k, v in call.kwargs.items())
        return [
            self.b.call(call.name, tuple(nodes), args, out, kind, tuple(shape or ()))
            for out, shape in enumerate(shapes)
        ]


def _fixed(shape: Shape) -> tuple[int, ...]:
    if any(isinstance(n, Batch) for n in shape):
        raise Unsupported("a captured tensor changes its shape with the batch")
    return tuple(shape)


def _without_placement(kwargs: dict[str, Any]) -> dict[str, Any]:
    placement = ("dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking")
    return {k: v for k, v in kwargs.items() if k not in placement}


@dataclass(frozen=True)
class _Context:
    b: Builder
    shapes: list[Any]
    name: str

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"{self.name.removesuffix('.default')}: {why}", self.name)

    def node(self, v: Any) -> Node:
        """An operand of an elementwise operation: rows, a vector, or a number."""
        if not isinstance(v, Value):
            return self.b.const(float(v))
        if v.transposed:
            raise self.refuse("works on a transposed batch")
        if v.node.kind == SUM:
            raise self.refuse("a sum over the batch flows back into the rows")
        if v.node.kind == ONCE:
            return self._vector(v)
        return v.node

    def _vector(self, v: Value) -> Node:
        """A tensor without batch as one row that broadcasts to all."""
        out = tuple(n for n in (self.shapes[0] or ()) if not isinstance(n, Batch))
        shape = tuple(v.shape)
        while len(shape) > len(out) and shape[0] == 1:
            shape = shape[1:]
        if len(shape) > len(out):
            raise self.refuse(f"broadcasts {list(v.shape)} over rows of {list(out)}")
        node, width = v.node, math.prod(shape)
        if width != 1 and width != math.prod(out):
            node, width = (
                self.b.call("aten.expand.default", (node,), ((Slot(0), out), ()), 0, ONCE, out),
                math.prod(out),
            )
        if node.shape == (width,):
            return node
        return self.b.call(
            "aten.reshape.default", (node,), ((Slot(0), (width,)), ()), 0, ONCE, (width,)
        )

    def elementwise(self, name: str, *values: Any, s: float = 0.0) -> Node:
        out = self.shapes[0]
        width = math.prod(n for n in out if not isinstance(n, Batch))
        for v in values:
            if isinstance(v, Value) and v.rows and v.node.width not in (1, width):
                raise self.refuse(f"broadcasts {list(v.shape)} to {list(out)}")
            if isinstance(v, Value) and v.rows and v.node.width == 1 and v.width not in (1, width):
                raise self.refuse(f"broadcasts {list(v.shape)} to {list(out)}")
            if isinstance(v, Value) and v.rows and v.shape and v.node.op not in ("const", "absent"):
                padded = (1,) * (len(out) - len(v.shape)) + v.shape
                if Batch(1) in padded and padded.index(Batch(1)) != out.index(Batch(1)):
                    raise self.refuse("combines the batch with another axis")
        return self.b.op(name, *(self.node(v) for v in values), s=s)


Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = _RULES[name + "_"] = function
        return function

    return register


# ---- views


@_rule(
    "detach",
    "alias",
    "clone",
    "contiguous",
    "lift_fresh",
    "lift_fresh_copy",
    "_to_copy",
    "positive",
)
def _same(c: _Context, a: Value, *_: Any, **__: Any) -> Any:
    return a


@_rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias")
def _view(c: _Context, a: Value, *_: Any) -> Any:
    shape = c.shapes[0]
    if a.transposed or a.node.kind != ROWS:
        raise c.refuse("reshapes a transposed batch")
    if Batch(1) not in shape or math.prod(shape[: shape.index(Batch(1))]) != 1:
        raise c.refuse(f"makes {list(shape)} of {list(a.shape)}, where rows of the batch mix")
    return Value(a.node, shape)


@_rule("t", "transpose", "permute", "movedim")
def _transpose(c: _Context, a: Value, *args: Any) -> Any:
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


@_rule("expand", "broadcast_to", "expand_as")
def _expand(c: _Context, a: Value, *_: Any, **__: Any) -> Any:
    shape = c.shapes[0]
    if a.rows:
        width = math.prod(n for n in shape if not isinstance(n, Batch))
        if a.node.width not in (1, width) or a.width not in (1, width):
            raise c.refuse(f"broadcasts {list(a.shape)} to {list(shape)}")
        return Value(a.node, shape, a.transposed)
    if a.node.kind == SUM:
        raise c.refuse("a sum over the batch flows back into the rows")
    return Value(c.b.widen(c.node(a), max(1, c.node(a).width)), shape)


def _last_axis(c: _Context, a: Value, dim: int) -> int:
    """Elements that one step along `dim` covers; the axes before it, but the batch, must be 1."""
    dim = dim % len(a.shape)
    if (
        isinstance(a.shape[dim], Batch)
        or math.prod(n for n in a.shape[:dim] if not isinstance(n, Batch)) != 1
    ):
        raise c.refuse(f"cuts or joins axis {dim} of {list(a.shape)}")
    return math.prod(a.shape[dim + 1 :])


def _rows(c: _Context, v: Value) -> Node:
    """A value as rows of its full width."""
    if v.transposed:
        raise c.refuse("works on a transposed batch")
    return c.b.widen(c.node(v) if v.node.kind == ROWS else _vector_rows(c, v), v.width)


def _vector_rows(c: _Context, v: Value) -> Node:
    if v.node.shape == (v.width,):
        return v.node
    return c.b.call(
        "aten.reshape.default", (v.node,), ((Slot(0), (v.width,)), ()), 0, ONCE, (v.width,)
    )


@_rule("slice")
def _slice(
    c: _Context, a: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    size = a.shape[dim % len(a.shape)]
    if c.shapes[0] == a.shape:
        return a
    if isinstance(size, Batch) or step != 1:
        raise c.refuse("takes part of the batch, or every n-th column")
    unit = _last_axis(c, a, dim)
    start, length = _bounds(start, end, size)
    return c.b.slice(_rows(c, a), start * unit, (start + length) * unit)


def _bounds(start: Any, end: Any, size: int) -> tuple[int, int]:
    low, high, _ = slice(start, end).indices(size)
    return low, max(0, high - low)


@_rule("narrow")
def _narrow(c: _Context, a: Value, dim: int, start: int, length: int) -> Any:
    return _slice(c, a, dim, start, start + length)


@_rule("select")
def _select(c: _Context, a: Value, dim: int, index: int) -> Any:
    size = a.shape[dim % len(a.shape)]
    if isinstance(size, Batch):
        raise c.refuse("takes one row of the batch")
    unit = _last_axis(c, a, dim)
    index %= size
    return c.b.slice(_rows(c, a), index * unit, (index + 1) * unit)


@_rule(
    "split",
    "split_with_sizes",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "chunk",
    "unsafe_chunk",
    "unbind",
)
def _split(c: _Context, a: Value, *args: Any) -> Any:
    """Pieces in order; their shapes were recorded."""
    dim = args[1] if len(args) > 1 else 0
    if "unbind" in c.name:
        dim = args[0] if args else 0
    _last_axis(c, a, dim)
    whole, pieces, at = _rows(c, a), [], 0
    for shape in c.shapes:
        width = math.prod(n for n in shape if not isinstance(n, Batch))
        pieces.append(c.b.slice(whole, at, at + width))
        at += width
    return pieces


@_rule("cat", "concat")
def _cat(c: _Context, tensors: list[Value], dim: int = 0) -> Any:
    for v in tensors:
        _last_axis(c, Value(v.node, c.shapes[0]), dim)
    return c.b.concat([_rows(c, v) for v in tensors])


@_rule("stack")
def _stack(c: _Context, tensors: list[Value], dim: int = 0) -> Any:
    _last_axis(c, Value(tensors[0].node, c.shapes[0]), dim)
    return c.b.concat([_rows(c, v) for v in tensors])


@_rule("slice_backward")
def _slice_backward(
    c: _Context, g: Value, sizes: Any, dim: int, start: int, end: int, step: int
) -> Any:
    size = c.shapes[0][dim % len(sizes)]
    if g.shape == c.shapes[0]:
        return g
    if isinstance(size, Batch) or step != 1:
        raise c.refuse("takes part of the batch, or every n-th column")
    unit = _last_axis(c, Value(g.node, c.shapes[0]), dim)
    start, length = _bounds(start, end, size)
    return _embedded(c, _rows(c, g), start * unit, (size - start - length) * unit)


@_rule("select_backward")
def _select_backward(c: _Context, g: Value, sizes: Any, dim: int, index: int) -> Any:
    size = c.shapes[0][dim % len(sizes)]
    if isinstance(size, Batch):
        raise c.refuse("takes one row of the batch")
    unit = _last_axis(c, Value(g.node, c.shapes[0]), dim)
    index %= size
    return _embedded(c, _rows(c, g), index * unit, (size - index - 1) * unit)


def _embedded(c: _Context, node: Node, before: int, after: int) -> Node:
    pieces = [node]
    if before:
        pieces.insert(0, c.b.absent(before))
    if after:
        pieces.append(c.b.absent(after))
    return c.b.concat(pieces)


# ---- constants


@_rule(
    "zeros", "zeros_like", "new_zeros", "empty_like", "new_empty", "empty", "_efficientzerotensor"
)
def _zeros(c: _Context, *_: Any) -> Any:
    return c.b.const(0.0)


@_rule("ones", "ones_like", "new_ones")
def _ones(c: _Context, *_: Any) -> Any:
    return c.b.const(1.0)


@_rule("full", "full_like", "new_full", "fill")
def _full(c: _Context, _: Any, value: Any) -> Any:
    return c.b.const(_number(c, value))


@_rule("scalar_tensor")
def _scalar_tensor(c: _Context, value: Any) -> Any:
    return c.b.const(float(value))


def _number(c: _Context, value: Any) -> float:
    if isinstance(value, Value):
        if value.node.op != "const":
            raise c.refuse("needs a number that is known when the step is recorded")
        return value.node.s
    return float(value)


# ---- products


@_rule("mm", "bmm", "matmul")
def _mm(c: _Context, a: Value, w: Value) -> Any:
    if len(a.shape) == 3 and 1 not in (a.shape[0], w.shape[0]) and a.shape[0] != 1:
        raise c.refuse("multiplies several matrices at once")
    over_batch = a.shape[-1] == Batch(1)
    if a.rows and not over_batch and w.node.kind == ONCE:
        return c.b.matmul(_rows(c, a), _matrix(c, w))
    if a.rows and over_batch and w.rows and w.shape[-2] == Batch(1):
        left = c.b.widen(c.node(Value(a.node, a.shape)), a.width)
        total = c.b.outer(left, _rows(c, w))
        if len(c.shapes[0]) == 2:
            return total
        return c.b.view(total, tuple(c.shapes[0]), SUM)
    if "const" in (a.node.op, w.node.op) or "absent" in (a.node.op, w.node.op):
        return c.b.absent()
    raise c.refuse(
        f"multiplies {list(a.shape)} by {list(w.shape)}; wanted rows times a captured matrix"
    )


def _matrix(c: _Context, w: Value) -> Node:
    if len(w.shape) == 2:
        return w.node
    return c.b.view(w.node, tuple(w.shape[-2:]), ONCE)


@_rule("addmm", "baddbmm")
def _addmm(c: _Context, bias: Value, a: Value, w: Value, beta: float = 1, alpha: float = 1) -> Any:
    product: Any = _mm(c, a, w)
    if product.kind == SUM:
        raise c.refuse("adds to a sum over the batch")
    if alpha != 1:
        product = c.b.op("mul_s", product, s=float(alpha))
    scaled = bias if beta == 1 else Value(c.b.op("mul_s", c.node(bias), s=float(beta)), bias.shape)
    return c.elementwise("add", scaled, Value(product, c.shapes[0]))


# ---- elementwise


@_rule("add")
def _add(c: _Context, a: Any, b: Any, alpha: float = 1) -> Any:
    if isinstance(b, Value) and alpha != 1:
        b = Value(c.b.op("mul_s", c.node(b), s=float(alpha)), b.shape)
    elif alpha != 1:
        b = b * alpha
    return c.elementwise("add", a, b)


@_rule("sub", "subtract")
def _sub(c: _Context, a: Any, b: Any, alpha: float = 1) -> Any:
    if alpha != 1:
        return _add(c, a, b, alpha=-alpha)
    return c.elementwise("sub", a, b)


@_rule("rsub")
def _rsub(c: _Context, a: Any, b: Any, alpha: float = 1) -> Any:
    return _sub(c, b, a, alpha=alpha)


for _name, _op in {
    "mul": "mul", "multiply": "mul", "div": "div", "true_divide": "div", "neg": "neg",
    "tanh": "tanh",
    "sigmoid": "sigmoid", "exp": "exp", "log": "log", "log1p": "log1p", "expm1": "expm1",
    "sqrt": "sqrt", "abs": "abs", "sgn": "sign", "sign": "sign", "erf": "erf", "sin": "sin",
    "cos": "cos", "maximum": "max", "minimum": "min", "tanh_backward": "tanh_backward",
    "sigmoid_backward": "sigmoid_backward", "lt": "lt", "le": "le", "eq": "eq", "ne": "ne",
    "logical_and": "mul", "bitwise_and": "mul", "__and__": "mul",
}.items():  # fmt: skip

    def _direct(c: _Context, *values: Any, _op: str = _op) -> Any:
        return c.elementwise(_op, *values)

    _rule(_name)(_direct)


@_rule("max")
def _max(c: _Context, a: Value, *rest: Any) -> Any:
    if len(rest) == 1 and isinstance(rest[0], Value):
        return c.elementwise("max", a, rest[0])
    raise c.refuse("indices of the largest element are not supported; amax gives the value")


@_rule("min")
def _min(c: _Context, a: Value, *rest: Any) -> Any:
    if len(rest) == 1 and isinstance(rest[0], Value):
        return c.elementwise("min", a, rest[0])
    raise c.refuse("indices of the smallest element are not supported; amin gives the value")


@_rule("gt")
def _gt(c: _Context, a: Any, b: Any) -> Any:
    return c.elementwise("lt", b, a)


@_rule("ge")
def _ge(c: _Context, a: Any, b: Any) -> Any:
    return c.elementwise("le", b, a)


@_rule("logical_not", "bitwise_not")
def _not(c: _Context, a: Value) -> Any:
    return c.elementwise("eq_s", a, s=0.0)


@_rule("logical_or", "bitwise_or", "__or__")
def _or(c: _Context, a: Value, b: Value) -> Any:
    return c.elementwise("max", a, b)


@_rule("where")
def _where(c: _Context, condition: Value, a: Any, b: Any) -> Any:
    return c.elementwise("select", condition, a, b)


@_rule("masked_fill")
def _masked_fill(c: _Context, a: Value, mask: Value, value: Any) -> Any:
    return c.elementwise("select", mask, value, a)


@_rule("reciprocal")
def _reciprocal(c: _Context, a: Value) -> Any:
    return c.elementwise("div", 1.0, a)


@_rule("rsqrt")
def _rsqrt(c: _Context, a: Value) -> Any:
    return c.b.op("rdiv_s", c.elementwise("sqrt", a), s=1.0)


@_rule("square")
def _square(c: _Context, a: Value) -> Any:
    return c.elementwise("mul", a, a)


@_rule("pow")
def _pow(c: _Context, a: Any, exponent: Any) -> Any:
    if not isinstance(exponent, Value):
        simple: dict[float, Callable[[], Any]] = {
            0.0: lambda: c.b.const(1.0),
            1.0: lambda: a,
            2.0: lambda: c.elementwise("mul", a, a),
            3.0: lambda: c.b.op("mul", c.elementwise("mul", a, a), c.node(a)),
            0.5: lambda: c.elementwise("sqrt", a),
            -1.0: lambda: _reciprocal(c, a),
            -0.5: lambda: _rsqrt(c, a),
        }
        if float(exponent) in simple:
            return simple[float(exponent)]()
    return c.elementwise("pow", a, exponent)


@_rule("clamp", "clip")
def _clamp(c: _Context, a: Value, min: Any = None, max: Any = None) -> Any:
    node: Any = a
    if min is not None:
        node = Value(c.elementwise("max", node, min), a.shape)
    if max is not None:
        node = Value(c.elementwise("min", node, max), a.shape)
    return node


@_rule("clamp_min")
def _clamp_min(c: _Context, a: Value, low: Any) -> Any:
    return c.elementwise("max", a, low)


@_rule("clamp_max")
def _clamp_max(c: _Context, a: Value, high: Any) -> Any:
    return c.elementwise("min", a, high)


@_rule("lerp")
def _lerp(c: _Context, a: Value, b: Value, weight: Any) -> Any:
    return c.elementwise("lerp", a, b, weight)


@_rule("addcmul")
def _addcmul(c: _Context, a: Value, x: Value, y: Value, value: float = 1) -> Any:
    product = c.b.op("mul_s", c.elementwise("mul", x, y), s=float(value))
    return c.b.op("add", c.node(a), product)


@_rule("addcdiv")
def _addcdiv(c: _Context, a: Value, x: Value, y: Value, value: float = 1) -> Any:
    quotient = c.b.op("mul_s", c.elementwise("div", x, y), s=float(value))
    return c.b.op("add", c.node(a), quotient)


# ---- activations and their gradients, from the operations the engine has


def _gated(c: _Context, g: Value, open_if: Node) -> Node:
    """g where the gate is open, 0 elsewhere: selected, never multiplied."""
    if g.node.op == "absent":
        return g.node
    return c.b.op("select", open_if, c.node(g), c.b.const(0.0))


@_rule("relu")
def _relu(c: _Context, a: Value) -> Any:
    return c.elementwise("max", a, 0.0)


@_rule("threshold_backward")
def _threshold_backward(c: _Context, g: Value, y: Value, threshold: float) -> Any:
    if g.node.op == "absent":
        return g
    closed = c.b.op("le_s", c.node(y), s=float(threshold))
    return c.b.op("select", closed, c.b.const(0.0), c.node(g))


@_rule("hardtanh")
def _hardtanh(c: _Context, a: Value, low: float = -1, high: float = 1) -> Any:
    return _clamp(c, a, low, high)


@_rule("hardtanh_backward")
def _hardtanh_backward(c: _Context, g: Value, a: Value, low: float, high: float) -> Any:
    inside = c.b.op(
        "mul", c.b.op("gt_s", c.node(a), s=float(low)), c.b.op("lt_s", c.node(a), s=float(high))
    )
    return _gated(c, g, inside)


@_rule("leaky_relu")
def _leaky_relu(c: _Context, a: Value, slope: float = 0.01) -> Any:
    x = c.node(a)
    return c.b.op("select", c.b.op("gt_s", x, s=0.0), x, c.b.op("mul_s", x, s=float(slope)))


@_rule("leaky_relu_backward")
def _leaky_relu_backward(c: _Context, g: Value, a: Value, slope: float, _: bool) -> Any:
    if g.node.op == "absent":
        return g
    d = c.node(g)
    return c.b.op("select", c.b.op("gt_s", c.node(a), s=0.0), d, c.b.op("mul_s", d, s=float(slope)))


@_rule("elu")
def _elu(c: _Context, a: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    x = c.node(a)
    negative = c.b.op("expm1", c.b.op("mul_s", x, s=float(input_scale)))
    scaled = c.b.op("mul_s", negative, s=float(alpha * scale))
    return c.b.op("select", c.b.op("gt_s", x, s=0.0), c.b.op("mul_s", x, s=float(scale)), scaled)


@_rule("elu_backward")
def _elu_backward(
    c: _Context, g: Value, alpha: float, scale: float, input_scale: float, is_result: bool, a: Value
) -> Any:
    if g.node.op == "absent":
        return g
    x, d = c.node(a), c.node(g)
    if is_result:
        slope = c.b.op("mul_s", c.b.op("add_s", x, s=float(alpha * scale)), s=float(input_scale))
    else:
        e = c.b.op("exp", c.b.op("mul_s", x, s=float(input_scale)))
        slope = c.b.op("mul_s", e, s=float(alpha * scale * input_scale))
    negative = c.b.op("mul", d, slope)
    return c.b.op("select", c.b.op("gt_s", x, s=0.0), c.b.op("mul_s", d, s=float(scale)), negative)


@_rule("silu")
def _silu(c: _Context, a: Value) -> Any:
    return c.b.op("mul", c.node(a), c.elementwise("sigmoid", a))


@_rule("silu_backward")
def _silu_backward(c: _Context, g: Value, a: Value) -> Any:
    """g · σ(a) · (1 + a · (1 − σ(a)))"""
    x = c.node(a)
    s = c.b.op("sigmoid", x)
    slope = c.b.op("add_s", c.b.op("mul", x, c.b.op("rsub_s", s, s=1.0)), s=1.0)
    return c.b.op("mul", c.node(g), c.b.op("mul", s, slope))


@_rule("gelu")
def _gelu(c: _Context, a: Value, approximate: str = "none") -> Any:
    x = c.node(a)
    if approximate == "tanh":
        return c.b.op(
            "mul",
            c.b.op("mul_s", x, s=0.5),
            c.b.op("add_s", c.b.op("tanh", _gelu_inner(c, x)), s=1.0),
        )
    return c.b.op("mul", x, _normal_cdf(c, x))


def _normal_cdf(c: _Context, x: Node) -> Node:
    e = c.b.op("erf", c.b.op("mul_s", x, s=math.sqrt(0.5)))
    return c.b.op("mul_s", c.b.op("add_s", e, s=1.0), s=0.5)


def _gelu_inner(c: _Context, x: Node) -> Node:
    cubic = c.b.op("mul", c.b.op("mul", x, x), x)
    return c.b.op(
        "mul_s", c.b.op("add", x, c.b.op("mul_s", cubic, s=0.044715)), s=math.sqrt(2 / math.pi)
    )


@_rule("gelu_backward")
def _gelu_backward(c: _Context, g: Value, a: Value, approximate: str = "none") -> Any:
    x, d = c.node(a), c.node(g)
    if approximate == "none":  # Φ(x) + x·φ(x)
        density = c.b.op("exp", c.b.op("mul_s", c.b.op("mul", x, x), s=-0.5))
        density = c.b.op("mul_s", density, s=1 / math.sqrt(2 * math.pi))
        return c.b.op("mul", d, c.b.op("add", _normal_cdf(c, x), c.b.op("mul", x, density)))
    t = c.b.op("tanh", _gelu_inner(c, x))  # ½(1 + t) + ½x(1 − t²)·k·(1 + 3·0.044715·x²)
    inner = c.b.op("add_s", c.b.op("mul_s", c.b.op("mul", x, x), s=3 * 0.044715), s=1.0)
    inner = c.b.op("mul_s", inner, s=math.sqrt(2 / math.pi))
    left = c.b.op("mul_s", c.b.op("add_s", t, s=1.0), s=0.5)
    right = c.b.op("mul", c.b.op("mul_s", x, s=0.5), c.b.op("tanh_backward", inner, t))
    return c.b.op("mul", d, c.b.op("add", left, right))


@_rule("log_sigmoid_forward")
def _log_sigmoid(c: _Context, a: Value) -> Any:
    return [c.b.op("neg", c.b.op("softplus", c.b.op("neg", c.node(a)))), c.b.const(0.0)]


@_rule("log_sigmoid_backward")
def _log_sigmoid_backward(c: _Context, g: Value, a: Value, _: Any) -> Any:
    return c.b.op("mul", c.node(g), c.b.op("sigmoid", c.b.op("neg", c.node(a))))


@_rule("softplus")
def _softplus(c: _Context, a: Value, beta: float = 1, threshold: float = 20) -> Any:
    x = c.node(a)
    z = c.b.op("mul_s", x, s=float(beta))
    soft = c.b.op("mul_s", c.b.op("softplus", z), s=1 / float(beta))
    return c.b.op("select", c.b.op("gt_s", z, s=float(threshold)), x, soft)


@_rule("softplus_backward")
def _softplus_backward(c: _Context, g: Value, a: Value, beta: float, threshold: float) -> Any:
    if g.node.op == "absent":
        return g
    z, d = c.b.op("mul_s", c.node(a), s=float(beta)), c.node(g)
    soft = c.b.op("mul", d, c.b.op("sigmoid", z))
    return c.b.op("select", c.b.op("gt_s", z, s=float(threshold)), d, soft)


# ---- reductions


def _axes(a: Value, dims: Any) -> list[int]:
    n = len(a.shape)
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(n))
    return sorted(int(d) % n for d in ([dims] if isinstance(dims, int) else dims))


def _row_reduction(c: _Context, name: str, a: Value, dims: list[int]) -> Node:
    """A reduction over all that a row has."""
    kept = math.prod(n for i, n in enumerate(a.shape) if i not in dims and not isinstance(n, Batch))
    if kept != 1:
        raise c.refuse(f"reduces axes {dims} of {list(a.shape)}; wanted all axes of a row")
    return c.b.reduce(name, c.node(a), a.width)


@_rule("sum")
def _sum(c: _Context, a: Value, dims: Any = None, keepdim: bool = False) -> Any:
    axes = _axes(a, dims)
    batch = a.shape.index(Batch(1))
    if batch not in axes:
        if math.prod(n for i, n in enumerate(a.shape) if i in axes) == 1:
            return Value(a.node, c.shapes[0])
        return _row_reduction(c, "row_sum", a, axes)
    if a.transposed:
        raise c.refuse("works on a transposed batch")
    total: Node = c.b.column_sum(_rows(c, a))
    if math.prod(n for i, n in enumerate(a.shape) if i in axes and i != batch) == 1:
        return _reshaped_sum(c, total, c.shapes[0])
    whole = _reshaped_sum(c, total, tuple(1 if isinstance(n, Batch) else n for n in a.shape))
    args = ((Slot(0), tuple(axes), keepdim), ())
    return c.b.call("aten.sum.dim_IntList", (whole,), args, 0, SUM, c.shapes[0])


def _reshaped_sum(c: _Context, total: Node, shape: Shape) -> Node:
    return c.b.view(total, tuple(shape), SUM)


@_rule("mean")
def _mean(c: _Context, a: Value, dims: Any = None, keepdim: bool = False) -> Any:
    axes = _axes(a, dims)
    if a.shape.index(Batch(1)) in axes:
        raise c.refuse("takes the mean over the batch")
    total = _row_reduction(c, "row_sum", a, axes)
    return c.b.op("mul_s", total, s=1 / math.prod(a.shape[i] for i in axes))


@_rule("amax")
def _amax(c: _Context, a: Value, dims: Any = (), keepdim: bool = False) -> Any:
    axes = _axes(a, dims)
    if a.shape.index(Batch(1)) in axes:
        raise c.refuse("takes the maximum over the batch")
    return _row_reduction(c, "row_max", a, axes)


@_rule("linalg_vector_norm")
def _norm(c: _Context, a: Value, order: float = 2, dims: Any = None, keepdim: bool = False) -> Any:
    axes = _axes(a, dims)
    if order != 2 or a.shape.index(Batch(1)) in axes:
        raise c.refuse("only the 2-norm of a row is supported")
    square = Value(c.b.op("mul", c.node(a), c.node(a)), a.shape)
    return c.b.op("sqrt", _row_reduction(c, "row_sum", square, axes))


def _check_last(c: _Context, a: Value, dim: int) -> None:
    if [dim % len(a.shape)] != [
        i for i, n in enumerate(a.shape) if not isinstance(n, Batch) and n != 1
    ]:
        raise c.refuse("wanted over all columns of a row")


@_rule("_softmax")
def _softmax(c: _Context, a: Value, dim: int, _: bool) -> Any:
    _check_last(c, a, dim)
    x = _rows(c, a)
    e = c.b.op("exp", c.b.op("sub", x, c.b.reduce("row_max", x, a.width)))
    return c.b.op("div", e, c.b.reduce("row_sum", e, a.width))


@_rule("_softmax_backward_data")
def _softmax_backward(c: _Context, g: Value, y: Value, dim: int, _: Any) -> Any:
    _check_last(c, y, dim)
    p, d = _rows(c, y), _rows(c, g)
    inner = c.b.reduce("row_sum", c.b.op("mul", d, p), y.width)
    return c.b.op("mul", p, c.b.op("sub", d, inner))


@_rule("_log_softmax")
def _log_softmax(c: _Context, a: Value, dim: int, _: bool) -> Any:
    _check_last(c, a, dim)
    x = _rows(c, a)
    shifted = c.b.op("sub", x, c.b.reduce("row_max", x, a.width))
    total = c.b.reduce("row_sum", c.b.op("exp", shifted), a.width)
    return c.b.op("sub", shifted, c.b.op("log", total))


@_rule("_log_softmax_backward_data")
def _log_softmax_backward(c: _Context, g: Value, y: Value, dim: int, _: Any) -> Any:
    _check_last(c, y, dim)
    d = _rows(c, g)
    total = c.b.reduce("row_sum", d, y.width)
    return c.b.op("sub", d, c.b.op("mul", c.b.op("exp", _rows(c, y)), total))


@_rule("native_layer_norm")
def _layer_norm(c: _Context, a: Value, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    """(x − μ) / √(σ² + ε) · w + b, over a row; Ba, Kiros, Hinton 2016, arXiv:1607.06450."""
    if math.prod(shape) != a.width:
        raise c.refuse("wanted over all columns of a row")
    x, n = _rows(c, a), a.width
    mean = c.b.op("mul_s", c.b.reduce("row_sum", x, n), s=1 / n)
    centred = c.b.op("sub", x, mean)
    variance = c.b.op("mul_s", c.b.reduce("row_sum", c.b.op("mul", centred, centred), n), s=1 / n)
    scale = c.b.op("rdiv_s", c.b.op("sqrt", c.b.op("add_s", variance, s=float(eps))), s=1.0)
    out = c.b.op("mul", centred, scale)
    if weight is not None:
        out = c.b.op("mul", out, c.node(weight))
    if bias is not None:
        out = c.b.op("add", out, c.node(bias))
    return [out, mean, scale]


@_rule("native_layer_norm_backward")
def _layer_norm_backward(
    c: _Context,
    g: Value,
    a: Value,
    shape: Any,
    mean: Value,
    scale: Value,
    weight: Any,
    bias: Any,
    _: Any,
) -> Any:
    x, d, n = _rows(c, a), _rows(c, g), a.width
    normal = c.b.op("mul", c.b.op("sub", x, mean.node), scale.node)
    dn = d if weight is None else c.b.op("mul", d, c.node(weight))
    mean_d = c.b.op("mul_s", c.b.reduce("row_sum", dn, n), s=1 / n)
    mean_dn = c.b.op("mul_s", c.b.reduce("row_sum", c.b.op("mul", dn, normal), n), s=1 / n)
    inner = c.b.op("sub", c.b.op("sub", dn, mean_d), c.b.op("mul", normal, mean_dn))
    dx = c.b.op("mul", inner, scale.node)

    def summed(node: Node) -> Node:
        total = c.b.column_sum(c.b.widen(node, n))
        return c.b.view(total, tuple(shape), SUM)

    return [dx, summed(c.b.op("mul", d, normal)), summed(d)]
