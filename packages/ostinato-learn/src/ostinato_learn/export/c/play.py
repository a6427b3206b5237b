"""A part computed by NumPy, for many rows: the arithmetic of the C code, in any precision.

With `noise`, every result is off by up to the rounding error of float32, up or down at random. The
resulting deviation of an answer is the bound within which two correct programs agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ostinato.internal import NONE, OPS, Code, Instruction, Kind, Operand, over_axis, spread, taken
from ostinato_learn.export.c.program import Part

Array = np.ndarray[Any, np.dtype[Any]]
EPSILON = 2.0**-24  # float32 rounds to within this part of a number
N_TRIALS = 16
ULPS = 4  # a function of the runtime or of C is within this many, see ops.py
# Rounding cannot change the result of these, and it must not make equal numbers differ.
_EXACT = {
    "copy", "fill", "neg", "abs", "sign", "floor", "ceil", "round", "trunc", "fmod", "max", "min",
    "lt", "le", "eq", "ne", "max_s", "min_s", "lt_s", "gt_s", "le_s", "ge_s", "eq_s", "select",
    "select_s", "select_else_s",
}  # fmt: skip


class PartPlayer:
    """Computes one part.

    Args:
        part: the part.
        weights: `[K, N]` each, in place of those of the part.
        dtype: the dtype of all numbers.
        noise: a random generator, or None.
    """

    def __init__(
        self,
        part: Part,
        weights: Sequence[Array] | None = None,
        dtype: Any = np.float64,
        noise: np.random.Generator | None = None,
    ):
        self.part, self.dtype, self.noise = part, np.dtype(dtype), noise
        self.weights = [w.astype(dtype) for w in (part.weights if weights is None else weights)]
        self.constants = {i: v.astype(dtype)[None] for i, v in part.constants.items()}

    def values(
        self, xs: Sequence[Array], states: Sequence[Array]
    ) -> tuple[list[Array], list[Array]]:
        """The new states and the outputs of one step, `[B, width]` each."""
        p, n_rows = self.part, len([*xs, *states][0])
        given = {f"x{i}": x for i, x in enumerate(xs)}
        given |= {f"carry{i}": s for i, s in enumerate(states)}
        self.memory: dict[tuple[int, int], Array] = {}
        for i, b in enumerate(p.program.buffers):
            known = self.constants.get(i)
            if known is None and b.kind in (Kind.TIME, Kind.PAIR):
                known = given.get(p.name(i))
            self.memory[i, 0] = np.zeros((n_rows, b.width), self.dtype) if known is None else known
            self.memory[i, 1] = np.zeros((n_rows, b.width), self.dtype)
        width = 0
        self.registers: dict[int, Array] = {}
        for x in p.instructions:
            width = x.n if x.code == Code.BLOCK else width
            if x.code != Code.BLOCK:
                with np.errstate(all="ignore"):
                    self.instruction(x, width)
        names = {
            p.name(i): i
            for i, b in enumerate(p.program.buffers)
            if b.kind in (Kind.TIME, Kind.PAIR)
        }
        new = [self.memory[names[f"carry{i}"], 1] for i in range(len(p.program.carries))]
        return new, [self.memory[i, 0] for name, i in sorted(names.items()) if name[0] == "y"]

    def instruction(self, x: Instruction, width: int) -> None:
        """Compute one instruction: read its operands and write its result, with noise if requested.

        Args:
            x: of any code but BLOCK.
            width: the number of columns of its block.
        """
        if x.code == Code.GEMM:
            a, w = self.read(x.a, x.k), self.weights[x.weight]
            init = np.zeros((1, x.n), self.dtype) if x.c == NONE else self.read(x.c, x.n)
            size = np.abs(init) + np.abs(a) @ np.abs(w) if self.noise else None
            self.write(x.d, x.n, init + a @ w, size, x.k + 1)
        elif x.code == Code.ROW_SUM:
            a = self.read(x.a, x.n)
            total, size = (over_axis(np.sum, v, x.k, x.inner) for v in (a, np.abs(a)))
            self.write(x.d, x.n // x.k, total, size, x.k)
        elif x.code == Code.ROW_MAX:
            self.write(x.d, x.n // x.k, over_axis(np.max, self.read(x.a, x.n), x.k, x.inner))
        elif x.code == Code.TAKE:
            table = self.part.program.tables[x.weight]
            self.write(x.d, x.n, taken(self.read(x.a, table.width), table))
        elif x.code == Code.PRODUCT:
            self.small_product(x)
        elif x.code == Code.BROADCAST:
            self.write(x.d, width, spread(self.read(x.a, width // x.k), x.k, x.inner))
        else:
            operands = [self.read(o, width) for o in (x.a, x.b, x.c)[: OPS[x.op].arity]]
            value = np.asarray(OPS[x.op].meaning(*operands, self.dtype.type(np.float32(x.s))))
            size = None if x.op in _EXACT else np.abs(value)
            self.write(
                x.d, width, value.reshape(-1, value.shape[-1] if value.ndim else 1), size, ULPS
            )

    def small_product(self, x: Instruction) -> None:
        """d[g, m, n] = Σ_k a[g, m, k] · b[g, k, n], for matrices within each row."""
        p = self.part.program.products[x.weight]
        a = self.read(x.a, p.groups * p.M * p.K).reshape(-1, p.groups, p.M, p.K)
        b = self.read(x.b, p.groups * p.K * p.N).reshape(
            -1, p.groups, *((p.N, p.K) if p.across else (p.K, p.N))
        )
        b = b.swapaxes(2, 3) if p.across else b
        size = (np.abs(a) @ np.abs(b)).reshape(-1, x.n)
        self.write(x.d, x.n, (a @ b).reshape(-1, x.n), size, p.K)

    def read(self, o: Operand, n: int) -> Array:
        """n columns of an operand, `[B, n]`; a register as it was written."""
        if o.buffer < -1:
            return self.registers[o.register]
        return self.memory[o.buffer, o.dt][:, o.column : o.column + n]

    def write(
        self, o: Operand, n: int, value: Array, size: Array | None = None, roundings: int = 0
    ) -> None:
        """size: of the numbers whose sum or function was rounded so many times."""
        if self.noise is not None and size is not None:
            shape = (len(self.memory[0, 1]), n)
            sign = self.noise.choice([-1.0, 1.0], size=shape)
            rounded = np.isfinite(size) & (value != np.rint(value))  # a count is exact
            value = value + np.where(rounded, size, 0) * (roundings * EPSILON * sign)
        if o.buffer < -1:
            self.registers[o.register] = value
        else:
            self.memory[o.buffer, o.dt][:, o.column : o.column + n] = value


def answers(step: PartPlayer, answer: PartPlayer, x: Array) -> Array:
    """The answers after each step, `[B, T, K]`, of x `[B, T, columns]` as the network reads it."""
    n_rows, n_steps = x.shape[:2]
    buffers = step.part.program.buffers
    widths = [buffers[c.buffer].width for c in step.part.program.carries]
    states = [np.zeros((n_rows, width), step.dtype) for width in widths]
    found = []
    for t in range(n_steps):
        states, _ = step.values([x[:, t].astype(step.dtype)], states)
        found.append(answer.values(states, ())[1][0])
    return np.stack(found, axis=1)


def bound(step: Part, answer: Part, x: Array, weights: Any = (None, None)) -> Array:
    """The largest difference of two correct programs in float32, for each answer: `[T, K]`.

    The model is computed in float64, once exactly and N_TRIALS times with noise. Each of two
    programs is off by about the largest deviation; another factor of 4 covers deviations that did
    not occur.

    Args:
        x: `[T, columns]`, one sequence.
        weights: the weights of step and answer, in place of their own.
    """
    many = np.repeat(x[None], N_TRIALS, axis=0)
    noise = np.random.default_rng(0)
    exact = answers(PartPlayer(step, weights[0]), PartPlayer(answer, weights[1]), x[None])
    noisy = answers(
        PartPlayer(step, weights[0], noise=noise), PartPlayer(answer, weights[1], noise=noise), many
    )
    off = np.abs(noisy - exact).max(0)
    return 2 * 4 * off + 4 * EPSILON * np.maximum(1, np.abs(exact[0]))
