"""From a step graph's pass (forward or backward) to a program.

Vocabulary
    item      what becomes one instruction or a part of a block: an *accumulation*, an elementwise
              operation, a reduction, a sum over rows and steps
    accumulation   a chain of products added up in one place: init + a₁W₁ + a₂W₂ + …, where init is
              a sum of vectors (biases), or a value that is there already, or zero
    place     where a value lies: a buffer and a column
    unit      values that share one place: an accumulation and the only value computed from it
    neighbours   units that lie side by side, so that one product writes or reads them all

Passes, in order: `accumulate` rewrites chains of additions; `sections` says when; `schedule` orders
items and forms blocks; `arrange` gives places; `emit` writes instructions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from ostinato.compiler.graph import ONCE, ROWS, SUM, Node, Unsupported
from ostinato.compiler.section import AFTER, BEFORE, LOOP, depends_on, reachable, sections
from ostinato.engine.ops import OPS
from ostinato.engine.program import (
    Buffer,
    Carry,
    Code,
    Gradient,
    Instruction,
    Kind,
    Operand,
    Program,
    Weight,
    WeightBlock,
    register,
)

MAX_BLOCK, MAX_REGISTERS = 60, 44  # below the engine's kMaxBlock and kMaxRegisters


@dataclass(frozen=True)
class Leaf:
    """A value that is there before the pass: a buffer of the caller's or the carry's."""

    argument: str  # "x0", "carry1", "tape3", …
    width: int  # of the argument
    dt: int = 0
    column: int = 0


@dataclass(frozen=True)
class Output:
    """A value that the pass must leave in an argument over time."""

    node: Node
    argument: str
    dt: int = 0


@dataclass(frozen=True)
class CarrySpec:
    """A leaf of the carry: read at slot t + dt_in, written at slot t + dt_out."""

    name: str
    width: int
    kept: bool  # every slot is kept, in the argument `name`; else only the last two
    dt_in: int
    dt_out: int
    init: str | None
    final: str | None
    read: Node
    written: Node


@dataclass(frozen=True)
class Pass:
    """What is to be lowered."""

    leaves: dict[Node, Leaf]
    carries: tuple[CarrySpec, ...]
    outputs: tuple[Output, ...]
    saved: tuple[Node, ...] = ()  # kept for the backward pass, wherever the lowering likes
    sums: dict[str, Node] = field(default_factory=dict)  # argument → an outer or column_sum node
    descending: bool = False
    hoist: bool = False


@dataclass(frozen=True)
class Lowered:
    """A program, and what each of its arguments is."""

    program: Program
    arguments: tuple[Any, ...]  # names of leaves, outputs, carries; a `once` node; a SumPart
    tapes: dict[str, int]  # arguments made for saved values → width
    saved: tuple[Leaf, ...]  # where each saved value lies


@dataclass(frozen=True)
class SumPart:
    """An argument that receives [K, N] of a sum, at (row, column); of its transpose, if so.

    Parts of one layer do not overlap; the sum is the sum of its layers.
    """

    name: str
    row: int
    column: int
    transposed: bool
    layer: int


def lower(p: Pass) -> Lowered:
    for limit in (MAX_BLOCK, MAX_BLOCK // 3, MAX_BLOCK // 10):
        try:
            return _Lowering(p, limit).run()
        except _BlockTooLarge:
            continue
        except _CannotHoist:  # the bits are the same without
            return lower(replace(p, hoist=False))
    raise Unsupported("a part of the step is larger than the engine's blocks")


class _BlockTooLarge(Exception):  # noqa: N818
    pass


class _CannotHoist(Exception):  # noqa: N818
    pass


@dataclass
class _Place:
    kind: Kind
    buffer: int = -1
    column: int = 0
    dt: int = 0


class _Lowering:
    def __init__(self, p: Pass, max_block: int):
        self.p = p
        self.max_block = max_block
        self.fresh = count(1 << 30)
        self.leaves = dict(p.leaves)
        self.arguments: dict[Any, int] = {}
        self.tapes: dict[str, int] = {}
        self.buffers: list[Buffer] = []
        self.weights: list[Weight] = []
        self.weight_index: dict[Any, int] = {}
        self.gradients: list[Gradient] = []
        self.once: list[Instruction] = []
        self.places: dict[Node, _Place] = {}
        self.leaf_places: dict[Node, _Place] = {}
        self.vector_buffers: dict[Any, int] = {}

    def run(self) -> Lowered:
        self.saved: list[Node] = []
        self.outputs = self.split_outputs()
        self.rewrite_chains()
        self.bridge_carries()
        nodes = [n for n in reachable(self.roots(), self.is_leaf) if n.kind != ONCE]
        self.nodes = [n for n in nodes if not self.is_leaf(n) and n.op != "const"]
        carry_in = {c.read for c in self.p.carries}
        carry_out = [o.node for o in self.outputs if o.argument in self.carry_names()]
        self.section = sections(nodes, carry_in, carry_out, self.p.hoist)
        self.section.update(dict.fromkeys(self.bridged, LOOP))
        self.schedule = {
            s: self.schedule_section([n for n in self.nodes if self.section[n] == s])
            for s in (BEFORE, LOOP, AFTER)
        }
        self.arrange()
        instructions = {s: self.emit_section(s) for s in (BEFORE, LOOP, AFTER)}
        carries = tuple(self.carry(c) for c in self.p.carries)
        program = Program(
            n_arguments=len(self.arguments),
            descending=self.p.descending,
            buffers=tuple(self.buffers),
            weights=tuple(self.weights),
            gradients=tuple(self.gradients),
            carries=carries,
            once=tuple(self.once),
            before=tuple(instructions[BEFORE]),
            loop=tuple(instructions[LOOP]),
            after=tuple(instructions[AFTER]),
        )
        saved = tuple(self.saved_leaf(n) for n in self.saved)
        return Lowered(program, tuple(self.arguments), self.tapes, saved)

    # ---- roots

    def carry_names(self) -> set[str]:
        return {c.name for c in self.p.carries}

    def is_leaf(self, n: Node) -> bool:
        return n in self.leaves

    def roots(self) -> list[Node]:
        return [o.node for o in self.outputs] + list(self.saved) + list(self.p.sums.values())

    def split_outputs(self) -> list[Output]:
        """Every output by the piece: (node, argument, column)."""
        wanted = [Output(c.written, c.name, c.dt_out) for c in self.p.carries] + list(
            self.p.outputs
        )
        self.columns: dict[int, int] = {}
        pieces = []
        taken: set[Node] = set()
        for o in wanted:
            at = 0
            for node in o.node.inputs if o.node.op == "concat" else (o.node,):
                if (
                    node in taken
                    or self.is_leaf(node)
                    or node.op in ("const", "slice", "absent")
                    or node.kind == ONCE
                ):
                    source = node
                    if node.op == "absent":
                        source = self.make("const", (), (0.0,), ROWS, node.shape)
                    node = self.make("copy", (source,), (0.0,), ROWS, node.shape)
                taken.add(node)
                pieces.append(Output(node, o.argument, o.dt))
                self.columns[len(pieces) - 1] = at
                at += node.width
        self.saved = [
            self.make("copy", (n,), (0.0,), ROWS, n.shape) if n in taken else n
            for n in self.p.saved
        ]
        return pieces

    def make(self, op: str, inputs: Any, attrs: Any, kind: str, shape: Any) -> Node:
        return Node(op, tuple(inputs), tuple(attrs), kind, tuple(shape), next(self.fresh))

    # ---- accumulate

    def rewrite_chains(self) -> None:
        """Chains of additions that contain products become accumulations."""
        nodes = [n for n in reachable(self.roots(), self.is_leaf) if n.kind != ONCE]
        uses: dict[Node, int] = defaultdict(int)
        parents: dict[Node, list[Node]] = defaultdict(list)
        for n in nodes:
            if not self.is_leaf(n):
                for i in n.inputs:
                    uses[i] += 1
                    parents[i].append(n)
        for r in self.roots():
            uses[r] += 1
        has_product: set[Node] = set()
        for n in nodes:
            if self.is_leaf(n):
                continue
            if n.op == "matmul" or (n.op == "add" and any(i in has_product for i in n.inputs)):
                has_product.add(n)
        absorbed = {
            n
            for n in has_product
            if uses[n] == 1
            and parents[n]
            and parents[n][0] in has_product
            and parents[n][0].op == "add"
        }
        level: dict[Node, int] = {}
        for n in nodes:
            below = [level.get(i, 0) for i in n.inputs] if not self.is_leaf(n) else []
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
        self.p = replace(self.p, sums={name: rewritten(n) for name, n in self.p.sums.items()})

    def carried(self, nodes: list[Node]) -> set[Node]:
        return depends_on(nodes, {c.read for c in self.p.carries})

    def rewrite(
        self, n: Node, has_product: Any, absorbed: Any, level: Any, carried: Any, rewritten: Any
    ) -> Node:
        if self.is_leaf(n) or n.kind == ONCE:
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
        early = [m for m in products if m.inputs[0] not in carried]
        late = [m for m in products if m not in early]
        products = early + late
        if early:
            rest, foldable = others, []
        if early and late and n in self.two_slots():  # ahead of the loop, in a place of its own
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
            if self.is_leaf(init) or init.op not in OPS or init in (rewritten(f) for f in foldable):
                init = self.make("copy", (init,), (0.0,), ROWS, n.shape)
        total = self.accumulation(n, products, vectors, init, rewritten)
        for m in rest:
            term = m if m.op == "accumulate" else rewritten(m)
            total = self.make("add", (total, term), (0.0,), ROWS, n.shape)
        return total

    def two_slots(self) -> set[Node]:
        return {c.written for c in self.p.carries if not c.kept}

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
        pairs = {c.read for c in self.p.carries if not c.kept}
        nodes = [n for n in reachable(self.roots(), self.is_leaf) if n.kind != ONCE]
        carry_out = [o.node for o in self.outputs if o.argument in self.carry_names()]
        section = sections(nodes, {c.read for c in self.p.carries}, carry_out, self.p.hoist)
        bridges: dict[Node, Node] = {}
        done: dict[Node, Node] = {}

        def source(n: Node) -> Node:
            while n.op == "slice":
                n = n.inputs[0]
            return n

        self.bridged: set[Node] = set()
        for n in nodes:
            if self.is_leaf(n) or n.op == "slice":
                done[n] = n
                continue
            inputs = []
            for i in n.inputs:
                new = done.get(i, i)
                if section[n] == AFTER and source(i) in pairs:
                    if i not in bridges:
                        bridges[i] = self.make("copy", (i,), (0.0,), ROWS, i.shape)
                        self.bridged.add(bridges[i])
                    new = bridges[i]
                inputs.append(new)
            same = tuple(inputs) == n.inputs
            done[n] = n if same else self.make(n.op, inputs, n.attrs, n.kind, n.shape)
        self.outputs = [replace(o, node=done.get(o.node, o.node)) for o in self.outputs]
        self.saved = [done.get(n, n) for n in self.saved]
        self.p = replace(self.p, sums={k: done.get(n, n) for k, n in self.p.sums.items()})

    # ---- schedule

    def schedule_section(self, nodes: list[Node]) -> list[Any]:
        """Items in order: their name, and the nodes (of a block: its width, then its nodes)."""
        mine = set(nodes)
        done: set[Node] = set()
        items: list[Any] = []
        pending = [n for n in nodes if n.op not in ("slice", "concat")]

        def ready(n: Node, block: set[Node] | None = None) -> bool:
            return all(self.available(i, mine, done, block) for i in n.inputs)

        while pending:
            products = [n for n in pending if n.op == "accumulate" and ready(n)]
            if products:
                items.append(("accumulate", products))
                done.update(products)
            else:
                reductions = [n for n in pending if n.op in ("row_sum", "row_max") and ready(n)]
                if reductions:
                    items += [("reduce", n) for n in reductions]
                    done.update(reductions)
                else:
                    block = self.largest_block(pending, mine, done)
                    if block:
                        items.append(("block", block[0].width, block))
                        done.update(block)
                    else:
                        sums = [n for n in pending if n.kind == SUM and ready(n)]
                        if not sums:
                            raise Unsupported(
                                "the step graph has no order of computing", pending[0].op
                            )
                        items += [("sum", n) for n in sums]
                        done.update(sums)
            pending = [n for n in pending if n not in done]
        return items

    def available(self, n: Node, mine: set[Node], done: set[Node], block: set[Node] | None) -> bool:
        if n.kind == ONCE or n.op == "const" or self.is_leaf(n) or n in done:
            return True
        if block is not None and n in block:
            return True
        if n.op in ("slice", "concat"):
            return all(self.available(i, mine, done, None) for i in n.inputs)
        return n not in mine

    def largest_block(self, pending: list[Node], mine: set[Node], done: set[Node]) -> list[Node]:
        """The longest run of elementwise operations of one width that can be played now."""
        best: list[Node] = []
        candidates = [n for n in pending if n.op in OPS or n.op == "spread"]
        for width in sorted({n.width for n in candidates}):
            block: list[Node] = []
            members: set[Node] = set()
            size = 0
            for n in candidates:
                size_of_n = 1 + sum(i.op == "const" or i.width != n.width for i in n.inputs)
                if n.width != width or size + size_of_n > self.max_block:
                    continue
                if all(
                    self.available(i, mine, done, members if self.same_row(n, i) else None)
                    for i in n.inputs
                ):
                    block.append(n)
                    members.add(n)
                    size += size_of_n
            if len(block) > len(best):
                best = block
        return best

    @staticmethod
    def same_row(n: Node, i: Node) -> bool:
        """Whether n reads i within its strip (a column that broadcasts must lie in memory)."""
        return i.width == n.width and n.op != "spread"

    # ---- arrange

    def arrange(self) -> None:
        self.block_of = {
            n: (s, k)
            for s, items in self.schedule.items()
            for k, item in enumerate(items)
            if item[0] == "block"
            for n in item[2]
        }
        users: dict[Node, list[Node]] = defaultdict(list)
        for n in self.nodes:
            for i in n.inputs:
                while i.op == "slice" and not self.is_leaf(i):
                    i = i.inputs[0]
                for piece in i.inputs if i.op == "concat" and not self.is_leaf(i) else (i,):
                    users[piece].append(n)
        self.users = users
        fixed: dict[Node, _Place] = {}
        for k, o in enumerate(self.outputs):
            carry = next((c for c in self.p.carries if c.name == o.argument), None)
            kind = Kind.PAIR if carry is not None and not carry.kept else Kind.TIME
            place = _Place(kind, self.time_buffer(o.argument, carry), self.columns[k], o.dt)
            fixed[o.node] = place
        owner: dict[Node, Node] = {}
        taken: set[Node] = set()  # one accumulation at the most lies where its user will
        saved = set(self.saved)
        for n in reversed(self.nodes):
            if n.op == "accumulate" and n.attrs[2]:
                owner[n.inputs[-1]] = n  # the init lies where the sum will
            alone = len(users[n]) == 1 and n not in saved and n not in fixed and n not in owner
            if n.op == "accumulate" and alone:
                user = users[n][0]
                if (
                    user.op in OPS
                    and user.width == n.width
                    and n in user.inputs
                    and user not in taken
                    and self.in_memory(user, fixed)
                ):
                    owner[n] = user
                    taken.add(user)

        offset: dict[Node, int] = {}
        for n in self.nodes:
            if n.op == "concat":
                at = 0
                for piece in n.inputs:
                    owner[piece], offset[piece] = n, at
                    at += piece.width

        def unit(n: Node) -> Node:
            while n in owner and n not in fixed:
                n = owner[n]
            return n

        members: dict[Node, list[Node]] = defaultdict(list)
        for n in self.nodes:
            if n.kind == ROWS and n.op != "slice" and self.in_memory(n, fixed, owner):
                members[unit(n)].append(n)
        kinds: dict[Node, Kind] = {}
        for u, group in members.items():
            if u in fixed:
                # A place of two slots cannot hold what is computed ahead for many steps.
                if fixed[u].kind == Kind.PAIR and any(self.section[n] != LOOP for n in group):
                    raise _CannotHoist
                continue
            crosses = any(self.section[n] != LOOP for n in group) or any(
                self.section[m] != self.section[n] for n in group for m in users[n]
            )
            kinds[u] = Kind.CHUNK if crosses else Kind.STEP
            if any(n in saved for n in group):
                kinds[u] = Kind.TIME
        self.lay_out(list(kinds), kinds, unit)
        for u, group in members.items():
            for n in group:
                place = fixed[u] if u in fixed else self.places[u]
                self.places[n] = replace(place, column=place.column + offset.get(n, 0))

    def in_memory(
        self, n: Node, fixed: dict[Node, _Place], owner: dict[Node, Node] | None = None
    ) -> bool:
        if (
            n in fixed
            or n.op in ("accumulate", "row_sum", "row_max", "concat")
            or (owner and n in owner)
        ):
            return True
        if n in self.saved:
            return True
        for m in self.users[n]:
            if (
                m.op not in OPS
                or not self.same_row(m, n)
                or self.block_of.get(m) != self.block_of.get(n)
            ):
                return True
            if n not in m.inputs:  # through a slice
                return True
        return not self.users[n]

    def lay_out(self, units: list[Node], kinds: dict[Node, Kind], unit: Any) -> None:
        """Places for units: those that products want side by side, then the others alone."""
        wanted: list[list[Node]] = []
        by_factor: dict[Any, list[Node]] = defaultdict(list)
        for n in self.nodes:
            if n.op == "accumulate":
                factors = []
                for i in range(n.attrs[0]):
                    by_factor["product", n.inputs[2 * i]].append(unit(n))
                    factors.append(unit(n.inputs[2 * i]))
                wanted.append(factors)
            if n.op == "outer":
                for a, b in zip(n.inputs[::2], n.inputs[1::2], strict=True):
                    by_factor["outer", a].append(unit(b))
                    by_factor["outer", b].append(unit(a))
        wanted += by_factor.values()
        free = set(units)
        for kind in (Kind.STEP, Kind.CHUNK, Kind.TIME):
            sets = []
            for group in wanted:
                here = list(dict.fromkeys(u for u in group if u in free and kinds[u] == kind))
                if len(here) > 1 and here not in sets:
                    sets.append(here)
            sets.sort(key=len, reverse=True)
            while sets:
                row = _row_of(sets, free)
                if len(row) > 1:
                    self.place_side_by_side(row, kind)
                    free -= set(row)
                sets = [[u for u in s if u in free] for s in sets]
                sets = [s for s in sets if len(s) > 1]
        for u in units:
            if u in free:
                self.place_side_by_side([u], kinds[u])

    def place_side_by_side(self, units: list[Node], kind: Kind) -> None:
        width, argument, column = sum(u.width for u in units), -1, 0
        if kind == Kind.TIME:
            name = f"tape{len(self.tapes)}"
            self.tapes[name] = width
            argument = self.argument(name)
        buffer = self.buffer(Buffer(kind, width, 0, argument))
        for u in units:
            self.places[u] = _Place(kind, buffer, column, 0)
            column += u.width

    # ---- buffers and arguments

    def buffer(self, b: Buffer) -> int:
        self.buffers.append(b)
        return len(self.buffers) - 1

    def argument(self, key: Any) -> int:
        return self.arguments.setdefault(key, len(self.arguments))

    def time_buffer(self, name: str, carry: CarrySpec | None = None, width: int = 0) -> int:
        key = ("time", name)
        if key not in self.vector_buffers:
            if carry is None:
                carry = next((c for c in self.p.carries if c.name == name), None)
            if carry is not None:
                width = carry.width
            else:
                sizes = [o.node.width for o in self.p.outputs if o.argument == name]
                width = width or sizes[0]
            if carry is not None and not carry.kept:
                self.vector_buffers[key] = self.buffer(Buffer(Kind.PAIR, width))
            else:
                extra = int(name.startswith("carry"))  # one slot more than steps
                self.vector_buffers[key] = self.buffer(
                    Buffer(Kind.TIME, width, extra, self.argument(name))
                )
        return self.vector_buffers[key]

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
        if n in self.leaves:
            leaf = self.leaves[n]
            carry = next((c for c in self.p.carries if c.name == leaf.argument), None)
            return Operand(self.time_buffer(leaf.argument, carry, leaf.width), leaf.column, leaf.dt)
        if n.op == "slice":
            inner = self.operand(n.inputs[0])
            return replace(inner, column=inner.column + n.attrs[0])
        if n.kind == ONCE:
            base, column = _base(n)
            if base not in self.vector_buffers:
                self.vector_buffers[base] = self.buffer(
                    Buffer(Kind.VECTOR, base.width, 0, self.argument(base))
                )
            return Operand(self.vector_buffers[base], column)
        place = self.places[n]
        return Operand(place.buffer, place.column, place.dt)

    # ---- emit

    def emit_section(self, section: str) -> list[Instruction]:
        out: list[Instruction] = []
        for item in self.schedule[section]:
            if item[0] == "accumulate":
                out += self.emit_products(item[1])
            elif item[0] == "reduce":
                n = item[1]
                code = Code.ROW_SUM if n.op == "row_sum" else Code.ROW_MAX
                a = n.inputs[0]
                out.append(Instruction(code, n=a.width, a=self.operand(a), d=self.operand(n)))
            elif item[0] == "block":
                out += self.emit_block(item[1], item[2])
            else:
                out += self.emit_sum(item[1])
        return out

    def emit_products(self, nodes: list[Node]) -> list[Instruction]:
        """Accumulations that can be played together: neighbours in one product."""
        out: list[Instruction] = []
        runs = {n: self.factor_runs(n) for n in nodes}
        for round_ in range(max(len(r) for r in runs.values())):
            todo = sorted(
                (n for n in nodes if round_ < len(runs[n])),
                key=lambda n: (self.operand(n).buffer, self.operand(n).column),
            )
            while todo:
                row = [todo.pop(0)]
                while todo and self.joins(row[-1], todo[0], runs, round_):
                    row.append(todo.pop(0))
                out.append(
                    self.emit_product(row, [runs[n][round_] for n in row], first=round_ == 0)
                )
        return out

    def factor_runs(self, n: Node) -> list[list[tuple[Node, Node]]]:
        """The products of an accumulation; those whose factors lie side by side as one.

        In their own order, wherever the factors lie: the order is the bits.
        """
        pairs = [(n.inputs[2 * i], n.inputs[2 * i + 1]) for i in range(n.attrs[0])]
        order: list[list[tuple[Node, Node]]] = []
        for pair in pairs:
            if order:
                last = order[-1][-1][0]
                a, b = self.operand(last), self.operand(pair[0])
                if (a.buffer, a.dt, a.column + last.width) == (b.buffer, b.dt, b.column):
                    order[-1].append(pair)
                    continue
            order.append([pair])
        return order

    def init_kind(self, n: Node) -> str:
        return "self" if n.attrs[2] else "vectors" if n.attrs[1] else "zero"

    def joins(self, left: Node, right: Node, runs: Any, round_: int) -> bool:
        a, b = self.operand(left), self.operand(right)
        return (
            (a.buffer, a.dt, a.column + left.width) == (b.buffer, b.dt, b.column)
            and [f for f, _ in runs[left][round_]] == [f for f, _ in runs[right][round_]]
            and (round_ > 0 or self.init_kind(left) == self.init_kind(right))
        )

    def emit_product(
        self, row: list[Node], runs: list[list[tuple[Node, Node]]], first: bool
    ) -> Instruction:
        width = sum(n.width for n in row)
        depth = sum(f.width for f, _ in runs[0])
        blocks = []
        column = 0
        for n, pairs in zip(row, runs, strict=True):
            k = 0
            for factor, w in pairs:
                base, r, c = _base_block(w)
                blocks.append(
                    WeightBlock(self.argument(base), k, factor.width, column, n.width, r, c)
                )
                k += factor.width
            column += n.width
        key = (depth, width, tuple(blocks))
        if key not in self.weight_index:
            self.weight_index[key] = len(self.weights)
            self.weights.append(Weight(depth, width, tuple(blocks)))
        d = self.operand(row[0])
        init = Operand()
        if not first or self.init_kind(row[0]) == "self":
            init = d
        elif self.init_kind(row[0]) == "vectors":
            init = self.bias(row, d)
        return Instruction(
            Code.GEMM, n=width, k=depth, weight=self.weight_index[key],
            d=d, a=self.operand(runs[0][0][0]), c=init,
        )  # fmt: skip

    def bias(self, row: list[Node], d: Operand) -> Operand:
        """The sums of the vectors that start a row of accumulations, computed `once`."""
        local = self.buffer(Buffer(Kind.LOCAL, sum(n.width for n in row)))
        column = 0
        for n in row:
            vectors = n.inputs[2 * n.attrs[0] : 2 * n.attrs[0] + n.attrs[1]]
            here = Operand(local, column)
            ops = [Instruction(Code.OP, "copy", d=here, a=self.operand(vectors[0]))]
            ops += [
                Instruction(Code.OP, "add", d=here, a=here, b=self.operand(v)) for v in vectors[1:]
            ]
            self.once.append(Instruction(Code.BLOCK, n=n.width, count=len(ops)))
            self.once += ops
            column += n.width
        return Operand(local)

    def emit_block(self, width: int, nodes: list[Node]) -> list[Instruction]:
        last_use: dict[Node, int] = {}
        for i, n in enumerate(nodes):
            for x in n.inputs:
                last_use[x] = i
        free = list(range(MAX_REGISTERS + 3, -1, -1))
        registers: dict[Node, int] = {}
        out: list[Instruction] = []

        def scratch() -> int:
            if not free:
                raise _BlockTooLarge
            return free.pop()

        def read(x: Node, temporary: list[int]) -> Operand:
            if x in registers:
                return register(registers[x])
            if x.op == "const" and x not in self.leaves:
                temporary.append(scratch())
                out.append(Instruction(Code.OP, "fill", d=register(temporary[-1]), s=x.s))
                return register(temporary[-1])
            if x.width != width:
                temporary.append(scratch())
                out.append(
                    Instruction(Code.BROADCAST, d=register(temporary[-1]), a=self.operand(x))
                )
                return register(temporary[-1])
            return self.operand(x)

        for i, n in enumerate(nodes):
            temporary: list[int] = []
            if n.op == "spread":
                source = n.inputs[0]
                if source.op == "const":
                    operands = [read(source, temporary)]
                    code, op = Code.OP, "copy"
                else:
                    operands, code, op = [self.operand(source)], Code.BROADCAST, "copy"
            else:
                operands, code, op = [read(x, temporary) for x in n.inputs], Code.OP, n.op
            for x in set(n.inputs):
                if x in registers and last_use[x] == i:
                    free.append(registers.pop(x))
            free += temporary
            if n in self.places:
                d = self.operand(n)
            else:
                registers[n] = scratch()
                d = register(registers[n])
            a, b, c = [*operands, Operand(), Operand(), Operand()][:3]
            s = n.s if n.op in OPS else 0.0
            out.append(Instruction(code, op, s=s, d=d, a=a, b=b, c=c))
        if len(out) > MAX_BLOCK + 4:
            raise _BlockTooLarge
        return [Instruction(Code.BLOCK, n=width, count=len(out)), *out]

    def emit_sum(self, node: Node) -> list[Instruction]:
        """Gradients: every part of a sum into its part of the result, neighbours at once."""
        name = next(k for k, n in self.p.sums.items() if n is node)
        parts = self.sum_parts(node)
        # Vectors run along the second factor: let it be the wide one.
        transposed = bool(parts) and parts[0][3] is not None and node.shape[1] < node.shape[0]
        if transposed:
            parts = [(c, r, b, a) for r, c, a, b in parts if b is not None]
        out = []
        gradients: dict[tuple[int, int, int, int], int] = {}
        layers: list[list[tuple[int, int, int, int]]] = []
        for row, column, K, N, a, b in _joined(parts, self.operand):
            key = (row, column, K, N)
            if key not in gradients:
                gradients[key] = len(self.gradients)
                argument = self.argument(
                    SumPart(name, row, column, transposed, _layer(layers, key))
                )
                self.gradients.append(Gradient(K, N, argument))
            if b is None:
                out.append(Instruction(Code.COLUMN_SUM, n=N, weight=gradients[key], a=a))
            else:
                out.append(Instruction(Code.OUTER, n=N, k=K, weight=gradients[key], a=a, b=b))
        return out

    def sum_parts(self, node: Node) -> list[tuple[int, int, Node, Node | None]]:
        """(row, column, a, b) of each term; b is None in a column sum."""
        if node.op == "column_sum":
            return [(r, c, a, None) for (r, c), a in zip(node.attrs, node.inputs, strict=True)]
        pairs = zip(node.inputs[::2], node.inputs[1::2], strict=True)
        return [(r, c, a, b) for (r, c), (a, b) in zip(node.attrs, pairs, strict=True)]


def _joined(parts: list[Any], operand: Any) -> list[Any]:
    """Parts as (row, column, K, N, a, b) of operands; those that continue each other as one.

    A place that receives several terms must be cut the same way by all of them.
    """
    rows = []
    for r, c, a, b in parts:
        wide = a if b is None else b
        rows.append(
            [
                r,
                c,
                1 if b is None else a.width,
                wide.width,
                operand(a),
                None if b is None else operand(b),
            ]
        )
    once = len({(r, c) for r, c, *_ in rows}) == len(rows)
    if not once:
        return rows
    merged: list[Any] = []
    for row in sorted(rows, key=lambda x: x[:2]):
        last = merged[-1] if merged else None
        wide = 4 if row[5] is None else 5
        if (
            last
            and last[0] == row[0]
            and last[2] == row[2]
            and (last[5] is None) == (row[5] is None)
            and (row[5] is None or last[4] == row[4])
            and last[1] + last[3] == row[1]
            and (last[wide].buffer, last[wide].dt, last[wide].column + last[3])
            == (row[wide].buffer, row[wide].dt, row[wide].column)
        ):
            last[3] += row[3]
        else:
            merged.append(list(row))
    return merged


def _layer(layers: list[list[tuple[int, int, int, int]]], part: tuple[int, int, int, int]) -> int:
    """The first layer with room for a rectangle (row, column, K, N), which is entered there."""
    r, c, K, N = part
    for i, layer in enumerate(layers):
        if all(r + K <= q or q + k <= r or c + N <= d or d + n <= c for q, d, k, n in layer):
            layer.append(part)
            return i
    layers.append([part])
    return len(layers) - 1


def _row_of(sets: list[list[Node]], free: set[Node]) -> list[Node]:
    """The largest set, ordered so that a second one that shares members with it joins on."""
    first = sets[0]
    for second in sets[1:]:
        shared = [u for u in first if u in second]
        if shared and set(second) != set(first):
            ahead = [u for u in first if u not in second]
            behind = [u for u in second if u not in first]
            return ahead + shared + behind
    return first


def _base(n: Node) -> tuple[Node, int]:
    """A vector and the column at which a part of it begins."""
    return (n.inputs[0], n.attrs[0]) if n.op == "part" else (n, 0)


def _base_block(w: Node) -> tuple[Node, int, int]:
    return (w.inputs[0], *w.attrs) if w.op == "block" else (w, 0, 0)
