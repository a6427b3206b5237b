"""Small random programs that respect the rules of a program, and arrays to play them on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ostinato.engine.program import (
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

# Continuous and bounded on what they are given here, so that rounding stays rounding.
UNARY = ["copy", "neg", "abs", "tanh", "sigmoid", "sin", "cos", "mul_s", "rsub_s", "max_s", "min_s"]
BINARY = ["add", "sub", "mul", "max", "min", "tanh_backward", "sigmoid_backward"]
TERNARY = ["fma", "lerp"]
WIDTHS = [1, 2, 3, 5, 16, 17]
WIDE = [64, 66, 127, 128, 130]  # tiles, strips, and one more


@dataclass
class Region:
    """Columns of a buffer that may be read: [column, column + width) at slot t + dt."""

    buffer: int
    width: int
    dt: int = 0
    writable: bool = False  # may be overwritten in place by this section


@dataclass
class Maker:
    rng: np.random.Generator
    wide: bool = False
    buffers: list[Buffer] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    carries: list[Carry] = field(default_factory=list)
    tables: list[IndexTable] = field(default_factory=list)
    products: list[SmallProduct] = field(default_factory=list)
    arguments: list[tuple[str, Any]] = field(default_factory=list)  # what, shape without T and B

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def width(self) -> int:
        return self.pick(WIDTHS + WIDE if self.wide else WIDTHS)

    def argument(self, what: str, shape: Any) -> int:
        self.arguments.append((what, shape))
        return len(self.arguments) - 1

    def buffer(self, kind: Kind, width: int, extra: int = 0, what: str = "out") -> int:
        argument = -1
        if kind in (Kind.TIME, Kind.VECTOR, Kind.TAPE):
            argument = self.argument("tape" if kind == Kind.TAPE else what, (extra, width))
        self.buffers.append(Buffer(kind, width, extra, argument))
        return len(self.buffers) - 1

    def weight(self, K: int, N: int) -> int:
        """In one block, in two stacked ones, or with a part left zero."""
        kind = int(self.rng.integers(3))
        if kind == 0 or K < 2:
            blocks = [(0, K, 0, N, 1, 2)]
        elif kind == 1:
            blocks = [(0, K // 2, 0, N, 0, 0), (K // 2, K - K // 2, 0, N, 3, 0)]
        else:
            blocks = [(1, K - 1, 0, max(1, N - 1), 0, 1)]
        made = []
        for k0, nk, n0, nn, row, column in blocks:
            at = self.argument("matrix", (row + nk, column + nn))
            made.append(WeightBlock(at, k0, nk, n0, nn, row, column))
        self.weights.append(Weight(K, N, tuple(made)))
        return len(self.weights) - 1

    def part(self, region: Region, n: int) -> Operand:
        column = int(self.rng.integers(region.width - n + 1))
        return Operand(region.buffer, column, region.dt)

    # ---- instructions

    def block(self, readable: list[Region], out: Region) -> list[Instruction]:
        """Some operations in registers, the last of them bounded, into all columns of `out`."""
        n = out.width
        wide_enough = [r for r in readable if r.width >= n]
        own = Operand(out.buffer, 0, out.dt)
        body: list[Instruction] = []
        written: list[Operand] = []

        def operand() -> Operand:
            if written and (not wide_enough or self.rng.random() < 0.5):
                return self.pick(written)
            return self.part(self.pick(wide_enough), n)

        def add(op: str, *operands: Operand, s: float = 0.0, d: Operand | None = None) -> None:
            d = register(int(self.rng.integers(5))) if d is None else d
            named = dict(zip("abc", operands, strict=False))
            body.append(Instruction(Code.OP, op, s=s, d=d, **named))
            if d.buffer <= -2 and d not in written:
                written.append(d)

        others = [r for r in readable if r.buffer != out.buffer]
        if not wide_enough or (others and self.rng.random() < 0.3):
            d = register(5)
            times, inner = self.axis(n, max(r.width for r in others))
            wide = [r for r in others if r.width >= n // times]
            a = self.part(self.pick(wide), n // times)
            body.append(Instruction(Code.BROADCAST, k=times, inner=inner, d=d, a=a))
            written.append(d)
        if self.rng.random() < 0.3:
            add("fill", s=0.25)
        for _ in range(int(self.rng.integers(1, 8))):
            op = self.pick(UNARY + BINARY + TERNARY)
            arity = 1 if op in UNARY else 2 if op in BINARY else 3
            d = own if out.writable and self.rng.random() < 0.2 else None
            add(op, *(operand() for _ in range(arity)), s=float(self.rng.uniform(-1, 1)), d=d)
        if out.writable and self.rng.random() < 0.5:
            add("add", own, operand())
        add("tanh", operand() if self.rng.random() < 0.5 else self.pick(written), d=own)
        return [Instruction(Code.BLOCK, n=n, count=len(body)), *body]

    def product(self, readable: list[Region], out: Region) -> list[Instruction]:
        """A product into `out`, started from nothing, from itself or from something else."""
        sources = [r for r in readable if r.buffer != out.buffer and not self.constant(r)]
        if not sources:
            return []
        a = self.pick(sources)
        k = int(self.rng.integers(1, a.width + 1))
        d = Operand(out.buffer, 0, out.dt)
        inits = [r for r in readable if r.width >= out.width and r.buffer != out.buffer]
        choice = int(self.rng.integers(3))
        c = {"c": d} if choice == 0 and out.writable else {}
        if choice == 1 and inits:
            c = {"c": self.part(self.pick(inits), out.width)}
        weight = self.weight(k, out.width)
        return [
            Instruction(Code.GEMM, n=out.width, k=k, weight=weight, d=d, a=self.part(a, k), **c)
        ]

    def axis(self, n: int, most: int) -> tuple[int, int]:
        """(times, inner) of an axis of a row of n, without which the row is at most so wide."""
        times = self.pick([t for t in range(1, n + 1) if n % t == 0 and n // t <= most])
        inner = self.pick([i for i in range(1, n // times + 1) if (n // times) % i == 0])
        return times, inner

    def reduction(self, readable: list[Region], out: Region) -> list[Instruction]:
        a = self.pick([r for r in readable if r.buffer != out.buffer])
        n = int(self.rng.integers(1, a.width + 1))
        code = self.pick([Code.ROW_SUM, Code.ROW_MAX])
        times, inner = self.axis(n, out.width)
        d = self.part(replace(out, dt=out.dt), n // times)
        return [Instruction(code, n=n, k=times, inner=inner, d=d, a=self.part(a, n))]

    def within_rows(self, readable: list[Region], out: Region) -> list[Instruction]:
        """All of `out`: elements of another region, or a product of two small matrices."""
        sources = [r for r in readable if r.buffer != out.buffer]
        if not sources:
            return []
        n, d = out.width, Operand(out.buffer, 0, out.dt)
        if self.rng.random() < 0.5:
            a = self.pick(sources)
            self.tables.append(IndexTable(a.width, tuple(self.runs(a.width, n))))
            weight = len(self.tables) - 1
            return [Instruction(Code.TAKE, n=n, weight=weight, d=d, a=Operand(a.buffer, 0, a.dt))]
        groups = self.pick([g for g in range(1, n + 1) if n % g == 0])
        M = self.pick([m for m in range(1, n + 1) if n // groups % m == 0])
        N = n // groups // M
        most = min(max(r.width for r in sources) // (groups * max(M, N)), 40)
        if most == 0:
            return []
        K = int(self.rng.integers(1, most + 1))
        across = bool(self.rng.random() < 0.5)
        number, a, b = self.small_product(sources, groups, M, K, N, across)
        return [Instruction(Code.PRODUCT, n=n, weight=number, d=d, a=a, b=b)]

    def small_product(
        self, sources: list[Region], groups: int, M: int, K: int, N: int, across: bool
    ) -> tuple[int, Operand, Operand]:
        """The number of a product, and its operands: the second as it lies, or by its places."""

        def operand(size: int) -> Operand:
            return self.part(self.pick([r for r in sources if r.width >= size]), size)

        a, table = operand(groups * M * K), -1
        if self.rng.random() < 0.5:
            b = operand(groups * K * N)
        else:
            source = self.pick(sources)
            b = Operand(source.buffer, 0, source.dt)
            table = len(self.tables)
            n_rows, n = (groups * N, K) if across else (groups * K, N)
            self.tables.append(
                IndexTable(source.width, tuple(self.stretches(source.width, n_rows, n)))
            )
        self.products.append(SmallProduct(groups, M, K, N, across, table))
        return len(self.products) - 1, a, b

    def stretches(self, width: int, n_rows: int, n: int) -> list[ElementRun]:
        """Rows of n elements, of which each sixteen lie side by side, but for zeros."""
        found: list[ElementRun] = []
        for at in [i for _ in range(n_rows) for i in range(n)]:
            if at % 16 == 0:
                start = int(self.rng.integers(-15, width))
            place = start + at % 16
            there = 0 <= place < width and self.rng.random() < 0.8
            found.append(ElementRun(place, 1, 1) if there else ElementRun(-1, 1, 0))
        return found

    def runs(self, width: int, n: int) -> list[ElementRun]:
        found: list[ElementRun] = []
        while n:
            count, start = int(self.rng.integers(1, n + 1)), int(self.rng.integers(-1, width))
            if start < 0:
                found.append(ElementRun(-1, count, 0))
            else:
                step = int(self.rng.integers(-2, 3))
                room = (width - 1 - start) // step if step > 0 else start // -step if step else n
                count = min(count, room + 1)
                found.append(ElementRun(start, count, step))
            n -= found[-1].count
        return found

    def sums(self, readable: list[Region]) -> list[Instruction]:
        """Gradients: an outer product, or a sum over columns."""
        rows = [r for r in readable if not self.constant(r)]
        if self.rng.random() < 0.3:
            return [self.sum_of_products(rows)]
        a, b = self.pick(rows), self.pick(rows)
        k, n = int(self.rng.integers(1, a.width + 1)), int(self.rng.integers(1, b.width + 1))
        if self.rng.random() < 0.3:
            k = 1
            x = {"n": n, "a": self.part(b, n)}
            code = Code.COLUMN_SUM
        else:
            x = {"n": n, "k": k, "a": self.part(a, k), "b": self.part(b, n)}
            code = Code.OUTER
        transposed = code == Code.OUTER and bool(self.rng.random() < 0.4)
        shape = (n, k) if transposed else (k, n)
        self.gradients.append(Gradient(k, n, self.argument("gradient", shape), transposed))
        return [Instruction(code, weight=len(self.gradients) - 1, **x)]

    def sum_of_products(self, rows: list[Region]) -> Instruction:
        most = max(r.width for r in rows)
        groups = int(self.rng.integers(1, min(most, 3) + 1))
        M = int(self.rng.integers(1, min(most // groups, 9) + 1))
        N = int(self.rng.integers(1, min(most // groups, 9) + 1))
        K = int(self.rng.integers(1, min(most // (groups * max(M, N)), 40) + 1))
        number, a, b = self.small_product(rows, groups, M, K, N, across=True)
        argument = self.argument("gradient", (groups * M, N))
        self.gradients.append(Gradient(groups * M, N, argument))
        return Instruction(
            Code.PRODUCT_SUM,
            n=N,
            k=groups * M,
            weight=len(self.gradients) - 1,
            count=number,
            a=a,
            b=b,
        )

    def sums_again(self, x: Instruction, readable: list[Region]) -> list[Instruction]:
        """The same columns, or some of them: summed once more, and times one column."""
        b = x.b if x.code == Code.OUTER else x.a
        column = int(self.rng.integers(x.n))
        n = int(self.rng.integers(1, x.n - column + 1))
        part = Operand(b.buffer, b.column + column, b.dt)
        one = self.part(self.pick([r for r in readable if not self.constant(r)]), 1)
        made = [
            Instruction(Code.COLUMN_SUM, n=x.n, a=b),
            Instruction(Code.OUTER, n=x.n, k=1, a=one, b=b),
            Instruction(Code.COLUMN_SUM, n=n, a=part),
        ]
        numbered = []
        for i in self.rng.permutation(len(made)):
            n = made[i].n
            self.gradients.append(Gradient(1, n, self.argument("gradient", (1, n))))
            numbered.append(replace(made[i], weight=len(self.gradients) - 1))
        return numbered

    def constant(self, region: Region) -> bool:
        return self.buffers[region.buffer].kind in (Kind.VECTOR, Kind.LOCAL)

    # ---- sections

    def some(
        self, readable: list[Region], kinds: list[Kind], n: int
    ) -> tuple[list[Any], list[Any]]:
        """n instructions into new buffers; and into those again. Adds to `readable`."""
        made: list[Instruction] = []
        fresh: list[Region] = []
        for _ in range(n):
            if fresh and self.rng.random() < 0.3:
                out = self.pick(fresh)
            else:
                kind = self.pick(kinds)
                out = Region(self.buffer(kind, self.width()), 0)
                out.width = self.buffers[out.buffer].width
            choice = self.rng.random()
            new = []
            if choice < 0.4:
                new = self.product(readable, out)
            elif choice < 0.5 and out.writable:
                new = self.reduction(readable, out)
            elif choice < 0.7:
                new = self.within_rows(readable, out)
            made += new or self.block(readable, out)
            if not out.writable:
                out.writable = True
                readable.append(out)
                fresh.append(out)
            if not new and choice >= 0.9 and out.width > 1:
                made += self.reduction(readable, out) if len(readable) > 1 else []
        return made, fresh

    def program(self) -> Program:
        descending = bool(self.rng.random() < 0.5)
        now, then = (1, 0) if descending else (0, 1)  # the slots a step reads and writes
        constants = [
            Region(b, self.buffers[b].width)
            for b in (self.buffer(Kind.VECTOR, self.width(), what="vector") for _ in range(2))
        ]
        once: list[Instruction] = []
        for _ in range(int(self.rng.integers(3))):
            out = Region(self.buffer(Kind.LOCAL, self.width()), 0)
            out.width = self.buffers[out.buffer].width
            once += self.block(constants, out)
            constants.append(out)
        xs = [
            Region(b, self.buffers[b].width)
            for b in (self.buffer(Kind.TIME, self.width(), what="in") for _ in range(2))
        ]
        before, out_before = self.some(
            constants + xs, [Kind.TIME, Kind.CHUNK, Kind.TAPE], self.number(0, 3)
        )

        states = []
        for _ in range(self.number(1, 3)):
            kind = self.pick([Kind.PAIR, Kind.TIME, Kind.TAPE])
            width = self.width()
            extra = int(kind != Kind.PAIR)
            states.append(Region(self.buffer(kind, width, extra), width))
            init = self.argument("rows", width) if self.rng.random() < 0.7 else -1
            final = self.argument("rows out", width) if self.rng.random() < 0.7 else -1
            self.carries.append(Carry(states[-1].buffer, init, final))
        old = [Region(s.buffer, s.width, now) for s in states]
        for r in out_before:
            r.writable = False
        readable = constants + xs + out_before + old
        loop, out_loop = self.some(
            readable, [Kind.TIME, Kind.CHUNK, Kind.STEP, Kind.TAPE], self.number(0, 4)
        )
        for s in states:
            new = Region(s.buffer, s.width, then)
            read = [r for r in readable if (r.buffer, r.dt) != (new.buffer, new.dt)]
            if self.rng.random() < 0.3:
                pre = Region(self.buffer(Kind.STEP, s.width), s.width)
                loop += self.product(read, pre) or self.block(read, pre)
                read = [*read, pre]
            loop += self.block(read, new)
            readable.append(new)

        lasting = (Kind.TIME, Kind.CHUNK, Kind.TAPE)
        seen = [r for r in out_loop if self.buffers[r.buffer].kind in lasting]
        seen += [r for r in out_before if self.buffers[r.buffer].kind in (Kind.TIME, Kind.TAPE)]
        for s in states:
            if self.buffers[s.buffer].kind != Kind.PAIR:
                seen += [Region(s.buffer, s.width, 0), Region(s.buffer, s.width, 1)]
        for r in seen:
            r.writable = False
        readable = constants + xs + seen
        after, _ = self.some(readable, [Kind.TIME, Kind.CHUNK, Kind.TAPE], self.number(0, 3))
        for _ in range(self.number(0, 3)):
            after += self.sums(readable)
            if after[-1].code != Code.PRODUCT_SUM and self.rng.random() < 0.4:
                after += self.sums_again(after[-1], readable)
        return Program(
            len(self.arguments),
            descending,
            tuple(self.buffers),
            tuple(self.weights),
            tuple(self.gradients),
            tuple(self.carries),
            tuple(self.tables),
            tuple(self.products),
            tuple(once),
            tuple(before),
            tuple(loop),
            tuple(after),
        )

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def arrays(self, T: int, B: int, dtype: Any, seed: int) -> list[Any]:
        """Contents for each argument; outputs start from a mark, to see what is not written."""
        rng = np.random.default_rng(seed)
        made = []
        for what, shape in self.arguments:
            if what in ("in", "out", "tape"):
                extra, width = shape
                full: Any = (T + extra, B, width)
            elif what == "vector":
                full = (shape[1],)
            elif what in ("rows", "rows out"):
                full = (B, shape)
            else:
                full = shape
            if what in ("out", "tape", "rows out", "gradient"):
                made.append(np.full(full, -7.0, dtype))
            else:
                made.append((rng.standard_normal(full) / 2).astype(dtype))
        return made

    def seen(self, arrays: list[Any]) -> list[Any]:
        """All but the tapes, whose order is the program's own."""
        return [a for a, (what, _) in zip(arrays, self.arguments, strict=True) if what != "tape"]


def numbers_of(arrays: list[Any], what: list[str]) -> list[int]:
    """(address, stride, stride) of each argument, in elements, as `native/play/request.h` says."""
    found: list[int] = []
    for array, kind in zip(arrays, what, strict=True):
        strides = [s // array.itemsize for s in array.strides]
        if kind in ("in", "out", "tape", "matrix", "gradient"):
            two = strides[:2]
        elif kind == "vector":
            two = [0, 0]
        else:
            two = [0, strides[0]]
        found += [array.ctypes.data, *two]
    return found
