"""What is lowered, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ostinato.compiler.graph.node import ONCE, Node
from ostinato.compiler.graph.order import reachable
from ostinato.engine.program import Program


@dataclass(frozen=True)
class Leaf:
    """A value that exists before the pass runs: columns of an argument, or of the carry."""

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
    kept: bool  # every slot is kept, in the argument `name`; otherwise only the last two
    dt_in: int
    dt_out: int
    init: str | None
    final: str | None
    read: Node
    written: Node


@dataclass(frozen=True)
class PassSpec:
    """One pass over the steps, forward or backward: what it reads and what it must compute."""

    leaves: Mapping[Node, Leaf]
    carries: tuple[CarrySpec, ...]
    outputs: tuple[Output, ...]  # besides the carries
    saved: tuple[Node, ...] = ()  # stored for the backward pass; the lowering chooses where
    sums: Mapping[str, Node] = field(default_factory=dict)  # argument → an outer or column_sum node
    hidden: frozenset[str] = frozenset()  # kept carries that only the two passes read
    descending: bool = False  # from the last step to the first
    hoist: bool = False  # products that do not depend on the carry are taken ahead of the loop

    def is_leaf(self, n: Node) -> bool:
        return n in self.leaves

    @cached_property
    def carry_by_name(self) -> Mapping[str, CarrySpec]:
        return {c.name: c for c in self.carries}

    @cached_property
    def widths(self) -> Mapping[str, int]:
        """Of the arguments over time, and of the carries."""
        of_outputs: dict[str, int] = {}
        for o in self.outputs:
            of_outputs.setdefault(o.argument, o.node.width)
        of_leaves = {leaf.argument: leaf.width for leaf in self.leaves.values()}
        return of_outputs | of_leaves | {c.name: c.width for c in self.carries}

    def nodes_of(self, roots: Iterable[Node]) -> list[Node]:
        """Rows and sums that the roots are computed from, leaves included, in order."""
        return [n for n in reachable(roots, self.is_leaf) if n.kind != ONCE]


@dataclass(frozen=True)
class SumPart:
    """An argument that receives a rectangle of a sum, at (row, column).

    Parts of one layer do not overlap. The sum is the total of its layers, each of `n_columns`.
    """

    name: str
    row: int
    column: int
    n_columns: int
    layer: int


@dataclass(frozen=True)
class Lowered:
    """A program, and what each of its arguments is."""

    program: Program
    # A name of a leaf, an output or a carry; a node that is computed `once`; or a SumPart.
    arguments: tuple[Any, ...]
    tapes: dict[str, int]  # arguments made for saved values → width
    saved: tuple[Leaf, ...]  # where each saved value lies
