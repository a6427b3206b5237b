"""Equal sequences: in one part, on both sides, and with different labels; groups on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ostinato_learn.data.checks.finding import Finding, plural, share
from ostinato_learn.data.checks.side import Side
from ostinato_learn.data.checks.surprise import surprising

# Copies within a file matter because a random split puts some on both sides.
SERIOUS_SHARE = 0.05
LEAK_SHARE = 0.01


def first_equal(side: Side, others: Side) -> np.ndarray:
    """For each sequence of `others` the first one of `side` that equals it, or −1, `[N]`."""
    hashes, wanted = side.sequence_hashes, others.sequence_hashes
    order = np.argsort(hashes, kind="stable")
    at = np.minimum(np.searchsorted(hashes[order], wanted), len(order) - 1)
    found = order[at]
    equal = hashes[found] == wanted
    equal[equal] = _same_steps(side, found[equal], others, np.flatnonzero(equal))
    return np.where(equal, found, -1)


def _same_steps(a: Side, i: np.ndarray, b: Side, j: np.ndarray) -> np.ndarray:
    """Whether sequence i[k] of a has the steps of sequence j[k] of b, `[K]`."""
    same = a.lengths[i] == b.lengths[j]
    lengths = np.where(same, a.lengths[i], 0)
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    differs = (
        a.step_hashes[np.repeat(a.offsets[i], lengths) + within]
        != b.step_hashes[np.repeat(b.offsets[j], lengths) + within]
    )
    pair = np.repeat(np.arange(len(i)), lengths)
    return same & (np.bincount(pair[differs], minlength=len(i)) == 0)


def within(side: Side, first: np.ndarray, test_is_apart: bool) -> Iterator[Finding]:
    """Copies in one part, `first` being `first_equal(side, side)`."""
    copies = np.flatnonzero(first != np.arange(len(side)))
    if len(copies):
        message = f"{share(len(copies), len(side))} {side.sequences} are copies of others"
        if test_is_apart:
            yield Finding(
                "note",
                "copies",
                message,
                len(copies),
                _pairs(side, copies, side, first[copies]),
                "leave them out, unless it is right that they weigh more",
            )
        else:
            grouped = _same_group(side, copies, first[copies])
            serious = len(copies) >= SERIOUS_SHARE * len(side) and not grouped
            yield Finding(
                "serious" if serious else "warning",
                "copies",
                message + ("" if grouped else ": a random split puts some on both sides"),
                len(copies),
                _pairs(side, copies, side, first[copies]),
                "leave them out, or give copies one group (--group), so that they stay on one side",
            )
    yield from _conflicts(side, first)


def _same_group(side: Side, a: np.ndarray, b: np.ndarray) -> bool:
    groups = side.examples.groups
    return groups is not None and bool((groups[a] == groups[b]).all())


def _conflicts(side: Side, first: np.ndarray) -> Iterator[Finding]:
    if side.answers is None:
        return
    labels = np.unique(side.answers, return_inverse=True)[1]
    odd = np.flatnonzero(labels != labels[first])
    if len(odd) == 0:
        return
    torn = np.zeros(len(side), bool)  # indexed by the first of each set of equal sequences
    torn[first[odd]] = True
    members = np.flatnonzero(torn[first])
    pairs, counts = np.unique(
        np.stack([first[members], labels[members]]), axis=1, return_counts=True
    )
    starts = np.flatnonzero(np.diff(pairs[0], prepend=-1))
    unavoidable = len(members) - int(np.maximum.reduceat(counts, starts).sum())
    yield Finding(
        "serious" if unavoidable >= SERIOUS_SHARE * len(side) else "warning",
        "conflicting-labels",
        f"{share(len(members), len(side))} {side.sequences} have equal ones with another label; "
        f"no model can be right about {unavoidable:,} of them",
        len(members),
        _pairs(side, odd, side, first[odd], labels=True),
        "check how these were labelled; add a feature that distinguishes them, or leave them out",
    )


def across(train: Side, test: Side, first: np.ndarray) -> Iterator[Finding]:
    """The same sequence on both sides, `first` being `first_equal(train, test)`."""
    shared = np.flatnonzero(first >= 0)
    if len(shared) == 0:
        return
    many = len(shared) >= LEAK_SHARE * len(test)
    yield Finding(
        "serious" if many or surprising(train, test, shared) else "warning",
        "same-sequence",
        f"{share(len(shared), len(test))} test sequences are training sequences too; results on "
        "them say nothing about new data",
        len(shared),
        _pairs(test, shared, train, first[shared]),
        "leave them out of one side, or split by group",
    )
    if train.answers is None or test.answers is None:
        return
    odd = shared[test.answers[shared] != train.answers[first[shared]]]
    if len(odd):
        yield Finding(
            "serious" if len(odd) >= SERIOUS_SHARE * len(test) else "warning",
            "conflicting-labels",
            f"{share(len(odd), len(test))} test sequences have another label than the training "
            "sequence that equals them",
            len(odd),
            _pairs(test, odd, train, first[odd], labels=True),
            "look at how these were labelled",
        )


def groups(train: Side, test: Side) -> Iterator[Finding]:
    """The same group on both sides."""
    a, b = train.examples.groups, test.examples.groups
    if a is None or b is None:
        return
    shared = np.intersect1d(np.asarray(a).astype(str), np.asarray(b).astype(str))
    if len(shared):
        n_groups = len(np.unique(np.asarray(b).astype(str)))
        yield Finding(
            "serious",
            "same-group",
            f"{share(len(shared), n_groups)} groups of the test part are in the training part too",
            len(shared),
            tuple(f"group {str(name)!r}" for name in shared[:3]),
            f"split by group, so that each of the {plural(n_groups, 'group')} is on one side",
        )


def names(train: Side, test: Side) -> Iterator[Finding]:
    """Sequences with the same name on both sides; numbers do not count as names."""
    a, b = np.asarray(train.examples.ids), np.asarray(test.examples.ids)
    if a.dtype.kind not in "UO" or b.dtype.kind not in "UO":
        return
    shared = np.flatnonzero(np.isin(b.astype(str), a.astype(str)))
    if len(shared):
        yield Finding(
            "warning",
            "same-name",
            f"{share(len(shared), len(test))} test sequences have the name of a training sequence",
            len(shared),
            tuple(map(test.place, shared[:3])),
            "do they come from the same subject? Then keep it on one side (--group)",
        )


def _pairs(a: Side, i: np.ndarray, b: Side, j: np.ndarray, labels: bool = False) -> tuple[str, ...]:
    """The first three pairs in words."""

    def shown(side: Side, k: int) -> str:
        if not labels or side.labels is None or isinstance(side.examples.y, list):
            return side.place(k)
        return f"{side.place(k)} ({side.labels[k]})"

    return tuple(f"{shown(a, p)} = {shown(b, q)}" for p, q in zip(i[:3], j[:3], strict=True))
