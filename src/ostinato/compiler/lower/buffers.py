"""Where every value lies.

place       a buffer and a column in it, at a step relative to this one: an `Operand`
unit        values that share one place: an accumulation and the only value computed from it
neighbours  units that lie side by side, so that one product writes or reads them all
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from ostinato.compiler.graph.node import ROWS, WITHIN_ROWS, Node
from ostinato.compiler.lower.hoist import LOOP, Sections
from ostinato.compiler.lower.schedule import BLOCK, Schedule, same_strip
from ostinato.compiler.lower.spec import Accumulation, PassSpec
from ostinato.engine.ops import OPS
from ostinato.engine.program import Buffer, Kind, Operand


class CannotHoist(Exception):  # noqa: N818
    """A value that is computed ahead of the loop would lie in a carry of two slots."""


class Storage:
    """The buffers and arguments of a program; each is entered when it is first asked for.

    Attributes:
        arguments: the number of each argument, by what it is, as in `Lowered`.
        tapes: the arguments for saved values → their widths.
    """

    def __init__(self, spec: PassSpec):
        self.spec = spec
        self.buffers: list[Buffer] = []
        self.arguments: dict[Any, int] = {}
        self.tapes: dict[str, int] = {}
        self._of_argument: dict[Any, int] = {}  # its buffer, or that of a carry of two slots

    def argument(self, key: Any) -> int:
        return self.arguments.setdefault(key, len(self.arguments))

    def buffer(self, b: Buffer) -> int:
        self.buffers.append(b)
        return len(self.buffers) - 1

    def tape(self, width: int) -> int:
        """A buffer for saved values, and an argument for it."""
        name = f"tape{len(self.tapes)}"
        self.tapes[name] = width
        return self.buffer(Buffer(Kind.TAPE, width, 0, self.argument(name)))

    def buffer_of(self, name: str) -> int:
        """The buffer of a leaf, an output or a carry."""
        if name not in self._of_argument:
            spec = self.spec
            carry = spec.carry_by_name.get(name)
            if carry is not None and not carry.kept:
                b = Buffer(Kind.PAIR, carry.read.width)
            else:
                own = name.startswith("tape") or name in spec.hidden
                extra = int(name.startswith("carry"))  # one slot more than there are steps
                kind = Kind.TAPE if own else Kind.TIME
                b = Buffer(kind, spec.widths[name], extra, self.argument(name))
            self._of_argument[name] = self.buffer(b)
        return self._of_argument[name]

    def vector(self, n: Node) -> int:
        """The buffer of a vector that is computed `once`."""
        if n not in self._of_argument:
            b = Buffer(Kind.VECTOR, n.width, 0, self.argument(n))
            self._of_argument[n] = self.buffer(b)
        return self._of_argument[n]


def assign_buffers(storage: Storage, sections: Sections, items: Schedule) -> dict[Node, Operand]:
    """A place for every value that lies in memory.

    Raises:
        CannotHoist: see there; without hoisting the bits are the same.
    """
    outputs: dict[Node, Operand] = {}
    for o in sections.roots.outputs:
        outputs[o.node] = Operand(storage.buffer_of(o.argument), o.column, o.dt)
    units = _Units(sections, items, set(outputs))
    members: dict[Node, list[Node]] = defaultdict(list)  # of each unit
    for n in sections.computed:
        if n.kind == ROWS and n.op != "slice" and units.in_memory(n):
            members[units.unit(n)].append(n)
    for u, place in outputs.items():
        two_slots = storage.buffers[place.buffer].kind == Kind.PAIR
        if two_slots and any(sections.of[n] != LOOP for n in members.get(u, [])):
            raise CannotHoist
    kinds = {u: units.kind(group) for u, group in members.items() if u not in outputs}
    places = outputs | _laid_out(storage, kinds, units.neighbours())
    return {
        n: replace(places[u], column=places[u].column + units.place(n)[1])
        for u, group in members.items()
        for n in group
    }


class _Units:
    """Which values lie in memory, and which of them share a place."""

    def __init__(self, sections: Sections, items: Schedule, outputs: set[Node]):
        self.sections = sections
        self.nodes = sections.computed
        self.outputs = outputs  # each has its place
        self.saved = set(sections.roots.saved)
        self.block_of = {
            n: (section, k)
            for section, found in items.items()
            for k, item in enumerate(found)
            if item.kind == BLOCK
            for n in item.nodes
        }
        self.users = _users(self.nodes)
        self.owner: dict[Node, Node] = {}  # a value → the value in whose place it lies
        self.offset: dict[Node, int] = {}  # a piece → its column in the concatenation it lies in
        self._own_accumulations()
        self._own_pieces()

    def _own_accumulations(self) -> None:
        """An accumulation lies where its init does, and where the only value computed of it will.

        Of several that one value is computed of, one accumulation does.
        """
        taken: set[Node] = set()
        for n in reversed(self.nodes):
            if not isinstance(n, Accumulation):
                continue
            if n.init is not None:
                self.owner[n.init] = n
            if n in self.saved or n in self.outputs or n in self.owner or len(self.users[n]) != 1:
                continue
            (user,) = self.users[n]
            direct = user.op in OPS and user.width == n.width and n in user.inputs
            if direct and user not in taken and self.in_memory(user):
                self.owner[n] = user
                taken.add(user)

    def _own_pieces(self) -> None:
        for n in self.nodes:
            if n.op == "concat":
                column = 0
                for piece in n.inputs:
                    self.owner[piece], self.offset[piece] = n, column
                    column += piece.width

    def place(self, n: Node) -> tuple[Node, int]:
        """The value in whose place n lies, which lies in no other's; and n's column in it."""
        column = 0
        while n in self.owner and n not in self.outputs:
            column += self.offset.get(n, 0)
            n = self.owner[n]
        return n, column

    def unit(self, n: Node) -> Node:
        return self.place(n)[0]

    def in_memory(self, n: Node) -> bool:
        """Whether a value needs a place; otherwise a register of its block holds it."""
        if n in self.outputs or n in self.owner or n in self.saved:
            return True
        if n.op in ("accumulate", "concat", *WITHIN_ROWS):
            return True
        for m in self.users[n]:
            if m.op not in OPS or not same_strip(m, n) or n not in m.inputs:
                return True
            if self.block_of.get(m) != self.block_of.get(n):
                return True
        return not self.users[n]

    def kind(self, group: list[Node]) -> Kind:
        """The kind of buffer for values that share a place."""
        if any(n in self.saved for n in group):
            return Kind.TAPE
        sections = {self.sections.of[m] for n in group for m in (n, *self.users[n])}
        return Kind.STEP if sections == {LOOP} else Kind.CHUNK

    def neighbours(self) -> list[list[Node]]:
        """Units that one product could read, or write, if they lay side by side."""
        read: list[list[Node]] = []
        written: dict[Any, list[Node]] = defaultdict(list)  # by the factor that the products share
        for n in self.nodes:
            if isinstance(n, Accumulation):
                read.append([self.unit(a) for a, _ in n.products])
                for a, _ in n.products:
                    written["product", a].append(self.unit(n))
            if n.op == "outer":
                for a, b in zip(n.inputs[::2], n.inputs[1::2], strict=True):
                    written["outer", a].append(self.unit(b))
                    written["outer", b].append(self.unit(a))
        return read + list(written.values())


def _users(nodes: tuple[Node, ...]) -> dict[Node, list[Node]]:
    """Who reads a value, also through slices and concatenations."""
    computed = set(nodes)
    users: dict[Node, list[Node]] = defaultdict(list)
    for n in nodes:
        for i in n.inputs:
            while i.op == "slice" and i in computed:
                i = i.inputs[0]
            for piece in i.inputs if i.op == "concat" and i in computed else (i,):
                users[piece].append(n)
    return users


def _laid_out(
    storage: Storage, kinds: dict[Node, Kind], neighbours: list[list[Node]]
) -> dict[Node, Operand]:
    """Places for units: for those that products want side by side, then for the others alone."""
    places: dict[Node, Operand] = {}
    for kind in (Kind.STEP, Kind.CHUNK, Kind.TAPE):
        units = [u for u in kinds if kinds[u] == kind]
        for row in _rows(units, neighbours):
            width = sum(u.width for u in row)
            buffer = (
                storage.tape(width) if kind == Kind.TAPE else storage.buffer(Buffer(kind, width))
            )
            column = 0
            for u in row:
                places[u] = Operand(buffer, column)
                column += u.width
    return places


def _rows(units: list[Node], neighbours: list[list[Node]]) -> list[list[Node]]:
    """The units, each once, in rows that lie side by side: the longest first."""
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
    """The largest set, ordered so that a second one that shares members with it joins on."""
    first = sets[0]
    for second in sets[1:]:
        shared = [u for u in first if u in second]
        if shared and set(second) != set(first):
            ahead = [u for u in first if u not in second]
            behind = [u for u in second if u not in first]
            return ahead + shared + behind
    return first
