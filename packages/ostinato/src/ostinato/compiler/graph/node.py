"""The step graph: one time step, forward and backward, as nodes over a symbolic batch.

A node is one value. It has one of three kinds:

    rows   `[B, width]`, one row for each row of the batch; the engine computes it at every step
    once   a tensor that depends on captured tensors only: the same for all rows and steps
    sum    a tensor summed over all rows and steps, part of the gradient of a captured tensor

Its operation is one of

    rows   the elementwise operations of engine/ops.py · state, x, d_state, d_y (inputs) · const ·
           absent (the gradient of a value that the loss does not use) · slice, concat · matmul ·
           row_number (0, 1, … B − 1, for indices) · spread, row_sum, row_max, take, product: see
           `arrays.py`
    once   captured · literal · full · part, block (of a vector, of a matrix) · an
           ATen call by its full name
    sum    outer, column_sum · full · an ATen call by its full name
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

ROWS, ONCE, SUM = "rows", "once", "sum"

# Outputs summed over the batch are multiplied by a power of the batch size: 0 for a sum, −1 for a
# mean. This value in its place marks the quotient of two sums.
QUOTIENT = 1

# Operations that need a whole row; each becomes one instruction.
WITHIN_ROWS = ("row_sum", "row_max", "take", "product")


def axis_of(n: Node) -> tuple[int, int]:
    """(times, inner) of the axis `[outer, times, inner]` that n spreads over or reduces."""
    if len(n.attrs) == 2:
        return n.attrs[0], n.attrs[1]
    return (n.width if n.op == "spread" else n.inputs[0].width), 1  # all of a row


@dataclass(frozen=True)
class Slot:
    """The place of an input of the node in the arguments of an ATen call."""

    index: int


@dataclass(frozen=True, eq=False)
class Literal:
    """A tensor that the step makes from numbers, and its number among the recorded values."""

    number: int
    tensor: Any

    def __repr__(self) -> str:
        return f"Literal({self.number})"


@dataclass(frozen=True, eq=False)
class Node:
    """An operation of the step graph and its result; compared by identity."""

    op: str
    inputs: tuple[Node, ...]
    attrs: tuple[Any, ...]
    kind: str
    shape: tuple[int, ...]  # rows: (width,)
    index: int  # nodes are made in an order in which they can be computed

    @property
    def width(self) -> int:
        return self.shape[0]

    @property
    def s(self) -> float:
        """The scalar of an elementwise operation; the value of a constant."""
        return self.attrs[0]

    def __repr__(self) -> str:
        inputs = ", ".join(f"%{n.index}" for n in self.inputs)
        return (
            f"%{self.index} {self.kind}{list(self.shape)} = {self.op}({inputs}) {self.attrs or ''}"
        )


def reachable(roots: Iterable[Node], stop: Callable[[Node], bool] = lambda n: False) -> list[Node]:
    """The nodes that the roots are computed from, the roots included, in order of computing.

    Nodes at which `stop` holds are included; their inputs are not followed.
    """
    found: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.index in found:
            continue
        found[node.index] = node
        if not stop(node):
            stack.extend(node.inputs)
    return [found[i] for i in sorted(found)]


def depends_on(nodes: list[Node], sources: set[Node]) -> set[Node]:
    """The sources, and those of `nodes` (in order of computing) that depend on one of them."""
    found = set(sources)
    for node in nodes:
        if any(n in found for n in node.inputs):
            found.add(node)
    return found


def readers(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """value → the nodes that read it; a node that reads it twice is listed twice."""
    found: dict[Node, list[Node]] = defaultdict(list)
    for n in nodes:
        for i in n.inputs:
            found[i].append(n)
    return found
