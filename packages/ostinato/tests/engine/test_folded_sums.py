"""Sums behind the block that computes their operand, and sums of columns in the loop: the same bits
as where they are played apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_programs import numbers_of

from ostinato import _native
from ostinato.engine import native, reference
from ostinato.engine.program import (
    Buffer,
    Code,
    Gradient,
    Instruction,
    Kind,
    Operand,
    Program,
    register,
)

ISAS = _native.available_isas()
T = 3
X, Y, STEP, OTHER = range(4)

# [outer, times, inner]: sums of neighbours, of which a strip holds several, one, a part, or none
# whole; sums of columns that begin in one strip and end in another; rows shorter than a strip
AXES = [
    (3, 5, 1),
    (128, 32, 1),
    (7, 100, 1),
    (3, 300, 1),
    (1, 512, 1),
    (2, 1024, 1),
    (4, 32, 32),
    (1, 256, 16),
    (5, 9, 7),
    (2, 3, 200),
    (1, 2, 1),
    (1, 3, 600),
]


def program(axis: tuple[int, int, int], apart: bool) -> Program:
    """y = Σ tanh(x) · x over an axis, and the largest element of that product behind it."""
    outer, times, inner = axis
    width, n = outer * times * inner, outer * inner
    buffers = (
        Buffer(Kind.TIME, width, 0, 0),
        Buffer(Kind.TIME, 2 * n, 0, 1),
        Buffer(Kind.STEP, width),
        Buffer(Kind.STEP, width),
    )
    block = (
        Instruction(Code.BLOCK, n=width, count=3),
        Instruction(Code.OP, "tanh", d=register(0), a=Operand(X)),
        Instruction(Code.OP, "mul", d=Operand(STEP), a=register(0), b=Operand(X)),
        Instruction(Code.OP, "add", d=Operand(OTHER), a=register(0), b=Operand(X)),
    )
    between = (
        Instruction(Code.BLOCK, n=width, count=1),
        Instruction(Code.OP, "neg", d=register(0), a=Operand(X)),
    )
    sums = tuple(
        Instruction(Code.ROW_SUM, n=width, k=times, inner=inner, d=Operand(Y, i * n), a=Operand(of))
        for i, of in enumerate((STEP, OTHER))
    )
    return Program(2, False, buffers, (), (), (), loop=(*block, *(between if apart else ()), *sums))


def played(p: Program, arrays: list[Any], what: list[str], B: int, **how: Any) -> list[Any]:
    arrays = [a.copy() for a in arrays]
    rows, lengths, threads = how.get("rows", []), how.get("lengths", []), how.get("threads", 1)
    made = native.make(p, arrays[0].dtype)
    addresses = native.addresses(numbers_of(arrays, what))
    isa = how.get("isa", ISAS[0])
    made.play(addresses, T, B, rows, lengths, threads, isa, work_per_thread=1)
    return arrays


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("B", [1, 5, 9])
def test_sums_that_are_folded_into_the_block(axis, B):
    outer, times, inner = axis
    rng = np.random.default_rng(B)
    xs = rng.standard_normal((T, B, outer * times * inner))
    y = np.full((T, B, 2 * outer * inner), np.nan)
    rows = rng.permutation(B).tolist()
    lengths = sorted(rng.integers(0, T + 1, B).tolist(), reverse=True)
    for how in ({}, {"rows": rows, "lengths": lengths}):
        apart, together = program(axis, True), program(axis, False)
        exact = [xs.copy(), y.copy()]
        reference.play(together, exact, T, B, how.get("rows"), how.get("lengths"))
        found = played(together, [xs, y], ["in", "out"], B, **how)
        np.testing.assert_allclose(found[1], exact[1], rtol=1e-11, atol=1e-11)
        single = [xs.astype(np.float32), y.astype(np.float32)]
        want = played(apart, single, ["in", "out"], B, **how)[1].tobytes()
        for isa in ISAS:
            for threads in (1, 3):
                got = played(together, single, ["in", "out"], B, isa=isa, threads=threads, **how)
                assert got[1].tobytes() == want, (isa, threads)


@pytest.mark.parametrize("B", [1, 6, 21])
def test_sums_of_columns_in_the_loop(B):
    width = 70
    rng = np.random.default_rng(B)
    xs = rng.standard_normal((T, B, width)).astype(np.float32)
    rows = rng.permutation(B).tolist()
    lengths = sorted(rng.integers(0, T + 1, B).tolist(), reverse=True)
    total = (Instruction(Code.COLUMN_SUM, n=width, weight=0, a=Operand(X)),)
    double = (
        Instruction(Code.BLOCK, n=width, count=1),
        Instruction(Code.OP, "add", d=Operand(1), a=Operand(X), b=Operand(X)),
    )
    buffers = (Buffer(Kind.TIME, width, 0, 0), Buffer(Kind.STEP, width))
    for descending in (False, True):

        def made(descending: bool = descending, **sections: Any) -> Program:
            gradients = (Gradient(1, width, 1),)
            return Program(2, descending, buffers, (), gradients, (), **sections)

        for how in ({}, {"rows": rows, "lengths": lengths}):
            sums = [xs, np.full((1, width), np.nan, np.float32)]
            want = played(made(loop=double, after=total), sums, ["in", "out"], B, **how)[1]
            for isa in ISAS:
                for threads in (1, 2, 3):
                    got = played(
                        made(loop=(*double, *total)),
                        sums,
                        ["in", "out"],
                        B,
                        isa=isa,
                        threads=threads,
                        **how,
                    )[1]
                    assert got.tobytes() == want.tobytes(), (isa, threads, descending)
