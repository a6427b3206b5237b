"""Captured tensors with a row for each of the batch: an encoder's states, a mask drawn before.

They are played as leaves of the carry that the step hands on, which costs no memory. The batch is
their first axis, or the second (torch.nn's layout of a sequence).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

MOST_TRIES = 512


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
    a: Arguments, captured: list[Tensor], n_rows: int, reached: Callable[[PerRow], float]
) -> PerRow:
    """The captured tensors that have a row for each of the batch.

    A matrix may have as many rows as the batch by chance. So one tensor after the other is taken
    with which the step gets further on another batch, or two that one call needs, until it runs.

    Args:
        n_rows: those of the batch.
        reached: how far the step gets on other numbers of rows, if these tensors have as many;
            infinity at its end.

    Returns:
        () where the step needs none, or none is of use.
    """
    if a.weights is not None or (a.shared is not None and a.shared.alone):
        return ()
    fitting = [of for i, t in enumerate(captured) for of in _axes(i, t, n_rows)]
    if not fitting:
        return ()
    found: PerRow = ()
    with warnings.catch_warnings():  # of shapes that do not fit, say
        warnings.simplefilter("ignore")
        now, tries = reached(found), 0
        while now < math.inf:
            taken = {of.position for of in found}
            rest = [of for of in fitting if of.position not in taken]
            best = now, found
            for n in (1, 2):
                for more in itertools.combinations(rest, n):
                    tries += 1
                    if len({of.position for of in more}) < n:  # one tensor, and both its axes
                        continue
                    if tries > MOST_TRIES:
                        return ()
                    best = max(best, (reached((*found, *more)), (*found, *more)), key=_first)
                if best[0] > now:
                    break
            else:
                return ()
            now, found = best
    return found


def _first(pair: tuple[float, PerRow]) -> float:
    return pair[0]


def _axes(i: int, t: Tensor, n_rows: int) -> list[CapturedRows]:
    if t.is_complex():
        return []
    return [CapturedRows(i, axis) for axis in range(min(t.dim(), 2)) if t.shape[axis] == n_rows]
