"""The NumPy interpreter of programs: the slow, obvious definition of every instruction.

It runs the whole batch at once, time step by time step, and adds up gradients in one array. The
native engine runs groups of rows, and agrees with it within rounding. Numbers below the smallest
normal one (2⁻¹²⁶ in float32, 2⁻¹⁰²² in float64) are read and written as zeros of their sign; the
engine may leave one that an instruction only moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ostinato.engine.ops import OPS
from ostinato.engine.program import (
    Code,
    ElementRun,
    IndexTable,
    Instruction,
    Kind,
    Operand,
    Program,
)

Array = np.ndarray[Any, np.dtype[Any]]


def flushed(x: Array) -> Array:
    """x with zeros, of the same sign, in place of numbers below the smallest normal one."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


def play(
    program: Program,
    arguments: Sequence[Array | None],
    n_steps: int,
    n_rows: int,
    rows: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    begins: bool = True,
) -> None:
    """Play a program on arrays; results are written into the arguments.

    Args:
        program: a valid program.
        arguments: as the program numbers them: `[slots, B, …]` for a TIME or TAPE buffer, `[K, N]`
            for a weight or gradient, `[width]` for a VECTOR, `[B, …]` for the first and the last
            carry. None as the first carry means zeros, None as the last that it is not stored.
        n_steps, n_rows: T and B.
        rows: the row of the arguments for each row of the engine; None: the same.
        lengths: `[B]` time steps of each row of the engine; None: all have `n_steps`.
        begins: whether the gradients of weights begin at zero; else they are added to, as in later
            segments of a run.
    """
    _Reference(program, arguments, n_steps, n_rows, rows, lengths).run(begins)


def spread(a: Array, times: int, inner: int) -> Array:
    """Rows `[outer, inner]` as rows `[outer, times, inner]`, alike along the axis of `times`."""
    wide = np.repeat(a.reshape(len(a), -1, 1, inner), times, axis=2)
    return wide.reshape(len(a), -1)


def over_axis(reduce: Any, a: Array, times: int, inner: int) -> Array:
    """Rows `[outer, times, inner]`, reduced over the axis in the middle."""
    return reduce(a.reshape(len(a), -1, times, inner), axis=2).reshape(len(a), -1)


def taken(a: Array, table: IndexTable) -> Array:
    """The elements of every row that the runs of a table name."""
    return np.concatenate([_run_of(a, run) for run in table.runs], axis=1)


def _run_of(a: Array, run: ElementRun) -> Array:
    if run.start < 0:
        return np.zeros((len(a), run.count), a.dtype)
    return a[:, run.start + run.step * np.arange(run.count)]


class _Reference:
    def __init__(
        self,
        program: Program,
        arguments: Sequence[Array | None],
        n_steps: int,
        n_rows: int,
        rows: Sequence[int] | None,
        lengths: Sequence[int] | None,
    ):
        self.p, self.n_steps = program, n_steps
        self.arguments: list[Any] = list(arguments)
        self.rows = np.arange(n_rows) if rows is None else np.asarray(rows)
        self.lengths = np.full(n_rows, n_steps) if lengths is None else np.asarray(lengths)
        dtype = next(a.dtype for a in arguments if a is not None and a.dtype.kind == "f")
        self.dtype = dtype
        self.buffers: list[Array] = []
        for b in program.buffers:
            if b.kind in (Kind.TIME, Kind.TAPE):
                whole = self.arguments[b.argument]
                self.buffers.append(whole.reshape(*whole.shape[:2], -1))
            elif b.kind == Kind.VECTOR:
                self.buffers.append(self.arguments[b.argument])
            elif b.kind == Kind.LOCAL:
                self.buffers.append(np.zeros(b.width, dtype))
            else:  # memory for every slot, although the kind may need less
                self.buffers.append(np.zeros((n_steps + 1, n_rows, b.width), dtype))
        self.weights = [self.weight(w, dtype) for w in program.weights]

    def weight(self, w: Any, dtype: Any) -> Array:
        """A weight `[K, N]`, put together from its blocks."""
        out = np.zeros((w.K, w.N), dtype)
        for b in w.blocks:
            source = self.arguments[b.argument]
            out[b.k0 : b.k0 + b.nk, b.n0 : b.n0 + b.nn] = source[
                b.row : b.row + b.nk, b.column : b.column + b.nn
            ]
        return flushed(out)

    def run(self, begins: bool) -> None:
        for g in self.p.gradients if begins else ():
            self.arguments[g.argument][...] = 0
        self.section(self.p.once, 0, np.array([0]))
        batch = np.arange(len(self.lengths))
        first = self.lengths if self.p.descending else np.zeros_like(self.lengths)
        last = np.zeros_like(self.lengths) if self.p.descending else self.lengths
        for c in self.p.carries:
            buffer = self.buffers[c.buffer]
            init = self.arguments[c.init].reshape(len(batch), -1) if self.given(c.init) else None
            slots = first, self.place(c.buffer, batch)
            buffer[slots] = 0 if init is None else init[self.rows]
        steps = range(self.n_steps)
        order = list(reversed(steps) if self.p.descending else steps)
        for section in (self.p.before, self.p.loop, self.p.after):
            for t in order:
                alive = batch[self.lengths > t]
                if len(alive):
                    self.section(section, t, alive)
        for c in self.p.carries:
            if self.given(c.final):
                final = self.arguments[c.final]
                value = self.buffers[c.buffer][last, self.place(c.buffer, batch)]
                final.reshape(len(batch), -1)[self.rows] = value

    def place(self, buffer: int, rows: Array) -> Array:
        """The rows of a buffer that belong to these rows of the engine."""
        return self.rows[rows] if self.p.buffers[buffer].kind == Kind.TIME else rows

    def given(self, argument: int) -> bool:
        """Whether a carry has this argument, and the caller passed an array for it."""
        return argument != -1 and self.arguments[argument] is not None

    def section(self, instructions: tuple[Instruction, ...], t: int, alive: Array) -> None:
        """Play a section at time t for the rows `alive`."""
        registers: dict[int, Any] = {}
        n = 0
        for x in instructions:
            if x.code == Code.BLOCK:
                registers, n = {}, x.n
            elif x.code == Code.OP:
                op = OPS[x.op]
                operands = [
                    self.read(o, t, alive, n, registers) for o in (x.a, x.b, x.c)[: op.arity]
                ]
                s = np.float64(x.s) if not operands else operands[0].dtype.type(x.s)
                with np.errstate(all="ignore"):
                    self.write(x.d, t, alive, n, registers, op.meaning(*operands, s))
            elif x.code == Code.BROADCAST:
                a = self.read(x.a, t, alive, n // x.k, registers)
                self.write(x.d, t, alive, n, registers, spread(a, x.k, x.inner))
            else:
                self.outside_block(x, t, alive)

    def outside_block(self, x: Instruction, t: int, alive: Array) -> None:
        """Play a product, a sum, or an operation within a row."""
        if x.code in (Code.TAKE, Code.PRODUCT):
            return self.within_rows(x, t, alive)
        if x.code == Code.PRODUCT_SUM:
            gradient = self.gradient(x)
            gradient += self.product(x, x.count, t, alive).sum(0).reshape(gradient.shape)
            return
        width = x.k if x.code in (Code.GEMM, Code.OUTER) else x.n
        a = self.read(x.a, t, alive, width, {})
        if x.code == Code.GEMM:
            init: Any = 0 if x.c.buffer == -1 else self.read(x.c, t, alive, x.n, {})
            self.write(x.d, t, alive, x.n, {}, init + a @ self.weights[x.weight])
        elif x.code == Code.ROW_SUM:
            self.write(x.d, t, alive, x.n // x.k, {}, over_axis(np.sum, a, x.k, x.inner))
        elif x.code == Code.ROW_MAX:
            self.write(x.d, t, alive, x.n // x.k, {}, over_axis(np.max, a, x.k, x.inner))
        else:
            out = self.gradient(x)
            if x.code == Code.OUTER:
                out += a.T @ self.read(x.b, t, alive, x.n, {})
            else:
                out += a.sum(0)

    def within_rows(self, x: Instruction, t: int, alive: Array) -> None:
        if x.code == Code.TAKE:
            table = self.p.tables[x.weight]
            a = self.read(x.a, t, alive, table.width, {})
            self.write(x.d, t, alive, x.n, {}, taken(a, table))
            return
        product = self.product(x, x.weight, t, alive)
        width = math.prod(product.shape[1:])
        self.write(x.d, t, alive, width, {}, product.reshape(-1, width))

    def gradient(self, x: Instruction) -> Array:
        """The gradient that a sum adds to, `[K, N]`."""
        gradient = self.p.gradients[x.weight]
        out: Array = self.arguments[gradient.argument]
        return out.T if gradient.transposed else out

    def product(self, x: Instruction, number: int, t: int, alive: Array) -> Array:
        """Matrices by matrices: `[rows, groups, M, N]`; a single row if all rows share them."""
        p = self.p.products[number]
        a = self.read(x.a, t, alive, p.groups * p.M * p.K, {}).reshape(-1, p.groups, p.M, p.K)
        if p.table < 0:
            b = self.read(x.b, t, alive, p.groups * p.K * p.N, {})
        else:
            table = self.p.tables[p.table]
            b = taken(self.read(x.b, t, alive, table.width, {}), table)
        if p.across:
            b = b.reshape(-1, p.groups, p.N, p.K).swapaxes(2, 3)
        return a @ b.reshape(-1, p.groups, p.K, p.N)

    def read(self, o: Operand, t: int, alive: Array, n: int, registers: dict[int, Any]) -> Array:
        """n columns of an operand, `[rows, n]`, or `[1, n]` if all rows share them."""
        if o.buffer <= -2:
            return registers[o.register]
        buffer = self.buffers[o.buffer]
        columns = slice(o.column, o.column + n)
        if buffer.ndim == 1:
            return flushed(buffer[None, columns])
        return flushed(buffer[t + o.dt][self.place(o.buffer, alive), columns])

    def write(
        self, o: Operand, t: int, alive: Array, n: int, registers: dict[int, Any], value: Any
    ) -> None:
        """Write n columns of an operand."""
        value = flushed(np.asarray(value, self.dtype))
        if o.buffer <= -2:
            registers[o.register] = np.broadcast_to(value, (len(alive), n))
            return
        buffer = self.buffers[o.buffer]
        columns = slice(o.column, o.column + n)
        if buffer.ndim == 1:
            buffer[columns] = value
        else:
            buffer[t + o.dt, self.place(o.buffer, alive), columns] = value
