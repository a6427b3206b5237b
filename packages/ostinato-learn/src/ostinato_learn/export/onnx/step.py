"""The nodes of a step graph, one time step, as nodes of an ONNX graph.

Weights are constants: what a step computes from weights alone is computed here, once. A value that
does not depend on the batch (a constant, a vector of weights) stays a vector where ONNX broadcasts
it, and becomes rows where an operation sees whole rows. Products of one value, as those of a cell's
gates, are one product, whose columns are split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ostinato.internal import ONCE, Node, reachable
from ostinato_learn.export import once
from ostinato_learn.export.onnx.ops import ELEMENTWISE, ROWS
from ostinato_learn.export.onnx.writer import Writer

Tensors = Mapping[str, np.ndarray]


def depends_on_batch(nodes: Sequence[Node]) -> set[Node]:
    """The nodes that have a row for each row of the batch; `nodes` are in order of computing."""
    found: set[Node] = set()
    for n in nodes:
        own = n.op in ("x", "state") or n.op in ROWS
        if own or any(i in found for i in n.inputs):
            found.add(n)
    return found


def write_step(
    w: Writer, wanted: Sequence[Node], given: Mapping[Node, str], tensors: Tensors, like: str
) -> list[str]:
    """Write the nodes that `wanted` are computed from.

    Args:
        w: the graph.
        wanted: rows.
        given: the names of x and state nodes.
        tensors: weights by name.
        like: a value with the rows of the batch.

    Returns:
        The names of the wanted values, each with a row for each row of the batch.
    """
    return _StepWriter(w, wanted, given, tensors, like).names_of(wanted)


class _StepWriter:
    def __init__(
        self,
        w: Writer,
        wanted: Sequence[Node],
        given: Mapping[Node, str],
        tensors: Tensors,
        like: str,
    ):
        self.w, self.tensors, self.like = w, tensors, like
        self.names = dict(given)
        self.nodes = [n for n in reachable(wanted, given.__contains__) if n.kind != ONCE]
        self.batched = depends_on_batch(self.nodes)
        self.products: dict[Node, list[Node]] = {}
        for n in self.nodes:
            if n.op == "matmul":
                self.products.setdefault(n.inputs[0], []).append(n)

    def names_of(self, wanted: Sequence[Node]) -> list[str]:
        for n in self.nodes:
            if n.op == "matmul" and n not in self.names:
                self.write_products(n.inputs[0])
            elif n not in self.names:
                self.names[n] = self.written(n)
        return [self.rows(n) for n in wanted]

    def written(self, n: Node) -> str:
        if n.op == "const":
            return self.w.number(n.s)
        if n.op in ELEMENTWISE:
            return ELEMENTWISE[n.op](self.w, *(self.vector(i) for i in n.inputs), n.s)
        if n.op == "product":  # which takes weights as they are, the same for all rows
            return ROWS[n.op](self.w, n, tuple(self.vector(i) for i in n.inputs))
        return ROWS[n.op](self.w, n, tuple(self.rows(i) for i in n.inputs))

    def write_products(self, a: Node) -> None:
        """All products of a value with weights."""
        products = self.products[a]
        weights = [once(n.inputs[1], self.tensors) for n in products]
        whole = self.w.constant(np.concatenate(weights, axis=1), "weight")
        product = self.w.node("MatMul", self.rows(a), whole)
        if len(products) == 1:
            self.names[products[0]] = product
            return
        widths = self.w.integers(*(n.width for n in products))
        parts = self.w.nodes_of("Split", [product, widths], len(products), axis=-1)
        self.names.update(zip(products, parts, strict=True))

    def vector(self, n: Node) -> str:
        """A value as ONNX broadcasts it."""
        if n.kind == ONCE:
            return self.w.constant(once(n, self.tensors), "weight")
        return self.names[n]

    def rows(self, n: Node) -> str:
        """A value with a row for each row of the batch."""
        if n in self.batched:
            return self.names[n]
        return self.w.expand(self.vector(n), self.like, n.width)
