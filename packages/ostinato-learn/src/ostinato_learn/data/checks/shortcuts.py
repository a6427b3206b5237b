"""Label shortcuts: properties that predict the label without the content of a sequence.

A shallow tree gets a single cue (the length, the first step, the missing values, …) and is scored
by cross-validation, with whole groups if there are groups. The score counts if it exceeds both the
share of the most frequent class and the scores on permuted labels, by four standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data.checks.finding import Finding, Severity
from ostinato_learn.data.checks.side import Side
from ostinato_learn.data.sequences import splits

SAMPLE, MOST_FEATURES, MOST_CLASSES = 10_000, 64, 64
FOLDS, PERMUTATIONS = 5, 5
SMALLEST_LEAF = 5
FEWEST = 40  # sequences (or groups); with fewer, no score is significant
ERRORS = 4
# How far a score must be on the way from the baseline to 100 % to be reported, a warning, serious.
INFO, WARNING, SERIOUS = 0.1, 0.5, 0.9


@dataclass(frozen=True)
class Cue:
    """The inputs of a tree: `[N, D]` numbers, NaN for missing ones, and their names."""

    code: str
    what: str
    values: np.ndarray
    names: tuple[str, ...]
    remedy: str


def cues(side: Side, chosen: np.ndarray) -> Iterator[Cue]:
    """The cues of the sequences at `chosen`, those that are the same for all left out."""
    lengths = side.lengths[chosen]
    columns = np.linspace(0, side.n_features - 1, min(side.n_features, MOST_FEATURES)).astype(int)
    named = tuple(side.feature(int(f)) for f in columns)
    if (lengths != lengths[0]).any():
        yield Cue(
            "shortcut-length",
            "the length of a sequence alone",
            lengths[:, None].astype(np.float64),
            ("length",),
            "is the length known when the model is used? If not, cut all to one length",
        )
    if (lengths > 1).all():
        remedy = (
            "is the label, or what is known only after it, written there? If so, leave that "
            "{} or column out"
        )
        first, last = side.offsets[:-1][chosen], side.offsets[1:][chosen] - 1
        for code, what, rows in (
            ("shortcut-first-step", "the first step", first),
            ("shortcut-last-step", "the last step", last),
        ):
            values = side.values[rows[:, None], columns].astype(np.float64)
            yield Cue(code, f"{what} alone", values, named, remedy.format("step"))
    missing = _missing_shares(side, chosen)[:, columns]
    if (missing != missing[0]).any():
        yield Cue(
            "shortcut-missing",
            "where values are missing",
            missing,
            named,
            "fill missing values in alike for all classes, and leave out features that mark them",
        )
    yield Cue(
        "shortcut-order",
        "the place in the file alone",
        chosen[:, None].astype(np.float64),
        ("place",),
        "the file is sorted by label, or was joined from parts: shuffle before cutting it in two, "
        "and check that no feature reveals the part",
    )


def _missing_shares(side: Side, chosen: np.ndarray) -> np.ndarray:
    """The share of missing values of each feature, `[M, F]`."""
    shares = np.zeros((len(chosen), side.n_features))
    if not np.isnan(side.values).any():
        return shares
    for k, i in enumerate(chosen):
        shares[k] = np.isnan(side.values[side.offsets[i] : side.offsets[i + 1]]).mean(axis=0)
    return shares


def shortcuts(side: Side, asked: str = "the label") -> Iterator[Finding]:
    """Cues that predict the label of a sequence; `asked` is the noun for the label."""
    if side.labels is None or isinstance(side.examples.y, list):
        return
    generator = np.random.default_rng(0)
    chosen, y = _sample(side, generator)
    groups = side.examples.groups
    if groups is not None:
        groups = np.unique(groups[chosen].astype(str), return_inverse=True)[1]
        n_groups = int(groups.max(initial=0)) + 1
    # If all sequences of a group have one label, the group counts as one observation.
    independent = n_groups if _is_of_groups(y, groups) else len(chosen)
    n_classes = len(np.unique(y))
    few = independent < FEWEST or n_classes < 2 or 3 * n_classes > len(y)
    if few or (groups is not None and n_groups < FOLDS):
        return
    pairs = splits.folds(len(chosen), FOLDS, groups=groups, stratify=y)
    counts = np.bincount(y)
    for cue in cues(side, chosen):
        baseline = counts.max() / len(y)
        right = _score(cue.values, y, pairs)
        if not _counts(right, baseline, independent):
            continue
        permuted = [
            _score(cue.values, _permuted(y, groups, generator), pairs) for _ in range(PERMUTATIONS)
        ]
        baseline = max(baseline, *permuted)
        if not _counts(right, baseline, independent):
            continue
        yield _finding(side, cue, right, counts.max() / len(y), _questions(cue, y), asked)


def _sample(side: Side, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions `[M]` of sequences that are not empty, and class numbers; of the larger classes."""
    numbers = side.classes[1]
    usable = np.flatnonzero(side.lengths > 0)
    large = np.argsort(np.bincount(numbers[usable]), kind="stable")[::-1][:MOST_CLASSES]
    usable = usable[np.isin(numbers[usable], large)]
    chosen = np.sort(generator.permutation(usable)[:SAMPLE])
    return chosen, np.unique(numbers[chosen], return_inverse=True)[1]


def _score(
    values: np.ndarray, y: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> float:
    """The cross-validated accuracy of a shallow tree."""
    depth = max(3, math.ceil(math.log2(int(y.max()) + 1)) + 1)
    right = 0
    for train, test in pairs:
        tree = _tree(values[train], y[train], depth)
        right += int((tree.predict(_finite(values[test])) == y[test]).sum())
    return right / len(y)


def _tree(values: np.ndarray, y: np.ndarray, depth: int) -> Any:
    """A decision tree of scikit-learn's, which asks whether a value is missing, too."""
    with needs("ostinato-learn[torch]", "sklearn"):
        from sklearn.tree import DecisionTreeClassifier  # takes a second
    tree = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=min(SMALLEST_LEAF, len(y)), random_state=0
    )
    return tree.fit(_finite(values), y)


def _finite(values: np.ndarray) -> np.ndarray:
    """Infinite values as the largest ones that a tree takes, float32's."""
    largest = np.finfo(np.float32).max
    return np.clip(values, -largest, largest)


def _permuted(
    y: np.ndarray, groups: np.ndarray | None, generator: np.random.Generator
) -> np.ndarray:
    """The labels in another order; if a group has one label, groups change labels as wholes."""
    if groups is not None and _is_of_groups(y, groups):
        first = np.unique(groups, return_index=True)[1]
        return generator.permutation(y[first])[groups]
    return generator.permutation(y)


def _is_of_groups(y: np.ndarray, groups: np.ndarray | None) -> bool:
    """Whether all sequences of a group have one label."""
    if groups is None:
        return False
    first = np.unique(groups, return_index=True)[1]
    return bool((y == y[first][groups]).all())


def _counts(right: float, baseline: float, independent: int) -> bool:
    """Whether a score is above the baseline by a margin that chance does not give."""
    error = math.sqrt(max(baseline * (1 - baseline), 1 / independent) / independent)
    return right - baseline > max(ERRORS * error, INFO * (1 - baseline))


def _questions(cue: Cue, y: np.ndarray) -> tuple[str, ...]:
    """The first three questions of a tree that has seen all of the cue, in words."""
    tree = _tree(cue.values, y, 2).tree_
    asked = []
    for node in (0, tree.children_left[0], tree.children_right[0]):
        if tree.children_left[node] >= 0:  # not a leaf
            border = tree.threshold[node]
            what = "missing" if np.isinf(border) else f"below {border:.4g}"
            asked.append(f"{cue.names[tree.feature[node]]} {what}")
    return tuple(dict.fromkeys(asked))


def _finding(
    side: Side,
    cue: Cue,
    right: float,
    majority: float,
    questions: tuple[str, ...],
    asked: str,
) -> Finding:
    way = (right - majority) / (1 - majority)
    severity: Severity = "serious" if way >= SERIOUS else "warning" if way >= WARNING else "note"
    if cue.code == "shortcut-order":  # a model does not see the order; a random split is not harmed
        severity = "note" if way < WARNING else "warning"
    elif cue.code in ("shortcut-length", "shortcut-missing") and severity == "note":
        severity = "warning"  # lengths and gaps have no content, and should predict nothing
    return Finding(
        severity,
        cue.code,
        f"{cue.what} predicts {asked} in {right:.1%} of the {side.sequences} (the most frequent "
        f"answer: {majority:.1%})".replace("%", " %"),
        round(right * len(side)),
        questions,
        cue.remedy,
    )
