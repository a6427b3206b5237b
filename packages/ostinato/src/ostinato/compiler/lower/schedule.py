"""The order of computing within a section, and its blocks of operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Any

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import SUM, WITHIN_ROWS, Node, readers
from ostinato.compiler.lower.hoist import AFTER, ARRAY, BEFORE, LOOP, Sections
from ostinato.engine.ops import OPS

_NOT_COMPUTED = ("slice", "concat", "const")

# Nodes emitted together: accumulations, a block of elementwise operations of one width, or one
# other operation.
Item = tuple[Node, ...]
Schedule = Mapping[str, tuple[Item, ...]]  # section → its items in order


def is_elementwise(n: Node) -> bool:
    """Whether a node is played in a block, element by element."""
    return n.op in OPS or n.op == "spread"


def schedule(sections: Sections, max_block: int) -> Schedule:
    """Every section in order: products as early as possible, then the largest block."""
    found: dict[str, list[Node]] = {BEFORE: [], LOOP: [], AFTER: []}
    for n, when in sections.of.items():
        found[when].append(n)
    return {s: _Scheduler(nodes, max_block).items() for s, nodes in found.items()}


def same_strip(n: Node, i: Node) -> bool:
    """Whether n reads i in the same strip of columns. A source that n spreads must be in memory."""
    return i.width == n.width and n.op != "spread"


class _Scheduler:
    """Orders the nodes of one section.

    Attributes:
        order: the nodes that are computed → their place in the order of the graph.
        waits: node → how many values it needs that are not computed yet.
        waiting: value → the nodes that need it; with each, whether it may read a register.
        ready: kind of item → the nodes that can be computed now.
        blocks: width → its block, as long as that is known.
    """

    def __init__(self, nodes: list[Node], max_block: int):
        self.mine, self.max_block = set(nodes), max_block
        self.order = {n: k for k, n in enumerate(nodes) if n.op not in _NOT_COMPUTED}
        self.waits: dict[Node, int] = {}
        self.waiting: dict[Node, list[tuple[Node, bool]]] = defaultdict(list)
        self.ready: dict[Any, dict[Node, None]] = defaultdict(dict)
        self.blocks: dict[int | str, list[Node]] = {}
        of_views: dict[Node, set[Node]] = {}
        for n in nodes:
            if n.op in _NOT_COMPUTED:
                of_views[n] = set().union(*(self.computed(i, of_views) for i in n.inputs))
                continue
            in_memory = set().union(
                *(
                    self.computed(i, of_views)
                    for i in n.inputs
                    if i.op in _NOT_COMPUTED or not same_strip(n, i)
                )
            )
            needs = in_memory.union(*(self.computed(i, of_views) for i in n.inputs))
            for i in needs:
                self.waiting[i].append((n, i not in in_memory))
            self.waits[n] = len(needs)
            if not needs:
                self.ready[_kind(n)][n] = None

    def computed(self, n: Node, of_views: dict[Node, set[Node]]) -> set[Node]:
        """The values of this section that have to be computed before n can be read."""
        return {n} if n in self.order else of_views[n] if n in self.mine else set()

    def items(self) -> tuple[Item, ...]:
        items = []
        left = len(self.order)
        while left:
            items.append(tuple(self.next_item()))
            left -= len(items[-1])
            for n in items[-1]:
                self.done(n)
        return tuple(items)

    def done(self, n: Node) -> None:
        """Note that a value is computed."""
        del self.ready[_kind(n)][n], self.waits[n]
        self.blocks.pop(_kind(n), None)
        for m, _ in self.waiting[n]:
            self.waits[m] -= 1
            if not self.waits[m]:
                self.ready[_kind(m)][m] = None
            self.blocks.pop(_kind(m), None)

    def next_item(self) -> list[Node]:
        item = (
            sorted(self.ready["accumulate"], key=self.order.__getitem__)
            or self.first("within rows")
            or self.largest_block()
            or self.first(SUM)
        )
        if not item:
            raise Unsupported("the step graph has no order of computing", next(iter(self.waits)).op)
        return item

    def first(self, kind: str) -> list[Node]:
        """The first node of a kind that can be computed now, if one can."""
        return sorted(self.ready[kind], key=self.order.__getitem__)[:1]

    def largest_block(self) -> list[Node]:
        """The longest run of elementwise operations of one width that can be computed now.

        Narrow operations go before arrays, so that more operations on an array form one block.
        """
        widths = sorted(k for k, nodes in self.ready.items() if isinstance(k, int) and nodes)
        blocks = [b for w in widths if (b := self.block(w))]
        narrow = [b for b in blocks if b[0].width < ARRAY <= blocks[-1][0].width]
        return max(narrow or blocks, key=len, default=[])

    def block(self, width: int) -> list[Node]:
        """The operations of one width that can be computed one after another, in order."""
        if width in self.blocks:
            return self.blocks[width]
        members: list[Node] = []
        size, waits = 0, dict[Node, int]()
        todo = [(self.order[n], n) for n in self.ready[width]]
        heapify(todo)
        while todo and size < self.max_block:
            _, n = heappop(todo)
            cost = 1 + sum(i.op == "const" or i.width != n.width for i in n.inputs)
            if size + cost > self.max_block:
                continue
            members.append(n)
            size += cost
            for m, in_register in self.waiting[n]:
                if in_register and _kind(m) == width:
                    waits[m] = waits.get(m, self.waits[m]) - 1
                    if not waits[m]:
                        heappush(todo, (self.order[m], m))
        self.blocks[width] = members
        return members


def _kind(n: Node) -> int | str:
    """The kind of item that computes a node; of elementwise operations it is their width."""
    if n.op == "accumulate":
        return n.op
    if n.op in WITHIN_ROWS:
        return "within rows"
    return n.width if is_elementwise(n) else n.kind


def in_register(n: Node, item_of: Mapping[Node, Any], read_by: Mapping[Node, list[Node]]) -> bool:
    """Whether a value that is not a result is computed and read within one block."""
    return is_elementwise(n) and all(
        m.op in OPS and item_of.get(m) == item_of[n] for m in read_by[n]
    )


def sink(sections: Sections, items: Schedule, max_block: int) -> Schedule:
    """Move values that only one later block reads into that block, where they need a register only.

    Otherwise they would go through memory. The operands of such a value must be in memory anyway.
    """
    results, read_by = set(sections.spec.roots), readers(sections.of)
    return {s: _Sinking(results, read_by, item, max_block).items() for s, item in items.items()}


class _Sinking:
    """Moves operations of one section from their blocks into later ones."""

    def __init__(
        self,
        results: set[Node],
        read_by: Mapping[Node, list[Node]],
        items: tuple[Item, ...],
        max_block: int,
    ):
        self.results, self.read_by, self.max_block = results, read_by, max_block
        self.nodes = [list(item) for item in items]
        self.item_of = {n: k for k, item in enumerate(items) for n in item}

    def items(self) -> tuple[Item, ...]:
        for n in reversed(list(self.item_of)):
            if is_elementwise(n) and n not in self.results:
                self.sink(n)
        return tuple([tuple(nodes) for nodes in self.nodes if nodes])

    def sink(self, n: Node) -> None:
        """Move n, and the values computed for it alone, to the one later block that reads it."""
        here, users = self.item_of[n], self.read_by[n]
        items = {self.item_of.get(m, here) for m in users}  # views and other sections are not moved
        later = items.pop()
        if items or later == here or any(m.op not in OPS or m.width != n.width for m in users):
            return
        block, cone = self.nodes[later], self.cone(n)
        if cone is None or len(block) + len(cone) > self.max_block:
            return
        first = min(block.index(m) for m in users)
        block[first:first] = cone
        for m in cone:
            self.nodes[here].remove(m)
            self.item_of[m] = later

    def cone(self, n: Node) -> list[Node] | None:
        """n and the values computed for it alone, in order; None if one reads a register."""
        if n.op == "spread":
            return [n] if self.in_memory(n.inputs[0]) else None
        found: list[Node] = []
        for i in dict.fromkeys(n.inputs):
            if self.in_memory(i):
                continue
            part = self.cone(i) if set(self.read_by[i]) == {n} else None
            if part is None:
                return None
            found += part
        simple = n.op in OPS and all(same_strip(n, i) or i.op == "const" for i in n.inputs)
        return [*found, n] if simple else None

    def in_memory(self, n: Node) -> bool:
        """Whether n can be read from any block, since it is not in a register."""
        if n not in self.item_of or n in self.results:
            return True
        return not in_register(n, self.item_of, self.read_by)
