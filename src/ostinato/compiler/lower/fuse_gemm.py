"""Chains of additions that contain products become accumulations, which one instruction adds up.

chain       additions nested in each other; its *terms* are what is added
product     a term a·W that the chain alone reads: *hoistable* if a does not depend on the carry,
            otherwise *recurrent*
vector      a term that is the same for every row and step, as a bias is

The order in which a chain is added up decides its bits. The bits must not depend on the number of
rows, and hoisting does: hoistable products come first in any case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ostinato.compiler.graph.node import ONCE, WITHIN_ROWS, Node, depends_on
from ostinato.compiler.lower.spec import NodeMaker, PassSpec, Roots

_STAGES = {"matmul", *WITHIN_ROWS}  # these need all columns of what they read


def fuse_gemm(spec: PassSpec, roots: Roots) -> Roots:
    """The roots, computed by accumulations instead of products and additions."""
    nodes = spec.nodes_of(roots.nodes)
    fusion = _Fusion(spec, roots, nodes)
    for n in nodes:  # in order of computing, so that the recursion stays shallow
        if n not in fusion.absorbed:
            fusion.fused(n)
    return roots.mapped(fusion.fused)


class _Fusion:
    """Fuses the nodes of a pass, one after the other."""

    def __init__(self, spec: PassSpec, roots: Roots, nodes: list[Node]):
        self.spec = spec
        self.make = NodeMaker(spec, roots)
        computed = [n for n in nodes if not spec.is_leaf(n)]
        self.has_product = _with_product(computed)
        self.absorbed = self._absorbed(roots, computed)
        self.level = _levels(spec, nodes)
        behind = [n for n in nodes if n not in spec.joints]
        self.carried = depends_on(behind, spec.carried)
        self.new_carry = {c.written for c in spec.carries}
        self._fused: dict[Node, Node] = {}

    def _absorbed(self, roots: Roots, computed: list[Node]) -> set[Node]:
        """The sums that become a part of another one.

        What is saved for a backward pass has no say in how results are added up, since their bits
        must not depend on whether there is one. A sum that is needed for both is computed twice.
        """
        found = _absorbed(computed, roots.nodes, self.has_product)
        results = replace(roots, saved=()).nodes
        of_results = [n for n in self.spec.nodes_of(results) if not self.spec.is_leaf(n)]
        of_saved_alone = found.difference(of_results)
        return of_saved_alone | _absorbed(of_results, results, self.has_product)

    def fused(self, n: Node) -> Node:
        """The node that stands for n; for a leaf, or a node of the kind once, n itself."""
        if self.spec.is_leaf(n) or n.kind == ONCE:
            return n
        if n not in self._fused:
            self._fused[n] = self.fuse(n)
        return self._fused[n]

    def fuse(self, n: Node) -> Node:
        added_up = self.added_up(n) if n in self.has_product else None
        if added_up is not None:
            return added_up
        if n.op == "concat":  # its pieces are written where it lies
            return self.make.with_inputs(n, lambda i: self.make.copy(self.fused(i)))
        return self.make.with_inputs(n, self.fused)

    def added_up(self, n: Node) -> Node | None:
        """The chain that ends in n, as accumulations and additions of what they do not contain.

        None if each product in it is one of a chain of its own. Otherwise the chain is added up
        from left to right; [ ] is an accumulation; *ready* are those of the others that do not have
        to wait longer than the products. The first line whose terms there are applies:

            hoistable, recurrent; a new carry   [recurrent] + [vectors + hoistable] + others
            hoistable, recurrent; hoisting      [[vectors + hoistable] + recurrent] + others
            hoistable                           [vectors + hoistable + recurrent] + others
            recurrent, ready                    [ready + vectors + recurrent] + the rest
            recurrent                           [vectors + recurrent] + others

        Why the first line holds for every new carry: if only two slots of it are kept, it has no
        place for what is hoisted. That depends on the number of rows and on whether a backward pass
        may follow, and the bits must not.
        """
        terms = self.terms(n)
        products = [m for m in terms if m.op == "matmul" and (m is n or m in self.absorbed)]
        if not products:
            return None
        hoistable = [m for m in products if m.inputs[0] not in self.carried]
        recurrent = [m for m in products if m.inputs[0] in self.carried]
        vectors = [m for m in terms if m.kind == ONCE and m.width == n.width]
        others = [m for m in terms if m not in products and m not in vectors]
        wide = [m for m in others if m.width == n.width and m.op != "const"]
        last = max(self.level[m.inputs[0]] for m in products)
        ready = [m for m in wide if self.level[m] <= last]
        rest = [self.fused(m) for m in others]
        if hoistable and recurrent and n in self.new_carry:
            ahead = self.accumulation(n, hoistable, vectors)
            sums = [self.accumulation(n, recurrent), ahead]
        elif hoistable and recurrent and self.spec.hoist:
            ahead = self.accumulation(n, hoistable, vectors)
            sums = [self.accumulation(n, recurrent, init=ahead)]
        elif hoistable or not ready:
            sums = [self.accumulation(n, hoistable + recurrent, vectors)]
        else:
            start = [self.fused(m) for m in ready] + vectors
            init = self.make.total(start, n) if len(start) > 1 else self.make.copy(start[0])
            rest = [self.fused(m) for m in others if m not in ready]
            sums = [self.accumulation(n, recurrent, init=init)]
        return self.make.total([*sums, *rest], n)

    def accumulation(
        self, n: Node, products: list[Node], vectors: Sequence[Node] = (), init: Node | None = None
    ) -> Node:
        pairs = [(self.fused(m.inputs[0]), m.inputs[1]) for m in products]
        return self.make.accumulation(pairs, vectors, init, n)

    def terms(self, n: Node) -> list[Node]:
        """The terms of n, through the additions that n alone reads, in order."""
        terms: list[Node] = []
        stack = [n]
        while stack:
            m = stack.pop()
            if m.op == "add" and (m is n or m in self.absorbed):
                stack.extend(reversed(m.inputs))
            else:
                terms.append(m)
        return terms


def _with_product(computed: list[Node]) -> set[Node]:
    """Products, and sums of which a term is one."""
    found: set[Node] = set()
    for n in computed:
        if n.op == "matmul" or (n.op == "add" and any(i in found for i in n.inputs)):
            found.add(n)
    return found


def _absorbed(computed: list[Node], roots: list[Node], has_product: set[Node]) -> set[Node]:
    """The sums with a product that one other sum alone reads: they become a part of it."""
    parents: dict[Node, list[Node]] = defaultdict(list)
    for n in computed:
        for i in n.inputs:
            parents[i].append(n)
    read_elsewhere = set(roots)
    found = set()
    for n in has_product:
        if n not in read_elsewhere and len(parents[n]) == 1:
            (parent,) = parents[n]
            if parent.op == "add" and parent in has_product and parent.width == n.width:
                found.add(n)
    return found


def _levels(spec: PassSpec, nodes: list[Node]) -> dict[Node, int]:
    """How many stages lie on the longest way to each node.

    A leaf counts as the operation that once computed it. It is at hand, so 0 would do as well, but
    some gradients would be added up in another order.
    """
    level: dict[Node, int] = {}
    for n in nodes:
        first = spec.is_leaf(n) or n in spec.joints
        below = 0 if first else max((level.get(i, 0) for i in n.inputs), default=0)
        level[n] = below + (n.op in _STAGES)
    return level
