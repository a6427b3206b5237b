"""Captured tensors with a row for each of the batch: an encoder's states, a mask drawn before.

They are played as leaves of the carry that the step hands on, which costs no memory. The batch is
their first axis, or the second (torch.nn's layout of a sequence).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

MOST_TRIES = 64


class CapturedRows(NamedTuple):
    """A captured tensor, by its position, and its axis of the batch."""

    position: int
    axis: int


PerRow = tuple[CapturedRows, ...]


def parted(captured: list[Tensor], per_row: PerRow) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that a step takes from outside: those that no batch changes, those with rows.

    The latter have the batch as their first axis.
    """
    if not per_row:
        return captured, []
    with_rows = {of.position for of in per_row}
    fixed = [t for i, t in enumerate(captured) if i not in with_rows]
    return fixed, [_swapped(captured[of.position], of.axis) for of in per_row]


def _swapped(t: Tensor, axis: int) -> Tensor:
    return t if axis == 0 else t.transpose(0, axis)


def rejoined(fixed: list[Tensor], rows: list[Tensor], per_row: PerRow) -> list[Tensor]:
    """All tensors that a step takes from outside, as it finds them."""
    given = {of.position: _swapped(t, of.axis) for of, t in zip(per_row, rows, strict=True)}
    others = iter(fixed)
    return [given[i] if i in given else next(others) for i in range(len(fixed) + len(rows))]


def captured_rows(
    a: Arguments, captured: list[Tensor], n_rows: int, runs: Callable[[PerRow], bool]
) -> PerRow:
    """The captured tensors that have a row for each of the batch.

    A matrix may have as many rows as the batch by chance: these are tensors each of which must get
    other rows with the batch for the step to run on another one. () where that is of no use.

    Args:
        n_rows: those of the batch.
        runs: whether the step runs, forward and backward, on other numbers of rows, if these
            tensors have as many.
    """
    if a.weights is not None or (a.shared is not None and a.shared.alone):
        return ()
    axes = [_axes(t, n_rows) for t in captured]
    if not any(axes):
        return ()
    with warnings.catch_warnings():  # of shapes that do not fit, say
        warnings.simplefilter("ignore")
        return _fewest(_sets(captured, axes), runs)


def _axes(t: Tensor, n_rows: int) -> list[int]:
    return [] if t.is_complex() else [i for i in range(min(t.dim(), 2)) if t.shape[i] == n_rows]


def _sets(captured: list[Tensor], axes: list[list[int]]) -> Iterator[PerRow]:
    """Tensors that may be those with rows: none, then many that are likely, then a few."""
    yield ()
    for choice in (0, -1):  # where both axes may be the batch
        fitting = [CapturedRows(i, found[choice]) for i, found in enumerate(axes) if found]
        no_parameters = [of for of in fitting if type(captured[of.position]) is Tensor]
        made = [of for of in no_parameters if not _is_weight(captured[of.position])]
        for some in (made, no_parameters, fitting):
            arrays = [of for of in some if captured[of.position].dim() > 2]
            yield from (tuple(some), tuple(arrays))
    for n in range(1, len(fitting)):
        yield from itertools.combinations(fitting, n)


def _is_weight(t: Tensor) -> bool:
    return t.is_leaf and t.requires_grad


def _fewest(sets: Iterator[PerRow], runs: Callable[[PerRow], bool]) -> PerRow:
    """The first set with which the step runs, without those that it runs without."""
    for found in itertools.islice(sets, MOST_TRIES):
        if runs(found):
            for of in found:
                fewer = tuple([other for other in found if other != of])
                found = fewer if runs(fewer) else found
            return found
    return ()
