"""One recurrence to be trained for one call, its right answer, and who may compete."""

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

Answer = dict[str, NDArray[Any]]  # "ys" [T, B, H], "d_<parameter>", "d_init0" …


class NotHereError(Exception):
    """A contender cannot compete, and why."""


@dataclass(frozen=True)
class Entrant:
    """run: one call, finished when it returns.
    answer: what `run` returned the first time, under the names of the right answer.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Answer]
    note: str = ""


@dataclass(frozen=True)
class Maker:
    """make: builds the entrant (compiles it); raises NotHereError, or what the library raises."""

    name: str
    make: Callable[[], Entrant]


class Problem:
    """Forward, then backward from given gradients of all outputs: those of parameters and init."""

    def __init__(self, cell: Cell, shape: Shape, seed: int = 0):
        self.cell, self.shape = cell, shape
        rng = np.random.default_rng(seed)
        T, B, F, H = shape.T, shape.B, shape.F, shape.H
        self.tolerance = tolerance(shape)
        bound = H**-0.5  # torch.nn's start
        self.params = {
            name: rng.uniform(-bound, bound, size).astype(np.float32)
            for name, size in cell.shapes(F, H).items()
        }
        self.init = tuple(np.full((B, H), start, np.float32) for start in cell.starts)
        self.xs = rng.standard_normal((T, B, F), np.float32)
        self.d_ys = rng.standard_normal((T, B, H), np.float32)

    @property
    def names(self) -> list[str]:
        """Of the gradients, in the order in which torch's entrants return them."""
        return [f"d_{p}" for p in self.params] + [f"d_init{i}" for i in range(len(self.init))]

    def tensors(self, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Parameters and init as leaves that want gradients."""
        params = (torch.tensor(p, dtype=dtype, requires_grad=True) for p in self.params.values())
        init = (torch.tensor(h, dtype=dtype, requires_grad=True) for h in self.init)
        return tuple(params), tuple(init)

    @cached_property
    def right(self) -> Answer:
        """By a plain loop in float64."""
        params, carry = self.tensors(torch.float64)
        leaves = (*params, *carry)
        ys = loop(self.cell, params, carry, torch.tensor(self.xs, dtype=torch.float64))
        grads = torch.autograd.grad(ys, leaves, torch.tensor(self.d_ys, dtype=torch.float64))
        return self.answer((ys, grads))

    def answer(self, ran: Any) -> Answer:
        """From (ys, gradients in the order of `names`), tensors."""
        ys, grads = ran
        found = {"ys": ys, **dict(zip(self.names, grads, strict=True))}
        return {name: np.asarray(t.detach()) for name, t in found.items()}


def tolerance(shape: Shape) -> float:
    """Of the largest error over the largest value, for each tensor.

    A step rounds sums of F + H products, ε·√(F + H) relative, and at worst the errors of all T
    steps add up (a stable recurrence damps them, so that this is generous).
    """
    return 4 * shape.T * (shape.F + shape.H) ** 0.5 * float(np.finfo(np.float32).eps)


def loop(cell: Cell, params: Any, carry: Any, xs: Tensor) -> Tensor:
    """The recurrence as a Python loop."""
    ys = []
    for x in xs.unbind(0):
        carry, y = cell.step(params, carry, x)
        ys.append(y)
    return torch.stack(ys)


def difference(answer: Answer, right: Answer, tolerance: float) -> str | None:
    """What is wrong with an answer, in words; None if it is right."""
    missing = right.keys() - answer.keys()
    if missing:
        return f"gave no {', '.join(sorted(missing))}"
    for name, wanted in right.items():
        found = answer[name]
        if found.shape != wanted.shape:
            return f"{name} has the shape {found.shape}, wanted {wanted.shape}"
        error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        if not error <= tolerance:  # also NaN
            return f"{name} is off by {error:.1e} of its largest value (allowed {tolerance:.1e})"
    return None


def admit(
    ours: Maker, peers: Sequence[Maker], right: Answer, tolerance: float
) -> list[Contender | Absent]:
    """Build every contender and let those compete whose answer is right.

    A peer that cannot be built is listed with its own error's words.

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
    except Exception as error:  # another library's failure is a finding, not ours to raise
        first_line = str(error).strip().partition("\n")[0]
        return Absent(peer.name, f"fails: {type(error).__name__}: {first_line}"[:200])
    wrong = difference(answer, right, tolerance)
    if wrong is not None:
        return Absent(peer.name, f"wrong: {wrong}")
    return Contender(peer.name, entrant.run, entrant.note)
