"""Nodes that the lowering makes: accumulations, copies, and nodes on other inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, count

from ostinato.compiler.graph.node import ROWS, Node


@dataclass(frozen=True, eq=False, repr=False)
class Accumulation(Node):
    """start + a₁W₁ + a₂W₂ + …, added up in one place.

    The start is `init`, or the sum of `vectors`, or zero; there are never vectors beside an init.
    Its `inputs` are these nodes: the products, the vectors, init.
    """

    products: tuple[tuple[Node, Node], ...]  # (a, W)
    vectors: tuple[Node, ...]
    init: Node | None


class NodeMaker:
    """Makes nodes, each numbered behind all those before it.

    Args:
        nodes: the graph that the new nodes belong to.
    """

    def __init__(self, nodes: Iterable[Node]):
        self._numbers = count(1 + max((n.index for n in nodes), default=-1))

    def node(self, op: str, inputs: tuple[Node, ...], like: Node) -> Node:
        """An operation without a scalar that gives rows as wide as `like`."""
        return Node(op, inputs, (0.0,), ROWS, like.shape, next(self._numbers))

    def copy(self, n: Node) -> Node:
        if n.op == "absent":
            n = Node("const", (), (0.0,), ROWS, n.shape, next(self._numbers))
        return self.node("copy", (n,), n)

    def total(self, terms: list[Node], like: Node) -> Node:
        """The sum of the terms, added from the first to the last."""
        total = terms[0]
        for term in terms[1:]:
            total = self.node("add", (total, term), like)
        return total

    def accumulation(
        self,
        products: Iterable[tuple[Node, Node]],
        vectors: Iterable[Node],
        init: Node | None,
        like: Node,
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
        return Node(n.op, inputs, n.attrs, n.kind, n.shape, next(self._numbers))
