"""Chains of additions that contain products become *accumulations*, added up in one place.

An accumulation is init + a₁W₁ + a₂W₂ + …, where init is a sum of vectors (biases), or a value that
is there already, or zero. Its node has the inputs (a₁, W₁, a₂, W₂, …, vectors…, init) and the attrs
(number of products, number of vectors, whether there is an init).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import count
from typing import Any

from ostinato.compiler.graph.node import ONCE, ROWS, Node
from ostinato.compiler.lower.hoist import AFTER, depends_on, reachable, sections
from ostinato.compiler.lower.spec import Output, Pass
from ostinato.engine.ops import OPS


class Chains:
    """A pass, rewritten.

    Attributes:
        outputs, saved, sums: the roots of the pass, rewritten. Outputs are single pieces: a
            concatenation is written piece by piece.
        bridged: copies that must be made within the loop.
    """

    def __init__(self, p: Pass):
        self.p = p
        self.fresh = count(1 << 30)
        self.saved: list[Node] = []
        self.sums = dict(p.sums)
        self.bridged: set[Node] = set()
        self.outputs = self.split_outputs()
        self.rewrite_chains()
        self.bridge_carries()

    def roots(self) -> list[Node]:
        return [o.node for o in self.outputs] + list(self.saved) + list(self.sums.values())

    def split_outputs(self) -> list[Output]:
        """Every output by the piece. A piece that is there already, or wanted twice, is copied."""
        wanted = [Output(c.written, c.name, c.dt_out) for c in self.p.carries] + list(
            self.p.outputs
        )
        pieces = []
        taken: set[Node] = set()
        for o in wanted:
            at = 0
            for node in o.node.inputs if o.node.op == "concat" else (o.node,):
                if (
                    node in taken
                    or self.p.is_leaf(node)
                    or node.op in ("const", "slice", "absent")
                    or node.kind == ONCE
                ):
                    source = node
                    if node.op == "absent":
                        source = self.make("const", (), (0.0,), ROWS, node.shape)
                    node = self.make("copy", (source,), (0.0,), ROWS, node.shape)
                taken.add(node)
                pieces.append(Output(node, o.argument, o.dt, at))
                at += node.width
        self.saved = [
            self.make("copy", (n,), (0.0,), ROWS, n.shape) if n in taken else n
            for n in self.p.saved
        ]
        return pieces

    def make(self, op: str, inputs: Any, attrs: Any, kind: str, shape: Any) -> Node:
        return Node(op, tuple(inputs), tuple(attrs), kind, tuple(shape), next(self.fresh))

    def rewrite_chains(self) -> None:
        """Chains of additions that contain products become accumulations."""
        nodes = [n for n in reachable(self.roots(), self.p.is_leaf) if n.kind != ONCE]
        uses: dict[Node, int] = defaultdict(int)
        parents: dict[Node, list[Node]] = defaultdict(list)
        for n in nodes:
            if not self.p.is_leaf(n):
                for i in n.inputs:
                    uses[i] += 1
                    parents[i].append(n)
        for r in self.roots():
            uses[r] += 1
        has_product: set[Node] = set()
        for n in nodes:
            if self.p.is_leaf(n):
                continue
            if n.op == "matmul" or (n.op == "add" and any(i in has_product for i in n.inputs)):
                has_product.add(n)
        absorbed = {
            n
            for n in has_product
            if uses[n] == 1
            and parents[n]
            and parents[n][0].width == n.width
            and parents[n][0] in has_product
            and parents[n][0].op == "add"
        }
        level: dict[Node, int] = {}
        for n in nodes:
            below = [level.get(i, 0) for i in n.inputs] if not self.p.is_leaf(n) else []
            stage = n.op in ("matmul", "row_sum", "row_max")
            level[n] = max(below, default=0) + stage
        carried = self.carried(nodes)
        done: dict[Node, Node] = {}

        def rewritten(n: Node) -> Node:
            if n not in done:
                done[n] = self.rewrite(n, has_product, absorbed, level, carried, rewritten)
            return done[n]

        for n in nodes:  # in order of computing, so that the recursion stays shallow
            if n not in absorbed:
                rewritten(n)
        self.outputs = [replace(o, node=rewritten(o.node)) for o in self.outputs]
        self.saved = [rewritten(n) for n in self.saved]
        self.sums = {name: rewritten(n) for name, n in self.sums.items()}

    def carried(self, nodes: list[Node]) -> set[Node]:
        return depends_on(nodes, {c.read for c in self.p.carries})

    def rewrite(
        self, n: Node, has_product: Any, absorbed: Any, level: Any, carried: Any, rewritten: Any
    ) -> Node:
        if self.p.is_leaf(n) or n.kind == ONCE:
            return n
        if n not in has_product:
            inputs = tuple(rewritten(i) for i in n.inputs)
            if n.op == "concat":  # its pieces are written where it lies
                inputs = tuple(self.make("copy", (i,), (0.0,), ROWS, i.shape) for i in inputs)
            return n if inputs == n.inputs else self.make(n.op, inputs, n.attrs, n.kind, n.shape)
        terms: list[Node] = []

        def expand(m: Node) -> None:
            if m.op == "add" and (m is n or m in absorbed):
                for i in m.inputs:
                    expand(i)
            else:
                terms.append(m)

        expand(n)
        products = [m for m in terms if m.op == "matmul" and (m is n or m in absorbed)]
        if not products:  # both operands are accumulations of their own
            inputs = tuple(rewritten(i) for i in n.inputs)
            return self.make(n.op, inputs, n.attrs, n.kind, n.shape)
        vectors = [m for m in terms if m.kind == ONCE and m.width == n.width]
        others = [m for m in terms if m not in products and m not in vectors]
        ready = max(level[m.inputs[0]] for m in products)
        foldable = [
            m for m in others if m.width == n.width and m.op != "const" and level[m] <= ready
        ]
        rest = [m for m in others if m not in foldable]
        init: Node | None = None
        # The order of a chain is its bits, so it must not depend on what is hoisted: products that
        # could be taken ahead of the loop come first, and with them no other value is an init.
        carries = {c.written for c in self.p.carries}
        early = [m for m in products if m.inputs[0] not in carried]
        late = [m for m in products if m not in early]
        products = early + late
        if early:
            rest, foldable = others, []
        # Ahead of the loop they need a place of their own where only two slots of a carry are kept,
        # which depends on the rows and on whether a backward pass may follow: for all carries.
        if early and late and n in carries:
            products = late
            rest = [self.accumulation(n, early, vectors, None, rewritten), *others]
            vectors = []
        elif early and late and self.p.hoist:
            init = self.accumulation(n, early, vectors, None, rewritten)
            products, vectors = late, []
        elif foldable:
            init = rewritten(foldable[0])
            for m in foldable[1:]:
                init = self.make("add", (init, rewritten(m)), (0.0,), ROWS, n.shape)
            for v in vectors:
                init = self.make("add", (init, v), (0.0,), ROWS, n.shape)
            vectors = []
            if (
                self.p.is_leaf(init)
                or init.op not in OPS
                or init in (rewritten(f) for f in foldable)
            ):
                init = self.make("copy", (init,), (0.0,), ROWS, n.shape)
        total = self.accumulation(n, products, vectors, init, rewritten)
        for m in rest:
            term = m if m.op == "accumulate" else rewritten(m)
            total = self.make("add", (total, term), (0.0,), ROWS, n.shape)
        return total

    def accumulation(
        self, n: Node, products: list[Node], vectors: list[Node], init: Node | None, rewritten: Any
    ) -> Node:
        pairs: list[Node] = []
        for m in products:
            pairs += [rewritten(m.inputs[0]), m.inputs[1]]
        inputs = (*pairs, *vectors, *([init] if init is not None else []))
        return self.make(
            "accumulate", inputs, (len(products), len(vectors), init is not None), ROWS, n.shape
        )

    def bridge_carries(self) -> None:
        """A carry of which only two slots are kept, read after the loop, is copied within it."""
        short = {c.name for c in self.p.carries if not c.kept}
        pairs = {c.read for c in self.p.carries if not c.kept}
        pairs |= {o.node for o in self.outputs if o.argument in short}
        nodes = [n for n in reachable(self.roots(), self.p.is_leaf) if n.kind != ONCE]
        carry_out = [o.node for o in self.outputs if o.argument in self.p.carry_names]
        carry_in = {c.read for c in self.p.carries}
        section = sections(nodes, carry_in, carry_out, self.p.hoist, self.p.is_leaf)
        bridges: dict[Node, Node] = {}
        done: dict[Node, Node] = {}

        def source(n: Node) -> Node:
            while n.op == "slice":
                n = n.inputs[0]
            return n

        for n in nodes:
            if self.p.is_leaf(n) or n.op == "slice":
                done[n] = n
                continue
            inputs = []
            for i in n.inputs:
                new = done.get(i, i)
                if section[n] == AFTER and source(i) in pairs:
                    if i not in bridges:
                        bridges[i] = self.make("copy", (new,), (0.0,), ROWS, i.shape)
                        self.bridged.add(bridges[i])
                    new = bridges[i]
                inputs.append(new)
            same = tuple(inputs) == n.inputs
            done[n] = n if same else self.make(n.op, inputs, n.attrs, n.kind, n.shape)
        self.outputs = [replace(o, node=done.get(o.node, o.node)) for o in self.outputs]
        self.saved = [done.get(n, n) for n in self.saved]
        self.sums = {k: done.get(n, n) for k, n in self.sums.items()}
