"""The input of the lowering, its result, and the nodes that its passes make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count
from typing import Any

from ostinato.compiler.graph.node import ONCE, ROWS, Node, reachable
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
    """A leaf of the carry: step t reads slot t and writes slot t + 1; if descending, vice versa."""

    name: str
    kept: bool  # every slot is kept, in the argument `name`; otherwise only the last two
    init: str
    final: str
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
    # Values that one step hands to the next where several were composed. Sums behind a joint are
    # added up as if it were an input, so that their bits are those of a step that stands alone.
    joints: frozenset[Node] = frozenset()
    by_places: bool = True  # products may find an operand by its places: see by_places.py
    # Leaves of the carry that every step hands on: they are read where the first carry lies. Sums
    # are added up as if they were carries, which they are where a step is played alone.
    handed_on: frozenset[Node] = frozenset()

    def is_leaf(self, n: Node) -> bool:
        return n in self.leaves

    @cached_property
    def carry_by_name(self) -> Mapping[str, CarrySpec]:
        return {c.name: c for c in self.carries}

    @cached_property
    def carried(self) -> set[Node]:
        """The values that a step takes from the one before."""
        return {*self.handed_on, *(c.read for c in self.carries)}

    @cached_property
    def widths(self) -> Mapping[str, int]:
        """The columns of each argument over time, and of each carry."""
        of_outputs = {o.argument: o.node.width for o in self.outputs}
        of_leaves = {leaf.argument: leaf.width for leaf in self.leaves.values()}
        return of_outputs | of_leaves | {c.name: c.read.width for c in self.carries}

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


# ---- between the two: the passes of the lowering rewrite the roots, and make nodes

Pair = tuple[Node, Node]  # a factor and its weight


@dataclass(frozen=True, eq=False, repr=False)
class Accumulation(Node):
    """start + a₁W₁ + a₂W₂ + …, added up in one place.

    The start is `init`, or the sum of `vectors`, or zero; there are never vectors beside an init.
    Its `inputs` are these nodes: the products, the vectors, init.
    """

    products: tuple[Pair, ...]  # (a, W)
    vectors: tuple[Node, ...]
    init: Node | None


class NodeMaker:
    """Makes nodes that may stand beside those of the roots: each is numbered behind all others."""

    def __init__(self, spec: PassSpec, roots: Roots):
        there = reachable(roots.nodes, spec.is_leaf)
        self._numbers = count(1 + max((n.index for n in there), default=-1))

    def rows(self, op: str, inputs: tuple[Node, ...], like: Node) -> Node:
        """An operation without a scalar that gives rows as wide as `like`."""
        return Node(op, inputs, (0.0,), ROWS, like.shape, next(self._numbers))

    def like(self, n: Node, op: str, inputs: tuple[Node, ...], attrs: tuple[Any, ...]) -> Node:
        """Another operation that gives what n does."""
        return Node(op, inputs, attrs, n.kind, n.shape, next(self._numbers))

    def copy(self, n: Node) -> Node:
        return self.rows("copy", (self.rows("const", (), n) if n.op == "absent" else n,), n)

    def total(self, terms: list[Node], like: Node) -> Node:
        """The sum of the terms, added from the first to the last."""
        total = terms[0]
        for term in terms[1:]:
            total = self.rows("add", (total, term), like)
        return total

    def accumulation(
        self, products: Iterable[Pair], vectors: Iterable[Node], init: Node | None, like: Node
    ) -> Accumulation:
        products, vectors = tuple(products), tuple(vectors)
        inputs = (*chain(*products), *vectors, *(() if init is None else (init,)))
        return Accumulation(
            "accumulate", inputs, (), ROWS, like.shape, next(self._numbers), products, vectors, init
        )

    def with_inputs(self, n: Node, new: Callable[[Node], Node]) -> Node:
        """n on `new` of each of its inputs; n itself where these are the same."""
        inputs = tuple([new(i) for i in n.inputs])
        if inputs == n.inputs:
            return n
        if isinstance(n, Accumulation):
            rest = iter(inputs)
            products = [(next(rest), next(rest)) for _ in n.products]
            vectors = [next(rest) for _ in n.vectors]
            return self.accumulation(products, vectors, next(rest, None), n)
        return self.like(n, n.op, inputs, n.attrs)


@dataclass(frozen=True)
class Roots:
    """The results of a pass, as nodes: the value that the passes of the lowering rewrite."""

    outputs: tuple[Output, ...]  # those of the carries first
    saved: tuple[Node, ...]
    sums: Mapping[str, Node]

    @property
    def nodes(self) -> list[Node]:
        return [*(o.node for o in self.outputs), *self.saved, *self.sums.values()]

    def mapped(self, new: Callable[[Node], Node]) -> Roots:
        """The same roots, with `new` of each node."""
        return Roots(
            tuple([replace(o, node=new(o.node)) for o in self.outputs]),
            tuple([new(n) for n in self.saved]),
            {name: new(n) for name, n in self.sums.items()},
        )


def split_outputs(spec: PassSpec) -> Roots:
    """Every output piece by piece: a concatenation is written where each piece belongs.

    A piece that no instruction of the pass writes, or that is wanted in two places, is copied.
    """
    carries = [Output(c.written, c.name, int(not spec.descending)) for c in spec.carries]
    roots = Roots((*carries, *spec.outputs), spec.saved, spec.sums)
    make = NodeMaker(spec, roots)
    taken: set[Node] = set()
    pieces = []
    for o in roots.outputs:
        column = o.column
        for n in o.node.inputs if o.node.op == "concat" else (o.node,):
            written = n.kind != ONCE and n.op not in ("const", "slice", "absent")
            piece = n if written and not (spec.is_leaf(n) or n in taken) else make.copy(n)
            taken.add(piece)
            pieces.append(replace(o, node=piece, column=column))
            column += piece.width
    saved = [make.copy(n) if n in taken or n.op == "slice" else n for n in spec.saved]
    return Roots(tuple(pieces), tuple(saved), spec.sums)
