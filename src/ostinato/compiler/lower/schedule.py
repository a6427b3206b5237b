"""The order of computing within a section, and which operations form a block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import SUM, WITHIN_ROWS, Node
from ostinato.compiler.lower.hoist import AFTER, ARRAY, BEFORE, LOOP, Sections
from ostinato.engine.ops import OPS

ACCUMULATE, WITHIN, BLOCK, SUMMED = "accumulate", "within", "block", "sum"
_VIEWS = ("slice", "concat")  # these compute nothing


@dataclass(frozen=True)
class Item:
    """Nodes emitted together: accumulations, a block of one width, or one other operation."""

    kind: str
    nodes: tuple[Node, ...]


Schedule = Mapping[str, tuple[Item, ...]]  # of each section, in order


def schedule(sections: Sections, max_block: int) -> Schedule:
    """Every section in order: products as early as possible, then the largest block."""
    found: dict[str, list[Node]] = {BEFORE: [], LOOP: [], AFTER: []}
    for n in sections.computed:
        found[sections.of[n]].append(n)
    return {s: _Scheduler(nodes, max_block).items() for s, nodes in found.items()}


def same_strip(n: Node, i: Node) -> bool:
    """Whether n reads i within its strip. A column that n spreads must lie in memory."""
    return i.width == n.width and n.op != "spread"


class _Scheduler:
    """Orders the nodes of one section."""

    def __init__(self, nodes: list[Node], max_block: int):
        self.mine = set(nodes)
        self.pending = [n for n in nodes if n.op not in _VIEWS]
        self.max_block = max_block
        self.done: set[Node] = set()

    def items(self) -> tuple[Item, ...]:
        items = []
        while self.pending:
            item = self.next_item()
            items.append(item)
            self.done.update(item.nodes)
            self.pending = [n for n in self.pending if n not in self.done]
        return tuple(items)

    def next_item(self) -> Item:
        products = [n for n in self.pending if n.op == "accumulate" and self.ready(n)]
        if products:
            return Item(ACCUMULATE, tuple(products))
        for n in self.pending:
            if n.op in WITHIN_ROWS and self.ready(n):
                return Item(WITHIN, (n,))
        block = self.largest_block()
        if block:
            return Item(BLOCK, tuple(block))
        for n in self.pending:
            if n.kind == SUM and self.ready(n):
                return Item(SUMMED, (n,))
        raise Unsupported("the step graph has no order of computing", self.pending[0].op)

    def ready(self, n: Node) -> bool:
        return all(self.available(i) for i in n.inputs)

    def available(self, n: Node, block: Container[Node] = ()) -> bool:
        """Whether n can be read: it lies in memory, or in a register of this block."""
        if n not in self.mine or n in self.done or n in block:
            return True
        return n.op in _VIEWS and all(self.available(i) for i in n.inputs)

    def largest_block(self) -> list[Node]:
        """The longest run of elementwise operations of one width that can be computed now.

        Arrays wait for narrow operations: more of what an array is needed for is then one block.
        """
        candidates = [n for n in self.pending if n.op in OPS or n.op == "spread"]
        widths = sorted({n.width for n in candidates})
        blocks = [b for w in widths if (b := self.block(candidates, w))]
        narrow = [b for b in blocks if b[0].width < ARRAY <= blocks[-1][0].width]
        return max(narrow or blocks, key=len, default=[])

    def block(self, candidates: list[Node], width: int) -> list[Node]:
        members: dict[Node, None] = {}
        size = 0
        for n in candidates:
            cost = 1 + sum(i.op == "const" or i.width != n.width for i in n.inputs)
            if n.width != width or size + cost > self.max_block:
                continue
            if all(self.available(i, members if same_strip(n, i) else ()) for i in n.inputs):
                members[n] = None
                size += cost
        return list(members)


def sink(sections: Sections, items: Schedule, max_block: int) -> Schedule:
    """Values that only one later block reads are computed in that block, in a register.

    Otherwise they would go through memory. What such a value is computed from must be in memory
    anyway.
    """
    # These lie in memory whoever reads them: results, and what views and other sections read.
    kept = {o.node for o in sections.roots.outputs} | set(sections.roots.saved)
    for n in sections.computed:
        own = sections.of[n]
        kept |= {i for i in n.inputs if n.op in _VIEWS or sections.of.get(i) != own}
    return {s: _Sinking(kept, found, max_block).items() for s, found in items.items()}


class _Sinking:
    """Moves operations of one section from their blocks into later ones."""

    def __init__(self, kept: set[Node], items: tuple[Item, ...], max_block: int):
        self.kept = kept
        self.max_block = max_block
        self.kinds = [item.kind for item in items]
        self.nodes = [list(item.nodes) for item in items]
        self.item_of = {n: k for k, item in enumerate(items) for n in item.nodes}
        self.users: dict[Node, set[Node]] = defaultdict(set)
        for n in self.item_of:
            for i in n.inputs:
                self.users[i].add(n)

    def items(self) -> tuple[Item, ...]:
        for k in reversed(range(len(self.nodes))):
            if self.kinds[k] == BLOCK:
                for n in reversed(self.nodes[k].copy()):
                    self.sink(n)
        found = zip(self.kinds, self.nodes, strict=True)
        return tuple([Item(kind, tuple(nodes)) for kind, nodes in found if nodes])

    def sink(self, n: Node) -> None:
        """Move n, and what is computed for it alone, to the later item that alone reads it."""
        readers = {self.item_of[m] for m in self.users[n]}
        if n in self.kept or len(readers) != 1 or self.item_of[n] in readers:
            return
        (later,) = readers
        cone, block = self.cone(n), self.nodes[later]
        if cone is None or self.kinds[later] != BLOCK or block[0].width != n.width:
            return
        if len(block) + len(cone) > self.max_block or not all(m.op in OPS for m in self.users[n]):
            return
        first = min(block.index(m) for m in self.users[n])
        block[first:first] = cone
        for m in cone:
            self.nodes[self.item_of[m]].remove(m)
            self.item_of[m] = later

    def cone(self, n: Node) -> list[Node] | None:
        """n and what is computed for it alone, in order; None where that reads a register."""
        if n.op == "spread":
            return [n] if self.in_memory(n.inputs[0]) else None
        found: list[Node] = []
        for i in dict.fromkeys(n.inputs):
            if self.in_memory(i):
                continue
            alone = self.users[i] == {n} and self.item_of.get(i) == self.item_of[n]
            part = self.cone(i) if alone else None
            if part is None:
                return None
            found += part
        simple = n.op in OPS and all(same_strip(n, i) or i.op == "const" for i in n.inputs)
        return [*found, n] if simple else None

    def in_memory(self, n: Node) -> bool:
        """Whether n, or what it is made of, need not be in a register of a block."""
        here = self.item_of.get(n)
        if here is None or self.kinds[here] != BLOCK or n in self.kept:
            return True
        return any(self.item_of[m] != here or m.op not in OPS for m in self.users[n])
