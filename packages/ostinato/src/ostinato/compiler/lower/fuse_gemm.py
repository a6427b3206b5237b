"""Chains of additions that contain products become accumulations, which one instruction adds up.

chain       additions nested in each other; its *terms* are the operands
product     a term a·W that the chain alone reads: *hoistable* if a does not depend on the carry,
            otherwise *recurrent*
vector      a term that is the same for every row and step, as a bias is

The order in which a chain is added up decides its bits. Whether products are hoisted depends on the
number of rows. The bits must not, so hoistable products come first even without hoisting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ostinato.compiler.graph.node import ONCE, WITHIN_ROWS, Node, depends_on, readers
from ostinato.compiler.lower.spec import NodeMaker, PassSpec

_STAGES = {"matmul", *WITHIN_ROWS}  # these need all columns of what they read
_HOISTABLE, _RECURRENT, _VECTOR, _OTHER = "hoistable", "recurrent", "vector", "other"  # roles


def fuse_gemm(spec: PassSpec) -> PassSpec:
    """The pass, computed by accumulations instead of products and additions."""
    fusion = _Fusion(spec)
    for n in spec.nodes:  # in order of computing, so that the recursion stays shallow
        if n not in fusion.absorbed:
            fusion.fused(n)
    return spec.with_roots(fusion.fused)


class _Fusion:
    """Fuses the nodes of a pass, one after the other."""

    def __init__(self, spec: PassSpec):
        self.spec = spec
        self.make = NodeMaker(spec)
        self.absorbed = _absorbed(spec)
        self.level = _levels(spec)
        behind = [n for n in spec.nodes if n not in spec.joints]
        self.carried = depends_on(behind, spec.carried)
        self.new_carry = {c.written for c in spec.carries}
        self._fused: dict[Node, Node] = {}

    def fused(self, n: Node) -> Node:
        """The replacement of n; for a leaf, or a node of the kind once, n itself."""
        if self.spec.is_leaf(n) or n.kind == ONCE:
            return n
        if n not in self._fused:
            self._fused[n] = self.fuse(n)
        return self._fused[n]

    def fuse(self, n: Node) -> Node:
        terms = self.terms(n)
        if terms.keys() & {_HOISTABLE, _RECURRENT}:
            return self.added_up(n, terms)
        if n.op == "concat":  # its pieces are written to its place
            return self.make.with_inputs(n, lambda i: self.make.copy(self.fused(i)))
        return self.make.with_inputs(n, self.fused)

    def terms(self, n: Node) -> dict[str, list[Node]]:
        """The terms of n by their roles, in order, through the additions that n alone reads."""
        terms: dict[str, list[Node]] = defaultdict(list)
        stack = [n]
        while stack:
            m = stack.pop()
            if m.op == "add" and (m is n or m in self.absorbed):
                stack.extend(reversed(m.inputs))
            else:
                terms[self.role(m, n)].append(m)
        return terms

    def role(self, m: Node, n: Node) -> str:
        """The role of m in the chain that ends in n."""
        if m.op == "matmul" and (m is n or m in self.absorbed):
            return _RECURRENT if m.inputs[0] in self.carried else _HOISTABLE
        return _VECTOR if m.kind == ONCE and m.width == n.width else _OTHER

    def added_up(self, n: Node, terms: dict[str, list[Node]]) -> Node:
        """The chain that ends in n, as accumulations and additions of the other terms.

        It is added up from left to right; [ ] is an accumulation. The first line applies whose
        terms exist:

            hoistable, recurrent; a new carry   [recurrent] + [vectors + hoistable] + others
            hoistable, recurrent; hoisting      [[vectors + hoistable] + recurrent] + others
            ready                               [ready + vectors + recurrent] + others
            any product                         [vectors + hoistable + recurrent] + others

        The first line applies to every new carry: a carry of which only two slots are kept has no
        place for hoisted values. The number of slots depends on the number of rows and on whether a
        backward pass may follow; the bits must not.
        """
        hoistable, recurrent, vectors, others = (
            terms[role] for role in (_HOISTABLE, _RECURRENT, _VECTOR, _OTHER)
        )
        ready = [] if hoistable else self.ready(n, others, recurrent)
        if hoistable and recurrent and n in self.new_carry:
            ahead = self.accumulation(n, hoistable, vectors)
            sums = [self.accumulation(n, recurrent), ahead]
        elif hoistable and recurrent and self.spec.hoist:
            ahead = self.accumulation(n, hoistable, vectors)
            sums = [self.accumulation(n, recurrent, [ahead])]
        elif ready:
            start = [*map(self.fused, ready), *vectors]
            init = self.make.total(start, n) if len(start) > 1 else self.make.copy(start[0])
            sums = [self.accumulation(n, recurrent, [init])]
        else:
            sums = [self.accumulation(n, hoistable + recurrent, vectors)]
        rest = [self.fused(m) for m in others if m not in ready]
        return self.make.total([*sums, *rest], n)

    def ready(self, n: Node, others: list[Node], products: list[Node]) -> list[Node]:
        """The other terms that are computed no later than the factors of the products."""
        last = max(self.level[m.inputs[0]] for m in products)
        wide = [m for m in others if m.width == n.width and m.op != "const"]
        return [m for m in wide if self.level[m] <= last]

    def accumulation(self, n: Node, products: list[Node], start: Sequence[Node] = ()) -> Node:
        pairs = [(self.fused(m.inputs[0]), m.inputs[1]) for m in products]
        return self.make.accumulation(pairs, start, n)


def _with_product(spec: PassSpec) -> set[Node]:
    """Products, and sums with a product among their terms."""
    found: set[Node] = set()
    for n in spec.computed:
        if n.op == "matmul" or (n.op == "add" and any(i in found for i in n.inputs)):
            found.add(n)
    return found


def _absorbed(spec: PassSpec) -> set[Node]:
    """The products and sums that become a part of another sum.

    Values saved for a backward pass do not change how results are added up, since the bits of the
    results must not depend on a backward pass. A sum that is needed for both is computed twice.
    """
    results = replace(spec, saved=())
    for_saved_alone = _read_by_one_sum(spec).difference(results.computed)
    return for_saved_alone | _read_by_one_sum(results)


def _read_by_one_sum(spec: PassSpec) -> set[Node]:
    """The products, and sums with a product, that one other sum alone reads."""
    read_by = readers(spec.computed)
    found = set()
    for n in _with_product(spec).difference(spec.roots):
        if len(read_by[n]) == 1 and (read_by[n][0].op, read_by[n][0].width) == ("add", n.width):
            found.add(n)
    return found


def _levels(spec: PassSpec) -> dict[Node, int]:
    """The number of stages on the longest path to each node.

    A leaf counts as the operation that computed it in another pass. With 0, some gradients would be
    added up in another order.
    """
    level: dict[Node, int] = {}
    for n in spec.nodes:
        first = spec.is_leaf(n) or n in spec.joints
        below = 0 if first else max((level.get(i, 0) for i in n.inputs), default=0)
        level[n] = below + (n.op in _STAGES)
    return level
