"""Random programs: the native engine does what the reference defines, and refuses broken ones."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_programs import Maker, numbers_of

from ostinato import _native
from ostinato.engine import native, reference
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
from zoo.suites import one_in

ISAS = _native.available_isas()


def lengths_and_rows(rng: Any, T: int, B: int) -> tuple[list[int], list[int]]:
    """None given, or lengths in falling order with a row that has no steps, and rows shuffled."""
    if rng.random() < 0.4:
        return [], []
    lengths = np.sort(rng.integers(0, T + 1, B))[::-1]
    return lengths.tolist(), rng.permutation(B).tolist()


def play_native(
    program: Program,
    maker: Maker,
    arrays: list[Any],
    T: int,
    B: int,
    lengths: list[int],
    rows: list[int],
    threads: int = 1,
    isa: str = ISAS[0],
    made: Any = None,
) -> None:
    made = native.make(program, arrays[0].dtype) if made is None else made
    numbers = numbers_of(arrays, [what for what, _ in maker.arguments])
    # work_per_thread=1: threads share the columns of a few rows, however little there is to do.
    made.play(native.addresses(numbers), T, B, rows, lengths, threads, isa, work_per_thread=1)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_double_is_the_reference(seed, wide):
    """Every output, every slot and every gradient; and nothing else is written."""
    rng = np.random.default_rng([seed, wide])
    maker = Maker(rng, wide)
    program = maker.program()
    made = native.make(program, np.dtype(np.float64))
    for T, B in [(1, 1), (4, 3), (5, 9), (3, 34)]:
        lengths, rows = lengths_and_rows(rng, T, B)
        ours, theirs = (maker.arrays(T, B, np.float64, seed) for _ in range(2))
        play_native(program, maker, ours, T, B, lengths, rows, made=made, threads=2)
        reference.play(program, theirs, T, B, rows or None, lengths or None)
        for a, b in zip(maker.seen(ours), maker.seen(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_long_sequences_in_chunks():
    """Past one chunk of 32 or 256 rows of a group, where `before` and `after` are visited again."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        maker = Maker(rng)
        program = maker.program()
        T, B = 150, (13, 6)[seed % 2]
        ours, theirs = (maker.arrays(T, B, np.float64, seed) for _ in range(2))
        lengths, rows = lengths_and_rows(rng, T, B)
        play_native(program, maker, ours, T, B, lengths, rows, threads=3)
        reference.play(program, theirs, T, B, rows or None, lengths or None)
        for a, b in zip(maker.seen(ours), maker.seen(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_float_is_the_reference_but_for_rounding():
    """Both against float64. Programs are a dozen operations deep, sums at most 200 long; what is
    bounded by tanh does not amplify much in four steps."""
    for seed in range(25):
        rng = np.random.default_rng(seed)
        maker = Maker(rng, wide=bool(seed % 2))
        program = maker.program()
        T, B = 4, 6
        lengths, rows = lengths_and_rows(rng, T, B)
        arrays = [maker.arrays(T, B, np.float32, seed)]
        arrays += [[a.astype(dtype) for a in arrays[0]] for dtype in (np.float32, np.float64)]
        play_native(program, maker, arrays[0], T, B, lengths, rows)
        for some in arrays[1:]:
            reference.play(program, some, T, B, rows or None, lengths or None)
        for ours, theirs, exact in zip(*map(maker.seen, arrays), strict=True):
            scale = 1 + np.abs(exact).max(initial=0)
            own = np.abs(ours - exact).max(initial=0) / scale
            usual = np.abs(theirs - exact).max(initial=0) / scale
            assert own <= 4 * usual + 64 * np.finfo(np.float32).eps, seed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wide", [False, True])
def test_the_same_bits_on_every_thread_and_instruction_set(wide, dtype):
    for seed in range(15):
        rng = np.random.default_rng([seed, wide])
        maker = Maker(rng, wide)
        program = maker.program()
        for T, B in (6, 21), (6, 5), (7, 1):
            lengths, rows = lengths_and_rows(rng, T, B)
            results = set()
            for threads in (1, 2, 3, 8):
                for isa in ISAS:
                    arrays = maker.arrays(T, B, dtype, seed)
                    play_native(program, maker, arrays, T, B, lengths, rows, threads, isa)
                    results.add(b"".join(a.tobytes() for a in maker.seen(arrays)))
            assert len(results) == 1, (seed, B)


def test_a_program_is_played_again_at_other_sizes():
    """Workspaces that grew for one play must not be felt in the next."""
    rng = np.random.default_rng(5)
    maker = Maker(rng, True)
    program = maker.program()
    workspaces = _native.Workspaces()
    made = native.make(program, np.dtype(np.float64), workspaces)
    sizes = [(3, 2), (9, 40), (1, 1), (9, 40), (2, 7), (3, 2)]
    for T, B in sizes:
        ours, fresh = (maker.arrays(T, B, np.float64, T * B) for _ in range(2))
        play_native(program, maker, ours, T, B, [], [], made=made)
        play_native(program, maker, fresh, T, B, [], [])
        assert all(np.array_equal(a, b) for a, b in zip(ours, fresh, strict=True))
    kept = workspaces.kept_bytes()
    for T, B in sizes * 3:
        play_native(program, maker, maker.arrays(T, B, np.float64, 1), T, B, [], [], made=made)
    assert workspaces.kept_bytes() == kept


def test_the_memory_of_a_play_is_what_it_says():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        maker = Maker(rng, True)
        workspaces = _native.Workspaces()
        made = native.make(maker.program(), np.dtype(np.float32), workspaces)
        T, B, threads = 40, 29, 3
        play_native(
            None, maker, maker.arrays(T, B, np.float32, 1), T, B, [], [], made=made, threads=threads
        )
        assert workspaces.kept_bytes() == made.needed_bytes(T, B, threads, native.best_isa())


def test_memory_is_bounded_over_many_calls_and_callers():
    """Fifty plays keep what one needs; in several threads at once, each what its largest does."""
    maker = Maker(np.random.default_rng(3), True)
    workspaces = _native.Workspaces()
    made = native.make(maker.program(), np.dtype(np.float32), workspaces)
    sizes = [(30, 29), (4, 3), (9, 40)]
    needed = [made.needed_bytes(T, B, 2, native.best_isa()) for T, B in sizes]
    assert workspaces.kept_bytes() == 0

    def some(n: int, sizes: list[tuple[int, int]]) -> None:
        for i in range(n):
            T, B = sizes[i % len(sizes)]
            arrays = maker.arrays(T, B, np.float32, 1)
            play_native(None, maker, arrays, T, B, [], [], made=made, threads=2)

    for _ in range(50):
        some(1, sizes[:1])
        assert workspaces.kept_bytes() == needed[0]
    threads = [threading.Thread(target=some, args=(30, sizes)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < workspaces.kept_bytes() <= 4 * max(needed)  # one for each caller
    some(9, sizes)
    assert max(needed) <= workspaces.kept_bytes() <= 4 * max(needed)


def test_a_reversed_program_is_the_program_on_reversed_time():
    vector, x, state = (
        Buffer(Kind.VECTOR, 3, 0, 0),
        Buffer(Kind.TIME, 3, 0, 1),
        Buffer(Kind.PAIR, 3),
    )
    out = Buffer(Kind.TIME, 3, 0, 2)

    def program(descending: bool) -> Program:
        now, then = (1, 0) if descending else (0, 1)
        return Program(
            5,
            descending,
            (vector, x, state, out),
            (),
            (),
            (Carry(2, 3, 4),),
            loop=(
                Instruction(Code.BLOCK, n=3, count=3),
                Instruction(
                    Code.OP, "fma", d=register(0), a=Operand(2, 0, now), b=Operand(0), c=Operand(1)
                ),
                Instruction(Code.OP, "tanh", d=Operand(2, 0, then), a=register(0)),
                Instruction(Code.OP, "copy", d=Operand(3), a=Operand(2, 0, then)),
            ),
        )

    rng = np.random.default_rng(0)
    v, xs, init = (rng.standard_normal(s) for s in ((3,), (4, 2, 3), (2, 3)))
    results = []
    for descending in (False, True):
        given = np.ascontiguousarray(xs[::-1]) if descending else xs.copy()
        arrays = [v, given, np.zeros((4, 2, 3)), init, np.zeros((2, 3))]
        numbers = numbers_of(arrays, ["vector", "in", "out", "rows", "rows out"])
        made = native.make(program(descending), v.dtype)
        made.play(native.addresses(numbers), 4, 2, [], [], 1, ISAS[0])
        results.append((arrays[2][::-1] if descending else arrays[2], arrays[4]))
    h = init
    for t in range(4):
        h = np.tanh(h * v + xs[t])
        np.testing.assert_allclose(results[0][0][t], h, rtol=1e-14)
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)


# ------------------------------------------------------------------------------- what is refused

BUFFERS = (
    Buffer(Kind.VECTOR, 4, 0, 0),
    Buffer(Kind.TIME, 4, 0, 1),
    Buffer(Kind.TIME, 4, 1, 2),
    Buffer(Kind.LOCAL, 4),
    Buffer(Kind.STEP, 4),
    Buffer(Kind.CHUNK, 4),
    Buffer(Kind.PAIR, 4),
)
VECTOR, X, STATES, LOCAL, STEP, CHUNK, PAIR = range(7)
GOOD = Program(
    6,
    False,
    BUFFERS,
    (Weight(4, 4, (WeightBlock(3, 0, 4, 0, 4, 0, 0),)),),
    (Gradient(4, 4, 4), Gradient(2, 2, 5)),
    (Carry(STATES, -1, -1), Carry(PAIR, -1, -1)),
    (IndexTable(4, (ElementRun(3, 3, -1), ElementRun(-1, 1, 0))),),
    (SmallProduct(1, 2, 2, 2), SmallProduct(1, 2, 2, 2, across=True)),
    once=(
        Instruction(Code.BLOCK, n=4, count=1),
        Instruction(Code.OP, "exp", d=Operand(LOCAL), a=Operand(VECTOR)),
    ),
    loop=(
        Instruction(Code.GEMM, n=4, k=4, d=Operand(STEP), a=Operand(X)),
        Instruction(Code.BLOCK, n=4, count=2),
        Instruction(Code.OP, "add", d=register(0), a=Operand(STEP), b=Operand(LOCAL)),
        Instruction(Code.OP, "tanh", d=Operand(STATES, 0, 1), a=register(0)),
        Instruction(Code.ROW_SUM, n=4, k=4, d=Operand(CHUNK, 1), a=Operand(X)),
        Instruction(Code.TAKE, n=4, d=Operand(CHUNK), a=Operand(X)),
        Instruction(Code.PRODUCT, n=4, d=Operand(CHUNK), a=Operand(X), b=Operand(STEP)),
    ),
    after=(
        Instruction(Code.OUTER, n=4, k=4, d=Operand(), a=Operand(X), b=Operand(STATES)),
        Instruction(Code.PRODUCT_SUM, n=2, k=2, weight=1, count=1, a=Operand(X), b=Operand(CHUNK)),
    ),
)


def good_block(**changes: Any) -> tuple[Instruction, ...]:
    op = replace(GOOD.loop[3], **changes)
    return (*GOOD.loop[:3], op, *GOOD.loop[4:])


def good_gemm(**changes: Any) -> tuple[Instruction, ...]:
    return (replace(GOOD.loop[0], **changes), *GOOD.loop[1:])


def good_within(i: int, **changes: Any) -> tuple[Instruction, ...]:
    return (*GOOD.loop[: 4 + i], replace(GOOD.loop[4 + i], **changes), *GOOD.loop[5 + i :])


ROW_SUM, TAKE, PRODUCT = range(3)


def good_outer(**changes: Any) -> tuple[Instruction, ...]:
    return (replace(GOOD.after[0], **changes),)


def product_sum(**changes: Any) -> tuple[Instruction, ...]:
    return (replace(GOOD.after[1], **changes),)


def with_buffer(i: int, **changes: Any) -> tuple[Buffer, ...]:
    return (*BUFFERS[:i], replace(BUFFERS[i], **changes), *BUFFERS[i + 1 :])


BROKEN = {
    "too few arguments": {"n_arguments": 3},
    "negative arguments": {"n_arguments": -1},
    "a buffer without width": {"buffers": with_buffer(STEP, width=0)},
    "a buffer of negative width": {"buffers": with_buffer(STEP, width=-4)},
    "a buffer too wide": {"buffers": with_buffer(STEP, width=2**30)},
    "slots beyond T for a step": {"buffers": with_buffer(STEP, extra=1)},
    "two slots beyond T": {"buffers": with_buffer(STATES, extra=2)},
    "a buffer of no argument": {"buffers": with_buffer(X, argument=-1)},
    "a buffer of an argument too many": {"buffers": with_buffer(X, argument=6)},
    "a narrow buffer": {"buffers": with_buffer(X, width=3)},
    "a weight without rows": {"weights": (Weight(0, 4, ()),)},
    "a block outside its weight": {"weights": (Weight(4, 4, (WeightBlock(3, 1, 4, 0, 4, 0, 0),)),)},
    "a block before its weight": {"weights": (Weight(4, 4, (WeightBlock(3, 0, 4, -1, 4, 0, 0),)),)},
    "a block of a negative row": {"weights": (Weight(4, 4, (WeightBlock(3, 0, 4, 0, 4, -1, 0),)),)},
    "a block of no argument": {"weights": (Weight(4, 4, (WeightBlock(9, 0, 4, 0, 4, 0, 0),)),)},
    "a gradient of no argument": {"gradients": (Gradient(4, 4, 9),)},
    "a gradient of another shape": {"gradients": (Gradient(4, 3, 4),)},
    "a carry without a slot beyond T": {"carries": (Carry(X, -1, -1),)},
    "a carry in a step's memory": {"carries": (Carry(STEP, -1, -1),)},
    "a carry in no buffer": {"carries": (Carry(7, -1, -1),)},
    "a carry from no argument": {"carries": (Carry(STATES, 9, -1),)},
    "a carry into no argument": {"carries": (Carry(STATES, -1, -2),)},
    "columns outside": {"loop": good_block(d=Operand(STATES, 1, 1))},
    "a negative column": {"loop": good_block(d=Operand(STATES, -1, 1))},
    "two steps ahead": {"loop": good_block(d=Operand(STATES, 0, 2))},
    "a step back": {"loop": good_block(d=Operand(STATES, 0, -1))},
    "a step ahead without a slot": {"loop": good_block(d=Operand(X, 0, 1))},
    "a register that nothing wrote": {"loop": good_block(a=register(1))},
    "a register too many": {"loop": good_block(d=register(48))},
    "an operand that is no buffer": {"loop": good_block(a=Operand(7))},
    "a missing operand": {"loop": good_block(a=Operand())},
    "an operand too many": {"loop": good_block(b=register(0))},
    "a missing result": {"loop": good_block(d=Operand())},
    "a shared vector is written": {"loop": good_block(d=Operand(VECTOR))},
    "a local is written by a step": {"loop": good_block(d=Operand(LOCAL))},
    "a weight that is not there": {"loop": good_gemm(weight=1)},
    "a product of another depth": {"loop": good_gemm(k=3)},
    "a product of another width": {"loop": good_gemm(n=3)},
    "a product over its factor": {"loop": good_gemm(a=Operand(STEP))},
    "a product with its init half over it": {"loop": good_gemm(c=Operand(STEP, 1))},
    "a product in once": {"once": (GOOD.loop[0],)},
    "a row of x in once": {
        "once": (GOOD.once[0], replace(GOOD.once[1], a=Operand(X))),
    },
    "a block of nothing": {"loop": (Instruction(Code.BLOCK, n=4, count=0),)},
    "a block of no columns": {"loop": (replace(GOOD.loop[1], n=0), *GOOD.loop[2:4])},
    "a block longer than its section": {"loop": (replace(GOOD.loop[1], count=3), *GOOD.loop[2:4])},
    "a block in a block": {"loop": (GOOD.loop[1], GOOD.loop[1], *GOOD.loop[2:4])},
    "a result over half of what the block reads": {
        "buffers": with_buffer(STEP, width=6),
        "loop": good_block(d=Operand(STEP, 2)),
    },
    "a result over half of another": {
        "buffers": with_buffer(STEP, width=6),
        "loop": (
            GOOD.loop[1],
            replace(GOOD.loop[3], a=Operand(X), d=Operand(STEP, 2)),
            replace(GOOD.loop[3], a=Operand(X), d=Operand(STEP)),
        ),
    },
    "a result over a column that the block spreads": {
        "loop": (
            GOOD.loop[1],
            Instruction(Code.BROADCAST, k=4, d=register(0), a=Operand(STEP, 1)),
            replace(GOOD.loop[3], d=Operand(STEP)),
        ),
    },
    "an operation outside a block": {"loop": GOOD.loop[2:3]},
    "a spread outside a block": {
        "loop": (Instruction(Code.BROADCAST, n=4, k=4, d=Operand(STEP), a=Operand(X)),)
    },
    "a spread of no axis": {
        "loop": (
            GOOD.loop[1],
            Instruction(Code.BROADCAST, k=0, d=register(0), a=Operand(X)),
            replace(GOOD.loop[3]),
        ),
    },
    "an axis that does not fit": {"loop": good_within(ROW_SUM, k=3)},
    "an axis of nothing": {"loop": good_within(ROW_SUM, k=0)},
    "an axis without elements between": {"loop": good_within(ROW_SUM, inner=0)},
    "an axis that is longer than the row": {"loop": good_within(ROW_SUM, k=4, inner=2)},
    "sums beyond the buffer": {"loop": good_within(ROW_SUM, k=1)},
    "a sum over its operand": {
        "loop": good_within(ROW_SUM, a=Operand(CHUNK), d=Operand(CHUNK, 1)),
    },
    "a table that is not there": {"loop": good_within(TAKE, weight=1)},
    "a table of other columns": {"loop": good_within(TAKE, n=3)},
    "a table of nothing": {"tables": (IndexTable(4, ()),)},
    "a run behind the row": {"tables": (IndexTable(4, (ElementRun(1, 4, 1),)),)},
    "a run ahead of the row": {"tables": (IndexTable(4, (ElementRun(1, 4, -1),)),)},
    "a run below the row": {"tables": (IndexTable(4, (ElementRun(-2, 4, 0),)),)},
    "a run of zeros that moves": {"tables": (IndexTable(4, (ElementRun(-1, 4, 1),)),)},
    "a run of nothing": {"tables": (IndexTable(4, (ElementRun(0, 0, 1), ElementRun(0, 4, 1))),)},
    "a table of a wider row": {"tables": (IndexTable(5, (ElementRun(0, 4, 1),)),)},
    "a take over its operand": {"loop": good_within(TAKE, a=Operand(CHUNK))},
    "a small product that is not there": {"loop": good_within(PRODUCT, weight=2)},
    "a small product of nothing": {"products": (SmallProduct(1, 2, 0, 2),)},
    "a small product too large": {"products": (SmallProduct(2**13, 2**6, 2**6, 1),)},
    "a small product of a wider row": {"products": (SmallProduct(1, 2, 3, 2),)},
    "a small product over its factor": {"loop": good_within(PRODUCT, b=Operand(CHUNK))},
    "a small product without a factor": {"loop": good_within(PRODUCT, b=Operand())},
    "a small product by a table that is not there": {
        "products": (SmallProduct(1, 2, 2, 2, table=1),)
    },
    "a small product by a table of no number": {"products": (SmallProduct(1, 2, 2, 2, table=-2),)},
    "a small product by a table of other columns": {
        "products": (SmallProduct(1, 2, 2, 1, table=0),),
        "loop": good_within(PRODUCT, n=2),
    },
    "a small product by elements that lie apart": {  # 3, 2, 1, 0
        "products": (SmallProduct(1, 2, 2, 2, table=0),)
    },
    "a small product by places in a wider row": {
        "tables": (*GOOD.tables, IndexTable(5, (ElementRun(0, 4, 1),))),
        "products": (SmallProduct(1, 2, 2, 2, table=1),),
    },
    "a sum of products that is not there": {"after": product_sum(count=2)},
    "a sum of products that are not across": {"after": product_sum(count=0)},
    "a sum of products into a gradient that is not there": {"after": product_sum(weight=2)},
    "a sum of products of other rows": {"after": product_sum(k=1)},
    "a sum of products into a gradient of another shape": {"after": product_sum(weight=0)},
    "a sum of products with a result": {"after": product_sum(d=Operand(CHUNK))},
    "a sum of products without a factor": {"after": product_sum(b=Operand())},
    "a sum of products of a step's memory": {"after": product_sum(a=Operand(STEP))},
    "a sum of products in the loop": {"loop": (*GOOD.loop, GOOD.after[1]), "after": ()},
    "a gradient that is not there": {"after": good_outer(weight=1)},
    "an outer product with a result": {"after": good_outer(d=Operand(STEP))},
    "an outer product of other columns": {"after": good_outer(n=5)},
    # What one engine would read otherwise than the other must not pass.
    "a gradient summed in the loop": {"loop": (*GOOD.loop, *GOOD.after), "after": ()},
    "a gradient summed before": {"before": good_outer(b=Operand(X)), "after": ()},
    "a step's memory before the loop": {"before": GOOD.loop[:1]},
    "a step's memory after the loop": {"after": GOOD.loop[:1]},
    "two slots after the loop": {
        "after": (Instruction(Code.ROW_SUM, n=4, k=4, d=Operand(CHUNK), a=Operand(PAIR)),)
    },
    "blocks of a weight on top of each other": {
        "weights": (Weight(4, 4, (WeightBlock(3, 0, 4, 0, 2, 0, 0),) * 2),)
    },
}


def test_the_good_program_is_accepted():
    native.make(GOOD, np.dtype(np.float32))
    native.make(GOOD, np.dtype(np.float64))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_is_refused(name):
    with pytest.raises(ValueError, match="invalid program: "):
        native.make(replace(GOOD, **BROKEN[name]), np.dtype(np.float32))


def test_numbers_that_are_no_program():
    integers, scalars = GOOD.numbers()
    workspaces = _native.Workspaces()
    for kind in (_native.Program32, _native.Program64):
        kind(integers, scalars, workspaces)
        with pytest.raises(ValueError, match="invalid program"):
            kind([], [], workspaces)
        with pytest.raises(ValueError, match="left over"):
            kind([*integers, 0], scalars, workspaces)
        with pytest.raises(ValueError, match="scalar"):
            kind(integers, scalars[:-1], workspaces)
        with pytest.raises(ValueError, match="scalar"):
            kind(integers, [*scalars, 0.0], workspaces)
        for n in range(len(integers)):
            with pytest.raises(ValueError, match="invalid program"):
                kind(integers[:n], scalars, workspaces)
        for i in range(len(integers)):
            for huge in (2**31, -(2**31) - 1, 2**63 - 1):
                with pytest.raises(ValueError, match="invalid program"):
                    kind([*integers[:i], huge, *integers[i + 1 :]], scalars, workspaces)
        for no_integer in ("a", None, 0.5, 2**63, -(2**63) - 1, [0]):
            with pytest.raises(TypeError):
                kind([no_integer, *integers[1:]], scalars, workspaces)
        for no_float in ("a", None, [0.0]):
            with pytest.raises(TypeError):
                kind(integers, [no_float, *scalars[1:]], workspaces)
        for no_list in (None, 3, "ab"):
            with pytest.raises(TypeError):
                kind(no_list, scalars, workspaces)


WRONG_PLAYS = {
    "arguments too few": {"arguments": [0, 8, 4] * 5},
    "half an argument": {"arguments": [0, 8, 4] * 5 + [0, 8]},
    "rows too few": {"rows": [0]},
    "lengths too few": {"lengths": [2]},
    "no steps": {"n_steps": 0},
    "steps below zero": {"n_steps": -1},
    "no rows": {"n_rows": 0},
    "rows below zero": {"n_rows": -1},
    "more rows than there is memory": {"n_rows": 2**62},
    "more steps than there is memory": {"n_steps": 2**62},
    "more of both": {"n_steps": 2**32, "n_rows": 2**32},
    "a row out of range": {"rows": [0, 2]},
    "a row below zero": {"rows": [-1, 1]},
    "a length out of range": {"lengths": [3, 1]},
    "a length below zero": {"lengths": [1, -1]},
    "an instruction set of no machine": {"isa": "mmx"},
}


def test_a_play_of_the_wrong_size_is_refused():
    """In a process of its own, which would not live to tell: it says which plays it survived."""
    script = f"""
        import sys
        import numpy as np
        sys.path[:0] = {[str(Path(__file__).parents[i]) for i in (0, 1)]!r}
        from test_programs import GOOD, ISAS, WRONG_PLAYS, native
        made = native.make(GOOD, np.dtype(np.float32))
        room = np.zeros(4096, np.float32)
        good = dict(arguments=[room.ctypes.data, 8, 4] * 6, n_steps=2, n_rows=2, rows=[],
                    lengths=[], threads=1, isa=ISAS[0])
        def play(arguments, **others):
            made.play(native.addresses(arguments), **others)
        play(**good)
        for name, wrong in WRONG_PLAYS.items():
            try:
                play(**(good | wrong))
            except ValueError:
                print(name, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == list(WRONG_PLAYS), done.returncode


FORKS = """
    import os, signal, sys, threading
    import numpy as np
    sys.path[:0] = sys.argv[2:]
    from random_programs import Maker
    from test_programs import native, play_native

    maker = Maker(np.random.default_rng(3))
    made = native.make(maker.program(), np.dtype(np.float32))
    wanted = maker.arrays(1, 1, np.float32, 1)
    play_native(None, maker, wanted, 1, 1, [], [], made=made)
    stop = False

    def play_on():
        arrays = maker.arrays(1, 1, np.float32, 1)
        while not stop:
            play_native(None, maker, arrays, 1, 1, [], [], made=made)

    def child():
        signal.alarm(20)  # a deadlock becomes a failure
        arrays = maker.arrays(1, 1, np.float32, 1)
        play_native(None, maker, arrays, 1, 1, [], [], made=made)
        assert "forked" in native.threading_runtime()
        assert all(np.array_equal(a, b) for a, b in zip(arrays, wanted))

    players = [threading.Thread(target=play_on) for _ in range(2)]
    for player in players:
        player.start()
    failed = 0
    for _ in range(int(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            finally:
                os._exit(status)
        failed = os.waitpid(pid, 0)[1]
        if failed:
            break
    stop = True
    for player in players:
        player.join()
    sys.exit(failed != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("forks", one_in(2, [40, 200]))
def test_a_child_forked_during_a_play_plays(forks):
    """Whatever the other threads were at when the child was made."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(FORKS),
            str(forks),
            *(str(Path(__file__).parents[i]) for i in (0, 1)),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


FUZZ = """
    import sys
    import numpy as np
    sys.path.insert(0, sys.argv[1])
    from random_programs import Maker
    from ostinato import _native

    rng = np.random.default_rng(int(sys.argv[2]))
    isas = _native.available_isas()
    kind, dtype = {"32": (_native.Program32, np.float32), "64": (_native.Program64, np.float64)}[
        sys.argv[3]]
    room = np.zeros(1 << 22, dtype)
    refused = played = 0

    def sizes(v):
        '''What a play would touch: the widths of buffers, weights and gradients.'''
        at, n = 3, v[2]
        widths = [v[at + 4 * i + 1] for i in range(n)]
        at += 4 * n
        for _ in range(at_next := v[at]):
            at_k = at + 1
            widths.append(v[at_k] * v[at_k + 1])
            blocks = v[at_k + 2]
            for b in range(blocks):
                widths += v[at_k + 3 + 7 * b : at_k + 10 + 7 * b]
            at += 3 + 7 * blocks
        at += 1
        widths += [a * b for a, b in zip(v[at + 1 : at + 1 + 3 * v[at] : 3],
                                         v[at + 2 : at + 2 + 3 * v[at] : 3])]
        return max(widths, default=0)

    def attempt(v, scalars):
        global refused, played
        try:
            program = kind(v, scalars, _native.Workspaces())
        except ValueError as error:
            assert str(error).startswith("invalid program: "), error
            refused += 1
            return
        # Valid by chance: it must play, on memory large enough for all it may touch.
        if sizes(v) < 1 << 16 and v[0] <= 4096:
            numbers = [room.ctypes.data, 0, 0] * v[0]
            T, B = int(rng.integers(1, 6)), int(rng.integers(1, 20))
            program.play(_native.Addresses(numbers), T, B, [], [], int(rng.integers(1, 4)),
                         isas[int(rng.integers(len(isas)))])
            played += 1

    EDGES = [0, 1, -1, -2, -3, 2, 5, 48, 49, 64, 65, 127, 2**24, 2**24 + 1, 2**31 - 1, -2**31]
    for _ in range(40):
        integers, scalars = Maker(rng, wide=bool(rng.random() < 0.2)).program().numbers()
        for _ in range(100):
            v = list(integers)
            way = rng.random()
            if way < 0.7:
                for _ in range(int(rng.integers(1, 4))):
                    i = int(rng.integers(len(v)))
                    v[i] = (EDGES[int(rng.integers(len(EDGES)))] if rng.random() < 0.5
                            else v[i] + int(rng.integers(-2, 3)))
            elif way < 0.8:
                v = v[: int(rng.integers(len(v)))]
            elif way < 0.9:
                i, j = sorted(rng.integers(len(v), size=2))
                v[i:j] = v[i:j][::-1]
            else:
                v = [int(x) for x in rng.integers(-3, 20, int(rng.integers(1, 120)))]
            attempt(v, scalars)
    print(refused, played)
"""


@pytest.mark.parametrize("bits", ["32", "64"])
def test_fuzzed_programs_never_crash(bits):
    """Mutated, cut, shuffled and random: refused with ValueError, or played without harm."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FUZZ), str(Path(__file__).parent), bits, bits],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refused, played = map(int, done.stdout.split())
    assert refused > 1000  # most mutations matter
    assert played > 100  # and some do not


def test_the_comparison_can_fail():
    """A reference with one instruction less is found to differ from the engine."""
    caught = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        maker = Maker(rng)
        program = maker.program()
        ours, theirs = (maker.arrays(3, 4, np.float64, seed) for _ in range(2))
        play_native(program, maker, ours, 3, 4, [], [])
        tanh = max(i for i, x in enumerate(program.loop) if x.op == "tanh")
        broken = (
            *program.loop[:tanh],
            replace(program.loop[tanh], op="sin"),
            *program.loop[tanh + 1 :],
        )
        reference.play(replace(program, loop=broken), theirs, 3, 4)
        caught += any(
            not np.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(ours, theirs, strict=True)
        )
    assert caught >= 7  # in some, the last state is looked at by nothing
