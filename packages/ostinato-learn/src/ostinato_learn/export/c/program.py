"""A step graph as instructions over arrays of constants, from which a C file is written.

The lowering is the engine's own: sums and products fused, elementwise operations in blocks. So the
C code adds up in the order in which the runtime does.

part        one function of the C file: a program of the engine, for one row and one step
constant    a vector that the program reads, or that its section `once` computes
weight      a matrix [K, N] as a product reads it, all its blocks put together
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from ostinato.internal import (
    OPS,
    Code,
    Instruction,
    Kind,
    Lowered,
    Node,
    Operand,
    Program,
    Weight,
    lower,
)
from ostinato_learn.export import once
from ostinato_learn.runtime.programs import pass_spec
from ostinato_learn.runtime.step_graph import StepGraph

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Part:
    """One function of the C file.

    Attributes:
        program: its sections other than `once` run one after the other.
        names: the names of the arguments: "x0", "y0", "init0", …; for constants and weights, a
            node.
        constants: the constants by buffer.
        weights: `[K, N]` float32, as the program numbers them.
    """

    program: Program
    names: tuple[Any, ...]
    constants: Mapping[int, Array]
    weights: tuple[Array, ...]

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        """Reorder so that products come late: then less memory is in use at a time."""
        program = self.program
        return _late_products(program, program.before + program.loop + program.after)

    @property
    def n_products(self) -> int:
        """Multiplications of a step in matrix products."""
        small = [
            self.program.products[x.weight] for x in self.instructions if x.code == Code.PRODUCT
        ]
        gemms = sum(x.k * x.n for x in self.instructions if x.code == Code.GEMM)
        return gemms + sum(p.groups * p.M * p.K * p.N for p in small)

    def name(self, buffer: int) -> str:
        """The argument of a buffer over time; of a carry of two slots, the name of the carry."""
        b = self.program.buffers[buffer]
        if b.kind == Kind.PAIR:
            (carry,) = [c for c in self.program.carries if c.buffer == buffer]
            return str(self.names[carry.init]).replace("init", "carry")
        return str(self.names[b.argument])


def part(graph: StepGraph, tensors: Mapping[str, Array]) -> Part:
    """A step, or a map, as a program.

    Args:
        graph: its inputs are the arguments "x0", …, its outputs "y0", ….
        tensors: the tensors that it reads, by name.

    Raises:
        Unsupported: the step cannot be lowered.
    """
    lowered = lower(replace(pass_spec(graph), by_places=False))  # C has no masked loads
    values = {n: once(n, tensors) for n in lowered.arguments if isinstance(n, Node)}
    weights = [_weight(w, lowered, values) for w in lowered.program.weights]
    return Part(lowered.program, lowered.arguments, _constants(lowered, values), tuple(weights))


def in_place(p: Part) -> set[int]:
    """The carries, by buffer, whose new value may be written over the old one as it is computed.

    No later block reads the old value, and no other column or later instruction of the same block.
    """
    accesses = list(_accesses(p.program, p.instructions))
    unsafe = {
        r.operand.buffer
        for r in accesses
        for w in accesses
        if not r.written
        and w.written
        and r.operand.dt == 0
        and w.operand.dt == 1
        and _overlap(r, w)
        and not _before(r, w)
    }
    return {c.buffer for c in p.program.carries} - unsafe


def local_arrays(p: Part, carries: set[int]) -> dict[int, int]:
    """The number of the array that each local buffer lies in; buffers that are not in use at the
    same time share one. The new values of these carries are local, too, and are used to the end.
    """
    kinds = {i: b.kind for i, b in enumerate(p.program.buffers)}
    used: dict[int, list[int]] = {}  # buffer → the blocks that use it
    end = 0
    for access in _accesses(p.program, p.instructions):
        o, end = access.operand, access.block
        local = o.buffer >= 0 and kinds[o.buffer] in (Kind.STEP, Kind.CHUNK)
        if local or (o.buffer in carries and o.dt == 1):
            used.setdefault(o.buffer, []).append(access.block)
    found: dict[int, int] = {}
    until: dict[int, int] = {}  # array → the last block that uses it
    for buffer, blocks in sorted(used.items(), key=lambda item: min(item[1])):
        free = [array for array, block in until.items() if block < min(blocks)]
        found[buffer] = free[0] if free else len(until)
        until[found[buffer]] = end if buffer in carries else max(blocks)
    return found


@dataclass(frozen=True)
class _Access:
    """Columns of a buffer that an instruction reads or writes."""

    operand: Operand
    n: int
    block: int  # the number of its block; of a product or a reduction, a number of its own
    place: int  # in the block
    written: bool
    code: Code
    ahead: bool = False  # read before the loop of the block


def _late_products(
    program: Program, instructions: tuple[Instruction, ...]
) -> tuple[Instruction, ...]:
    """Put every product right before the first block that it may not change places with."""
    begins = [i for i, x in enumerate(instructions) if x.code not in (Code.OP, Code.BROADCAST)]
    blocks = [instructions[a:b] for a, b in pairwise([*begins, len(instructions)])]
    of_block = groupby(_accesses(program, instructions), lambda access: access.block)
    accesses = [list(group) for _, group in of_block]
    for i in reversed(range(len(blocks))):
        if blocks[i][0].code != Code.GEMM:
            continue
        to = i + 1
        while to < len(blocks) and not _depend(accesses[i], accesses[to]):
            to += 1
        blocks.insert(to - 1, blocks.pop(i))
        accesses.insert(to - 1, accesses.pop(i))
    return tuple([x for block in blocks for x in block])


def _depend(first: list[_Access], second: list[_Access]) -> bool:
    """Whether one writes what the other reads or writes."""
    return any((a.written or b.written) and _overlap(a, b) for a in first for b in second)


def _accesses(program: Program, instructions: tuple[Instruction, ...]) -> Iterator[_Access]:
    block = width = 0
    for place, x in enumerate(instructions):
        if x.code not in (Code.OP, Code.BROADCAST):
            block += 1
        if x.code == Code.BLOCK:
            width = x.n
            continue
        read, n_written = _columns(program, x, width)
        one = is_one_number(x, width)
        for o, n in zip((x.a, x.b, x.c), read, strict=True):
            yield _Access(o, n, block, place, False, x.code, one)
        yield _Access(x.d, n_written, block, place, True, x.code)


def is_one_number(x: Instruction, width: int) -> bool:
    """Whether x repeats one number over all of a block, which is read before the loop."""
    return x.code == Code.BROADCAST and x.k == width


def _columns(program: Program, x: Instruction, width: int) -> tuple[tuple[int, int, int], int]:
    """How many columns of a, b and c an instruction reads, and of d it writes."""
    if x.code == Code.OP:
        return (width, width, width), width
    if x.code == Code.BROADCAST:
        return (width // x.k, 0, 0), width
    if x.code == Code.GEMM:
        return (x.k, 0, x.n), x.n
    if x.code == Code.TAKE:
        return (program.tables[x.weight].width, 0, 0), x.n
    if x.code == Code.PRODUCT:
        s = program.products[x.weight]
        return (s.groups * s.M * s.K, s.groups * s.K * s.N, 0), x.n
    return (x.n, 0, 0), x.n // x.k


def _overlap(r: _Access, w: _Access) -> bool:
    a, b = r.operand, w.operand
    same = a.buffer == b.buffer and a.buffer >= 0
    return same and a.column < b.column + w.n and b.column < a.column + r.n


def _before(r: _Access, w: _Access) -> bool:
    """Whether the loops of C read before they write, column by column."""
    if r.block != w.block:
        return r.block < w.block
    if r.ahead:
        return True
    return r.code == Code.OP and r.place <= w.place and r.operand.column == w.operand.column


def _weight(w: Weight, lowered: Lowered, values: Mapping[Node, Array]) -> Array:
    out = np.zeros((w.K, w.N), np.float32)
    for b in w.blocks:
        source = values[lowered.arguments[b.argument]]
        block = source[b.row : b.row + b.nk, b.column : b.column + b.nn]
        out[b.k0 : b.k0 + b.nk, b.n0 : b.n0 + b.nn] = block
    return out


def _constants(lowered: Lowered, values: Mapping[Node, Array]) -> dict[int, Array]:
    """The vectors that a program reads, and those that its section `once` computes."""
    found: dict[int, Array] = {}
    for i, b in enumerate(lowered.program.buffers):
        if b.kind == Kind.VECTOR:
            found[i] = values[lowered.arguments[b.argument]]
        elif b.kind == Kind.LOCAL:
            found[i] = np.zeros(b.width, np.float32)
    n = 0
    for x in lowered.program.once:
        if x.code == Code.BLOCK:
            n = x.n
            continue
        operands = [
            found[o.buffer][o.column : o.column + n] for o in (x.a, x.b, x.c)[: OPS[x.op].arity]
        ]
        found[x.d.buffer][x.d.column : x.d.column + n] = OPS[x.op].meaning(
            *operands, np.float32(x.s)
        )
    return found
