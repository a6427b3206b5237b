"""What is lowered, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ostinato.compiler.graph.node import Node
from ostinato.engine.program import Program


@dataclass(frozen=True)
class Leaf:
    """A value that is there before the pass: a buffer of the caller's or the carry's."""

    argument: str  # "x0", "carry1", "tape3", …
    width: int  # of the argument
    dt: int = 0
    column: int = 0


@dataclass(frozen=True)
class Output:
    """A value that the pass must leave in an argument over time."""

    node: Node
    argument: str
    dt: int = 0
    column: int = 0


@dataclass(frozen=True)
class CarrySpec:
    """A leaf of the carry: read at slot t + dt_in, written at slot t + dt_out."""

    name: str
    width: int
    kept: bool  # every slot is kept, in the argument `name`; else only the last two
    dt_in: int
    dt_out: int
    init: str | None
    final: str | None
    read: Node
    written: Node


@dataclass(frozen=True)
class Pass:
    """What is to be lowered."""

    leaves: dict[Node, Leaf]
    carries: tuple[CarrySpec, ...]
    outputs: tuple[Output, ...]
    saved: tuple[Node, ...] = ()  # kept for the backward pass, wherever the lowering likes
    sums: dict[str, Node] = field(default_factory=dict)  # argument → an outer or column_sum node
    hidden: frozenset[str] = frozenset()  # kept carries that nobody but the two passes sees
    descending: bool = False
    hoist: bool = False

    def is_leaf(self, n: Node) -> bool:
        return n in self.leaves

    @property
    def carry_names(self) -> set[str]:
        return {c.name for c in self.carries}

    def carry(self, name: str) -> CarrySpec | None:
        return next((c for c in self.carries if c.name == name), None)


@dataclass(frozen=True)
class Lowered:
    """A program, and what each of its arguments is."""

    program: Program
    arguments: tuple[Any, ...]  # names of leaves, outputs, carries; a `once` node; a SumPart
    tapes: dict[str, int]  # arguments made for saved values → width
    saved: tuple[Leaf, ...]  # where each saved value lies


@dataclass(frozen=True)
class SumPart:
    """An argument that receives a rectangle of a sum, at (row, column).

    Parts of one layer do not overlap; the sum is the sum of its layers, each of `n_columns`.
    """

    name: str
    row: int
    column: int
    n_columns: int
    layer: int
