"""The order of the rows of a ragged batch in the engine: by length, dealt to groups like cards."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

from ostinato.engine import native


def dealt(lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """The order of the engine's rows, and their lengths in that order.

    Args:
        lengths: `[B]`, the lengths of the caller's rows.

    Returns:
        The engine's row → the caller's row, empty if the orders are the same; and the lengths of
        the engine's rows.
    """
    of_row = list(lengths)
    if len(set(of_row)) == 1:
        return [], of_row
    by_length = sorted(range(len(of_row)), key=of_row.__getitem__, reverse=True)
    order = [0] * len(of_row)
    for seat, row in zip(_seats(len(of_row)), by_length, strict=True):
        order[seat] = row
    return order, [of_row[row] for row in order]


@functools.lru_cache(maxsize=64)
def _seats(n_rows: int) -> tuple[int, ...]:
    """The engine's rows as they are dealt: the first of each group, the second of each, …

    Every other round goes back from the last group to the first: else the first groups, and their
    thread, would get the longest rows of every round. The result is kept, since most calls have as
    many rows as an earlier one.
    """
    groups = native.n_groups(n_rows)
    begins = [n_rows * g // groups for g in range(groups + 1)]
    members = [list(range(first, end)) for first, end in pairwise(begins)]
    seats: list[int] = []
    for i in range(max(map(len, members))):
        dealt_now = [group[i] for group in members if i < len(group)]
        seats += dealt_now if i % 2 == 0 else reversed(dealt_now)
    return tuple(seats)
