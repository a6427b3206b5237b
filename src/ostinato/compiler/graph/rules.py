"""Rules: what an ATen call on rows means, as nodes. `aten_*.py` hold one for each call.

    Value     a node with the shape that PyTorch gave it, in which `Batch(1)` stands for the batch.
              The node's rows are flat: `[B, 2, 4]` is a node of width 8.
    Context   what a rule knows of its call beside the arguments, and makes nodes with
    RULES     the table, by ATen's name: `rule(context, *arguments)` gives a Node or a Value for
              each result, in a list if there are several. In-place calls have no rules of their
              own: `add_` is `add`.

Composite calls (`multiply`, `square`, `reshape` …) are taken apart by autograd before they are
recorded; they reach their rules only where a step turns on `torch.inference_mode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ostinato.compiler.capture.recording import Batch
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import ONCE, ROWS, Node, Slot

Shape = tuple[Any, ...]  # ints, and Batch(1) where the batch is


def columns(shape: Shape) -> int:
    """Elements of one row."""
    return math.prod(n for n in shape if not isinstance(n, Batch))


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
        return columns(self.shape)


@dataclass(frozen=True)
class Context:
    """Of one ATen call.

    Attributes:
        b: makes nodes.
        shapes: of the results; None for one that is not computed.
        truths: whether each argument is a tensor of truth values.
        gives_truths: whether the first result is.
        whole: whether each argument is a tensor of whole numbers.
        gives_whole: whether the first result is.
    """

    b: Builder
    shapes: list[Any]
    name: str
    truths: tuple[bool, ...]
    gives_truths: bool
    whole: tuple[bool, ...] = ()
    gives_whole: bool = False

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"{self.name.removesuffix('.default')}: {why}", self.name)

    # ---- arguments as nodes

    def node(self, v: Any, shape: Shape | None = None) -> Node:
        """An operand of an elementwise operation whose result has this shape, or the call's."""
        if not isinstance(v, Value):
            return self.b.const(float(v))
        if v.transposed:
            raise self.refuse("works on a transposed batch")
        return v.node if v.rows else self._broadcast(v, shape or self.shapes[0] or ())

    def as_rows(self, v: Value) -> Node:
        """A value as rows of its full width."""
        node = self.node(v) if v.rows else self._flat(v.node, v.width)
        return self.b.widen(node, v.width)

    def truth(self, position: int, v: Any) -> Any:
        """The argument there as 0 and 1, whatever numbers it holds."""
        if self.truths[position]:
            return v
        return Value(self.op("ne", self.node(v), self.b.const(0.0)), v.shape)

    def _broadcast(self, v: Value, result: Shape) -> Node:
        """A tensor without batch as one row, of one column or of all that the result has."""
        out = tuple(n for n in result if not isinstance(n, Batch))
        shape = tuple(v.shape)
        while len(shape) > len(out) and shape[0] == 1:
            shape = shape[1:]
        if len(shape) > len(out):
            raise self.refuse(f"broadcasts {list(v.shape)} over rows of {list(out)}")
        width = math.prod(shape)
        if width in (1, math.prod(out)):
            return self._flat(v.node, width)
        repeated = self.b.call("aten.expand.default", (v.node,), (Slot(0), out), ONCE, out)
        return self._flat(repeated, math.prod(out))

    def _flat(self, node: Node, width: int) -> Node:
        if node.shape == (width,):
            return node
        return self.b.call("aten.reshape.default", (node,), (Slot(0), (width,)), ONCE, (width,))

    # ---- operations

    def op(self, name: str, *operands: Node, s: float = 0.0) -> Node:
        """An elementwise operation on operands that are known to be of one width, or of width 1."""
        return self.b.op(name, *operands, s=s)

    def elementwise(self, name: str, *values: Any, s: float = 0.0) -> Node:
        """An elementwise operation on arguments that broadcast to the shape of the result."""
        for v in values:
            if isinstance(v, Value) and v.rows:
                self._check_broadcast(v)
        return self.op(name, *(self.node(v) for v in values), s=s)

    def _check_broadcast(self, v: Value) -> None:
        """Rows broadcast from one column or not at all; the batch stays the same axis."""
        out = self.shapes[0]
        width = columns(out)
        if v.node.width not in (1, width) or (v.node.width == 1 and v.width not in (1, width)):
            raise self.refuse(f"broadcasts {list(v.shape)} to {list(out)}")
        if v.node.op not in ("const", "absent"):
            padded = (1,) * (len(out) - len(v.shape)) + v.shape
            if Batch(1) in padded and padded.index(Batch(1)) != out.index(Batch(1)):
                raise self.refuse("combines the batch with another axis")


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enters a function into RULES by ATen's names, without `aten.` and overload."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def functional(name: str) -> str:
    """The name of the call that is not in place: `add` for `add_`; `__and__` is one already."""
    return name if name.endswith("__") else name.removesuffix("_")
