"""The order of computing within a section, and which operations form a block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import ONCE, SUM, Node
from ostinato.engine.ops import OPS

ACCUMULATE, REDUCE, BLOCK, SUMMED = "accumulate", "reduce", "block", "sum"


@dataclass(frozen=True)
class Item:
    """What is emitted together: accumulations, a block of one width, a reduction, a sum."""

    kind: str
    nodes: list[Node]


def schedule(
    nodes: list[Node], is_leaf: Callable[[Node], bool], max_block: int, kept: set[Node]
) -> list[Item]:
    """The items of a section, in order: products as early as can be, then the largest block.

    Args:
        kept: what lies in memory whoever reads it: results, and what other sections read.
    """
    items = _Schedule(nodes, is_leaf, max_block).run()
    return _Postponed(items, is_leaf, max_block, kept).items


def same_row(n: Node, i: Node) -> bool:
    """Whether n reads i within its strip (a column that broadcasts must lie in memory)."""
    return i.width == n.width and n.op != "spread"


class _Schedule:
    def __init__(self, nodes: list[Node], is_leaf: Callable[[Node], bool], max_block: int):
        self.mine = set(nodes)
        self.pending = [n for n in nodes if n.op not in ("slice", "concat")]
        self.is_leaf = is_leaf
        self.max_block = max_block
        self.done: set[Node] = set()

    def run(self) -> list[Item]:
        items = []
        while self.pending:
            item = self.next_item()
            items.append(item)
            self.done.update(item.nodes)
            self.pending = [n for n in self.pending if n not in self.done]
        return items

    def next_item(self) -> Item:
        products = [n for n in self.pending if n.op == "accumulate" and self.ready(n)]
        if products:
            return Item(ACCUMULATE, products)
        for n in self.pending:
            if n.op in ("row_sum", "row_max") and self.ready(n):
                return Item(REDUCE, [n])
        block = self.largest_block()
        if block:
            return Item(BLOCK, block)
        for n in self.pending:
            if n.kind == SUM and self.ready(n):
                return Item(SUMMED, [n])
        raise Unsupported("the step graph has no order of computing", self.pending[0].op)

    def ready(self, n: Node) -> bool:
        return all(self.available(i, None) for i in n.inputs)

    def available(self, n: Node, block: set[Node] | None) -> bool:
        """Whether n can be read: it lies in memory, or in this block."""
        if n.kind == ONCE or n.op == "const" or self.is_leaf(n) or n in self.done:
            return True
        if block is not None and n in block:
            return True
        if n.op in ("slice", "concat"):
            return all(self.available(i, None) for i in n.inputs)
        return n not in self.mine

    def largest_block(self) -> list[Node]:
        """The longest run of elementwise operations of one width that can be played now."""
        best: list[Node] = []
        candidates = [n for n in self.pending if n.op in OPS or n.op == "spread"]
        for width in sorted({n.width for n in candidates}):
            block: list[Node] = []
            members: set[Node] = set()
            size = 0
            for n in candidates:
                cost = 1 + sum(i.op == "const" or i.width != n.width for i in n.inputs)
                if n.width != width or size + cost > self.max_block:
                    continue
                if all(self.available(i, members if same_row(n, i) else None) for i in n.inputs):
                    block.append(n)
                    members.add(n)
                    size += cost
            if len(block) > len(best):
                best = block
        return best


class _Postponed:
    """Items in which a value that one later block alone reads is computed there, in a register.

    Else it would go through memory. What it is computed from must be there anyway, at the price of
    one further operand at the most.
    """

    def __init__(
        self, items: list[Item], is_leaf: Callable[[Node], bool], max_block: int, kept: set[Node]
    ):
        self.items = items
        self.is_leaf = is_leaf
        self.max_block = max_block
        self.kept = kept
        self.item_of = {n: k for k, item in enumerate(items) for n in item.nodes}
        self.users: dict[Node, set[Node]] = defaultdict(set)
        for item in items:
            for n in item.nodes:
                for i in n.inputs:
                    self.users[i].add(n)
        for item in reversed(items):
            if item.kind == BLOCK:
                for n in reversed(list(item.nodes)):
                    self.postpone(n)
        self.items = [item for item in items if item.nodes]

    def postpone(self, n: Node) -> None:
        here = self.item_of[n]
        there = {self.item_of[m] for m in self.users[n]}
        if n in self.kept or len(there) != 1 or (later := there.pop()) == here:
            return
        block = self.items[later].nodes
        cone = self.cone(n)
        if self.items[later].kind != BLOCK or cone is None or block[0].width != n.width:
            return
        if not all(m.op in OPS for m in self.users[n]) or len(block) + len(cone) > self.max_block:
            return
        read = {i for m in block for i in m.inputs}
        further = {i for m in cone for i in m.inputs if i.op != "const"} - read - set(cone)
        if len(further) > 1:
            return
        first = min(block.index(m) for m in self.users[n])
        block[first:first] = cone
        for m in cone:
            self.items[here].nodes.remove(m)
            self.item_of[m] = later

    def cone(self, n: Node) -> list[Node] | None:
        """n and what is computed for it alone, in order; None where that reads a register."""
        found: list[Node] = []
        for i in dict.fromkeys(n.inputs):
            if i.op == "const" or self.is_leaf(i) or i.kind == ONCE or self.in_memory(i):
                continue
            alone = self.users[i] == {n} and self.item_of.get(i) == self.item_of[n]
            part = self.cone(i) if alone else None
            if part is None:
                return None
            found += part
        simple = n.op in OPS and all(same_row(n, i) or i.op == "const" for i in n.inputs)
        return [*found, n] if simple else None

    def in_memory(self, n: Node) -> bool:
        here = self.item_of.get(n)
        if here is None or self.items[here].kind != BLOCK or n in self.kept:
            return True
        return any(self.item_of[m] != here or m.op not in OPS for m in self.users[n])
