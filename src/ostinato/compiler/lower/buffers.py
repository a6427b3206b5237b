"""Where every value lies.

place       a buffer and a column
unit        values that share one place: an accumulation and the only value computed from it
neighbours  units that lie side by side, so that one product writes or reads them all
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from ostinato.compiler.graph.node import ONCE, ROWS, Node
from ostinato.compiler.lower.fuse_gemm import Chains
from ostinato.compiler.lower.hoist import LOOP
from ostinato.compiler.lower.schedule import BLOCK, Item, same_row
from ostinato.compiler.lower.spec import CarrySpec, Leaf, Output, Pass
from ostinato.engine.ops import OPS
from ostinato.engine.program import Buffer, Carry, Kind, Operand


class CannotHoist(Exception):  # noqa: N818
    """A value computed ahead of the loop would lie in a place of two slots."""


@dataclass
class Place:
    kind: Kind
    buffer: int = -1
    column: int = 0
    dt: int = 0


class Storage:
    """The buffers and arguments of a program, and where in them each value lies."""

    def __init__(self, p: Pass):
        self.p = p
        self.arguments: dict[Any, int] = {}
        self.tapes: dict[str, int] = {}
        self.buffers: list[Buffer] = []
        self.places: dict[Node, Place] = {}
        self._by_key: dict[Any, int] = {}

    def buffer(self, b: Buffer) -> int:
        self.buffers.append(b)
        return len(self.buffers) - 1

    def new_tape(self, width: int) -> int:
        """An argument for saved values."""
        name = f"tape{len(self.tapes)}"
        self.tapes[name] = width
        return self.argument(name)

    def argument(self, key: Any) -> int:
        return self.arguments.setdefault(key, len(self.arguments))

    def time_buffer(self, name: str, carry: CarrySpec | None = None, width: int = 0) -> int:
        key = ("time", name)
        if key not in self._by_key:
            if carry is None:
                carry = self.p.carry(name)
            if carry is not None:
                width = carry.width
            else:
                sizes = [o.node.width for o in self.p.outputs if o.argument == name]
                width = width or sizes[0]
            if carry is not None and not carry.kept:
                self._by_key[key] = self.buffer(Buffer(Kind.PAIR, width))
            else:
                own = name.startswith("tape") or name in self.p.hidden
                kind = Kind.TAPE if own else Kind.TIME
                extra = int(name.startswith("carry"))  # one slot more than steps
                self._by_key[key] = self.buffer(Buffer(kind, width, extra, self.argument(name)))
        return self._by_key[key]

    def carry(self, c: CarrySpec) -> Carry:
        init = -1 if c.init is None else self.argument(c.init)
        final = -1 if c.final is None else self.argument(c.final)
        return Carry(self.time_buffer(c.name, c), init, final)

    def saved_leaf(self, n: Node) -> Leaf:
        place = self.places[n]
        argument = self.buffers[place.buffer].argument
        name = next(k for k, i in self.arguments.items() if i == argument)
        return Leaf(name, self.tapes[name], place.dt, place.column)

    def operand(self, n: Node) -> Operand:
        """Where a value lies in memory."""
        if n in self.p.leaves:
            leaf = self.p.leaves[n]
            carry = self.p.carry(leaf.argument)
            return Operand(self.time_buffer(leaf.argument, carry, leaf.width), leaf.column, leaf.dt)
        if n.op == "slice":
            inner = self.operand(n.inputs[0])
            return replace(inner, column=inner.column + n.attrs[0])
        if n.kind == ONCE:
            base, column = base_vector(n)
            if base not in self._by_key:
                self._by_key[base] = self.buffer(
                    Buffer(Kind.VECTOR, base.width, 0, self.argument(base))
                )
            return Operand(self._by_key[base], column)
        place = self.places[n]
        return Operand(place.buffer, place.column, place.dt)


def base_vector(n: Node) -> tuple[Node, int]:
    """A vector and the column at which a part of it begins."""
    return (n.inputs[0], n.attrs[0]) if n.op == "part" else (n, 0)


class Arrangement:
    """Gives every value that lies in memory its place in a `Storage`.

    Args:
        nodes: what is computed, in order.
        section: of each node.
        schedule: the items of each section.
    """

    def __init__(
        self,
        storage: Storage,
        chains: Chains,
        nodes: list[Node],
        section: dict[Node, str],
        schedule: dict[str, list[Item]],
    ):
        self.storage, self.chains, self.p = storage, chains, storage.p
        self.nodes, self.section = nodes, section
        self.saved = set(chains.saved)
        self.block_of = {
            n: (s, k)
            for s, items in schedule.items()
            for k, item in enumerate(items)
            if item.kind == BLOCK
            for n in item.nodes
        }
        self.users = self.find_users()
        self.fixed = {o.node: self.output_place(o) for o in chains.outputs}
        self.owner: dict[Node, Node] = {}  # a value → the value in whose place it lies
        self.offset: dict[Node, int] = {}  # a piece → its column in the concatenation it lies in
        self.find_owners()
        self.assign()

    def find_users(self) -> dict[Node, list[Node]]:
        """Who reads a value, also through slices and concatenations."""
        users: dict[Node, list[Node]] = defaultdict(list)
        for n in self.nodes:
            for i in n.inputs:
                while i.op == "slice" and not self.p.is_leaf(i):
                    i = i.inputs[0]
                for piece in i.inputs if i.op == "concat" and not self.p.is_leaf(i) else (i,):
                    users[piece].append(n)
        return users

    def output_place(self, o: Output) -> Place:
        carry = self.p.carry(o.argument)
        kind = Kind.PAIR if carry is not None and not carry.kept else Kind.TIME
        return Place(kind, self.storage.time_buffer(o.argument, carry), o.column, o.dt)

    def find_owners(self) -> None:
        taken: set[Node] = set()  # one accumulation at the most lies where its user will
        for n in reversed(self.nodes):
            if n.op == "accumulate" and n.attrs[2]:
                self.owner[n.inputs[-1]] = n  # the init lies where the sum will
            if n.op != "accumulate" or n in self.saved or n in self.fixed or n in self.owner:
                continue
            if len(self.users[n]) == 1:
                user = self.users[n][0]
                direct = user.op in OPS and user.width == n.width and n in user.inputs
                if direct and user not in taken and self.in_memory(user):
                    self.owner[n] = user
                    taken.add(user)
        for n in self.nodes:
            if n.op == "concat":
                at = 0
                for piece in n.inputs:
                    self.owner[piece], self.offset[piece] = n, at
                    at += piece.width

    def unit(self, n: Node) -> Node:
        while n in self.owner and n not in self.fixed:
            n = self.owner[n]
        return n

    def column(self, n: Node) -> int:
        """Where in its unit a value begins."""
        column = 0
        while n in self.owner and n not in self.fixed:
            column += self.offset.get(n, 0)
            n = self.owner[n]
        return column

    def in_memory(self, n: Node) -> bool:
        """Whether a value needs a place: else a register of its block holds it."""
        if n in self.fixed or n in self.owner or n in self.saved:
            return True
        if n.op in ("accumulate", "row_sum", "row_max", "concat"):
            return True
        for m in self.users[n]:
            if m.op not in OPS or not same_row(m, n) or n not in m.inputs:
                return True
            if self.block_of.get(m) != self.block_of.get(n):
                return True
        return not self.users[n]

    def assign(self) -> None:
        members: dict[Node, list[Node]] = defaultdict(list)
        for n in self.nodes:
            if n.kind == ROWS and n.op != "slice" and self.in_memory(n):
                members[self.unit(n)].append(n)
        kinds: dict[Node, Kind] = {}
        for u, group in members.items():
            if u not in self.fixed:
                kinds[u] = self.kind(group)
            elif self.fixed[u].kind == Kind.PAIR and any(self.section[n] != LOOP for n in group):
                raise CannotHoist
        places = self.lay_out(list(kinds), kinds) | self.fixed
        for u, group in members.items():
            for n in group:
                column = places[u].column + self.column(n)
                self.storage.places[n] = replace(places[u], column=column)

    def kind(self, group: list[Node]) -> Kind:
        if any(n in self.saved for n in group):
            return Kind.TAPE
        sections = {self.section[m] for n in group for m in (n, *self.users[n])}
        return Kind.STEP if sections == {LOOP} else Kind.CHUNK

    def lay_out(self, units: list[Node], kinds: dict[Node, Kind]) -> dict[Node, Place]:
        """Places for units: those that products want side by side, then the others alone."""
        places: dict[Node, Place] = {}
        for kind in (Kind.STEP, Kind.CHUNK, Kind.TAPE):
            free = {u for u in units if kinds[u] == kind}
            sets: list[list[Node]] = []
            for group in self.wanted_neighbours():
                here = list(dict.fromkeys(u for u in group if u in free))
                if len(here) > 1 and here not in sets:
                    sets.append(here)
            sets.sort(key=len, reverse=True)
            while sets:
                row = _row_of(sets)
                self.place_side_by_side(row, kind, places)
                free -= set(row)
                sets = [here for s in sets if len(here := [u for u in s if u in free]) > 1]
            for u in units:
                if u in free:
                    self.place_side_by_side([u], kind, places)
        return places

    def wanted_neighbours(self) -> list[list[Node]]:
        """What one product could read, or write, if it lay side by side."""
        factors: list[list[Node]] = []
        by_factor: dict[Any, list[Node]] = defaultdict(list)
        for n in self.nodes:
            if n.op == "accumulate":
                read = n.inputs[: 2 * n.attrs[0] : 2]
                factors.append([self.unit(a) for a in read])
                for a in read:
                    by_factor["product", a].append(self.unit(n))
            if n.op == "outer":
                for a, b in zip(n.inputs[::2], n.inputs[1::2], strict=True):
                    by_factor["outer", a].append(self.unit(b))
                    by_factor["outer", b].append(self.unit(a))
        return factors + list(by_factor.values())

    def place_side_by_side(self, units: list[Node], kind: Kind, places: dict[Node, Place]) -> None:
        width = sum(u.width for u in units)
        argument = self.storage.new_tape(width) if kind == Kind.TAPE else -1
        buffer = self.storage.buffer(Buffer(kind, width, 0, argument))
        column = 0
        for u in units:
            places[u] = Place(kind, buffer, column)
            column += u.width


def _row_of(sets: list[list[Node]]) -> list[Node]:
    """The largest set, ordered so that a second one that shares members with it joins on."""
    first = sets[0]
    for second in sets[1:]:
        shared = [u for u in first if u in second]
        if shared and set(second) != set(first):
            ahead = [u for u in first if u not in second]
            behind = [u for u in second if u not in first]
            return ahead + shared + behind
    return first
