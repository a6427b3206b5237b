"""Instructions for scheduled items whose values have their places."""

from __future__ import annotations

from dataclasses import replace

from ostinato.compiler.graph.node import ONCE, Node
from ostinato.compiler.lower.buffers import Storage, StorageMaker
from ostinato.compiler.lower.emit_block import BlockWriter
from ostinato.compiler.lower.emit_sums import Rectangle, in_layers, sum_terms
from ostinato.compiler.lower.hoist import AFTER, BEFORE, LOOP, Sections
from ostinato.compiler.lower.schedule import BLOCK, REDUCE, SUMMED, Item, Schedule
from ostinato.compiler.lower.spec import Accumulation, CarrySpec, Leaf, Lowered, PassSpec, SumPart
from ostinato.engine.program import (
    NONE,
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
)


def emit(spec: PassSpec, sections: Sections, items: Schedule, storage: Storage) -> Lowered:
    """The program.

    Raises:
        BlockTooLarge: the engine does not take a block of so many instructions.
    """
    emitter = _Emitter(spec, sections, storage)
    before, loop, after = (emitter.section(items[s]) for s in (BEFORE, LOOP, AFTER))
    carries = tuple([emitter.carry(c) for c in spec.carries])
    storage = emitter.make.storage()
    program = Program(
        n_arguments=len(storage.arguments),
        descending=spec.descending,
        buffers=storage.buffers,
        weights=tuple(emitter.weights),
        gradients=tuple(emitter.gradients),
        carries=carries,
        once=tuple(emitter.once),
        before=before,
        loop=loop,
        after=after,
    )
    saved = tuple([_saved_leaf(storage, n) for n in sections.roots.saved])
    return Lowered(program, storage.arguments, dict(storage.tapes), saved)


def _saved_leaf(storage: Storage, n: Node) -> Leaf:
    place = storage.places[n]
    name = storage.arguments[storage.buffers[place.buffer].argument]
    return Leaf(name, storage.tapes[name], place.dt, place.column)


Pairs = list[tuple[Node, Node]]  # factors and weights


class _Emitter:
    """Writes instructions, and collects the weights and gradients that they refer to."""

    def __init__(self, spec: PassSpec, sections: Sections, storage: Storage):
        self.spec = spec
        self.make = StorageMaker(spec, storage)
        self.places = storage.places
        self.sum_names = {n: name for name, n in sections.roots.sums.items()}
        self.weights: dict[Weight, int] = {}
        self.gradients: list[Gradient] = []
        self.once: list[Instruction] = []

    def section(self, items: tuple[Item, ...]) -> tuple[Instruction, ...]:
        out: list[Instruction] = []
        for item in items:
            if item.kind == BLOCK:
                writer = BlockWriter(item.nodes, self.spec.leaves, self.places, self.operand)
                out += writer.instructions()
            elif item.kind == REDUCE:
                out.append(self.reduction(item.nodes[0]))
            elif item.kind == SUMMED:
                out += self.sum(item.nodes[0])
            else:
                out += self.products([n for n in item.nodes if isinstance(n, Accumulation)])
        return tuple(out)

    # ---- operands

    def operand(self, n: Node) -> Operand:
        """Where a value lies in memory."""
        if n in self.spec.leaves:
            leaf = self.spec.leaves[n]
            return Operand(self.make.buffer_of(leaf.argument), leaf.column, leaf.dt)
        if n.op == "slice":
            whole = self.operand(n.inputs[0])
            return replace(whole, column=whole.column + n.attrs[0])
        if n.kind == ONCE:
            if n.op == "part":
                return Operand(self.make.vector(n.inputs[0]), n.attrs[0])
            return Operand(self.make.vector(n))
        return self.places[n]

    def carry(self, c: CarrySpec) -> Carry:
        init, final = self.make.argument(c.init), self.make.argument(c.final)
        return Carry(self.make.buffer_of(c.name), init, final)

    # ---- accumulations

    def products(self, nodes: list[Accumulation]) -> list[Instruction]:
        """Accumulations that are ready together; neighbours are columns of one product.

        In the k-th round, each adds the k-th of its runs.
        """
        out: list[Instruction] = []
        runs = {n: self.runs(n) for n in nodes}
        for k in range(max(len(r) for r in runs.values())):
            todo = [n for n in nodes if k < len(runs[n])]
            for row in self.neighbours(todo, runs, k):
                _add(out, self.product(row, [runs[n][k] for n in row], first=k == 0))
        return out

    def runs(self, n: Accumulation) -> list[Pairs]:
        """The products of an accumulation, joined where their factors lie side by side.

        They stay in their order, wherever the factors lie: the order decides the bits.
        """
        runs: list[Pairs] = []
        for pair in n.products:
            if runs and self.side_by_side(runs[-1][-1][0], pair[0]):
                runs[-1].append(pair)
            else:
                runs.append([pair])
        return runs

    def side_by_side(self, left: Node, right: Node) -> bool:
        a, b = self.operand(left), self.operand(right)
        return (a.buffer, a.dt, a.column + left.width) == (b.buffer, b.dt, b.column)

    def neighbours(
        self, nodes: list[Accumulation], runs: dict[Accumulation, list[Pairs]], k: int
    ) -> list[list[Accumulation]]:
        """The accumulations in rows that lie side by side and multiply the same factors."""

        def alike(left: Accumulation, right: Accumulation) -> bool:
            factors, others = ([a for a, _ in runs[n][k]] for n in (left, right))
            return factors == others and (k > 0 or _start_kind(left) == _start_kind(right))

        rows: list[list[Accumulation]] = []
        places = {n: self.operand(n) for n in nodes}
        for n in sorted(nodes, key=lambda n: (places[n].buffer, places[n].column)):
            if rows and self.side_by_side(rows[-1][-1], n) and alike(rows[-1][-1], n):
                rows[-1].append(n)
            else:
                rows.append([n])
        return rows

    def product(self, row: list[Accumulation], runs: list[Pairs], first: bool) -> Instruction:
        """One product whose columns belong to the accumulations of a row.

        Args:
            first: it starts them; otherwise it adds to them.
        """
        weight = self.weight(row, runs)
        return Instruction(
            Code.GEMM,
            n=weight.N,
            k=weight.K,
            weight=self.weights.setdefault(weight, len(self.weights)),
            d=self.operand(row[0]),
            c=self.start(row, first),
            a=self.operand(runs[0][0][0]),
        )

    def start(self, row: list[Accumulation], first: bool) -> Operand:
        """What a product is added to."""
        if not first or row[0].init is not None:
            return self.operand(row[0])
        return self.bias(row) if row[0].vectors else NONE

    def weight(self, row: list[Accumulation], runs: list[Pairs]) -> Weight:
        blocks = []
        column = 0
        for n, pairs in zip(row, runs, strict=True):
            k = 0
            for a, w in pairs:
                base, r, c = (w.inputs[0], *w.attrs) if w.op == "block" else (w, 0, 0)
                argument = self.make.argument(base)
                blocks.append(WeightBlock(argument, k, a.width, column, n.width, r, c))
                k += a.width
            column += n.width
        return Weight(k, column, tuple(blocks))

    def bias(self, row: list[Accumulation]) -> Operand:
        """The sums of the vectors that start a row of accumulations, computed `once`."""
        local = self.make.buffer(Buffer(Kind.LOCAL, sum(n.width for n in row)))
        column = 0
        for n in row:
            here = Operand(local, column)
            first, *others = n.vectors
            ops = [Instruction(Code.OP, "copy", d=here, a=self.operand(first))]
            ops += [Instruction(Code.OP, "add", d=here, a=here, b=self.operand(v)) for v in others]
            self.once += [Instruction(Code.BLOCK, n=n.width, count=len(ops)), *ops]
            column += n.width
        return Operand(local)

    # ---- reductions and sums

    def reduction(self, n: Node) -> Instruction:
        code = Code.ROW_SUM if n.op == "row_sum" else Code.ROW_MAX
        a = n.inputs[0]
        return Instruction(code, n=a.width, a=self.operand(a), d=self.operand(n))

    def sum(self, node: Node) -> list[Instruction]:
        """Every term of a sum over rows and steps, into its rectangle of the result."""
        terms, transposed = sum_terms(node, self.operand)
        gradients = {
            rectangle: self.gradient(node, rectangle, layer, transposed)
            for rectangle, layer in in_layers(terms).items()
        }
        return [
            Instruction(Code.COLUMN_SUM, n=t.N, weight=gradients[t.rectangle], a=t.b)
            if t.a is None
            else Instruction(Code.OUTER, n=t.N, k=t.K, weight=gradients[t.rectangle], a=t.a, b=t.b)
            for t in terms
        ]

    def gradient(self, node: Node, rectangle: Rectangle, layer: int, transposed: bool) -> int:
        row, column, K, N = rectangle
        if transposed:
            row, column = column, row
        part = SumPart(self.sum_names[node], row, column, node.shape[1], layer)
        self.gradients.append(Gradient(K, N, self.make.argument(part), transposed))
        return len(self.gradients) - 1


def _start_kind(n: Accumulation) -> tuple[bool, bool]:
    return n.init is not None, bool(n.vectors)


def _add(products: list[Instruction], new: Instruction) -> None:
    """Put a product directly behind the last one that it adds to: the engine plays both at once."""
    at = len(products)
    while at > 0 and _apart(products[at - 1], new):
        at -= 1
    products.insert(at or len(products), new)


def _apart(x: Instruction, y: Instruction) -> bool:
    """Whether two results share no column."""
    same = (x.d.buffer, x.d.dt) == (y.d.buffer, y.d.dt)
    return not same or x.d.column + x.n <= y.d.column or y.d.column + y.n <= x.d.column
