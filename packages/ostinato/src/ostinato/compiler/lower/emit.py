"""Instructions for scheduled items whose values have their places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, TypeVar

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import ONCE, SUM, WITHIN_ROWS, Node, axis_of
from ostinato.compiler.lower.buffers import Layout
from ostinato.compiler.lower.hoist import AFTER, BEFORE, LOOP, Sections
from ostinato.compiler.lower.schedule import Item, Schedule, is_elementwise
from ostinato.compiler.lower.spec import Accumulation, CarrySpec, Leaf, Lowered, Pair, SumPart
from ostinato.engine.program import (
    MAX_ARGUMENTS,
    MAX_WIDTH,
    NONE,
    Buffer,
    Carry,
    Code,
    ElementRun,
    Gradient,
    IndexTable,
    Instruction,
    Kind,
    Operand,
    Program,
    SmallProduct,
    Weight,
    WeightBlock,
    register,
)

T = TypeVar("T")

MAX_BLOCK, MAX_REGISTERS = 64, 48  # the engine's kMaxBlock and kMaxRegisters
PANEL = 64  # columns of a register tile of the widest vectors

Part = tuple[Accumulation, list[Pair]]  # products of an accumulation
Rectangle = tuple[int, int, int, int]  # row, column, number of rows, number of columns


class BlockTooLarge(Exception):  # noqa: N818
    """A block needs more instructions or registers than the engine has."""


def emit(sections: Sections, items: Schedule, layout: Layout) -> Lowered:
    """The program.

    Raises:
        BlockTooLarge: a block has more instructions or registers than the engine allows.
        Unsupported: a row is too wide for the engine, or there are too many tensors.
    """
    spec = sections.spec
    emitter = _Emitter(sections, layout)
    before, loop, after = (emitter.section(items[s]) for s in (BEFORE, LOOP, AFTER))
    carries = tuple([emitter.carry(c) for c in spec.carries])
    arguments = tuple(emitter.arguments)
    program = Program(
        len(arguments),
        spec.descending,
        tuple(emitter.buffers),
        tuple(emitter.weights),
        tuple(emitter.gradients),
        carries,
        tuple(emitter.tables),
        tuple(emitter.small_products),
        tuple(emitter.once),
        before,
        loop,
        after,
    )
    if len(arguments) > MAX_ARGUMENTS:
        raise Unsupported(f"a pass has {len(arguments)} tensors; the engine takes {MAX_ARGUMENTS}")
    widest = max([b.width for b in program.buffers], default=0)
    if widest > MAX_WIDTH:
        raise Unsupported(f"a row has {widest} numbers; the engine takes {MAX_WIDTH}")
    saved = []
    for place in (layout.places[n] for n in spec.saved):
        tape = program.buffers[place.buffer]
        saved.append(Leaf(arguments[tape.argument], tape.width, place.dt, place.column))
    return Lowered(program, arguments, emitter.tapes, tuple(saved))


def _numbers() -> defaultdict[Any, int]:
    """Numbers keys in the order of their first use, from 0 on."""
    return defaultdict(count().__next__)


class _Emitter:
    """Writes instructions. Arguments, weights and tables are numbered when first used.

    Attributes:
        arguments: the number of each argument; the keys are described in `Lowered`.
        tapes: the arguments for saved values → their widths.
    """

    def __init__(self, sections: Sections, layout: Layout):
        self.spec = sections.spec
        self.places = layout.places
        self.sum_names = {n: name for name, n in self.spec.sums.items()}
        self.arguments, self.weights, self.gradients = _numbers(), _numbers(), _numbers()
        self.tables, self.small_products = _numbers(), _numbers()
        self.tapes: dict[str, int] = {}
        self.buffers: list[Buffer] = []
        self._buffer_of: dict[str | Node, int] = {}  # of an argument over time, a carry or a vector
        self.once: list[Instruction] = []
        for b in layout.buffers:
            if isinstance(b, str):
                self.buffer_of(b)
            elif b.kind == Kind.TAPE:
                name = f"tape{len(self.tapes)}"
                self.tapes[name] = b.width
                self.buffer(replace(b, argument=self.arguments[name]))
            else:
                self.buffer(b)

    def section(self, items: tuple[Item, ...]) -> tuple[Instruction, ...]:
        return tuple(chain.from_iterable(map(self.instructions, items)))

    def instructions(self, item: Item) -> list[Instruction]:
        n = item[0]
        if is_elementwise(n):
            return _BlockWriter(item, self).instructions()
        if n.op in WITHIN_ROWS:
            return [self.within_rows(n)]
        if n.kind == SUM:
            return self.sum(n)
        return self.products([n for n in item if isinstance(n, Accumulation)])

    # ---- operands

    def buffer(self, b: Buffer) -> int:
        self.buffers.append(b)
        return len(self.buffers) - 1

    def buffer_of(self, key: str | Node) -> int:
        """The buffer of an argument over time or a carry (a name), or of a vector (a node)."""
        if key not in self._buffer_of:
            self._buffer_of[key] = self.buffer(self.outside(key))
        return self._buffer_of[key]

    def outside(self, key: str | Node) -> Buffer:
        if isinstance(key, Node):
            return Buffer(Kind.VECTOR, key.width, 0, self.arguments[key])
        if key in self.spec.short_carries:
            return Buffer(Kind.PAIR, self.spec.widths[key])
        own = key.startswith("tape") or key in self.spec.hidden
        extra = int(key.startswith("carry"))  # one slot more than there are steps
        kind = Kind.TAPE if own else Kind.TIME
        return Buffer(kind, self.spec.widths[key], extra, self.arguments[key])

    def operand(self, n: Node) -> Operand:
        """The place of a value in memory."""
        if n in self.spec.leaves:
            leaf = self.spec.leaves[n]
            return Operand(self.buffer_of(leaf.argument), leaf.column, leaf.dt)
        if n.op in ("slice", "part"):
            return self.operand(n.inputs[0]).right(n.attrs[0])
        return Operand(self.buffer_of(n)) if n.kind == ONCE else self.places[n]

    def carry(self, c: CarrySpec) -> Carry:
        init, final = self.arguments[c.init], self.arguments[c.final]
        return Carry(self.buffer_of(c.name), init, final)

    # ---- accumulations

    def products(self, nodes: list[Accumulation]) -> list[Instruction]:
        """Accumulations that are ready together; neighbours are columns of one product.

        In the k-th round, each adds the k-th of its runs.
        """
        out: list[Instruction] = []
        runs = {n: self.runs(n) for n in nodes}
        for k in range(max(map(len, runs.values()))):
            parts = [(n, runs[n][k]) for n in nodes if k < len(runs[n])]
            for row in self.neighbours(parts, first=k == 0):
                _add(out, self.product(row, first=k == 0))
        return out

    def runs(self, n: Accumulation) -> list[list[Pair]]:
        """The products of an accumulation, joined where their factors lie side by side.

        They keep their order, since it decides the bits.
        """
        return _runs(n.products, lambda left, right: self.side_by_side(left[0], right[0]))

    def side_by_side(self, left: Node, right: Node) -> bool:
        return self.operand(left).right(left.width) == self.operand(right)

    def neighbours(self, parts: list[Part], first: bool) -> list[list[Part]]:
        """The parts in rows: those of a row are adjacent in memory and have the same factors."""

        def together(left: Part, right: Part) -> bool:
            (n, pairs), (m, others) = left, right
            same_factors = [a for a, _ in pairs] == [a for a, _ in others]
            alike = not first or {i.kind for i in n.start} == {i.kind for i in m.start}
            return same_factors and alike and self.side_by_side(n, m)

        def place(part: Part) -> tuple[int, int]:
            d = self.operand(part[0])
            return d.buffer, d.column

        return _runs(sorted(parts, key=place), together)

    def product(self, row: list[Part], first: bool) -> Instruction:
        """One product for the accumulations of a row; `first` if it starts them."""
        weight = self.weight(row)
        number = self.weights[weight]
        (n, pairs), *_ = row
        c = d = self.operand(n)
        if first and n.init is None:
            c = self.bias([m for m, _ in row]) if n.start else NONE
        a = self.operand(pairs[0][0])
        return Instruction(Code.GEMM, n=weight.N, k=weight.K, weight=number, d=d, c=c, a=a)

    def weight(self, row: list[Part]) -> Weight:
        blocks = []
        column = 0
        for n, pairs in row:
            k = 0
            for a, w in pairs:
                base, r, c = (w.inputs[0], *w.attrs) if w.op == "block" else (w, 0, 0)
                argument = self.arguments[base]
                blocks.append(WeightBlock(argument, k, a.width, column, n.width, r, c))
                k += a.width
            column += n.width
        return Weight(k, column, tuple(blocks))

    def bias(self, row: list[Accumulation]) -> Operand:
        """The sums of the vectors that start a row of accumulations, computed `once`."""
        local = self.buffer(Buffer(Kind.LOCAL, sum(n.width for n in row)))
        column = 0
        for n in row:
            here = Operand(local, column)
            first, *others = n.start
            ops = [Instruction(Code.OP, "copy", d=here, a=self.operand(first))]
            ops += [Instruction(Code.OP, "add", d=here, a=here, b=self.operand(v)) for v in others]
            self.once += [Instruction(Code.BLOCK, n=n.width, count=len(ops)), *ops]
            column += n.width
        return Operand(local)

    # ---- operations within rows, and sums

    def within_rows(self, n: Node) -> Instruction:
        d, a = self.operand(n), self.operand(n.inputs[0])
        if n.op == "take":
            number = self.table(n.inputs[0], n.attrs)
            return Instruction(Code.TAKE, n=n.width, weight=number, a=a, d=d)
        if n.op == "product":
            number = self.small_product(n)
            b = self.operand(n.inputs[1])
            return Instruction(Code.PRODUCT, n=n.width, weight=number, a=a, b=b, d=d)
        code = Code.ROW_SUM if n.op == "row_sum" else Code.ROW_MAX
        times, inner = axis_of(n)
        return Instruction(code, n=n.inputs[0].width, k=times, inner=inner, a=a, d=d)

    def table(self, source: Node, runs: Iterable[tuple[int, int, int]]) -> int:
        return self.tables[IndexTable(source.width, tuple([ElementRun(*r) for r in runs]))]

    def small_product(self, n: Node) -> int:
        groups, M, K, N, across, *runs = n.attrs
        table = self.table(n.inputs[1], runs[0]) if runs else -1
        return self.small_products[SmallProduct(groups, M, K, N, across, table)]

    def sum(self, node: Node) -> list[Instruction]:
        """Instructions that add every term of a sum over rows and steps to its rectangle."""
        if node.op == "product_sum":
            return [self.sum_of_products(node)]
        terms, transposed = sum_terms(node, self.operand)
        number: dict[Rectangle, int] = {}
        for rectangle, layer in in_layers(terms).items():
            row, column, K, N = rectangle
            corner = (column, row) if transposed else (row, column)
            part = SumPart(self.sum_names[node], *corner, node.shape[1], layer)
            number[rectangle] = self.gradients[Gradient(K, N, self.arguments[part], transposed)]
        return [
            Instruction(Code.COLUMN_SUM, n=t.N, weight=number[t.rectangle], a=t.b)
            if t.a == NONE
            else Instruction(Code.OUTER, n=t.N, k=t.K, weight=number[t.rectangle], a=t.a, b=t.b)
            for t in terms
        ]

    def sum_of_products(self, node: Node) -> Instruction:
        groups, M, _, N, *_ = node.attrs
        part = SumPart(self.sum_names[node], 0, 0, N, 0)
        gradient = self.gradients[Gradient(groups * M, N, self.arguments[part])]
        a, b = (self.operand(i) for i in node.inputs)
        return Instruction(
            Code.PRODUCT_SUM,
            n=N,
            k=groups * M,
            weight=gradient,
            count=self.small_product(node),
            a=a,
            b=b,
        )


def _runs(items: Iterable[T], together: Callable[[T, T], bool]) -> list[list[T]]:
    """The items, in runs of neighbours that belong together."""
    runs: list[list[T]] = []
    for item in items:
        if runs and together(runs[-1][-1], item):
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _add(products: list[Instruction], new: Instruction) -> None:
    """Insert a product behind the last one that it adds to: the engine plays both at once."""
    at = len(products)
    while at > 0 and _apart(products[at - 1], new):
        at -= 1
    products.insert(at or len(products), new)


def _apart(x: Instruction, y: Instruction) -> bool:
    """Whether two results share no column."""
    same = (x.d.buffer, x.d.dt) == (y.d.buffer, y.d.dt)
    return not same or x.d.column + x.n <= y.d.column or y.d.column + y.n <= x.d.column


# ---- blocks of elementwise operations, and their registers


class _BlockWriter:
    """Writes a block: a value without a place is held in a register until it is last read."""

    def __init__(self, nodes: tuple[Node, ...], emitter: _Emitter):
        self.emitter = emitter
        self.nodes = nodes
        self.width = nodes[0].width
        self.last_use = {x: i for i, n in enumerate(self.nodes) for x in n.inputs}
        self.free = list(range(MAX_REGISTERS - 1, -1, -1))
        self.holding: dict[Node, int] = {}
        self.out: list[Instruction] = []

    def instructions(self) -> list[Instruction]:
        for i, n in enumerate(self.nodes):
            self.add(i, n)
        if len(self.out) > MAX_BLOCK:
            raise BlockTooLarge
        return [Instruction(Code.BLOCK, n=self.width, count=len(self.out)), *self.out]

    def add(self, i: int, n: Node) -> None:
        """Compute n, the i-th node of the block."""
        temporary: list[int] = []
        source = n.inputs[0] if n.op == "spread" else None
        times, inner = 0, 1
        if source is not None and source.op != "const":
            code, operands = Code.BROADCAST, [self.emitter.operand(source)]
            times, inner = axis_of(n)
        else:
            code, operands = Code.OP, [self.read(x, temporary) for x in n.inputs]
        for x in dict.fromkeys(n.inputs):
            if x in self.holding and self.last_use[x] == i:
                self.free.append(self.holding.pop(x))
        self.free += temporary
        if n in self.emitter.places:
            d = self.emitter.operand(n)
        else:
            self.holding[n] = self.take()
            d = register(self.holding[n])
        op, s = ("copy", 0.0) if n.op == "spread" else (n.op, n.s)
        a, b, c = [*operands, NONE, NONE, NONE][:3]
        self.out.append(Instruction(code, op, k=times, inner=inner, s=s, d=d, a=a, b=b, c=c))

    def read(self, x: Node, temporary: list[int]) -> Operand:
        """An operand as wide as the block. A register filled for it is added to `temporary`."""
        if x in self.holding:
            return register(self.holding[x])
        constant = x.op == "const" and not self.emitter.spec.is_leaf(x)
        if not constant and x.width == self.width:
            return self.emitter.operand(x)
        d = register(self.take())
        temporary.append(d.register)
        if constant:
            self.out.append(Instruction(Code.OP, "fill", d=d, s=x.s))
        else:
            self.out.append(
                Instruction(Code.BROADCAST, k=self.width, d=d, a=self.emitter.operand(x))
            )
        return d

    def take(self) -> int:
        if not self.free:
            raise BlockTooLarge
        return self.free.pop()


# ---- sums over rows and steps: their terms, and the memory they are summed in


@dataclass(frozen=True)
class SumTerm:
    """aᵀ b, `[K, N]`, or b alone, `[1, N]`: added to a rectangle of the result."""

    row: int
    column: int
    K: int
    N: int
    a: Operand  # or NONE
    b: Operand

    @property
    def rectangle(self) -> Rectangle:
        return self.row, self.column, self.K, self.N

    def continued_by(self, right: SumTerm) -> bool:
        """Whether the other lies to the right of this one: the same rows, and b side by side."""
        column, b = self.column + self.N, self.b.right(self.N)
        return (self.row, column, self.K, self.a, b) == (
            right.row,
            right.column,
            right.K,
            right.a,
            right.b,
        )

    @property
    def transposed(self) -> SumTerm:
        return SumTerm(self.column, self.row, self.N, self.K, self.b, self.a)


def sum_terms(node: Node, operand: Callable[[Node], Operand]) -> tuple[list[SumTerm], bool]:
    """The terms of an `outer` or `column_sum` node, and whether they give its transpose.

    The engine's vectors run along the second factor, so a wide second factor is faster.
    """
    if node.op == "column_sum":
        terms = [
            SumTerm(row, column, 1, b.width, NONE, operand(b))
            for (row, column), b in zip(node.attrs, node.inputs, strict=True)
        ]
        return _joined(terms), False
    n_rows, n_columns = node.shape
    transposed = n_columns < min(n_rows, PANEL)
    terms = []
    for (row, column), a, b in zip(node.attrs, node.inputs[::2], node.inputs[1::2], strict=True):
        if transposed:
            row, column, a, b = column, row, b, a
        terms.append(SumTerm(row, column, a.width, b.width, operand(a), operand(b)))
    return _joined(terms), transposed


def in_layers(terms: list[SumTerm]) -> dict[Rectangle, int]:
    """The layer of each rectangle; rectangles that overlap get different layers."""
    layer_of: dict[Rectangle, int] = {}
    for rectangle in dict.fromkeys(t.rectangle for t in terms):
        taken = {layer for other, layer in layer_of.items() if _overlap(rectangle, other)}
        layer_of[rectangle] = next(k for k in count() if k not in taken)
    return layer_of


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    (r, c, K, N), (q, d, k, n) = a, b
    return not (r + K <= q or q + k <= r or c + N <= d or d + n <= c)


def _joined(terms: list[SumTerm]) -> list[SumTerm]:
    """The terms; adjacent ones, to the right or below, are joined into one."""
    wide = _widened(terms)
    return [t.transposed for t in _widened([t.transposed for t in wide])]


def _widened(terms: list[SumTerm]) -> list[SumTerm]:
    runs = _runs(sorted(terms, key=lambda t: (t.row, t.column)), SumTerm.continued_by)
    return [replace(run[0], N=sum(t.N for t in run)) for run in runs]
