"""Which sequences are learnt from, and which are held out: by class, group, or a column.

A split is a pure function of its arguments, including the seed. No sequence, and no given group, is
in two parts: this is checked for every result.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from ostinato_learn.hyperparameters import FEW_SEQUENCES

Indices = np.ndarray  # [n] int64, increasing

PART_NAMES = {
    "train": ("train", "training", "learn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "holdout"),
}
PART_OF = {alias: part for part, aliases in PART_NAMES.items() for alias in aliases}
# Few groups fall unevenly: the best of this many random orders is taken.
_ORDERS, _FEW_GROUPS = 20, 200


def split(
    examples: Any,
    parts: Mapping[str, float] | float | Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    *,
    groups: Any = None,
    stratify: Any = None,
) -> dict[str, Indices]:
    """Share sequences out between parts, such as train, validation and test.

    Args:
        examples: N sequences (anything that has a length), or N itself. The attributes `groups`
            and `parts`, if it has them, are the defaults of these arguments.
        parts: one of
            a share for each part, by name, that add up to 1;
            the share of the test part alone, the rest being for training;
            `[N]` names of parts, as a column of a file has them: train, validation (val, dev),
            test, in any case of letters.
            By default `examples.parts`, or a fifth for the test.
        seed: the seed of the shuffling. A split by a column does not depend on it.
        groups: `[N]`, the group of each sequence (a subject, a book): one group, one part.
        stratify: `[N]` labels: every part gets its share of every class. The first part gets one
            of every class, the others one of each class that has enough sequences.

    Returns:
        Name of the part -> the indices of its sequences, increasing, disjoint.

    Raises:
        ValueError: shares that do not add up to 1, arrays of another length than N, an unknown
            name of a part, a group that the column puts into two parts, or too few sequences,
            classes or groups for a part to get any.

    Example:
        >>> from ostinato_learn.data.sequences.splits import split
        >>> parts = split(8, {"train": 0.5, "test": 0.5}, stratify=list("aabbaabb"))
        >>> {name: len(indices) for name, indices in parts.items()}
        {'train': 4, 'test': 4}
        >>> split(4, 0.5, groups=["Ann", "Bob", "Ann", "Bob"])["train"].tolist() in ([0, 2], [1, 3])
        True
    """
    n = _count(examples)
    named = _column(getattr(examples, "groups", None) if groups is None else groups, n, "groups")
    if parts is None:
        parts = getattr(examples, "parts", None)
    if parts is None or isinstance(parts, (Mapping, float, int)):
        shares = _shares(0.2 if parts is None else parts)
        fractions = np.array(list(shares.values()))
        labels = _codes(_column(stratify, n, "stratify"))
        part = _assigned(n, fractions, seed, _codes(named), labels, keep_first=True)
        result = {name: np.flatnonzero(part == i) for i, name in enumerate(shares)}
    else:
        result = _by_column(parts, n)
    check_disjoint(result, named)
    return result


def strata(examples: Any) -> np.ndarray | None:
    """The labels `[N]` that a split shares out evenly (of several the rarest); else None."""
    from ostinato_learn.data.sequences import label_sets

    y = examples.y
    if not hasattr(y, "dtype"):
        return None
    if y.ndim == 2:
        return None if y.dtype.kind == "f" else label_sets.rarest(y)
    found: np.ndarray = y
    return found


def are_few(examples: Any) -> bool:
    """Whether sequences of labelled steps are divided in time, unless something else is asked."""
    of_steps = examples.roles is not None and examples.roles.task == "tag"
    return of_steps and len(examples) < FEW_SEQUENCES and examples.groups is None


def in_time(examples: Any, fraction: float) -> tuple[Any, Any]:
    """The begins of sequences of labelled steps, and their ends, which are a share of the steps.

    Raises:
        ValueError: a sequence has too few steps for both.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data import Examples
        >>> whole = Examples(np.zeros((2, 10, 1), np.float32), [np.arange(10)] * 2, ("x",))
        >>> begins, ends = in_time(whole, 0.2)
        >>> begins.lengths, ends.y[0]
        (array([8, 8]), array([8, 9]))
    """
    cuts = np.round(examples.lengths * (1 - fraction)).astype(np.int64)
    short = (cuts < 1) | (cuts >= examples.lengths)
    if short.any():
        i = int(np.argmax(short))
        raise ValueError(
            f"{examples.source or 'examples'}: the sequence {examples.ids[i]} has "
            f"{examples.lengths[i]} steps, too few to be divided in time at {1 - fraction:g}; "
            "wanted longer ones"
        )
    return examples.between(np.zeros_like(cuts), cuts), examples.between(cuts, examples.lengths)


def held_out(examples: Any, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Examples to learn from, and a share of them for validation: of each class, by whole groups.

    The seed is that of the training. The draw has another one than that of the test part, so that
    the two are independent.
    """
    shares = {"train": 1 - fraction, "validation": fraction}
    stratify = strata(examples)
    found = split(replace(examples, parts=None), shares, seed + 1, stratify=stratify)
    return found["train"], found["validation"]


def folds(
    examples: Any, k: int = 5, seed: int = 0, *, groups: Any = None, stratify: Any = None
) -> list[tuple[Indices, Indices]]:
    """(training indices, test indices) of each fold of a cross-validation.

    Args:
        examples, seed, groups, stratify: as for `split`.
        k: the number of folds.

    Raises:
        ValueError: as `split`; or k is below 2, or above the number of sequences or groups.

    Example:
        >>> from ostinato_learn.data.sequences.splits import folds
        >>> [len(test) for train, test in folds(10, 3)]
        [4, 3, 3]
        >>> folds(4, 2, groups=["Ann", "Ann", "Bob", "Bob"])[0][0].tolist() in ([0, 1], [2, 3])
        True
    """
    n = _count(examples)
    named = _column(getattr(examples, "groups", None) if groups is None else groups, n, "groups")
    codes = _codes(named)
    most, what = (n, "sequences") if codes is None else (len(np.unique(codes)), "groups")
    if operator.index(k) < 2:
        raise ValueError(f"folds: k is {k}; wanted a whole number from 2 on")
    if k > most:
        raise ValueError(f"{k} folds of {most} {what}; wanted no more folds than {what}")
    labels = _codes(_column(stratify, n, "stratify"))
    part = _assigned(n, np.full(k, 1 / k), seed, codes, labels, keep_first=False)
    pairs = [(np.flatnonzero(part != j), np.flatnonzero(part == j)) for j in range(k)]
    for train, test in pairs:
        check_disjoint({"train": train, "test": test}, named)
    return pairs


def check_disjoint(parts: Mapping[str, np.ndarray], groups: np.ndarray | None = None) -> None:
    """Assert that no part is empty, and no sequence and no group is in two.

    Raises:
        ValueError: the two parts, and the first sequence or group that they share.
    """
    for name, indices in parts.items():
        if len(indices) == 0:
            raise ValueError(f"the {name} part has no sequences; wanted at least one in each part")
    for (one, a), (other, b) in combinations(parts.items(), 2):
        shared = np.intersect1d(a, b)
        if len(shared):
            raise ValueError(
                f"{len(shared)} sequences are in both {one} and {other}, such as {shared[0]}; "
                "wanted each in one part"
            )
        shared = shared if groups is None else np.intersect1d(groups[a], groups[b])
        if len(shared):
            raise ValueError(
                f"{len(shared)} groups are in both {one} and {other}, such as "
                f"{shared[0].item()!r}; wanted each in one part: leave the groups out, or take "
                "another column of parts"
            )


def _assigned(
    n: int,
    fractions: np.ndarray,
    seed: int,
    groups: np.ndarray | None,
    labels: np.ndarray | None,
    keep_first: bool,
) -> np.ndarray:
    """The number of the part of each sequence, `[N]`."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(n, np.int64) if labels is None else labels
    if groups is not None:
        return _groups_to_parts(groups, labels, fractions, generator)[groups]
    return _classes_to_parts(labels, fractions, generator, keep_first)


def _classes_to_parts(
    labels: np.ndarray, fractions: np.ndarray, generator: np.random.Generator, keep_first: bool
) -> np.ndarray:
    """Each class is dealt out by the fractions; what rounding took from a part, the next gives."""
    part = np.empty(len(labels), np.int64)
    owed = np.zeros(len(fractions))
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.cumsum(np.bincount(labels))[:-1]):
        wanted = len(members) * fractions + owed
        least = np.full(len(fractions), int(len(members) >= len(fractions)))
        least[0] = max(least[0], keep_first)
        counts = _rounded(wanted, len(members), least)
        owed = wanted - counts
        part[generator.permutation(members)] = np.repeat(np.arange(len(fractions)), counts)
    return part


def _rounded(wanted: np.ndarray, total: int, least: np.ndarray) -> np.ndarray:
    """Whole numbers near `wanted`, none below `least`, that add up to `total`."""
    most = total - (least.sum() - least)  # rounding up for many classes may exceed a part
    counts = np.clip(np.floor(wanted).astype(np.int64), least, most)
    while (short := total - counts.sum()) != 0:
        gain = (wanted - counts) * np.sign(short)
        gain[(counts <= least) & (short < 0)] = -np.inf
        counts[gain.argmax()] += np.sign(short)
    return counts


def _groups_to_parts(
    groups: np.ndarray, labels: np.ndarray, fractions: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """The part of each group, `[G]`: one after another where it brings the shares nearest.

    The cost of a distribution is Σ over parts and classes of (count − wanted)² / wanted.
    """
    n_groups, n_classes, n_parts = groups.max() + 1, labels.max() + 1, len(fractions)
    if n_groups < n_parts:
        raise ValueError(
            f"{n_groups} {'group' if n_groups == 1 else 'groups'} for {n_parts} parts; wanted at "
            "least one for each part: more groups, other ones (--group), or a test file (--test)"
        )
    counts = np.zeros((n_groups, n_classes))  # of the sequences of a group, by class
    np.add.at(counts, (groups, labels), 1)
    wanted = fractions[:, None] * counts.sum(axis=0)  # [P, C]
    best: tuple[float, np.ndarray] | None = None
    for _ in range(_ORDERS if n_groups <= _FEW_GROUPS else 1):
        part = np.full(n_groups, -1)
        have = np.zeros_like(wanted)
        for place, g in enumerate(generator.permutation(n_groups)):
            # Its x sequences of a class add x (x + 2 (have − wanted)) / wanted to the cost.
            added = (counts[g] * (counts[g] + 2 * (have - wanted)) / wanted).sum(axis=1)
            empty = have.sum(axis=1) == 0
            if empty.sum() == n_groups - place:  # the groups that are left go to the empty parts
                added[~empty] = np.inf
            p = part[g] = added.argmin()
            have[p] += counts[g]
        cost = float(((have - wanted) ** 2 / wanted).sum())
        if best is None or cost < best[0]:
            best = cost, part
    assert best is not None
    return best[1]


def _by_column(names: Any, n: int) -> dict[str, Indices]:
    column = np.asarray(names).astype(str)
    if column.shape != (n,):
        raise ValueError(
            f"parts has the shape {list(column.shape)}; wanted [{n}], a name for each sequence"
        )
    found, where = np.unique(column, return_inverse=True)
    parts = [PART_OF.get(name.strip().lower()) for name in found]
    for name, part in zip(found, parts, strict=True):
        if part is None:
            row = int(np.flatnonzero(column == name)[0])
            raise ValueError(
                f"sequence {row} is in the part {str(name)!r}; wanted train, validation or test"
            )
    of_row = np.array(parts)[where]
    result = {part: np.flatnonzero(of_row == part) for part in PART_NAMES if part in parts}
    if "train" not in result:
        raise ValueError(f"no sequence is in the part train; found {', '.join(found)}")
    return result


def _shares(parts: Mapping[str, float] | float) -> dict[str, float]:
    if not isinstance(parts, Mapping):
        if not 0 < parts < 1:
            raise ValueError(f"the test part's share is {parts}; wanted a number between 0 and 1")
        return {"train": 1 - parts, "test": float(parts)}
    total = sum(parts.values())
    if len(parts) < 2 or min(parts.values()) <= 0 or abs(total - 1) > 1e-6:
        given = ", ".join(f"{name} {share}" for name, share in parts.items())
        raise ValueError(f"the shares are {given}; wanted two or more above 0 that add up to 1")
    return dict(parts)


def _count(examples: Any) -> int:
    n = len(examples) if hasattr(examples, "__len__") else operator.index(examples)
    if n < 2:
        raise ValueError(f"there are {n} sequences; wanted two or more to share out")
    return n


def _column(values: Any, n: int, name: str) -> np.ndarray | None:
    """A column `[N]` of values that can be sorted; None stays None."""
    if values is None:
        return None
    column = np.asarray(values)
    if column.shape != (n,):
        raise ValueError(f"{name} has the shape {list(column.shape)}; wanted [{n}]")
    return column.astype(str) if column.dtype == object else column


def _codes(column: np.ndarray | None) -> np.ndarray | None:
    """A column's values as numbers 0…U−1, in sorted order, `[N]`."""
    return None if column is None else np.unique(column, return_inverse=True)[1].astype(np.int64)
