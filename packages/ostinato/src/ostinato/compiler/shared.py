"""Leaves of init and xs without the axis of the batch, as rows that the engine can play.

If no leaf has a batch, the call is one row: the step is recorded under `torch.func.vmap`, which
gives each of its operations the axis. If some leaves have one, the others are shared by all rows (a
time step dt, a position, a counter): each row gets a copy, with axes of 1 in front, so that it
broadcasts as before. The step's result for such a leaf is the same in every row, and that of the
first row is returned. `forms/shared.py` decides which leaves these are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.errors import refused

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.recording import Call, Recording

Flags = tuple[bool, ...]


@dataclass(frozen=True)
class Shared:
    """Which leaves have no batch.

    Attributes:
        n_rows: B; 1 if no leaf has a batch.
        states, xs: for each leaf of init and of xs: whether it is shared by all rows.
        rank: the axes of a row of those that have a batch.
        alone: whether no leaf has a batch.
        aligned: whether a copy for each row has axes of 1 in front, to broadcast as a leaf without
            a batch does. An index of the rows of a table has none.
    """

    n_rows: int
    states: Flags
    xs: Flags
    rank: int
    alone: bool
    aligned: bool = True

    def rows(
        self, init: Sequence[Tensor], xs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The leaves of init as `[B, …]`, and those of xs as `[T, B, …]`."""
        states = [self._copied(t, 0) if s else t for t, s in zip(init, self.states, strict=True)]
        return states, [self._copied(t, 1) if s else t for t, s in zip(xs, self.xs, strict=True)]

    def _copied(self, leaf: Tensor, axis: int) -> Tensor:
        aligned = self.aligned and not self.alone
        missing = max(self.rank - (leaf.dim() - axis), 0) if aligned else 0
        shape = (*leaf.shape[:axis], 1, *[1] * missing, *leaf.shape[axis:])
        copies = list(shape)
        copies[axis] = self.n_rows
        return leaf.reshape(shape).expand(copies)

    def as_given(
        self, ys: Sequence[Tensor], finals: Sequence[Tensor], a: Arguments, shapes: Sequence[Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and last carry in the caller's form; shapes: those of the outputs of one step."""
        given = []
        for y, shape in zip(ys, shapes, strict=True):
            if y.shape[1:] == shape:
                given.append(y)
            else:
                given.append(y[:, 0].reshape(y.shape[0], *shape))
        last = [
            leaf[0].reshape(of.shape) if shared else leaf
            for leaf, of, shared in zip(finals, a.leaves, self.states, strict=True)
        ]
        return given, last

    def flat(self, a: Arguments) -> Callable[[list[Tensor], list[Tensor]], Any]:
        """The step on leaves that are rows."""
        return _row_by_row(a) if self.alone else a.flat


def _row_by_row(a: Arguments) -> Callable[[list[Tensor], list[Tensor]], Any]:
    from ostinato.compiler.capture.record import transformed  # not a part of every start

    mapped = transformed(a.flat, functools.partial(torch.func.vmap, randomness="different"))

    def flat(states: list[Tensor], xs: list[Tensor]) -> Any:
        with refused(
            "init and xs have no batch, and the step cannot be mapped over one ({}): give them an "
            "axis of 1"
        ):
            return mapped(states, xs)

    return flat


# Calls that take or put the parts of an xs leaf `[T, B, n]`.
_OF_PARTS = {"select", "select_backward", "slice", "slice_backward", "unbind", "stack", "add"}


def is_narrow(recording: Recording) -> bool:
    """Whether a batch that was recorded as one row is better played so: its values have B columns,
    or one.

    An array beside each row (`h[:, None] * w`) is better computed row by row.
    """
    shapes = recording.shapes
    narrow = [(), (1,), shapes[recording.states[0]][1:]]
    parted = {shapes[i] for i in recording.xs}

    def fits(call: Call, i: int) -> bool:
        of_rows = bool(shapes[i]) and not isinstance(shapes[i][0], int)
        of_parts = shapes[i] in parted and call.name.split(".")[1] in _OF_PARTS
        return not of_rows or shapes[i][1:] in narrow or of_parts

    return all(fits(call, i) for call in recording.calls for i in call.outs if i is not None)
