"""How surprising a stretch of steps is, in bits: whether two equal ones can be equal by chance.

The values of each feature (and the changes from step to step) are sorted into levels of equal
share. A step has −log2 P(its level | the level before, and whether it was rising) bits, with P
counted over the data. The largest number over the features, and over value and change, counts,
since features may repeat each other. A plateau, a ramp, a clock or common words have few bits,
though their values may be rare.

Pairs of stretches that are equal by chance must be expected up to log2(number of pairs) bits.
"""

from __future__ import annotations

import numpy as np

from ostinato_learn.data.checks.side import Side

SAFETY = 2  # times the bits of one pair by chance, for dependence beyond the step before
MOST_LEVELS, SAMPLE = 64, 2**18


def needed_bits(n_pairs: float) -> float:
    """The bits from which equal stretches, of so many pairs, are not equal by chance."""
    return SAFETY * float(np.log2(max(n_pairs, 2)))


def step_bits(one: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
    """The bits of each step of both sides, `[ΣT]` float32; a sequence's first step has none."""
    sides = (one,) if one is other else (one, other)
    n_steps = sum(len(side.values) for side in sides)
    # With s steps, each combination of level before, direction and level then has s^(1/3) / 3 of
    # them or more on average.
    levels = int(np.clip(2 ** round(np.log2(max(n_steps, 2)) / 3), 4, MOST_LEVELS))
    found = [np.zeros(len(side.values), np.float32) for side in sides]
    for f in range(one.n_features):
        for series in (_values, _changes):
            columns = [series(side, f) for side in sides]
            borders = _borders(columns, levels)
            cases = [_cases(column, borders, levels) for column in columns]
            bits = _conditional_bits(cases, levels)
            for total, case in zip(found, cases, strict=True):
                np.maximum(total, bits[case], out=total)
    for side, total in zip(sides, found, strict=True):
        total[side.offsets[:-1][side.lengths > 0]] = 0  # no step comes before the first one
    return found[0], found[-1]


def surprising(train: Side, test: Side, members: np.ndarray) -> bool:
    """Whether some of these test sequences cannot equal a training sequence by chance."""
    sums = np.concatenate([[0], np.cumsum(step_bits(train, test)[1], dtype=np.float64)])
    bits = sums[test.offsets[members + 1]] - sums[test.offsets[members]]
    return bool((bits >= needed_bits(float(len(train)) * len(test))).any())


def _values(side: Side, f: int) -> np.ndarray:
    column = side.values[:, f]
    return np.where(np.isnan(column), np.inf, column)  # the last level


def _changes(side: Side, f: int) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        changes = np.diff(side.values[:, f], prepend=side.values[:1, f])
    return np.where(np.isnan(changes), np.inf, changes)


def _borders(columns: list[np.ndarray], levels: int) -> np.ndarray:
    """Borders between levels of equal share, at most `levels` − 1."""
    every = max(1, sum(map(len, columns)) // SAMPLE)
    sample = np.concatenate([column[::every] for column in columns])
    shares = np.arange(1, levels) / levels
    return np.unique(np.quantile(sample, shares, method="lower"))


def _cases(column: np.ndarray, borders: np.ndarray, levels: int) -> np.ndarray:
    """(Level before · 3 + direction before) · levels + level, of each step."""
    level = np.searchsorted(borders, column, side="right")
    rising = 1 + (column[1:] > column[:-1]).astype(np.int64) - (column[1:] < column[:-1])
    before = np.concatenate([level[:1], level[:-1]])
    direction = np.concatenate([np.ones(min(2, len(column)), np.int64), rising[:-1]])
    return (before * 3 + direction) * levels + level


def _conditional_bits(cases: list[np.ndarray], levels: int) -> np.ndarray:
    """−log2 P(level | level and direction before) of each case, float32."""
    counts = np.zeros((3 * levels, levels), np.int64)
    for case in cases:
        counts += np.bincount(case, minlength=counts.size).reshape(counts.shape)
    before = counts.sum(axis=1, keepdims=True)
    return -np.log2((counts + 1) / (before + levels)).astype(np.float32).ravel()
