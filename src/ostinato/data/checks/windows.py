"""Stretches of steps that two sequences share, as windows cut from one series with overlap do.

    window   `width` steps in a row of one sequence
    block    a window that starts at a multiple of `width`: 2 · width − 1 shared steps hold one
    bits     how surprising a window is, −Σ log2 of the shares of its steps

Sequences of few values, or of a slow signal, share windows by chance. A window counts if it has
`SAFETY` times the bits that make one chance pair likely among all pairs of windows. A step has the
bits of its values or of its change, whichever are fewer, and none where nothing changes. A window
that many sequences share (a clock, a padding) does not count either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ostinato.data.checks.finding import Finding, share
from ostinato.data.checks.side import SPREAD, Side, mixed, stretch_hashes

SAFETY = 3  # steps depend on each other: text of 4.2 bits a character has about 2 given the others
NARROWEST = 4
COMMON_SHARE, COMMON_COUNT = 0.25, 10
SERIOUS_SHARE = 0.01
_BUCKETS = 22  # bits of a table of counts: 2²² int64 are 32 MB; a collision takes bits away
_CHANGE = 1e-4  # changes are told apart to this part of a feature's standard deviation


@dataclass(frozen=True)
class Shared:
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
) -> Shared | None:
    """Sequences of `other` that share a window with one of `one`, and not with themselves.

    Args:
        one, other: two sides, or the same one twice.
        skip_one, skip_other: `[N]` bool, sequences that do not count (copies of others).

    Returns:
        None if sequences are too short for a window that cannot be shared by chance.
    """
    bits = _bits(one, other)
    total = float(len(one.values)) * len(other.values)
    needed = SAFETY * np.log2(total)
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
        return Shared(width, *np.zeros((2, 0), np.int64))
    at = np.minimum(np.searchsorted(hashes[run], wanted), len(run) - 1)
    partner = first_of[run[at]]
    if one is other:  # the first of the run may be the window itself; then the last
        partner = np.where(partner == wanted_of, first_of[last[at]], partner)
    hit = hashes[run[at]] == wanted
    if one is other:
        hit &= partner != wanted_of
    sequences, where = np.unique(wanted_of[hit], return_index=True)
    return Shared(width, sequences, partner[hit][where])


def _bits(one: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
    """The bits of each step of both sides, `[ΣT]` each: of its values, or of its change."""
    sides = (one,) if one is other else (one, other)
    scale = np.nanstd(one.values[: 2**18], axis=0)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1) * _CHANGE
    found: list[np.ndarray] = []
    changes = [_changes(side, scale) for side in sides]
    for hashed in ([side.step_hashes for side in sides], changes):
        counts = np.zeros(2**_BUCKETS, np.int64)
        for hashes in hashed:
            counts += np.bincount(_bucket(hashes), minlength=len(counts))
        surprise = np.log2(counts.sum()) - np.log2(np.maximum(counts, 1))
        found.append(surprise)
    result = []
    for side, change in zip(sides, changes, strict=True):
        bits = np.minimum(found[0][_bucket(side.step_hashes)], found[1][_bucket(change)])
        bits[1:][side.step_hashes[1:] == side.step_hashes[:-1]] = 0
        bits[side.offsets[:-1][side.lengths > 0]] = 0  # its change is from another sequence
        result.append(bits)
    return result[0], result[-1]


def _changes(side: Side, scale: np.ndarray) -> np.ndarray:
    """A hash of each step's change from the one before, `[ΣT]` uint64."""
    hashes = np.zeros(len(side.values), np.uint64)
    for f in range(side.n_features):
        column = side.values[:, f].astype(np.float64)
        with np.errstate(invalid="ignore"):
            change = np.diff(column, prepend=column[:1]) / scale[f]
            change[~(np.abs(change) < 2**52)] = 2**52  # missing and infinite values
        words = np.rint(change).astype(np.int64).view(np.uint64)
        hashes += mixed(words + np.uint64((f + 1) * SPREAD % 2**64))
    return hashes


def _bucket(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(64 - _BUCKETS)).astype(np.int64)


def _width(side: Side, bits: np.ndarray, needed: float) -> int | None:
    """The narrowest of an eighth, a quarter, half a sequence of which most have enough bits."""
    usual = int(np.median(side.lengths))
    for part in (8, 4, 2):
        width = max(NARROWEST, usual // part)
        if width <= usual // 2 and width * np.median(bits) >= needed:
            return width
    return None


def _starts(
    side: Side, width: int, bits: np.ndarray, needed: float, skip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where windows of enough bits start, `[M]`, and the sequence of each, `[M]`."""
    sums = np.concatenate([[0], np.cumsum(bits)])
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
        "split by group (the series that they were cut from) or by time, before cutting",
    )


def within(side: Side, copies: np.ndarray) -> Iterator[Finding]:
    """Windows that sequences of one file share, which a split at random puts on both sides."""
    shared = shared_windows(side, side, copies, copies)
    if shared is None:
        return
    groups = side.examples.groups
    if groups is not None:  # sharing within a group does no harm
        apart = groups[shared.sequences] != groups[shared.partners]
        shared = Shared(shared.width, shared.sequences[apart], shared.partners[apart])
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
        "give each its group (the series that it was cut from), or split by time",
    )


def _places(a: Side, b: Side, shared: Shared) -> tuple[str, ...]:
    pairs = zip(shared.sequences[:3], shared.partners[:3], strict=True)
    return tuple(f"{a.place(i)} and {b.place(j)}" for i, j in pairs)
