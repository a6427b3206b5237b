"""Sequences that nearly equal another one: rounded, scaled by a hair, or with noise added.

    sketch      up to 16 steps of a sequence, evenly spaced, standardised; `[16 · F]`
    projection  16 numbers that the sketch is projected to, by random directions
    cell        sequences of one length of which 5 of these numbers, rounded, agree: near ones do,
                in one of several tables at least
    variation   the root mean square of a sequence's deviations from its own means

Two sequences of one length are near if their distance (root mean square over all values) is at
most `NEAR` of the smaller variation. In dense data many are near by chance: from the distances to
the 32nd and further neighbours follows how many others were to be expected so near.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ostinato.data.checks.finding import Finding, share
from ostinato.data.checks.side import Side, mixed
from ostinato.data.checks.surprise import surprising

NEAR, NEAR_TOLD = 0.05, "5 %"
SERIOUS_SHARE = 0.01
_FEWEST = 20  # sequences, below which no density can be told
_FEWEST_VALUES = 8  # of a sequence: shorter ones are near by chance
_POINTS, _PROJECTIONS, _KEYS, _TABLES = 16, 16, 5, 6
_CELL = 4 * NEAR  # of the median variation: a near pair shares a coordinate's cell in 80 % or more
_NEIGHBOURS = 3  # that each is compared with in its cell
_MOST_PAIRS = 300_000
_PROBES, _REFERENCE = 200, 8192  # pairs, and the sequences among which their density is measured
_FARTHEST = 1e6  # deviations from the mean, so that squares of outliers stay finite
_FALSE_SHARE = 0.1  # of the pairs told, at most so many are expected to be near by chance


class _Pool:
    """Training and test sequences together, as the search reads them."""

    def __init__(self, sides: list[Side], generator: np.random.Generator) -> None:
        self.sides = sides
        self.lengths = np.concatenate([side.lengths for side in sides])
        self.side = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
        self.first = np.cumsum([0, *map(len, sides)])
        every = max(1, sum(len(side.values) for side in sides) // 2**18)
        sample = np.concatenate([side.values[::every] for side in sides]).astype(np.float64)
        known = np.where(np.isfinite(sample), sample, np.nan)
        has = np.isfinite(known).any(axis=0)
        self.mean = np.nanmean(np.where(has, known, 0), axis=0)
        scale = np.nanstd(np.where(has, known, 0), axis=0)
        self.scale = np.where(scale > 0, scale, 1)
        width = min(_POINTS, int(self.lengths.max(initial=1))) * len(self.mean)
        directions = generator.normal(size=(width, _PROJECTIONS)) / np.sqrt(width)
        self.projections = np.empty((len(self), _PROJECTIONS), np.float32)
        self.variation = np.empty(len(self), np.float32)
        rows = max(1, 2**21 // width)
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            sketch = self.sketch(np.arange(start, stop))
            self.projections[start:stop] = sketch.reshape(stop - start, -1) @ directions
            self.variation[start:stop] = sketch.var(axis=1).mean(axis=1) ** 0.5

    def __len__(self) -> int:
        return len(self.lengths)

    def sketch(self, members: np.ndarray) -> np.ndarray:
        """Some steps of these sequences, evenly spread, `[M, points, F]` float32, standardised."""
        points = min(_POINTS, int(self.lengths.max(initial=1)))
        at = np.linspace(0, 1, points) * (self.lengths[members, None] - 1)
        return self.standardised(members, np.maximum(np.rint(at).astype(np.int64), 0))

    def standardised(self, members: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Values at `steps` `[M, P]` of sequences `[M]`, `[M, P, F]`; missing ones are means."""
        values = np.zeros((*steps.shape, len(self.mean)), np.float32)
        for number, side in enumerate(self.sides):
            mine = (self.side[members] == number) & (self.lengths[members] > 0)
            starts = side.offsets[members[mine] - self.first[number]]
            values[mine] = side.values[starts[:, None] + steps[mine]]
        scaled = np.clip((values - self.mean) / self.scale, -_FARTHEST, _FARTHEST)
        return np.where(np.isfinite(values), scaled, 0).astype(np.float32)

    def place(self, member: int) -> str:
        number = int(self.side[member])
        return self.sides[number].place(member - self.first[number])


def near_pairs(sides: list[Side], skip: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pairs of sequences that are nearer than chance would have them.

    Args:
        sides: one; or the training and the test part, for pairs of one of each.
        skip: `[N]` bool, sequences that do not count (copies of others).

    Returns:
        pairs: `[K, 2]`, positions in the sides end to end.
        whole: whether all candidates were looked at; of very many some are.
    """
    nothing = np.zeros((0, 2), np.int64), True
    generator = np.random.default_rng(0)
    pool = _Pool(sides, generator)
    usable = ~skip & (pool.lengths * len(pool.mean) >= _FEWEST_VALUES) & (pool.variation > 1e-6)
    if usable.sum() < _FEWEST:
        return nothing
    members = np.flatnonzero(usable)
    pairs = _candidates(pool, members, generator)
    if len(sides) > 1:
        pairs = pairs[pool.side[pairs[:, 0]] != pool.side[pairs[:, 1]]]
    whole = len(pairs) <= _MOST_PAIRS
    if not whole:
        pairs = pairs[np.sort(generator.permutation(len(pairs))[:_MOST_PAIRS])]
    pairs = pairs[_are_near(pool, pairs)]
    if len(pairs) == 0:
        return nothing
    return pairs[~_by_chance(pool, members, pairs, generator)], whole


def _candidates(pool: _Pool, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Pairs that share a cell in a table and whose projections are near, `[K, 2]`, once each."""
    size = _CELL * float(np.median(pool.variation[members]))
    found = []
    for _ in range(_TABLES):
        chosen = generator.permutation(_PROJECTIONS)[: _KEYS + 1]
        places = pool.projections[members][:, chosen] / size + generator.random(_KEYS + 1)
        cells = np.floor(places[:, :_KEYS]).astype(np.int64).view(np.uint64)
        key = mixed(pool.lengths[members].astype(np.uint64))
        for k in range(_KEYS):
            key = mixed(key ^ cells[:, k])
        # Within a cell by the next coordinate: 48 bits of the key, 16 of the place.
        low = places[:, _KEYS]
        rank = ((low - low.min()) / (np.ptp(low) or 1) * 65535).astype(np.uint64)
        word = (key & ~np.uint64(0xFFFF)) | rank
        order = np.argsort(word)
        cell = word[order] >> np.uint64(16)
        for apart in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(cell[apart:] == cell[:-apart])
            a, b = members[order[same]], members[order[same + apart]]
            distance = ((pool.projections[a] - pool.projections[b]) ** 2).mean(axis=1) ** 0.5
            # The mean of 16 squares is above twice its expectation in 1 of 60 near pairs.
            limit = 1.5 * NEAR * np.minimum(pool.variation[a], pool.variation[b])
            close = distance <= limit
            found.append(np.sort(np.stack([a[close], b[close]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _are_near(pool: _Pool, pairs: np.ndarray) -> np.ndarray:
    """Whether all values of the pairs are near, `[K]` bool."""
    near = np.zeros(len(pairs), bool)
    lengths = pool.lengths[pairs[:, 0]]
    near_lengths = lengths == pool.lengths[pairs[:, 1]]
    for length in np.unique(lengths[near_lengths]):
        same = np.flatnonzero(near_lengths & (lengths == length))
        rows = max(1, 2**20 // (int(length) * len(pool.mean)))
        for start in range(0, len(same), rows):
            chosen = same[start : start + rows]
            steps = np.tile(np.arange(length), (len(chosen), 1))
            a, b = (pool.standardised(pairs[chosen, k], steps) for k in (0, 1))
            distance = ((a - b) ** 2).mean(axis=(1, 2))
            variation = np.minimum(a.var(axis=1).mean(axis=1), b.var(axis=1).mean(axis=1))
            near[chosen] = distance <= NEAR**2 * variation
    return near


def _by_chance(
    pool: _Pool, members: np.ndarray, pairs: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Whether another sequence was to be expected as near as the pair's, `[K]` bool.

    In the neighbourhood of a sequence the number of others within a distance r grows as r^d. The
    distances to the neighbours k and K of m others give d; the N others then hold
    N/m · k · (r / r_k)^d within r. Of many pairs some are looked at, and stand for all.
    """
    looked = generator.permutation(len(pairs))[:_PROBES]
    reference = members[generator.permutation(len(members))[:_REFERENCE]]
    m = len(reference)
    near, far = min(32, max(2, m // 8)), min(256, m // 2)
    own = pool.sketch(pairs[looked, 0]).reshape(len(looked), -1)
    twin = pool.sketch(pairs[looked, 1]).reshape(len(looked), -1)
    others = pool.sketch(reference).reshape(m, -1)
    squares = (own**2).sum(1)[:, None] + (others**2).sum(1) - 2 * own @ others.T
    squares[pairs[looked, 0][:, None] == reference] = np.inf
    ranked = np.partition(np.maximum(squares, 0), (near - 1, far - 1), axis=1)
    r_near, r_far = ranked[:, near - 1] ** 0.5, ranked[:, far - 1] ** 0.5
    r = ((own - twin) ** 2).sum(axis=1) ** 0.5
    r_near = np.maximum(r_near, 1e-9)
    dimension = np.log(far / near) / np.log(np.maximum(r_far / r_near, 1.001))
    expected = len(members) / m * near * (r / r_near) ** dimension
    chance = np.ones(len(pairs), bool)
    chance[looked] = ~_discoveries(expected, len(members) * len(looked) / len(pairs))
    if len(looked) < len(pairs) and chance[looked].mean() < 0.5:
        chance[:] = False
    return chance


def _discoveries(expected: np.ndarray, n: float) -> np.ndarray:
    """Which pairs count, `[K]` bool, so that few of them are near by chance.

    Of n sequences, n · e have a neighbour at which e others were expected: the largest e is taken
    of which n · e is a small share of the pairs up to it (as Benjamini and Hochberg do).
    """
    ranked = np.sort(expected)
    fine = np.flatnonzero(n * ranked <= _FALSE_SHARE * np.arange(1, len(ranked) + 1))
    return expected <= ranked[fine[-1]] if len(fine) else np.zeros(len(expected), bool)


def within(side: Side, copies: np.ndarray, test_is_apart: bool) -> Iterator[Finding]:
    """The finding that sequences of one part are near copies of one another, if any are."""
    pairs, whole = near_pairs([side], copies)
    if (groups := side.examples.groups) is not None:
        pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]
    n = len(np.unique(pairs[:, 1]))
    if n == 0:
        return
    yield Finding(
        "note" if test_is_apart else "warning",
        "near-copies",
        f"{_at_least(n, len(side), whole)} {side.sequences} are within {NEAR_TOLD} of another"
        + ("" if test_is_apart else ": a split at random puts some on both sides"),
        n,
        tuple(f"{side.place(b)} and {side.place(a)}" for a, b in pairs[:3]),
        "are these copies, rounded or with noise? Leave them out, or give both one group (--group)",
    )


def across(train: Side, test: Side, copies: np.ndarray) -> Iterator[Finding]:
    """Near copies of training sequences in the test part; `copies` `[N_test]` are left aside."""
    skip = np.concatenate([np.zeros(len(train), bool), copies])
    pairs, whole = near_pairs([train, test], skip)
    members = np.unique(pairs[:, 1]) - len(train)
    n = len(members)
    if n == 0:
        return
    serious = n >= SERIOUS_SHARE * len(test) and surprising(train, test, members)
    yield Finding(
        "serious" if serious else "warning",
        "near-copies-across",
        f"{_at_least(n, len(test), whole)} test sequences are within {NEAR_TOLD} of a training "
        "sequence",
        n,
        tuple(f"{test.place(b - len(train))} and {train.place(a)}" for a, b in pairs[:3]),
        "are these copies, rounded or with noise? Split before making copies, or leave them out",
    )


def _at_least(n: int, total: int, whole: bool) -> str:
    return ("" if whole else "at least ") + share(n, total)
