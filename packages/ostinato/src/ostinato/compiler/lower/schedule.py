"""The order of computing within a section, and its blocks of operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from itertools import islice
from typing import Any

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import SUM, WITHIN_ROWS, Node
from ostinato.compiler.lower.hoist import AFTER, ARRAY, BEFORE, LOOP, Sections
from ostinato.compiler.lower.spec import readers
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
    """Orders the nodes of one section."""

    def __init__(self, nodes: list[Node], max_block: int):
        self.mine = set(nodes)
        self.pending = [n for n in nodes if n.op not in _NOT_COMPUTED]
        self.max_block = max_block
        self.done: set[Node] = set()

    def items(self) -> tuple[Item, ...]:
        items = []
        while self.pending:
            items.append(tuple(self.next_item()))
            self.done.update(items[-1])
            self.pending = [n for n in self.pending if n not in self.done]
        return tuple(items)

    def next_item(self) -> list[Node]:
        item = (
            [n for n in self.pending if n.op == "accumulate" and self.ready(n)]
            or self.first(n for n in self.pending if n.op in WITHIN_ROWS)
            or self.largest_block()
            or self.first(n for n in self.pending if n.kind == SUM)
        )
        if not item:
            raise Unsupported("the step graph has no order of computing", self.pending[0].op)
        return item

    def first(self, nodes: Iterable[Node]) -> list[Node]:
        """The first of the nodes that can be computed now, if one can."""
        return list(islice(filter(self.ready, nodes), 1))

    def ready(self, n: Node) -> bool:
        return all(self.available(i) for i in n.inputs)

    def available(self, n: Node, block: Container[Node] = ()) -> bool:
        """Whether n can be read: it lies in memory, or in a register of this block."""
        if n not in self.mine or n in self.done or n in block:
            return True
        return n.op in _NOT_COMPUTED and all(self.available(i) for i in n.inputs)

    def largest_block(self) -> list[Node]:
        """The longest run of elementwise operations of one width that can be computed now.

        Narrow operations go before arrays, so that more operations on an array form one block.
        """
        of_width: dict[int, list[Node]] = defaultdict(list)
        for n in filter(is_elementwise, self.pending):
            of_width[n.width].append(n)
        blocks = [b for w in sorted(of_width) if (b := self.block(of_width[w]))]
        narrow = [b for b in blocks if b[0].width < ARRAY <= blocks[-1][0].width]
        return max(narrow or blocks, key=len, default=[])

    def block(self, candidates: list[Node]) -> list[Node]:
        """Those of the candidates, all of one width, that can be computed one after another."""
        members: dict[Node, None] = {}
        size = 0
        for n in candidates:
            if all(self.available(i, members if same_strip(n, i) else ()) for i in n.inputs):
                cost = 1 + sum(i.op == "const" or i.width != n.width for i in n.inputs)
                if size + cost <= self.max_block:
                    members[n] = None
                    size += cost
        return list(members)


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
