"""Rules: each gives the nodes of an ATen call on rows. `aten_*.py` hold one for each call.

Value     a node with the shape that PyTorch gave it, in which `Batch(1)` means the batch.
          The node's rows are flat: `[B, 2, 4]` is a node of width 8, and so is `[2, B, 4]`. A
          row holds the elements of one row of the batch in their order.
Context   the call's shapes and types for a rule, and methods that make nodes
RULES     the table, by ATen's name: `rule(context, *arguments)` gives a Node or a Value for
          each result, in a list if there are several. In-place calls have no rules of their
          own: `add_` is `add`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph import arrays
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import ROWS, Node

Shape = tuple[Any, ...]  # ints, and Batch(c) for the axis of the batch, of c · B elements

# Whole numbers are computed in the step's type: exact up to 2²⁴ in float32, 2⁵³ in float64.
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# Half precision, as under torch.autocast, is computed in float32 and rounded when returned.
HALF = (torch.bfloat16, torch.float16)


def of_row(shape: Shape) -> tuple[int, ...]:
    """The sizes of the axes of a row; Batch(c) becomes c."""
    return tuple([n.times if isinstance(n, Batch) else n for n in shape])


def columns(shape: Shape) -> int:
    """The number of elements of one row."""
    return math.prod(of_row(shape))


def batch_axis(shape: Shape) -> int | None:
    """The axis that holds the batch."""
    return next((i for i, n in enumerate(shape) if isinstance(n, Batch)), None)


def axis_in_row(shape: Shape, dim: int) -> tuple[int, int, int]:
    """The sizes of a row as `[outer, size, inner]`, with the axis `dim` in the middle."""
    sizes, dim = of_row(shape), dim % len(shape)
    return math.prod(sizes[:dim]), sizes[dim], math.prod(sizes[dim + 1 :])


@dataclass(frozen=True)
class Value:
    """Attributes:
    outer: the number of elements before the batch in an axis that was merged with it: S for
        `[S, B]` as `[S · B]`, otherwise 1.
    power: None, except for a sum over the batch in a forward pass, whose node holds the term of
        each row. Then the power of B that multiplies the sum (0 for a sum, −1 for a mean), or
        QUOTIENT.
    """

    node: Node
    shape: Shape
    outer: int = 1
    power: int | None = None

    @property
    def rows(self) -> bool:
        return self.node.kind == ROWS

    @property
    def width(self) -> int:
        return columns(self.shape)

    @property
    def constant(self) -> bool:
        """Whether the value is one constant number."""
        return self.node.op == "const"


class Context:
    """One ATen call, as it is given to its rule.

    Attributes:
        b: makes nodes.
        shapes: the shapes of the results; None for a result that is not computed.
        dtypes: the types of the arguments; None for an argument that is not a tensor.
        gives: the type of the first result.
    """

    def __init__(self, b: Builder, r: Recording, call: Call):
        self.b, self.name = b, call.name
        self.shapes: list[Any] = [None if i is None else r.shapes[i] for i in call.outs]
        self.dtypes = [r.dtypes[a.index] if isinstance(a, Ref) else None for a in call.args]
        self.gives = None if call.outs[0] is None else r.dtypes[call.outs[0]]
        self.gives_truths = self.gives is torch.bool
        self.reads_whole_numbers = any(dtype in WHOLE for dtype in self.dtypes)

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"{self.name.removesuffix('.default')}: {why}", self.name)

    # ---- arguments as nodes

    def node(self, v: Any, shape: Shape | None = None) -> Node:
        """An operand of an elementwise operation whose result has this shape, or the call's.

        The operand is as wide as the result, or has one column.
        """
        if not isinstance(v, Value):
            return self.b.const(float(v))
        result = self.shapes[0] or () if shape is None else shape
        return self._spread(v, result) if v.rows else self._broadcast(v, result)

    def as_rows(self, v: Value) -> Node:
        """A value as rows of its full width."""
        node = v.node if v.rows else self.b.view(v.node, (v.width,))
        return self.b.widen(node, v.width)

    def truth(self, position: int, v: Any) -> Any:
        """The argument at `position` as truth values: 1 where it is not 0."""
        if self.dtypes[position] is torch.bool:
            return v
        return Value(self.b.op("ne", self.node(v), self.b.const(0.0)), v.shape)

    def _spread(self, v: Value, result: Shape) -> Node:
        """Rows, spread over the axes of the result that they lack."""
        out = of_row(result)
        if v.node.width == 1 or len(v.shape) > len(out):
            return v.node
        sizes = (1,) * (len(out) - len(v.shape)) + of_row(v.shape)
        if any(n not in (1, size) for n, size in zip(sizes, out, strict=True)):
            return v.node  # not a broadcast: the rule of the call handles it
        self._check_batch(v, result)
        node, inner, times = v.node, 1, 1
        for n, size in reversed([*zip(sizes, out, strict=True)]):
            if size == 1:
                continue
            if n == size:
                node = arrays.spread(self.b, node, times, inner)
                inner, times = inner * times * size, 1
            else:
                times *= size
        return arrays.spread(self.b, node, times, inner)

    def _check_batch(self, v: Value, result: Shape) -> None:
        """Raise Unsupported if the batch would become another axis, or be spread over one."""
        at, there = batch_axis(v.shape), batch_axis(result)
        if v.constant or at is None:
            return
        if there is None or at - len(v.shape) != there - len(result):
            raise self.refuse("combines the batch with another axis")
        if v.shape[at] != result[there]:
            raise self.refuse(f"broadcasts {list(v.shape)} to {list(result)}")

    def _broadcast(self, v: Value, result: Shape) -> Node:
        """A tensor without batch as one row, of one column or as wide as the result."""
        out, at = of_row(result), batch_axis(result)
        shape = tuple(v.shape)
        while len(shape) > len(out):
            if shape[0] != 1:
                raise self.refuse(f"broadcasts {list(v.shape)} over rows of {list(out)}")
            shape = shape[1:]
        if at is not None and len(out) - at <= len(shape) and shape[at - len(out)] != 1:
            raise self.refuse(
                f"combines a captured {list(v.shape)} with the batch, axis {at} of "
                f"{list(result)}: what differs from row to row belongs into the carry or into xs"
            )
        width = math.prod(shape)
        if width in (1, math.prod(out)):
            return self.b.view(v.node, (width,))
        node = self.b.view(v.node, shape)
        repeated = self.b.call("aten.expand.default", node, out, shape=out)
        return self.b.view(repeated, (math.prod(out),))

    def elementwise(self, name: str, *values: Any, s: float = 0.0) -> Node:
        """An elementwise operation on arguments that broadcast to the shape of the result."""
        for v in values:
            if isinstance(v, Value) and v.rows:
                self._check_batch(v, self.shapes[0])
        return self.b.op(name, *(self.node(v) for v in values), s=s)


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function into RULES under ATen's names, without `aten.` and the overload."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def name_of(call: Call) -> str:
    """The name of a call in RULES: `add` for `aten.add_.Tensor`."""
    return functional(call.name.removeprefix("aten.").rsplit(".", 1)[0])


def functional(name: str) -> str:
    """The name of the same call out of place: `add` for `add_`; `__and__` stays."""
    return name if name.endswith("__") else name.removesuffix("_")
