"""Instructions for scheduled items whose values have their places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ostinato.compiler.graph.node import Node
from ostinato.compiler.lower.buffers import Storage
from ostinato.compiler.lower.schedule import ACCUMULATE, BLOCK, REDUCE, Item
from ostinato.compiler.lower.spec import SumPart
from ostinato.engine.ops import OPS
from ostinato.engine.program import (
    Buffer,
    Code,
    Gradient,
    Instruction,
    Kind,
    Operand,
    Weight,
    WeightBlock,
    register,
)

MAX_BLOCK, MAX_REGISTERS = 64, 48  # the engine's kMaxBlock and kMaxRegisters
PANEL = 64  # columns of a register tile of the widest vectors


class BlockTooLarge(Exception):  # noqa: N818
    """A block needs more instructions or registers than the engine has."""


class Emitter:
    """Writes instructions, and collects the weights and gradients they refer to.

    Args:
        sums: the sums over rows and steps, by name.
    """

    def __init__(self, storage: Storage, sums: dict[str, Node]):
        self.storage = storage
        self.sums = sums
        self.weights: list[Weight] = []
        self.weight_index: dict[Any, int] = {}
        self.gradients: list[Gradient] = []
        self.once: list[Instruction] = []

    def section(self, items: list[Item]) -> list[Instruction]:
        out: list[Instruction] = []
        for item in items:
            if item.kind == ACCUMULATE:
                out += self.products(item.nodes)
            elif item.kind == REDUCE:
                out.append(self.reduction(item.nodes[0]))
            elif item.kind == BLOCK:
                out += self.block(item.nodes)
            else:
                out += self.sum(item.nodes[0])
        return out

    def reduction(self, n: Node) -> Instruction:
        code = Code.ROW_SUM if n.op == "row_sum" else Code.ROW_MAX
        a = n.inputs[0]
        return Instruction(code, n=a.width, a=self.storage.operand(a), d=self.storage.operand(n))

    def products(self, nodes: list[Node]) -> list[Instruction]:
        """Accumulations that can be played together: neighbours in one product."""
        out: list[Instruction] = []
        runs = {n: self.factor_runs(n) for n in nodes}
        for round_ in range(max(len(r) for r in runs.values())):
            todo = sorted(
                (n for n in nodes if round_ < len(runs[n])),
                key=lambda n: (self.storage.operand(n).buffer, self.storage.operand(n).column),
            )
            while todo:
                row = [todo.pop(0)]
                while todo and self.joins(row[-1], todo[0], runs, round_):
                    row.append(todo.pop(0))
                _add(out, self.product(row, [runs[n][round_] for n in row], first=round_ == 0))
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
                a, b = self.storage.operand(last), self.storage.operand(pair[0])
                if (a.buffer, a.dt, a.column + last.width) == (b.buffer, b.dt, b.column):
                    order[-1].append(pair)
                    continue
            order.append([pair])
        return order

    def init_kind(self, n: Node) -> str:
        return "self" if n.attrs[2] else "vectors" if n.attrs[1] else "zero"

    def joins(self, left: Node, right: Node, runs: Any, round_: int) -> bool:
        a, b = self.storage.operand(left), self.storage.operand(right)
        return (
            (a.buffer, a.dt, a.column + left.width) == (b.buffer, b.dt, b.column)
            and [f for f, _ in runs[left][round_]] == [f for f, _ in runs[right][round_]]
            and (round_ > 0 or self.init_kind(left) == self.init_kind(right))
        )

    def product(
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
                    WeightBlock(self.storage.argument(base), k, factor.width, column, n.width, r, c)
                )
                k += factor.width
            column += n.width
        key = (depth, width, tuple(blocks))
        if key not in self.weight_index:
            self.weight_index[key] = len(self.weights)
            self.weights.append(Weight(depth, width, tuple(blocks)))
        d = self.storage.operand(row[0])
        init = Operand()
        if not first or self.init_kind(row[0]) == "self":
            init = d
        elif self.init_kind(row[0]) == "vectors":
            init = self.bias(row, d)
        return Instruction(
            Code.GEMM, n=width, k=depth, weight=self.weight_index[key],
            d=d, a=self.storage.operand(runs[0][0][0]), c=init,
        )  # fmt: skip

    def bias(self, row: list[Node], d: Operand) -> Operand:
        """The sums of the vectors that start a row of accumulations, computed `once`."""
        local = self.storage.buffer(Buffer(Kind.LOCAL, sum(n.width for n in row)))
        column = 0
        for n in row:
            vectors = n.inputs[2 * n.attrs[0] : 2 * n.attrs[0] + n.attrs[1]]
            here = Operand(local, column)
            ops = [Instruction(Code.OP, "copy", d=here, a=self.storage.operand(vectors[0]))]
            ops += [
                Instruction(Code.OP, "add", d=here, a=here, b=self.storage.operand(v))
                for v in vectors[1:]
            ]
            self.once.append(Instruction(Code.BLOCK, n=n.width, count=len(ops)))
            self.once += ops
            column += n.width
        return Operand(local)

    def block(self, nodes: list[Node]) -> list[Instruction]:
        width = nodes[0].width
        nodes = self.without_copies(nodes)
        last_use: dict[Node, int] = {}
        for i, n in enumerate(nodes):
            for x in n.inputs:
                last_use[x] = i
        free = list(range(MAX_REGISTERS - 1, -1, -1))
        registers: dict[Node, int] = {}
        out: list[Instruction] = []

        def scratch() -> int:
            if not free:
                raise BlockTooLarge
            return free.pop()

        def read(x: Node, temporary: list[int]) -> Operand:
            if x in registers:
                return register(registers[x])
            if x.op == "const" and not self.storage.p.is_leaf(x):
                temporary.append(scratch())
                out.append(Instruction(Code.OP, "fill", d=register(temporary[-1]), s=x.s))
                return register(temporary[-1])
            if x.width != width:
                temporary.append(scratch())
                out.append(
                    Instruction(
                        Code.BROADCAST, d=register(temporary[-1]), a=self.storage.operand(x)
                    )
                )
                return register(temporary[-1])
            return self.storage.operand(x)

        for i, n in enumerate(nodes):
            temporary: list[int] = []
            if n.op == "spread":
                source = n.inputs[0]
                if source.op == "const":
                    operands = [read(source, temporary)]
                    code, op = Code.OP, "copy"
                else:
                    operands, code, op = [self.storage.operand(source)], Code.BROADCAST, "copy"
            else:
                operands, code, op = [read(x, temporary) for x in n.inputs], Code.OP, n.op
            for x in set(n.inputs):
                if x in registers and last_use[x] == i:
                    free.append(registers.pop(x))
            free += temporary
            if n in self.storage.places:
                d = self.storage.operand(n)
            else:
                registers[n] = scratch()
                d = register(registers[n])
            a, b, c = [*operands, Operand(), Operand(), Operand()][:3]
            s = n.s if n.op in OPS else 0.0
            out.append(Instruction(code, op, s=s, d=d, a=a, b=b, c=c))
        if len(out) > MAX_BLOCK:
            raise BlockTooLarge
        return [Instruction(Code.BLOCK, n=width, count=len(out)), *out]

    def without_copies(self, nodes: list[Node]) -> list[Node]:
        """A block without copies of what can be computed where its copy would lie.

        Nothing is there before: a place is of the value first written to it, and later of what is
        added to that, or computed of the sum.
        """
        places = self.storage.places
        kept: list[Node] = []
        for n in nodes:
            if n.op == "copy" and n.inputs[0] in kept and n.inputs[0] not in places:
                places[n.inputs[0]] = places[n]
            else:
                kept.append(n)
        return kept

    def sum(self, node: Node) -> list[Instruction]:
        """Gradients: every part of a sum into its part of the result, neighbours at once."""
        name = next(k for k, n in self.sums.items() if n is node)
        parts = self.sum_parts(node)
        # Vectors run along the second factor: that had better be the longer one.
        n_rows, n_columns = node.shape
        transposed = node.op == "outer" and n_columns < min(n_rows, PANEL)
        if transposed:
            parts = [(c, r, b, a) for r, c, a, b in parts if b is not None]
        out = []
        gradients: dict[tuple[int, int, int, int], int] = {}
        layers: list[list[tuple[int, int, int, int]]] = []
        for t in _joined(parts, self.storage.operand):
            key = (t.row, t.column, t.K, t.N)
            if key not in gradients:
                gradients[key] = len(self.gradients)
                row, column = (t.column, t.row) if transposed else (t.row, t.column)
                part = SumPart(name, row, column, n_columns, _layer(layers, key))
                argument = self.storage.argument(part)
                self.gradients.append(Gradient(t.K, t.N, argument, transposed))
            index = gradients[key]
            if t.a is None:
                out.append(Instruction(Code.COLUMN_SUM, n=t.N, weight=index, a=t.b))
            else:
                out.append(Instruction(Code.OUTER, n=t.N, k=t.K, weight=index, a=t.a, b=t.b))
        return out

    def sum_parts(self, node: Node) -> list[tuple[int, int, Node, Node | None]]:
        """(row, column, a, b) of each term; b is None in a column sum."""
        if node.op == "column_sum":
            return [(r, c, a, None) for (r, c), a in zip(node.attrs, node.inputs, strict=True)]
        pairs = zip(node.inputs[::2], node.inputs[1::2], strict=True)
        return [(r, c, a, b) for (r, c), (a, b) in zip(node.attrs, pairs, strict=True)]


@dataclass
class _Term:
    """A sum's term: a[K]ᵀ b[N], or b[N] alone, into (row, column) of the result."""

    row: int
    column: int
    K: int
    N: int
    a: Operand | None
    b: Operand

    def beside(self, left: _Term) -> bool:
        """Whether it continues `left` to the right: the same rows, b side by side."""
        return (
            (left.row, left.K, left.a) == (self.row, self.K, self.a)
            and left.column + left.N == self.column
            and _continues(left.b, left.N, self.b)
        )

    def below(self, above: _Term) -> bool:
        """Whether it continues `above` downwards: the same columns, a side by side."""
        return (
            above.a is not None
            and self.a is not None
            and (above.column, above.N, above.b) == (self.column, self.N, self.b)
            and above.row + above.K == self.row
            and _continues(above.a, above.K, self.a)
        )


def _add(products: list[Instruction], new: Instruction) -> None:
    """Directly behind the last one that it adds to: the engine plays those in one pass."""
    at = len(products)
    while at > 0 and _apart(products[at - 1], new):
        at -= 1
    products.insert(at or len(products), new)


def _apart(x: Instruction, y: Instruction) -> bool:
    """Whether two results share no column."""
    same = (x.d.buffer, x.d.dt) == (y.d.buffer, y.d.dt)
    return not same or x.d.column + x.n <= y.d.column or y.d.column + y.n <= x.d.column


def _continues(first: Operand, width: int, second: Operand) -> bool:
    return replace(first, column=first.column + width) == second


def _joined(parts: list[Any], operand: Callable[[Node], Operand]) -> list[_Term]:
    """The terms; those that continue each other as one.

    A place that receives several terms must be cut the same way by all of them.
    """
    terms = [
        _Term(r, c, 1, a.width, None, operand(a))
        if b is None
        else _Term(r, c, a.width, b.width, operand(a), operand(b))
        for r, c, a, b in parts
    ]
    if len({(t.row, t.column) for t in terms}) < len(terms):
        return terms
    wide: list[_Term] = []
    for t in sorted(terms, key=lambda t: (t.row, t.column)):
        if wide and t.beside(wide[-1]):
            wide[-1].N += t.N
        else:
            wide.append(t)
    high: list[_Term] = []
    for t in sorted(wide, key=lambda t: (t.column, t.row)):
        if high and t.below(high[-1]):
            high[-1].K += t.K
        else:
            high.append(t)
    return high


def _layer(layers: list[list[tuple[int, int, int, int]]], part: tuple[int, int, int, int]) -> int:
    """The first layer with room for a rectangle (row, column, K, N), which is entered there."""
    r, c, K, N = part
    for i, layer in enumerate(layers):
        if all(r + K <= q or q + k <= r or c + N <= d or d + n <= c for q, d, k, n in layer):
            layer.append(part)
            return i
    layers.append([part])
    return len(layers) - 1


def _base_block(w: Node) -> tuple[Node, int, int]:
    return (w.inputs[0], *w.attrs) if w.op == "block" else (w, 0, 0)
