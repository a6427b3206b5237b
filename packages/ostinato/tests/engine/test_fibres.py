"""Operands that are spread over an axis and read where they lie, and sums of products: the same
bits as where each spread value and each product is written to memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from random_programs import numbers_of

from ostinato import _native
from ostinato.engine import native, reference
from ostinato.engine.program import (
    Buffer,
    Code,
    Instruction,
    Kind,
    Operand,
    Program,
    register,
)
from zoo.suites import one_in

ISAS = _native.available_isas()
T = 2

# [G, M, J]: one vector a fibre, two, three, four and eight; blocks that no power of two divides; a
# row of one strip; and fibres that are no whole vectors, or rows shorter than a strip, which are
# played as before
SHAPES = [
    (4, 32, 32),
    (2, 16, 16),
    (3, 5, 48),
    (2, 7, 64),
    (1, 9, 128),
    (1, 256, 16),
    (1, 8, 16),
    (3, 10, 32),
    (2, 6, 20),
    (1, 2, 32),
]

# One operation, or two of which the second alone reads the first: f(a, b) and g(first, c).
OPERATIONS = [
    (("add", "ab"),),
    (("mul", "ab"),),
    (("sub", "ab"),),
    (("mul", "ab"), ("add", "-c")),
    (("mul", "ab"), ("mul", "-c")),
    (("mul", "ab"), ("sub", "-c")),
    (("mul", "ab"), ("sub", "c-")),
    (("add", "ab"), ("mul", "-c")),
]


@dataclass(frozen=True)
class Source:
    """Values of a row [G, M, J] that lie in `width` columns, spread over an axis."""

    width: int
    times: int = 1
    inner: int = 1


def sources(G: int, M: int, J: int) -> dict[str, Source]:
    return {
        "all": Source(G * M * J),
        "a number a fibre": Source(G * M, J),
        "a number a matrix": Source(G, M * J),
        "a fibre a matrix": Source(G * J, M, J),
        "one fibre": Source(J, G * M, J),
        "one matrix": Source(M * J, G, M * J),
    }


@dataclass
class Case:
    """y = an operation on three sources, z = a product and its sums over two axes."""

    shape: tuple[int, int, int]
    operation: Any
    kinds: tuple[str, ...]  # of a, b, c
    axes: tuple[tuple[int, int], ...]  # of the sums

    @property
    def width(self) -> int:
        G, M, J = self.shape
        return G * M * J

    @property
    def widths(self) -> list[int]:
        """Of a, b, c, y and the sums."""
        of = sources(*self.shape)
        sums = [self.width // times for times, _ in self.axes]
        return [*(of[k].width for k in self.kinds), self.width, sum(sums)]

    def program(self, apart: bool) -> Program:
        """apart: every value is written to memory, by a block of its own."""
        n = self.width
        buffers = [Buffer(Kind.TIME, w, 0, i) for i, w in enumerate(self.widths)]
        blocks: list[list[Instruction]] = []
        count = 0

        def place() -> Operand:
            nonlocal count
            count += 1
            if not apart:
                return register(count)
            buffers.append(Buffer(Kind.STEP, n))
            return Operand(len(buffers) - 1)

        read = {}
        for i, kind in enumerate(self.kinds):
            source = sources(*self.shape)[kind]
            if source.times == 1:
                read["abc"[i]] = Operand(i)
            else:
                read["abc"[i]] = place()
                spread = {"k": source.times, "inner": source.inner, "a": Operand(i)}
                blocks.append([Instruction(Code.BROADCAST, d=read["abc"[i]], **spread)])
        for i, (op, operands) in enumerate(self.operation):
            d = Operand(3) if i + 1 == len(self.operation) else place()
            a, b = (read[k] for k in operands)
            read["-"] = d
            blocks.append([Instruction(Code.OP, op, d=d, a=a, b=b)])
        sums = []
        column = 0
        for i, (times, inner) in enumerate(self.axes):
            buffers.append(Buffer(Kind.STEP, n))
            product = Operand(len(buffers) - 1)
            # The second product is of the result of the operation.
            a, b = (read["a"], read["b"]) if i % 2 == 0 else (Operand(3), read["c"])
            blocks.append([Instruction(Code.OP, "mul", d=product, a=a, b=b)])
            d = Operand(4, column)
            sums.append(Instruction(Code.ROW_SUM, n=n, k=times, inner=inner, d=d, a=product))
            column += n // times
        if not apart:
            blocks = [[x for block in blocks for x in block]]
        loop = [x for b in blocks for x in (Instruction(Code.BLOCK, n=n, count=len(b)), *b)]
        if apart:  # a block between, so that no sum is folded into the block before it
            loop += [
                Instruction(Code.BLOCK, n=1, count=1),
                Instruction(Code.OP, "fill", d=register(0)),
            ]
        return Program(5, False, tuple(buffers), (), (), (), loop=(*loop, *sums))


def cases(shape: tuple[int, int, int]) -> list[Case]:
    G, M, J = shape
    rng = np.random.default_rng(G * M * J)
    axes = [(J, 1), (M * J, 1), (M, J), (G * M, J)]
    kinds = list(sources(*shape))
    return [
        Case(
            shape,
            operation,
            tuple(rng.choice(kinds, 3)),
            tuple(axes[int(i)] for i in rng.choice(len(axes), 2)),
        )
        for operation in OPERATIONS
        for _ in range(5)
    ]


def played(p: Program, arrays: list[Any], B: int, isa: str, threads: int, **how: Any) -> bytes:
    arrays = [a.copy() for a in arrays]
    made = native.make(p, arrays[0].dtype)
    addresses = native.addresses(numbers_of(arrays, ["in", "in", "in", "out", "out"]))
    rows, lengths = how.get("rows", []), how.get("lengths", [])
    made.play(addresses, T, B, rows, lengths, threads, isa, work_per_thread=1)
    return arrays[3].tobytes() + arrays[4].tobytes()


@pytest.mark.parametrize("shape", one_in(3, SHAPES))
def test_operations_on_fibres(shape):
    for case in cases(shape):
        for B in (1, 9):
            rng = np.random.default_rng(B)
            xs = [rng.standard_normal((T, B, w)) for w in case.widths[:3]]
            ys = [np.full((T, B, w), np.nan) for w in case.widths[3:]]
            exact = [a.copy() for a in (*xs, *ys)]
            together, apart = case.program(False), case.program(True)
            reference.play(together, exact, T, B)
            double = [a.copy() for a in (*xs, *ys)]
            made = native.make(together, np.dtype("float64"))
            addresses = native.addresses(numbers_of(double, ["in", "in", "in", "out", "out"]))
            made.play(addresses, T, B, [], [], 1, ISAS[0], work_per_thread=1)
            for got, want in zip(double[3:], exact[3:], strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)
            single = [a.astype(np.float32) for a in (*xs, *ys)]
            rows = rng.permutation(B).tolist()
            lengths = sorted(rng.integers(0, T + 1, B).tolist(), reverse=True)
            for how in ({}, {"rows": rows, "lengths": lengths}):
                want = played(apart, single, B, ISAS[-1], 1, **how)
                for isa in ISAS:
                    for threads in (1, 2):
                        got = played(together, single, B, isa, threads, **how)
                        assert got == want, (case, isa, threads, how)
