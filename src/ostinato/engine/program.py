"""Programs, as the native engine and the NumPy reference execute them.

The same structures as `native/program/program.h`, which explains the vocabulary. A program knows
neither T nor B: they come with each play.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from ostinato.engine.ops import OPS

OP_NUMBERS = {name: i for i, name in enumerate(OPS)}


class Kind(IntEnum):
    TIME = 0  # argument [slots, B, width]
    VECTOR = 1  # argument [width]
    LOCAL = 2  # [width], written by `once`
    STEP = 3  # [B, width], lives within one step
    CHUNK = 4  # [steps, B, width], lives from a section into the next
    PAIR = 5  # [2, B, width], a carry of which only the last two slots are needed
    TAPE = 6  # argument [slots, B, width] that programs alone read, dense, in an order of their own


class Code(IntEnum):
    GEMM = 0
    BLOCK = 1
    OP = 2
    BROADCAST = 3
    ROW_SUM = 4
    ROW_MAX = 5
    OUTER = 6
    COLUMN_SUM = 7


@dataclass(frozen=True)
class Buffer:
    kind: Kind
    width: int
    extra: int = 0
    argument: int = -1


@dataclass(frozen=True)
class WeightBlock:
    """w[k0 : k0+nk, n0 : n0+nn] = argument[row : row+nk, column : column+nn]"""

    argument: int
    k0: int
    nk: int
    n0: int
    nn: int
    row: int
    column: int


@dataclass(frozen=True)
class Weight:
    K: int
    N: int
    blocks: tuple[WeightBlock, ...]


@dataclass(frozen=True)
class Gradient:
    K: int
    N: int
    argument: int
    transposed: bool = False  # the argument is [N, K]


@dataclass(frozen=True)
class Carry:
    buffer: int
    init: int  # argument; −1: zeros
    final: int  # argument; −1: not wanted


@dataclass(frozen=True)
class Operand:
    buffer: int = -1  # ≥ 0 a buffer; −1 none; ≤ −2 the register −2 − buffer
    column: int = 0
    dt: int = 0

    @property
    def register(self) -> int:
        return -2 - self.buffer


NONE = Operand()


def register(index: int) -> Operand:
    return Operand(-2 - index)


@dataclass(frozen=True)
class Instruction:
    code: Code
    op: str = "copy"
    n: int = 0
    k: int = 0
    weight: int = 0
    count: int = 0
    s: float = 0.0
    d: Operand = NONE
    a: Operand = NONE
    b: Operand = NONE
    c: Operand = NONE


@dataclass(frozen=True)
class Program:
    n_arguments: int
    descending: bool
    buffers: tuple[Buffer, ...]
    weights: tuple[Weight, ...]
    gradients: tuple[Gradient, ...]
    carries: tuple[Carry, ...]
    once: tuple[Instruction, ...] = field(default=())
    before: tuple[Instruction, ...] = field(default=())
    loop: tuple[Instruction, ...] = field(default=())
    after: tuple[Instruction, ...] = field(default=())

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        return self.once + self.before + self.loop + self.after

    def numbers(self) -> tuple[list[int], list[float]]:
        """Integers in the order of `native/program/layout.h`, and one scalar an instruction."""
        out: list[int] = [self.n_arguments, int(self.descending), len(self.buffers)]
        for b in self.buffers:
            out += [b.kind, b.width, b.extra, b.argument]
        out.append(len(self.weights))
        for w in self.weights:
            out += [w.K, w.N, len(w.blocks)]
            for block in w.blocks:
                out += [
                    block.argument,
                    block.k0,
                    block.nk,
                    block.n0,
                    block.nn,
                    block.row,
                    block.column,
                ]
        out.append(len(self.gradients))
        for g in self.gradients:
            out += [g.K, g.N, g.argument, g.transposed]
        out.append(len(self.carries))
        for c in self.carries:
            out += [c.buffer, c.init, c.final]
        instructions = self.instructions
        out.append(len(instructions))
        for x in instructions:
            out += [x.code, OP_NUMBERS[x.op], x.n, x.k, x.weight, x.count]
            for o in (x.d, x.a, x.b, x.c):
                out += [o.buffer, o.column, o.dt]
        at = 0
        for section in (self.once, self.before, self.loop, self.after):
            out += [at, at + len(section)]
            at += len(section)
        return [int(v) for v in out], [x.s for x in instructions]
