"""Leaves of init and xs without the axis of the batch, as rows that the engine can play.

If no leaf has a batch, the call is one row: the step is recorded under `torch.func.vmap`, which
gives each of its operations the axis. If some leaves have one, the others are shared by all rows (a
time step dt, a position, a counter): each row gets a copy, with axes of 1 in front, so that it
broadcasts as before. The step's result for such a leaf is the same in every row, and that of the
first row is returned. `verify.py` compares the result with the Python loop, as for every step.

An iteration of a loop whose rows read each other (a mean over the batch, a matrix without a batch)
is tried at last with the whole batch as one row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.errors import refused
from ostinato.compiler.steps import code_key, known_rows

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.recording import Recording

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


def ways(a: Arguments) -> list[Shared]:
    """The possible meanings of leaves without a batch, to be tried in this order."""
    if a.ragged.lengths is not None or a.ragged.starts is not None or a.of_layer:
        return []
    if a.weights is not None:
        return []
    if all(leaf.dim() < 2 for leaf in a.leaves):
        return [_alone(a)]
    found = _shared(a)
    return [*found, *[replace(shared, aligned=False) for shared in found[:1]]]


_folds: dict[Any, set[int]] = {}  # by code: sizes of batches; empty if folding does not help
MOST_FOLDED = 4  # sizes of one step, each with a recording of its own; then rows are rows
MOST_STEPS = 128  # steps with remembered sizes


def folded(a: Arguments) -> list[Shared]:
    """A call whose leaves are `[B]` and `[T, B]` as one row of B columns; else [].

    Rows of one column take as long as rows of a vector each.
    """
    if a.leaves[0].dim() != 1:  # as most calls, which shall not pay for the others
        return []
    sizes = {leaf.shape for leaf in a.leaves} | {leaf.shape[1:] for leaf in a.xs_leaves}
    plain = a.weights is None and a.ragged.lengths is None and a.ragged.starts is None
    if len(sizes) > 1 or not plain or a.adapted or a.of_layer:
        return []
    (size,) = sizes
    if len(size) != 1 or size[0] < 2:
        return []
    known = _folds.setdefault(code_key(a.given), set())
    if len(known) >= MOST_FOLDED and size[0] not in known:
        return []
    known.add(size[0])
    while len(_folds) > MOST_STEPS:
        _folds.pop(next(iter(_folds)))
    return [_alone(a)]


def folds(a: Arguments, recording: Recording) -> bool:
    """Whether a folded call is faster: its values have B columns, or one. Else it is not tried
    again.

    An array beside each row (`h[:, None] * w`) is better computed row by row.
    """
    (n,) = a.leaves[0].shape
    outs = {i for call in recording.calls for i in call.outs if i is not None}
    shapes = [[m for m in recording.shapes[i] if isinstance(m, int)] for i in outs]
    if all(shape in ([], [1], [n]) for shape in shapes):
        return True
    _folds[code_key(a.given)] = set(range(-MOST_FOLDED, 0))  # no size of a batch
    return False


MOST_IN_A_ROW = 2**14  # elements of the carry; products of large matrices are better not in a row


def as_one_row(a: Arguments, known: bool) -> Arguments | None:
    """The call with its whole batch as one row, for steps whose rows read each other.

    Args:
        known: give it only if `remember` has been called for these shapes.
    """
    of_code: set[Any] = known_rows.get(code_key(a.given), set())
    if known:
        return replace(a, shared=_alone(a)) if of_code and _shapes(a) in of_code else None
    plain = a.weights is None and a.ragged.lengths is None and a.ragged.starts is None
    is_small = sum(leaf.numel() for leaf in a.leaves) <= MOST_IN_A_ROW
    if not plain or not is_small or a.of_layer or len(of_code) >= MOST_FOLDED:
        return None
    return replace(a, shared=_alone(a))


def remember(a: Arguments) -> None:
    """Calls of the shapes of this one are one row."""
    code = code_key(a.given)
    known_rows[code] = known_rows.get(code, set()) | {_shapes(a)}


def _shapes(a: Arguments) -> tuple[Any, ...]:
    return *[leaf.shape for leaf in a.leaves], *[leaf.shape[1:] for leaf in a.xs_leaves]


def _alone(a: Arguments) -> Shared:
    return Shared(1, (True,) * len(a.leaves), (True,) * len(a.xs_leaves), 0, True)


def forget(code: Any) -> None:
    """Forget with which batches the step of this code was folded."""
    _folds.pop(code, None)


def _shared(a: Arguments) -> list[Shared]:
    """Leaves without a batch as rows of as many axes as those of init have, or of xs."""
    sizes = {leaf.shape[0] for leaf in a.leaves if leaf.dim() > 1}
    if len(sizes) > 1:
        return []
    (n,) = sizes
    states = tuple([not (leaf.dim() and leaf.shape[0] == n) for leaf in a.leaves])
    xs = tuple([not (leaf.dim() > 1 and leaf.shape[1] == n) for leaf in a.xs_leaves])
    if not any(states + xs):
        return []
    ranks = [leaf.dim() - 1 for leaf, of_all in zip(a.leaves, states, strict=True) if not of_all]
    x_ranks = [leaf.dim() - 2 for leaf, of_all in zip(a.xs_leaves, xs, strict=True) if not of_all]
    both = dict.fromkeys([max(ranks), *x_ranks])
    return [Shared(n, states, xs, rank, False) for rank in both]


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
