"""Values of a recorded step: nodes with PyTorch's shapes; and the table of what calls mean.

`aten_*.py` fill the table, one function for each ATen call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node, Slot

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


def fixed(shape: Shape) -> tuple[int, ...]:
    if any(isinstance(n, Batch) for n in shape):
        raise Unsupported("a captured tensor changes its shape with the batch")
    return tuple(shape)


@dataclass(frozen=True)
class Context:
    b: Builder
    shapes: list[Any]
    name: str
    truths: tuple[bool, ...]  # whether each argument is a tensor of truth values
    gives_truths: bool  # whether the result is

    def truth(self, position: int, v: Any) -> Any:
        """The argument there as 0 and 1, whatever numbers it holds."""
        if self.truths[position]:
            return v
        return Value(self.b.op("ne", self.node(v), self.b.const(0.0)), v.shape)

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
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = RULES[name + "_"] = function
        return function

    return register


def as_rows(c: Context, v: Value) -> Node:
    """A value as rows of its full width."""
    if v.transposed:
        raise c.refuse("works on a transposed batch")
    return c.b.widen(c.node(v) if v.node.kind == ROWS else _vector_rows(c, v), v.width)


def _vector_rows(c: Context, v: Value) -> Node:
    if v.node.shape == (v.width,):
        return v.node
    return c.b.call(
        "aten.reshape.default", (v.node,), ((Slot(0), (v.width,)), ()), 0, ONCE, (v.width,)
    )
