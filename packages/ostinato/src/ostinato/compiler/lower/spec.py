"""The input of the lowering, its result, and the nodes that its passes make."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    written: Node  # before the passes, which rewrite outputs


@dataclass(frozen=True)
class PassSpec:
    """One pass over the steps, forward or backward: its inputs and its results.

    The outputs, the saved values and the sums are its *roots*. `split_outputs` adds the leaves and
    outputs of the carries; later passes of the lowering give the same spec with other roots.
    """

    leaves: Mapping[Node, Leaf]  # besides the carries
    carries: tuple[CarrySpec, ...]
    outputs: tuple[Output, ...]  # besides the carries
    saved: tuple[Node, ...] = ()  # stored for the backward pass; the lowering chooses where
    sums: Mapping[str, Node] = field(default_factory=dict)  # argument → an outer or column_sum node
    hidden: frozenset[str] = frozenset()  # kept carries that only the two passes read
    descending: bool = False  # from the last step to the first
    hoist: bool = False  # products that do not depend on the carry are taken ahead of the loop
    # Values that one step hands to the next in a step composed of several. Sums that depend on a
    # joint are added up as if the joint were an input, so that the bits are those of single steps.
    joints: frozenset[Node] = frozenset()
    by_places: bool = True  # products may find an operand by its places: see by_places.py
    # Leaves of the carry that every step hands on unchanged: they are read from the first carry.
    # Sums are added up as if they were carries, as in a step that is played alone.
    handed_on: frozenset[Node] = frozenset()

    def is_leaf(self, n: Node) -> bool:
        return n in self.leaves

    @property
    def roots(self) -> list[Node]:
        return [*(o.node for o in self.outputs), *self.saved, *self.sums.values()]

    @cached_property
    def reached(self) -> list[Node]:
        """The nodes that the roots are computed from, leaves included, in order."""
        return reachable(self.roots, self.is_leaf)

    @cached_property
    def nodes(self) -> list[Node]:
        """The nodes of `reached` that are rows or sums."""
        return [n for n in self.reached if n.kind != ONCE]

    @cached_property
    def computed(self) -> list[Node]:
        """The nodes that are not leaves."""
        return [n for n in self.nodes if not self.is_leaf(n)]

    @property
    def short_carries(self) -> set[str]:
        """The names of the carries that keep only their last two slots."""
        return {c.name for c in self.carries if not c.kept}

    @cached_property
    def carried(self) -> set[Node]:
        """The values that a step takes from the one before."""
        return {*self.handed_on, *(c.read for c in self.carries)}

    @cached_property
    def widths(self) -> Mapping[str, int]:
        """The columns of each argument over time, and of each carry."""
        of_outputs: dict[str, int] = defaultdict(int)
        for o in self.outputs:
            of_outputs[o.argument] += o.node.width
        of_leaves = {leaf.argument: leaf.width for leaf in self.leaves.values()}
        return of_outputs | of_leaves | {c.name: c.read.width for c in self.carries}

    def with_roots(self, new: Callable[[Node], Node]) -> PassSpec:
        """The same pass, with `new` of each root."""
        return replace(
            self,
            outputs=tuple([replace(o, node=new(o.node)) for o in self.outputs]),
            saved=tuple([new(n) for n in self.saved]),
            sums={name: new(n) for name, n in self.sums.items()},
        )


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
    """A program, and the meaning of each of its arguments."""

    program: Program
    # A name of a leaf, an output or a carry; a node that is computed `once`; or a SumPart.
    arguments: tuple[Any, ...]
    tapes: dict[str, int]  # arguments made for saved values → width
    saved: tuple[Leaf, ...]  # where each saved value lies


# ---- for the passes of the lowering, which rewrite the roots and make nodes

Pair = tuple[Node, Node]  # a factor and its weight


class Accumulation(Node):
    """start + a₁W₁ + a₂W₂ + …, added up in one place.

    The start is rows (its `init`), or the sum of vectors, or zero. The inputs are a₁, W₁, a₂, W₂,
    …, then the operands of the start; the only attribute is the number of products.
    """

    @property
    def products(self) -> list[Pair]:
        end = 2 * self.attrs[0]
        return list(zip(self.inputs[0:end:2], self.inputs[1:end:2], strict=True))

    @property
    def start(self) -> tuple[Node, ...]:
        return self.inputs[2 * self.attrs[0] :]

    @property
    def init(self) -> Node | None:
        return next((i for i in self.start if i.kind == ROWS), None)


class NodeMaker:
    """Makes new nodes for a pass, with numbers above those of its nodes."""

    def __init__(self, spec: PassSpec):
        self._numbers = count(1 + max((n.index for n in spec.reached), default=-1))

    def rows(self, op: str, inputs: Iterable[Node], like: Node) -> Node:
        """An operation without a scalar that gives rows as wide as `like`."""
        return Node(op, tuple(inputs), (0.0,), ROWS, like.shape, next(self._numbers))

    def copy(self, n: Node) -> Node:
        return self.rows("copy", (self.rows("const", (), n) if n.op == "absent" else n,), n)

    def total(self, terms: list[Node], like: Node) -> Node:
        """The sum of the terms, added from the first to the last."""
        return functools.reduce(lambda a, b: self.rows("add", (a, b), like), terms)

    def accumulation(self, products: Sequence[Pair], start: Iterable[Node], like: Node) -> Node:
        inputs, attrs = (*chain(*products), *start), (len(products),)
        return Accumulation("accumulate", inputs, attrs, ROWS, like.shape, next(self._numbers))

    def changed(self, n: Node, **fields: Any) -> Node:
        """n with other inputs, attributes or another operation."""
        return replace(n, index=next(self._numbers), **fields)

    def with_inputs(self, n: Node, new: Callable[[Node], Node]) -> Node:
        """n on `new` of each of its inputs; n itself where these are the same."""
        inputs = tuple([new(i) for i in n.inputs])
        return n if inputs == n.inputs else self.changed(n, inputs=inputs)


def split_outputs(spec: PassSpec) -> PassSpec:
    """The pass with its carries among the leaves and outputs, and each output split into pieces.

    Each piece of a concatenation is written to its own columns. A piece is copied if no instruction
    of the pass writes it, or if it is needed in two places.
    """
    old, new = int(spec.descending), int(not spec.descending)
    read = {c.read: Leaf(c.name, c.read.width, old) for c in spec.carries}
    written = [Output(c.written, c.name, new) for c in spec.carries]
    spec = replace(spec, leaves={**spec.leaves, **read}, outputs=(*written, *spec.outputs))
    make = NodeMaker(spec)
    taken: set[Node] = set()
    pieces = []
    for o in spec.outputs:
        column = o.column
        for n in o.node.inputs if o.node.op == "concat" else (o.node,):
            computed = n.kind != ONCE and n.op not in ("const", "slice", "absent")
            piece = n if computed and not (spec.is_leaf(n) or n in taken) else make.copy(n)
            taken.add(piece)
            pieces.append(replace(o, node=piece, column=column))
            column += piece.width
    saved = [make.copy(n) if n in taken or n.op == "slice" else n for n in spec.saved]
    return replace(spec, outputs=tuple(pieces), saved=tuple(saved))
