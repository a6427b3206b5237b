"""One training call of a recurrence, its right answer, and the contenders that reach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.cells import Cell, Shape
from benchmarks.harness import Contender
from benchmarks.results import Absent

Answer = dict[str, NDArray[Any]]  # "ys" [T, B, H], "d_<parameter>", "d_init0", …


class NotHereError(Exception):
    """A contender cannot compete here; the message says why."""


@dataclass(frozen=True)
class Entrant:
    """A contender that was built but not yet checked.

    Attributes:
        run: makes one call, which is finished when it returns.
        answer: turns the result of the first run into an answer.
        note: a remark for the table.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Answer]
    note: str = ""


@dataclass(frozen=True)
class Maker:
    """A contender still to be built.

    Attributes:
        make: builds and compiles the entrant. It raises NotHereError, or the library's own error.
    """

    name: str
    make: Callable[[], Entrant]


class Problem:
    """Train once: ys from xs, then the gradients of parameters and init from gradients of ys.

    xs `[T, B, F]`, init a tuple of `[B, H]`, d_ys `[T, B, H]`, all NumPy arrays of `dtype`. With
    `last` the loss looks at the last state alone: d_ys is zero before it, and gradients of early
    steps vanish.
    """

    def __init__(
        self,
        cell: Cell,
        shape: Shape,
        seed: int = 0,
        last: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self.cell, self.shape, self.dtype = cell, shape, dtype
        rng, of = np.random.default_rng(seed), np.dtype(str(dtype).removeprefix("torch."))
        T, B, F, H = shape.T, shape.B, shape.F, shape.H
        self.tolerance = tolerance(shape, float(np.finfo(of).eps))
        bound = H**-0.5  # torch.nn's initial weights are uniform within ±1/√H
        self.params = {
            name: rng.uniform(-bound, bound, size).astype(of)
            for name, size in cell.shapes(F, H).items()
        }
        self.init = tuple(np.full((B, H), start, of) for start in cell.starts)
        self.xs = rng.standard_normal((T, B, F), of)
        self.d_ys = rng.standard_normal((T, B, H), of)
        if last:
            self.d_ys[:-1] = 0

    @property
    def names(self) -> list[str]:
        """The names of the gradients, in the order in which torch's entrants return them."""
        return [f"d_{p}" for p in self.params] + [f"d_init{i}" for i in range(len(self.init))]

    def tensors(self, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Parameters and init as leaf tensors that require gradients."""
        params = (torch.tensor(p, dtype=dtype, requires_grad=True) for p in self.params.values())
        init = (torch.tensor(h, dtype=dtype, requires_grad=True) for h in self.init)
        return tuple(params), tuple(init)

    @cached_property
    def right(self) -> Answer:
        """The answer by a plain loop in float64."""
        params, carry = self.tensors(torch.float64)
        leaves = (*params, *carry)
        ys = loop(self.cell, params, carry, torch.tensor(self.xs, dtype=torch.float64))
        grads = torch.autograd.grad(ys, leaves, torch.tensor(self.d_ys, dtype=torch.float64))
        return self.answer((ys, grads))

    def answer(self, ran: Any) -> Answer:
        """An answer from a pair of tensors: (ys, gradients in the order of `names`)."""
        ys, grads = ran
        found = {"ys": ys, **dict(zip(self.names, grads, strict=True))}
        return {name: np.asarray(t.detach()) for name, t in found.items()}


def tolerance(shape: Shape, eps: float = float(np.finfo(np.float32).eps)) -> float:
    """The allowed error of each tensor, relative to its largest value: 4 ε T √(F + H).

    A step sums F + H products with a relative error of about ε √(F + H). At worst the errors of all
    T steps add up; a stable recurrence damps them. The factor 4 is a margin.
    """
    return 4 * shape.T * (shape.F + shape.H) ** 0.5 * eps


def loop(cell: Cell, params: Any, carry: Any, xs: Tensor) -> Tensor:
    """The recurrence as a Python loop."""
    ys = []
    for x in xs.unbind(0):
        carry, y = cell.step(params, carry, x)
        ys.append(y)
    return torch.stack(ys)


# A gradient whose largest value is below this is compared with this: libraries take numbers below
# 2⁻¹²⁶ for zeros, or compute them with few digits.
VANISHED = 2.0**-100


def difference(answer: Answer, right: Answer, tolerance: float) -> str | None:
    """How an answer differs from the right one, in words; None if it is right."""
    missing = right.keys() - answer.keys()
    if missing:
        return f"gave no {', '.join(sorted(missing))}"
    for name, wanted in right.items():
        found = answer[name]
        if found.shape != wanted.shape:
            return f"{name} has the shape {found.shape}, wanted {wanted.shape}"
        error = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), VANISHED))
        if not error <= tolerance:  # true for NaN, too
            return f"{name} is off by {error:.1e} of its largest value (allowed {tolerance:.1e})"
    return None


def admit(
    ours: Maker, peers: Sequence[Maker], right: Answer, tolerance: float
) -> list[Contender | Absent]:
    """Build every contender, and admit those whose answer is right.

    A peer that cannot be built, fails, or is wrong becomes Absent, with the reason.

    Raises:
        AssertionError: our own answer is wrong.
    """
    entrant = ours.make()
    wrong = difference(entrant.answer(entrant.run()), right, tolerance)
    assert wrong is None, f"{ours.name}: {wrong}"
    found: list[Contender | Absent] = [Contender(ours.name, entrant.run, entrant.note)]
    return found + [_admitted(peer, right, tolerance) for peer in peers]


def _admitted(peer: Maker, right: Answer, tolerance: float) -> Contender | Absent:
    try:
        entrant = peer.make()
        answer = entrant.answer(entrant.run())
    except NotHereError as reason:
        return Absent(peer.name, str(reason))
    except Exception as error:  # any failure of another library is a result of the benchmark
        first_line = str(error).strip().partition("\n")[0]
        return Absent(peer.name, f"fails: {type(error).__name__}: {first_line}"[:200])
    wrong = difference(answer, right, tolerance)
    if wrong is not None:
        return Absent(peer.name, f"wrong: {wrong}")
    return Contender(peer.name, entrant.run, entrant.note)
