"""Stretches of steps that two sequences share, as windows cut from one series with overlap do.

    window   `width` steps in a row of one sequence
    block    a window that starts at a multiple of `width`: 2 · width − 1 shared steps contain one

A window counts if it is too surprising to be shared by chance (see `surprise`), and if few
sequences share it (unlike padding).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ostinato_learn.data.checks.finding import Finding, share
from ostinato_learn.data.checks.side import Side, stretch_hashes
from ostinato_learn.data.checks.surprise import needed_bits, step_bits

NARROWEST = 4
COMMON_SHARE, COMMON_COUNT = 0.25, 10
SERIOUS_SHARE = 0.01


@dataclass(frozen=True)
class SharedWindow:
    """Sequences that share a window.

    Attributes:
        width: steps of the window.
        sequences: `[M]` positions of those in the second side.
        partners: `[M]` for each, a position in the first side.
    """

    width: int
    sequences: np.ndarray
    partners: np.ndarray


def shared_windows(
    one: Side, other: Side, skip_one: np.ndarray, skip_other: np.ndarray
) -> SharedWindow | None:
    """Sequences of `other` that share a window with one of `one`, and not with themselves.

    Args:
        one, other: two sides, or the same one twice.
        skip_one, skip_other: `[N]` bool, sequences that do not count (copies of others).

    Returns:
        None if sequences are too short for a window that cannot be shared by chance.
    """
    bits = step_bits(one, other)
    needed = needed_bits(float(len(one.values)) * len(other.values))
    width = _width(other, bits[1], needed)
    if width is None:
        return None
    starts, first_of = _starts(one, width, bits[0], needed, skip_one)
    block = (starts - one.offsets[first_of]) % width == 0
    starts, first_of = starts[block], first_of[block]
    hashes = stretch_hashes(one.step_hashes, starts, starts + width)
    order = np.argsort(hashes, kind="stable")  # in a run of equal ones, sequences ascend
    hashes, first_of = hashes[order], first_of[order]
    run = np.flatnonzero(np.diff(hashes, prepend=~hashes[:1]) != 0)
    counts = np.diff(run, append=len(hashes))
    rare = counts <= max(COMMON_COUNT, COMMON_SHARE * len(one))
    run, last = run[rare], (run + counts - 1)[rare]

    wanted_at, wanted_of = _starts(other, width, bits[1], needed, skip_other)
    wanted = stretch_hashes(other.step_hashes, wanted_at, wanted_at + width)
    if len(run) == 0 or len(wanted) == 0:
        return SharedWindow(width, *np.zeros((2, 0), np.int64))
    at = np.minimum(np.searchsorted(hashes[run], wanted), len(run) - 1)
    partner = first_of[run[at]]
    if one is other:  # the first of the run may be the window itself; then take the last
        partner = np.where(partner == wanted_of, first_of[last[at]], partner)
    hit = hashes[run[at]] == wanted
    if one is other:
        hit &= partner != wanted_of
    sequences, where = np.unique(wanted_of[hit], return_index=True)
    return SharedWindow(width, sequences, partner[hit][where])


def _width(side: Side, bits: np.ndarray, needed: float) -> int | None:
    """The narrowest of these shares of a sequence at which most windows have enough bits."""
    usual = int(np.median(side.lengths))
    for width in (usual // 8, usual // 4, usual // 2, 3 * usual // 4):
        if width >= NARROWEST and width * np.median(bits) >= needed:
            return width
    return None


def _starts(
    side: Side, width: int, bits: np.ndarray, needed: float, skip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where windows of enough bits start, `[M]`, and the sequence of each, `[M]`."""
    sums = np.concatenate([[0], np.cumsum(bits, dtype=np.float64)])
    sequence = np.repeat(np.arange(len(side)), side.lengths)
    starts = np.arange(len(side.values))
    whole = starts + width <= side.offsets[1:][sequence]
    whole[whole] = sums[starts[whole] + width] - sums[starts[whole]] >= needed
    whole &= ~skip[sequence]
    return starts[whole], sequence[whole]


def across(train: Side, test: Side, copies: np.ndarray) -> Iterator[Finding]:
    """Windows of training sequences in test sequences; `copies` `[N]` bool are not looked at."""
    shared = shared_windows(train, test, np.zeros(len(train), bool), copies)
    if shared is None or len(shared.sequences) == 0:
        return
    n = len(shared.sequences)
    yield Finding(
        "serious" if n >= SERIOUS_SHARE * len(test) else "warning",
        "same-window",
        f"{share(n, len(test))} test sequences share {shared.width} or more steps in a row with a "
        "training sequence, as windows of one series that overlap do",
        n,
        _places(test, train, shared),
        "split by group (the series that each was cut from) or by time, before cutting",
    )


def within(side: Side, copies: np.ndarray) -> Iterator[Finding]:
    """Windows that sequences of one file share, which a split at random puts on both sides."""
    shared = shared_windows(side, side, copies, copies)
    if shared is None:
        return
    groups = side.examples.groups
    if groups is not None:  # sharing within a group is harmless
        apart = groups[shared.sequences] != groups[shared.partners]
        shared = SharedWindow(shared.width, shared.sequences[apart], shared.partners[apart])
    n = len(shared.sequences)
    if n == 0:
        return
    yield Finding(
        "serious" if n >= SERIOUS_SHARE * len(side) else "warning",
        "shared-windows",
        f"{share(n, len(side))} sequences share {shared.width} or more steps in a row with another"
        f"{'' if groups is None else ' of another group'}: a split puts some on both sides",
        n,
        _places(side, side, shared),
        "name the series that each was cut from as its group (--group), or split by time",
    )


def _places(a: Side, b: Side, shared: SharedWindow) -> tuple[str, ...]:
    first = list(zip(shared.sequences[:6].tolist(), shared.partners[:6].tolist(), strict=True))
    if a is b:  # each pair once
        first = list(dict.fromkeys((min(pair), max(pair)) for pair in first))
    return tuple(f"{a.place(i)} and {b.place(j)}" for i, j in first[:3])
