"""The place of every value in memory.

place       a buffer and a column in it, at a step relative to this one: an `Operand`
unit        values that share one place: an accumulation and the only value computed from it
neighbours  units that lie side by side, so that one product writes or reads them all
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ostinato.compiler.graph.node import ROWS, Node, readers
from ostinato.compiler.lower.hoist import LOOP, Sections
from ostinato.compiler.lower.schedule import Schedule, in_register
from ostinato.compiler.lower.spec import Accumulation
from ostinato.engine.ops import OPS
from ostinato.engine.program import Buffer, Kind, Operand


class CannotHoist(Exception):  # noqa: N818
    """A value computed ahead of the loop would need a place in a carry of two slots."""


@dataclass(frozen=True)
class Layout:
    """The places of the values that a pass computes.

    Attributes:
        places: value → its place in memory; registers hold the other values.
        buffers: the buffers of these places: arguments and carries by name, then the pass's own.
    """

    places: Mapping[Node, Operand]
    buffers: tuple[str | Buffer, ...]


def assign_buffers(sections: Sections, items: Schedule) -> Layout:
    """A place for every value that lies in memory.

    Raises:
        CannotHoist: the pass must be lowered without hoisting, which gives the same bits.
    """
    outputs = sections.spec.outputs
    units = _Units(sections, items)
    short = sections.spec.short_carries
    in_two_slots = [n for o in outputs if o.argument in short for n in units.members[o.node]]
    if any(sections.of[n] != LOOP for n in in_two_slots):
        raise CannotHoist
    buffers: list[str | Buffer] = [*dict.fromkeys(o.argument for o in outputs)]
    places = {o.node: Operand(buffers.index(o.argument), o.column, o.dt) for o in outputs}
    for kind, row in units.rows():
        column = 0
        for u in row:
            places[u] = Operand(len(buffers), column)
            column += u.width
        buffers.append(Buffer(kind, column))
    found = {}
    for n in units.in_memory:
        unit, column = units.place(n)
        found[n] = places[unit].right(column)
    return Layout(found, tuple(buffers))


def without_copies(items: Schedule, layout: Layout) -> tuple[Schedule, Layout]:
    """The blocks without copies of values that would be in a register only.

    The source is written to the place of the copy. This overwrites no other value, since the copy
    is the first value that is written to its place.
    """
    places = dict(layout.places)

    def kept(item: tuple[Node, ...]) -> tuple[Node, ...]:
        nodes: dict[Node, None] = {}
        for n in item:
            source = n.inputs[0] if n.op == "copy" and n in places else None
            if source in nodes and source not in places:
                places[source] = places[n]
            else:
                nodes[n] = None
        return tuple(nodes)

    items = {section: tuple(map(kept, found)) for section, found in items.items()}
    return items, replace(layout, places=places)


class _Units:
    """Which values lie in memory, and which of them share a place."""

    def __init__(self, sections: Sections, items: Schedule):
        self.sections = sections
        self.nodes = list(sections.of)
        self.outputs = {o.node for o in sections.spec.outputs}  # each has its own place
        self.saved = set(sections.spec.saved)
        self.read_by = readers(self.nodes)
        self.alive = _alive(sections)
        self.owner: dict[Node, Node] = {}  # a value → the value in whose place it lies
        self.offset: dict[Node, int] = {}  # a piece → its column in the concatenation it lies in
        item_of = {n: item for found in items.values() for item in found for n in item}
        self.results = set(sections.spec.roots)
        self.in_memory = [
            n
            for n in self.nodes
            if n.kind == ROWS
            and n.op not in ("slice", "const")
            and (n in self.results or not in_register(n, item_of, self.read_by))
        ]
        self._own_parts()
        self._own_accumulations()
        self.members: dict[Node, list[Node]] = defaultdict(list)  # of each unit
        for n in self.in_memory:
            self.members[self.place(n)[0]].append(n)

    def _own_parts(self) -> None:
        """Put an accumulation's init and a concatenation's pieces in the place of their reader."""
        for n in self.nodes:
            if isinstance(n, Accumulation) and n.init is not None:
                self.owner[n.init] = n
            column = 0
            for piece in n.inputs if n.op == "concat" else ():
                self.owner[piece], self.offset[piece] = n, column
                column += piece.width

    def _own_accumulations(self) -> None:
        """Put an accumulation in the place of the only value that is computed from it.

        If one value is computed from several accumulations, the last one gets its place.
        """
        in_memory, taken = set(self.in_memory), set[Node]()
        for n in reversed(self.nodes):
            users = self.read_by[n]
            if n.op != "accumulate" or n in self.results or n in self.owner or len(users) != 1:
                continue
            (user,) = users
            direct = user.op in OPS and user.width == n.width
            if direct and user not in taken and user in in_memory:
                self.owner[n] = user
                taken.add(user)

    def place(self, n: Node) -> tuple[Node, int]:
        """The unit that n belongs to, by the value that owns the place; and n's column in it."""
        column = 0
        while n in self.owner and n not in self.outputs:
            column += self.offset.get(n, 0)
            n = self.owner[n]
        return n, column

    def rows(self) -> Iterator[tuple[Kind, list[Node]]]:
        """The units that are not outputs, each once, in adjacent rows."""
        kinds = {u: self.kind(group) for u, group in self.members.items() if u not in self.outputs}
        neighbours = self.neighbours()
        for kind in (Kind.STEP, Kind.CHUNK, Kind.TAPE):
            for row in _rows([u for u in kinds if kinds[u] == kind], neighbours):
                yield kind, row

    def kind(self, group: list[Node]) -> Kind:
        """The kind of buffer for values that share a place."""
        if any(n in self.saved for n in group):
            return Kind.TAPE
        sections = set[str]().union(*(self.alive[n] for n in group))
        return Kind.STEP if sections == {LOOP} else Kind.CHUNK

    def neighbours(self) -> list[list[Node]]:
        """Units that one product could read, or write, if they lay side by side."""
        read: list[list[Node]] = []
        written: dict[Any, list[Node]] = defaultdict(list)  # by the factor that the products share
        for n in self.nodes:
            if isinstance(n, Accumulation):
                factors = [a for a, _ in n.products]
                read.append(factors)
                for a in factors:
                    written["product", a].append(n)
            if n.op == "outer":
                for a, b in zip(n.inputs[::2], n.inputs[1::2], strict=True):
                    written["outer", a].append(b)
                    written["outer", b].append(a)
        groups = [*read, *written.values()]
        return [[self.place(n)[0] for n in group] for group in groups]


def _alive(sections: Sections) -> dict[Node, set[str]]:
    """The sections in which a value is written or read, also through slices and concatenations."""
    alive: dict[Node, set[str]] = defaultdict(set)
    for n in reversed(list(sections.of)):
        when = alive[n] if n.op in ("slice", "concat") else {sections.of[n]}
        for i in n.inputs:
            alive[i] |= when
        alive[n].add(sections.of[n])
    return alive


def _rows(units: list[Node], neighbours: list[list[Node]]) -> list[list[Node]]:
    """The units, each once, in rows of adjacent units; the longest row comes first."""
    free = set(units)
    sets: list[list[Node]] = []
    for group in neighbours:
        here = list(dict.fromkeys(u for u in group if u in free))
        if len(here) > 1 and here not in sets:
            sets.append(here)
    sets.sort(key=len, reverse=True)
    rows = []
    while sets:
        rows.append(_joined(sets))
        free -= set(rows[-1])
        sets = [here for s in sets if len(here := [u for u in s if u in free]) > 1]
    return rows + [[u] for u in units if u in free]


def _joined(sets: list[list[Node]]) -> list[Node]:
    """The largest set; if another set shares members with it, both, with these in the middle."""
    first = sets[0]
    for second in sets[1:]:
        shared = [u for u in first if u in second]
        if shared and set(second) != set(first):
            ahead = [u for u in first if u not in second]
            behind = [u for u in second if u not in first]
            return ahead + shared + behind
    return first
