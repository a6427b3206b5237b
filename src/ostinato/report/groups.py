"""Right answers counted in groups: by length, by position, and by how sure the network was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ostinato.report import markup, parts
from ostinato.report.frame import interval
from ostinato.report.markup import count, note, omitted, percent, row, section, table
from ostinato.report.svg import ACCENT, LINE, MUTED, inline_svg

MOST_GROUPS = 8
BINS = 10  # of confidence


@dataclass(frozen=True, eq=False)
class Groups:
    """Answers in G groups.

    Attributes:
        names: of the groups, as shown.
        n: `[G]`, answers.
        right: `[G]`, right ones among them.
    """

    names: tuple[str, ...]
    n: np.ndarray
    right: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """`[G]`; NaN of an empty group."""
        with np.errstate(invalid="ignore"):
            return self.right / self.n

    @property
    def errors(self) -> np.ndarray:
        """`[2, G]`: how far Wilson's 95 % interval reaches below and above the accuracy."""
        bounds = [interval(p, n) for p, n in zip(self.accuracy, self.n, strict=True)]
        low, high = np.array(bounds).T
        return np.maximum(0, [self.accuracy - low, high - self.accuracy])


def by_length(lengths: np.ndarray, n: np.ndarray, right: np.ndarray) -> Groups | None:
    """Answers by the length of their sequence, in groups of about as many sequences.

    Args:
        lengths: `[N]`, of the sequences.
        n, right: `[N]`, answers and right ones of each.

    Returns:
        None if all are of the same length.
    """
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, MOST_GROUPS + 1)).round())
    if len(bounds) < 2:
        return None
    # A group reaches from above its lower bound to its upper one; the first has both.
    group = np.maximum(np.searchsorted(bounds, lengths) - 1, 0)
    members = [np.flatnonzero(group == g) for g in range(len(bounds) - 1)]
    members = [each for each in members if len(each)]
    names = [_range(int(lengths[each].min()), int(lengths[each].max())) for each in members]
    sums = [(n[each].sum(), right[each].sum()) for each in members]
    return Groups(tuple(names), *np.array(sums).T)


def by_position(lengths: np.ndarray, right: np.ndarray) -> Groups:
    """Answers by their step; of long sequences steps in parts.

    Args:
        lengths: `[N]`, of the sequences.
        right: `[ΣT]`, bool, the answers of all steps, end to end.
    """
    position = np.arange(len(right)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    longest = int(lengths.max())
    n = np.bincount(position, minlength=longest)
    hits = np.bincount(position, weights=right, minlength=longest).astype(np.int64)
    bounds = parts.edges(longest, 24)
    names = [
        _range(a + 1, b) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    starts = bounds[:-1]
    return Groups(tuple(names), np.add.reduceat(n, starts), np.add.reduceat(hits, starts))


def by_confidence(confidence: np.ndarray, right: np.ndarray) -> tuple[Groups, np.ndarray]:
    """Answers in tenths of the probability given to them, and its mean in each tenth, `[10]`.

    Args:
        confidence: `[N]`, the probability of each answer.
        right: `[N]`, bool.
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


def calibration(confidence: np.ndarray, right: np.ndarray, answers: str) -> str:
    """The section on whether the probabilities can be trusted; `answers` names what was asked."""
    groups, mean = by_confidence(confidence, right)
    there = np.flatnonzero(groups.n)
    shown = Groups(tuple(groups.names[i] for i in there), groups.n[there], groups.right[there])
    told = _trust(float(confidence.mean()), float(right.mean()), len(right))
    told += f" Expected calibration error: {percent(calibration_error(groups, mean))}."
    svg = inline_svg(
        "calibration",
        f"Accuracy by confidence. {told}",
        (4.7, 3.4),
        lambda fig: _reliability(fig, shown, mean[there]),
    )
    rows = [
        row(name, [count(int(n)), percent(sure, 1), percent(share, 1)])
        for name, n, sure, share in zip(
            shown.names, shown.n, mean[there], shown.accuracy, strict=True
        )
    ]
    header = ["probability given", answers, "its mean", "right"]
    return section(
        "calibration",
        "Calibration",
        note(
            "Whether answers given with a probability of 80\u202f% are right in 80\u202f% of the "
            "cases. On the dotted line they are; below it the network is too sure."
        ),
        f'<div class="grid">{markup.figure(svg, told)}\n'
        f"{table('Answers by the probability given', header, rows, 'numbers')}</div>",
    )


def _trust(sure: float, right: float, n: int) -> str:
    """The mean confidence beside the accuracy; apart if by more than three standard errors."""
    told = f"Mean confidence {percent(sure, 1)}, accuracy {percent(right, 1)}"
    share = (right * n + 1) / (n + 2)
    if abs(sure - right) <= 3 * np.sqrt(share * (1 - share) / n):
        return f"{told}: no more apart than chance makes them."
    points = f"{100 * abs(sure - right):.1f} points"
    return f"{told}: too {'sure' if sure > right else 'cautious'} by {points}."


def _reliability(fig: Figure, groups: Groups, mean: np.ndarray) -> None:
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    _dots(top, mean, groups)
    top.set_ylabel("right")
    top.set_ylim(-0.03, 1.03)
    shares = groups.n / groups.n.sum()
    bottom.bar(mean, shares, width=0.06, color=LINE, edgecolor=MUTED, linewidth=0.8)
    bottom.set_ylabel("share")
    bottom.set_xlabel("probability given to the answer")
    bottom.set_xlim(-0.03, 1.03)
    bottom.yaxis.set_major_locator(MaxNLocator(2))
    for axis in (top.yaxis, bottom.xaxis, bottom.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u202f%"))


def figure(name: str, label: str, groups: Groups, what: str) -> str:
    """The accuracy of each group with its 95 % interval; `what` names the axis."""

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        places = np.arange(len(groups.n))
        ax.plot(places, groups.accuracy, color=ACCENT, linewidth=1, alpha=0.5)
        _dots(ax, places, groups)
        every = -(-len(places) // MOST_GROUPS)
        ax.set_xticks(places[::every], groups.names[::every], fontsize=7.5)
        ax.grid(False, axis="x")
        ax.set_xlabel(what)
        ax.set_ylabel("right")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol="\u202f%"))

    return inline_svg(name, label, (4.7, 2.8), draw)


def _dots(ax: Axes, x: np.ndarray, groups: Groups) -> None:
    ax.errorbar(
        x,
        groups.accuracy,
        yerr=groups.errors,
        fmt="o",
        color=ACCENT,
        markersize=4,
        elinewidth=1,
        capsize=0,
    )


def where(shown: Sequence[tuple[str, str, Groups | None, str]], heading: str) -> str:
    """The section on where answers are right: figures of (id, name of the axis, groups, why not).

    Where there are no groups the last sentence says why.
    """
    figures, left_out = [], []
    for identity, axis, groups, why in shown:
        if groups is None:
            left_out.append(omitted(why))
            continue
        told = _extremes(groups)
        svg = figure(identity, f"Accuracy by {axis}. {told}", groups, axis)
        figures.append(markup.figure(svg, told))
    body = "\n".join(figures)
    told = "Bars: 95\u202f% intervals. A wide one stands for few answers."
    return section(
        "where",
        heading,
        note(told) if figures else "",
        f'<div class="grid">{body}</div>' if figures else "",
        *left_out,
    )


def _extremes(groups: Groups) -> str:
    if len(groups.n) < 2:
        return f"{percent(float(groups.accuracy[0]))} of {count(int(groups.n[0]))}."
    low, high = int(np.argmin(groups.accuracy)), int(np.argmax(groups.accuracy))
    return (
        f"From {percent(float(groups.accuracy[low]), 1)} at {groups.names[low]} to "
        f"{percent(float(groups.accuracy[high]), 1)} at {groups.names[high]}."
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"
