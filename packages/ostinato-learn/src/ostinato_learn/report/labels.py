"""Sections that the reports of labels share: confusion, scores, accuracy by groups, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ostinato_learn.report import parts
from ostinato_learn.report.figures import Curve, Line, Matrix
from ostinato_learn.report.markup import Html, count, distinct, percent, plain, short, tag
from ostinato_learn.report.panels import Cell, Grid, PagePanel, PageSection, PageTable, Sentence

MAX_TABLE_CLASSES = 20  # more classes than this are an image, not a table of counts
MAX_IMAGE_CLASSES = 1000  # with more there is no matrix: for 10,000 classes it takes 800 MB
MOST_GROUPS = 8
BINS = 10  # groups of answers by confidence


def interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share counted over n examples (Wilson 1927)."""
    z = 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def apart(a: float, b: float, n: int, both: bool = True) -> bool:
    """Whether shares counted over n are further apart than three standard errors of the difference.

    The standard error is √(p(1−p)/n), with p estimated as (k + 1)/(n + 2), which is never exactly 0
    or 1. Without `both`, b is not a count and has no error.
    """
    estimates = (np.array([a, b] if both else [a]) * n + 1) / (n + 2)
    return abs(a - b) > 3 * math.sqrt((estimates * (1 - estimates)).sum() / n)


def confusion(y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str]) -> PageSection:
    """The confusion matrix: counts in a table, or an image if there are many classes."""
    if len(classes) > MAX_IMAGE_CLASSES:
        return PageSection("confusion", "Confusion", why=_too_many(classes))
    matrix = counts(y_true, y_pred, len(classes))
    wording = "; ".join(
        f"{plain(true)} taken for {plain(predicted)} ({count(times)}\u00d7)"
        for true, predicted, times in most_confused(matrix, classes, 5)
    )
    mistakes = f"The most frequent mistakes: {wording}." if wording else "No mistakes."
    if len(classes) <= MAX_TABLE_CLASSES:
        return PageSection("confusion", "Confusion", [_table(matrix, classes)], note=mistakes)
    drawn = Matrix(
        id="confusion-matrix",
        label=f"Confusion matrix of {len(classes)} classes. {mistakes}",
        caption="Rows: true class. Columns: predicted class. Strength: share of the true class.",
        counts=matrix,
        names=classes,
    )
    return PageSection("confusion", "Confusion", [drawn], note=mistakes)


def counts(y_true: np.ndarray, y_pred: np.ndarray, n: int) -> np.ndarray:
    """`[C, C]`: how often each class (row) was taken for each (column)."""
    return np.bincount(y_true * n + y_pred, minlength=n**2).reshape(n, n)


def _too_many(classes: Sequence[str]) -> str:
    most = count(MAX_IMAGE_CLASSES)
    return f"None: there are {count(len(classes))} classes, more than {most}."


def most_confused(matrix: np.ndarray, classes: Sequence[str], n: int) -> list[tuple[str, str, int]]:
    """The n most frequent mistakes, as (true, predicted, how often)."""
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:n]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(classes[i], classes[j], int(mistakes[i, j])) for i, j in pairs if mistakes[i, j]]


def _table(matrix: np.ndarray, classes: Sequence[str]) -> PageTable:
    """A row for each true class, the cells tinted by their share of the row."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = distinct(list(classes), 20)
    rows = [
        [name, *(_count(int(matrix[i, j]), shares[i, j], i == j) for j in range(len(names)))]
        for i, name in enumerate(names)
    ]
    corner = Html('<span class="corner">true \\ predicted</span>')
    long = max(map(len, names)) > 4
    return PageTable(
        "Rows: true class. Columns: predicted class.",
        [corner, *(tag("span", name) for name in names)],
        rows,
        "confusion tall" if long else "confusion",
    )


def _count(number: int, share: float, correct: bool) -> Cell:
    if number == 0:
        return Cell(0, "zero")
    # The square root and the offset of 12 % make a single mistake visible, on black too. With at
    # most 60 % of colour the number on it is readable.
    root = np.sqrt(share)
    colour, strength = ("--low", 55 * root) if correct else ("--high", 12 + 100 * root)
    mixed = f"color-mix(in srgb, var({colour}) {min(60, strength):.0f}%, transparent)"
    return Cell(count(number), style=f"background:{mixed}")


def scores(
    y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str], kind: str, of: str
) -> PageSection:
    """Precision, recall, F1 and support of each class, and their means.

    Args:
        y_true, y_pred: class numbers.
        classes: the names of the classes.
        kind, of: the nouns for a class, and for the examples that are classified.
    """
    heading = "Labels" if kind == "label" else "Classes"
    if len(classes) > MAX_IMAGE_CLASSES:
        return PageSection("classes", heading, why=_too_many(classes))
    matrix = counts(y_true, y_pred, len(classes))
    right, support, given = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN; the page shows a dash
        shares = np.stack([right / given, right / support, 2 * right / (support + given)])
    mistakes = matrix - np.diag(right)
    rows: list[list[object]] = []
    for c, name in enumerate(classes):
        most = int(mistakes[c].argmax())
        taken = f"{short(classes[most], 24)} ({count(int(mistakes[c, most]))}\u00d7)"
        mistake = taken if mistakes[c, most] else "–"
        rows.append([name, *map(percent, shares[:, c]), count(int(support[c])), mistake])
    several = "classes" if kind == "class" else f"{kind}s"
    for weights, name in ((np.ones(len(classes)), several), (support, of)):
        means = [percent(_mean(each, weights)) for each in shares]
        rows.append(mean_row(f"mean over {name}", [*means, count(int(support.sum())), ""]))
    header = [kind, "precision", "recall", "F1", "support", "most often taken for"]
    return PageSection(
        "classes",
        heading,
        [PageTable(f"Scores of each {kind} on the test {of}", header, rows)],
        note=f"Precision: the share of those given this {kind} that have it. Recall: the share of "
        f"this {kind} that was found. F1: their harmonic mean. A dash: never given, or never true.",
    )


def mean_row(name: str, cells: Sequence[object]) -> list[object]:
    """The last row of a table, with the means of the columns above."""
    return [Cell(each, "mean") for each in (name, *cells)]


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    """The weighted mean of the values that exist; NaN if none does."""
    there = ~np.isnan(values)
    total = weights[there].sum()
    return float((values[there] * weights[there]).sum() / total) if total else float("nan")


@dataclass(frozen=True, eq=False)
class Groups:
    """Answers in G groups.

    Attributes:
        names: the names of the groups, as shown.
        n: `[G]`, the number of answers.
        right: `[G]`, the number of right answers.
    """

    names: tuple[str, ...]
    n: np.ndarray
    right: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """`[G]`; NaN for an empty group."""
        with np.errstate(invalid="ignore"):
            return self.right / self.n

    @property
    def errors(self) -> np.ndarray:
        """`[2, G]`: the distances from the accuracy to the ends of Wilson's 95 % interval."""
        bounds = [interval(p, n) for p, n in zip(self.accuracy, self.n, strict=True)]
        low, high = np.array(bounds).T
        return np.maximum(0, [self.accuracy - low, high - self.accuracy])


def by_length(lengths: np.ndarray, n: np.ndarray, right: np.ndarray) -> Groups | None:
    """Answers by the length of their sequence, in groups of about the same number of sequences.

    Args:
        lengths: `[N]`, the lengths of the sequences.
        n, right: `[N]`, the numbers of answers and of right answers in each sequence.

    Returns:
        The groups; None if all sequences have the same length.
    """
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, MOST_GROUPS + 1)).round())
    if len(bounds) < 2:
        return None
    # A group excludes its lower bound and includes its upper one; the first includes both.
    group = np.maximum(np.searchsorted(bounds, lengths) - 1, 0)
    members = [np.flatnonzero(group == g) for g in range(len(bounds) - 1)]
    members = [each for each in members if len(each)]
    names = [_range(int(lengths[each].min()), int(lengths[each].max())) for each in members]
    sums = [(n[each].sum(), right[each].sum()) for each in members]
    return Groups(tuple(names), *np.array(sums).T)


def by_position(lengths: np.ndarray, right: np.ndarray) -> Groups:
    """Answers by their step; long sequences are divided into parts.

    Args:
        lengths: `[N]`, the lengths of the sequences.
        right: `[ΣT]`, bool: whether the answer of each step is right, sequence after sequence.
    """
    position = np.arange(len(right)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    longest = int(lengths.max())
    n = np.bincount(position, minlength=longest)
    hits = np.bincount(position, weights=right, minlength=longest).astype(np.int64)
    bounds = parts.edges(longest, 24)
    pairs = zip((bounds[:-1] + 1).tolist(), bounds[1:].tolist(), strict=True)
    names = tuple(_range(*pair) for pair in pairs)
    return Groups(names, np.add.reduceat(n, bounds[:-1]), np.add.reduceat(hits, bounds[:-1]))


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def by_confidence(confidence: np.ndarray, right: np.ndarray) -> tuple[Groups, np.ndarray]:
    """Answers by tenths of their probability, and the mean probability in each tenth, `[10]`.

    Args:
        confidence: `[N]`, the probability of each answer.
        right: `[N]`, bool: whether each answer is right.
    """
    tenth = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    n = np.bincount(tenth, minlength=BINS)
    hits = np.bincount(tenth, weights=right, minlength=BINS).astype(np.int64)
    total = np.bincount(tenth, weights=confidence, minlength=BINS)
    names = tuple(f"{10 * i} to {10 * i + 10}\u202f%" for i in range(BINS))
    with np.errstate(invalid="ignore"):
        return Groups(names, n, hits), total / n


def calibration_error(groups: Groups, mean: np.ndarray) -> float:
    """The mean distance of accuracy and confidence over all answers, by tenths (Naeini 2015)."""
    there = groups.n > 0
    gaps = np.abs(groups.accuracy[there] - mean[there])
    return float((groups.n[there] * gaps).sum() / groups.n.sum())


def calibration(confidence: np.ndarray, right: np.ndarray, answers: str) -> PageSection:
    """The section on the calibration of the probabilities; `answers` is the noun for them."""
    groups, mean = by_confidence(confidence, right)
    there = np.flatnonzero(groups.n)
    shown = Groups(tuple(groups.names[i] for i in there), groups.n[there], groups.right[there])
    wording = _trust(float(confidence.mean()), float(right.mean()), len(right))
    wording += f" Expected calibration error: {percent(calibration_error(groups, mean))}."
    drawn = Curve(
        id="calibration",
        label="Accuracy by confidence",
        caption=wording,
        height=3.4,
        lines=[Line(mean[there], shown.accuracy, errors=shown.errors)],
        x="probability given to the answer",
        y="right",
        shares="xy",
        x_limits=(-0.03, 1.03),
        y_limits=(-0.03, 1.03),
        diagonal=True,
        bars=shown.n / shown.n.sum(),
    )
    cells = zip(shown.names, shown.n, mean[there], shown.accuracy, strict=True)
    rows = [[name, count(int(n)), percent(sure, 1), percent(p, 1)] for name, n, sure, p in cells]
    header = ["probability given", answers, "its mean", "right"]
    return PageSection(
        "calibration",
        "Calibration",
        [Grid([drawn, PageTable("Answers by the probability given", header, rows)])],
        note="Whether answers given with a probability of 80\u202f% are right in 80\u202f% of the "
        "cases. On the dotted line they are; below it the network is too confident.",
    )


def _trust(sure: float, right: float, n: int) -> str:
    """A sentence on confidence and accuracy; they differ if by more than three standard errors."""
    wording = f"Mean confidence {percent(sure, 1)}, accuracy {percent(right, 1)}"
    if not apart(right, sure, n, both=False):
        return f"{wording}: no significant difference."
    points = f"{100 * abs(sure - right):.1f} points"
    return f"{wording}: too {'confident' if sure > right else 'cautious'} by {points}."


def where(shown: Sequence[tuple[str, str, Groups | None, str]], heading: str) -> PageSection:
    """The accuracy by groups: (id, name of the axis, groups, reason if there are no groups).

    A single figure has a table of its numbers beside it.
    """
    there = [(name, axis, groups) for name, axis, groups, _ in shown if groups is not None]
    panels: list[PagePanel] = [_groups(*each) for each in there]
    if len(there) == 1:
        _, axis, groups = there[0]
        cells = zip(groups.names, groups.n, groups.accuracy, strict=True)
        rows = [[name, count(int(n)), percent(p, 1)] for name, n, p in cells]
        panels.append(PageTable(f"Right answers by {axis}", [axis, "answers", "right"], rows))
    left_out = [Sentence(why, "omitted") for *_, groups, why in shown if groups is None]
    note = "Bars: 95\u202f% intervals. A wide interval means few answers."
    return PageSection("where", "Where", [Grid(panels), *left_out], heading, note)


def _groups(identity: str, axis: str, groups: Groups) -> Curve:
    """The accuracy of each group with its 95 % interval; `axis` is the name of the x axis."""
    places = np.arange(len(groups.n))
    return Curve(
        id=identity,
        label=f"Accuracy by {axis}",
        caption=_extremes(groups),
        height=2.8,
        lines=[
            Line(places, groups.accuracy, style={"linewidth": 1, "alpha": 0.5}),
            Line(places, groups.accuracy, errors=groups.errors),
        ],
        x=axis,
        y="right",
        shares="y",
        names=groups.names,
    )


def _extremes(groups: Groups) -> str:
    """A sentence on the worst group and the best one; "" if all are alike."""
    low, high = int(np.argmin(groups.accuracy)), int(np.argmax(groups.accuracy))
    worst, best = float(groups.accuracy[low]), float(groups.accuracy[high])
    if worst == best:
        return ""
    ends = ((worst, groups.names[low]), (best, groups.names[high]))
    return f"From {' to '.join(f'{percent(share, 1)} at {name}' for share, name in ends)}."
