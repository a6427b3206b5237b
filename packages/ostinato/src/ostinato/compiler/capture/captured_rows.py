"""Captured tensors with a row for each row of the batch: an encoder's states, a mask.

They become leaves of the carry that the step hands on unchanged; the engine reads them in place.
The batch is their first axis, or the second (torch.nn's layout of a sequence).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

MOST_TRIES = 64  # a few ms each, and a step may be refused for another reason


class CapturedRows(NamedTuple):
    """A captured tensor, by its position, and its axis of the batch."""

    position: int
    axis: int


PerRow = tuple[CapturedRows, ...]


def parted(captured: list[Tensor], per_row: PerRow) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that a step takes from outside: those without a batch, and those with rows.

    The latter have the batch as their first axis.
    """
    if not per_row:
        return captured, []
    with_rows = {of.position for of in per_row}
    fixed = [t for i, t in enumerate(captured) if i not in with_rows]
    return fixed, [batch_first(captured[of.position], of.axis) for of in per_row]


def batch_first(t: Tensor, axis: int) -> Tensor:
    """A view with the batch as its first axis; or the reverse."""
    return t if axis == 0 else t.transpose(0, axis)


def rejoined(fixed: list[Tensor], rows: list[Tensor], per_row: PerRow) -> list[Tensor]:
    """All tensors that a step takes from outside, in their own layout."""
    given = {of.position: batch_first(t, of.axis) for of, t in zip(per_row, rows, strict=True)}
    others = iter(fixed)
    return [given[i] if i in given else next(others) for i in range(len(fixed) + len(rows))]


def captured_rows(
    a: Arguments, captured: list[Tensor], reached: Callable[[PerRow, float], float]
) -> PerRow:
    """The captured tensors that have a row for each of the batch.

    A matrix may have as many rows as the batch by chance. So tensors are added one after the other,
    if the step then runs further on another batch size (or two, if one call needs both), until it
    runs to its end.

    Args:
        captured: the captured tensors, in the order of their first use.
        reached: how far the step runs on other numbers of rows, if these tensors have them, too;
            infinity at its end. It may stop at a given number of calls.

    Returns:
        () if the step needs none, or none helps.
    """
    if a.weights is not None or (a.shared is not None and a.shared.alone):
        return ()
    fitting = [of for i, t in enumerate(captured) for of in _axes(i, t, a.n_rows)]
    if not fitting:
        return ()
    found: PerRow = ()
    now, tries = reached(found, -1), iter(range(MOST_TRIES))
    while now < math.inf:
        for more in _further(fitting, found):
            if next(tries, None) is None:
                return ()
            then = reached(more, now)
            if then > now:
                now, found = then, more
                break
        else:
            return ()
    return found


def _further(fitting: list[CapturedRows], found: PerRow) -> Iterator[PerRow]:
    """The candidates: one more tensor, then two more."""
    taken = {of.position for of in found}
    rest = [of for of in fitting if of.position not in taken]
    for n in (1, 2):
        for more in itertools.combinations(rest, n):
            if len({of.position for of in more}) == n:  # not one tensor by both its axes
                yield (*found, *more)


def _axes(i: int, t: Tensor, n_rows: int) -> list[CapturedRows]:
    if t.is_complex():
        return []
    return [CapturedRows(i, axis) for axis in range(min(t.dim(), 2)) if t.shape[axis] == n_rows]
