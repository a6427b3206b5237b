"""Programs, which the native engine and the NumPy reference execute.

The structures are those of `native/program/program.h`, which explains the vocabulary. T and B are
not parts of a program: each play sets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any

from ostinato.engine.ops import OPS

OP_NUMBERS = {name: i for i, name in enumerate(OPS)}

MAX_ARGUMENTS, MAX_WIDTH = 4096, 1 << 24  # the engine's kMaxArguments and kMaxWidth


class Kind(IntEnum):
    """The kinds of buffers; see `native/program/kinds.def`."""

    TIME = 0  # argument [slots, B, width]
    VECTOR = 1  # argument [width], the same for every row and step
    LOCAL = 2  # [width], written by the section `once`
    STEP = 3  # [B, width], lives within one time step
    CHUNK = 4  # [steps of a chunk, B, width], lives from one section into the next
    PAIR = 5  # [2, B, width], a carry whose last two slots alone are needed
    TAPE = 6  # argument [slots, B, width], dense, in an order known only to programs


class Code(IntEnum):
    """The codes of instructions, with operands d, a, b, c; see `native/program/codes.def`."""

    GEMM = 0  # d[n] = c[n] (or 0) + a[k] · weight
    BLOCK = 1  # play the next `count` instructions strip by strip
    OP = 2  # in a block: d = op(a, b, c, s)
    BROADCAST = 3  # in a block: d[o, j, i] = a[o, i], for all j of the axis
    ROW_SUM = 4  # d[o, i] = Σ_j a[o, j, i], over the axis
    ROW_MAX = 5  # d[o, i] = max_j a[o, j, i]
    TAKE = 6  # d[n] = the elements of a that a table names
    PRODUCT = 7  # d[g, m, n] = Σ_k a[g, m, k] · b[g, k, n], of matrices within the row
    OUTER = 8  # gradient[k, n] += a[k]ᵀ b[n], summed over rows and steps
    COLUMN_SUM = 9  # gradient[n] += Σ a[n], summed over rows and steps
    # gradient[g, m, n] += Σ_k a[g, m, k] · b[g, n, k], summed over rows and steps
    PRODUCT_SUM = 10


@dataclass(frozen=True)
class Buffer:
    """A named place for values: an argument, or memory of the engine."""

    kind: Kind
    width: int
    extra: int = 0  # slots beyond T; of TIME and TAPE
    argument: int = -1  # of TIME, VECTOR and TAPE


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
    """A matrix [K, N], made of blocks of arguments."""

    K: int
    N: int
    blocks: tuple[WeightBlock, ...]


@dataclass(frozen=True)
class Gradient:
    """An argument [K, N] that receives a sum over rows and time steps."""

    K: int
    N: int
    argument: int
    transposed: bool = False  # the argument is [N, K]


@dataclass(frozen=True)
class Carry:
    """A buffer whose slot t (descending: t + 1) is the carry that step t reads."""

    buffer: int
    init: int  # argument [B, width]; −1: zeros
    final: int  # argument [B, width]; −1: not stored


@dataclass(frozen=True)
class ElementRun:
    """Elements start, start + step, …, `count` of them; zeros if `start` is −1."""

    start: int
    count: int
    step: int


@dataclass(frozen=True)
class IndexTable:
    """The elements of a row of `width` columns that an instruction selects, as runs."""

    width: int
    runs: tuple[ElementRun, ...]

    @property
    def n(self) -> int:
        return sum(r.count for r in self.runs)


@dataclass(frozen=True)
class SmallProduct:
    """d[g, m, n] = Σ_k a[g, m, k] · b[g, k, n], within each row; `across`: of b[g, n, k].

    With a table, the table names the elements of the row b. Each sixteen neighbours in a row of a
    matrix of b must be adjacent there, except zeros.
    """

    groups: int
    M: int
    K: int
    N: int
    across: bool = False
    table: int = -1


@dataclass(frozen=True)
class Operand:
    """Columns of a buffer, from `column` on, at time t + dt; or a register."""

    buffer: int = -1  # ≥ 0: a buffer; −1: none; ≤ −2: the register −2 − buffer
    column: int = 0
    dt: int = 0

    @property
    def register(self) -> int:
        return -2 - self.buffer

    def right(self, columns: int) -> Operand:
        """The place that is `n` columns to the right."""
        return Operand(self.buffer, self.column + columns, self.dt)


NONE = Operand()


def register(index: int) -> Operand:
    """The operand that is register `index` of a block."""
    return Operand(-2 - index)


@dataclass(frozen=True)
class Instruction:
    """One operation of a section; d is the result, a, b and c are read.

    The axis of BROADCAST, ROW_SUM and ROW_MAX is the middle one of a row `[outer, k, inner]`.
    """

    code: Code
    op: str = "copy"  # of OP: a name in `OPS`
    n: int = 0  # columns of the result; of a: ROW_SUM, ROW_MAX, COLUMN_SUM
    # GEMM, OUTER: columns of a. BROADCAST, ROW_SUM, ROW_MAX: the length of the axis. PRODUCT_SUM:
    # rows of the gradient.
    k: int = 0
    # An index: GEMM into weights; OUTER, COLUMN_SUM, PRODUCT_SUM into gradients; TAKE into tables;
    # PRODUCT into products.
    weight: int = 0
    count: int = 0  # BLOCK: the number of its instructions; PRODUCT_SUM: an index into products
    inner: int = 1  # BROADCAST, ROW_SUM, ROW_MAX: elements between two along the axis
    s: float = 0.0  # OP: the scalar
    d: Operand = NONE
    a: Operand = NONE
    b: Operand = NONE
    c: Operand = NONE


@dataclass(frozen=True)
class Program:
    """A flat list of instructions in four sections, and the memory that they use.

    `once` runs once, `loop` runs time step by time step. `before` and `after` run for all
    steps of a chunk at once.
    """

    n_arguments: int
    descending: bool  # plays t = T−1 … 0
    buffers: tuple[Buffer, ...]
    weights: tuple[Weight, ...]
    gradients: tuple[Gradient, ...]
    carries: tuple[Carry, ...]
    tables: tuple[IndexTable, ...] = ()
    products: tuple[SmallProduct, ...] = ()
    once: tuple[Instruction, ...] = ()
    before: tuple[Instruction, ...] = ()
    loop: tuple[Instruction, ...] = ()
    after: tuple[Instruction, ...] = ()

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        return self.once + self.before + self.loop + self.after

    def numbers(self) -> tuple[list[int], list[float]]:
        """The program as integers and scalars, as the native engine reads it.

        The integers are in the order of `native/program/layout.h`; the scalars are the `s` of all
        instructions.
        """
        lists = (
            self.buffers,
            self.weights,
            self.gradients,
            self.carries,
            self.tables,
            self.products,
            self.instructions,
        )
        out = [self.n_arguments, int(self.descending)]
        for found in lists:
            out += _numbers(found)
        at = 0
        for section in (self.once, self.before, self.loop, self.after):
            out += [at, at + len(section)]
            at += len(section)
        return out, [x.s for x in self.instructions]


def _numbers(value: Any) -> list[int]:
    """A part of a program as integers: the length of a tuple, then its elements; else the fields.

    The scalars of instructions are left out.
    """
    if isinstance(value, str):
        return [OP_NUMBERS[value]]
    if isinstance(value, int):
        return [int(value)]
    if isinstance(value, tuple):
        return [len(value), *chain.from_iterable(map(_numbers, value))]
    fields = vars(value).items()
    return list(chain.from_iterable(_numbers(x) for name, x in fields if name != "s"))
