"""One sequence step by step: its values, and beside them beliefs, labels or hidden states.

A picture is read from top to bottom, so that its time axis runs down, with row t of the picture
level with the belief after row t. For other sequences time runs to the right; a long sequence is
drawn in equal parts (`parts.py`), so that a report of thousands of steps stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.report import parts
from ostinato_learn.report.figures import Figure
from ostinato_learn.report.markup import distinct, short
from ostinato_learn.report.svg import (
    ACCENT,
    INK,
    LABELS,
    LETTER,
    LINE,
    MUTED,
    WRONG,
    diverging,
    tinted,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

IMAGE_SHAPE = (28, 28)  # sequences of this shape, with values in [0, 1], are shown as pictures
MAX_LANES = 12  # of more classes, only the most probable ones have a lane
MAX_LINES = 12  # more features than this are drawn as a heat map, not as lines
MAX_NAMED = 4  # more lines than this cannot be distinguished by their strokes
LINE_POINTS = 1000  # for all lines of an example together
MAX_ROWS = {"features": 64, "units": 128}  # in a heat map; more are drawn in equal parts
LANE = 0.88  # the height at which a lane draws a belief of 1
Colours = Sequence[int | None]  # for each class one of LABELS; −1: the rest; None: no colour


def is_image(x: np.ndarray) -> bool:
    """Whether a sequence `[T, F]` is a picture read row by row."""
    return x.shape == IMAGE_SHAPE and bool(x.min() >= 0 and x.max() <= 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps(Figure):
    """A sequence as the network read it.

    Attributes:
        x: `[T, F]`; None if the steps are words, which the page writes as text.
        names: the names of the features; empty if they have none.
        first: the number of the first step.
        unit: the noun for a step.
    """

    x: np.ndarray | None
    names: Sequence[str] = ()
    first: int = 0
    unit: str = "step"

    def read(self, ax: Axes) -> None:
        """Draw the values over time; step t lies between t and t + 1."""
        assert self.x is not None
        n_steps, n = self.x.shape
        names = self.names if len(self.names) == n else ()
        ax.set_ylabel(f"{n} features" if n > 1 else short(names[0], 20) if names else "feature")
        if n > MAX_LINES:
            heat_map(ax, self.x / (np.abs(self.x).max() or 1.0), MAX_ROWS["features"], self.first)
            return
        marker: dict[str, Any] = {"marker": "o", "markersize": 3} if n_steps == 1 else {}
        named = 1 < n <= MAX_NAMED and len(names) == n
        for i, feature in enumerate(self.x.T):
            shown = parts.extremes(feature, min(parts.MOST, LINE_POINTS // n))
            at = self.first + shown + 0.5
            stroke = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))[i] if named else "-"
            ax.plot(
                at,
                feature[shown],
                color=INK,
                alpha=1 - 0.7 * i / n,
                linewidth=1.1,
                linestyle=stroke,
                label=short(names[i], 18) if named else None,
                **marker,
            )
        if named:
            ax.set_ylabel("")
            letters = sum(min(18, len(name)) + 5 for name in names)
            columns = n if letters * LETTER < self.width - 0.6 else 2
            ax.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                ncols=columns,
                borderaxespad=0.2,
                fontsize=7.5,
                handlelength=1.8,
                columnspacing=1.2,
            )

    def time_axis(self, ax: Axes) -> None:
        """Label the lowest axis, which counts the steps that have been read."""
        from matplotlib.ticker import MaxNLocator

        ax.set_xlabel(f"{self.unit}s read")
        ax.margins(x=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def heat_map(ax: Axes, values: np.ndarray, most: int, first: int = 0) -> None:
    """Draw `[T, K]` values in [−1, 1]; time runs to the right."""
    from matplotlib.ticker import MaxNLocator

    extent = (first, first + len(values), values.shape[1], 0)
    shown = parts.means(parts.means(values).T, most)
    ax.imshow(diverging(shown), interpolation="none", extent=extent, aspect="auto")
    ax.grid(False)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def side_by_side(fig: Canvas, x: np.ndarray) -> Axes:
    """Draw a picture in a square, and return the axes beside it, which have the same height."""
    fig.set_layout_engine("none")
    width, height = fig.get_size_inches()
    left, bottom, top, gap = 0.5, 0.37, 0.28, 0.22
    side = height - bottom - top

    def place(start: float, w: float) -> Axes:
        return fig.add_axes((start / width, bottom / height, w / width, side / height))

    # The ink varies in opacity; a dark page inverts it. Row t lies between t and
    # t + 1, and so does the belief after it.
    ax, (rows, columns) = place(left, side), x.shape
    extent = (0, columns, rows, 0)
    drawn = ax.imshow(tinted(x, (0, 0, 0)), interpolation="none", extent=extent, aspect="auto")
    drawn.set_gid("ink")
    ax.grid(False)
    ax.set_xticks(())
    ax.set_yticks(range(0, rows + 1, 7))
    ax.set_ylabel("rows read")
    ax.spines[["top", "right"]].set_visible(True)
    rest = left + side + gap
    return place(rest, width - rest - 0.08)


@dataclass(frozen=True, eq=False, kw_only=True)
class Beliefs(Steps):
    """A sequence, and a lane for the belief in each class, below it or beside a picture.

    Attributes:
        beliefs: `[T, C]`, the probabilities after each step; None: no lanes.
        classes: the names of the C classes.
        true, chosen: the classes that are marked.
    """

    beliefs: np.ndarray | None
    classes: Sequence[str]
    true: int
    chosen: int

    @property
    def lanes(self) -> list[int]:
        """The classes that get a lane: the true one, the chosen one, and the most probable ones."""
        if self.beliefs is None:
            return []
        peaks = self.beliefs.max(axis=0)
        peaks[[self.true, self.chosen]] = np.inf
        return sorted(np.argsort(-peaks, kind="stable")[:MAX_LANES].tolist())

    def draw(self, fig: Canvas) -> None:
        if self.x is not None and is_image(self.x):
            beside = side_by_side(fig, self.x)
            self.lanes_down(beside) if self.lanes else beside.set_axis_off()
            return
        ratios = [2.2] if self.x is not None else []
        ratios += [0.4 * len(self.lanes)] if self.lanes else []
        axes = fig.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        if self.x is not None:
            self.read(axes[0])
        if self.lanes:
            self.lanes_across(axes[-1])
        self.time_axis(axes[-1])

    def lanes_down(self, ax: Axes) -> None:
        """Draw beliefs beside a picture; time runs down."""
        assert self.beliefs is not None
        for lane, c in enumerate(self.lanes):
            lengths = lane + LANE * self.beliefs[:, c]
            ax.axvline(lane, color=LINE, linewidth=0.8)
            colour = self._colour(c)
            ax.stairs(lengths, baseline=lane, orientation="horizontal", fill=True, color=colour)
        ax.set_xlim(-0.05, len(self.lanes))
        ax.set_ylim(len(self.beliefs), 0)
        ax.set_yticks(())
        ax.xaxis.tick_top()
        names = distinct([self.classes[c] for c in self.lanes], 2 if len(self.lanes) > 8 else 6)
        ax.set_xticks(np.arange(len(self.lanes)) + LANE / 2, names)
        ax.set_xlabel("belief in each class", color=MUTED)
        ax.xaxis.set_label_position("bottom")
        self._plain(ax, ax.get_xticklabels())

    def lanes_across(self, ax: Axes) -> None:
        """Draw beliefs below the sequence; time runs to the right."""
        assert self.beliefs is not None
        bottoms = np.arange(len(self.lanes))[::-1]
        edges, beliefs = parts.edges(len(self.beliefs)), parts.means(self.beliefs)
        for bottom, c in zip(bottoms, self.lanes, strict=True):
            ax.axhline(bottom, color=LINE, linewidth=0.8)
            heights = bottom + LANE * beliefs[:, c]
            ax.stairs(heights, edges, baseline=bottom, fill=True, color=self._colour(c))
        ax.set_ylim(-0.05, len(self.lanes))
        ax.set_yticks(bottoms + LANE / 2, distinct([self.classes[c] for c in self.lanes], 16))
        self._plain(ax, ax.get_yticklabels())

    def _plain(self, ax: Axes, names: Sequence[Any]) -> None:
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        for name, c in zip(names, self.lanes, strict=True):
            name.set_color(self._colour(c))
            name.set_fontweight("bold" if c in (self.true, self.chosen) else "normal")

    def _colour(self, c: int) -> str:
        return ACCENT if c == self.true else WRONG if c == self.chosen else MUTED


@dataclass(frozen=True, eq=False, kw_only=True)
class HiddenStates(Steps):
    """Hidden states `[T, H]` as a heat map with the time axis of the sequence beside it."""

    states: np.ndarray
    wide: bool = True

    def draw(self, fig: Canvas) -> None:
        order = np.argsort(self.states[-1], kind="stable")
        states = self.states[:, order] / (np.abs(self.states).max() or 1.0)
        n_steps, n_units = states.shape
        if self.x is not None and is_image(self.x):
            beside = side_by_side(fig, self.x)
            extent = (0, n_units, n_steps, 0)
            beside.imshow(diverging(states), interpolation="none", extent=extent, aspect="auto")
            beside.grid(False)
            beside.set_yticks(())
            beside.set_xlabel(f"{n_units} hidden units")
            return
        if self.x is None:
            bottom = fig.subplots()
        else:
            top, bottom = fig.subplots(2, 1, height_ratios=(1, 2), sharex=True)
            self.read(top)
        heat_map(bottom, states, MAX_ROWS["units"])
        bottom.set_ylabel(f"{n_units} hidden units")
        self.time_axis(bottom)


@dataclass(frozen=True, eq=False, kw_only=True)
class Lanes(Steps):
    """A sequence, and under it its true and its predicted labels over time.

    Attributes:
        true, predicted: `[T]`, class numbers.
        classes: the names of the classes.
        colours: the colours of the classes.
    """

    true: np.ndarray
    predicted: np.ndarray
    classes: Sequence[str]
    colours: Colours
    wide: bool = True

    def draw(self, fig: Canvas) -> None:
        from matplotlib.ticker import MaxNLocator

        top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
        self.read(top)
        self._lane(bottom, 1, self.true)
        self._lane(bottom, 0, self.predicted)
        wrong = self.true != self.predicted
        _bars(bottom, -0.3, 0.14, self.first, [r for r in runs(wrong) if wrong[r[0]]], WRONG)
        bottom.set_ylim(-0.4, 1.85)
        bottom.set_yticks([1.4, 0.4, -0.23], ["true", "predicted", "wrong"])
        bottom.tick_params(axis="y", length=0)
        bottom.spines[:].set_visible(False)
        bottom.grid(False)
        bottom.set_xlim(self.first, self.first + len(self.true))
        bottom.set_xlabel(self.unit)
        bottom.xaxis.set_major_locator(MaxNLocator(12, integer=True))

    def _lane(self, ax: Axes, y: int, labels: np.ndarray) -> None:
        inches = (self.width - 1.1) / len(labels)
        of_label: dict[int, list[tuple[int, int]]] = {}
        for start, end in runs(labels):
            of_label.setdefault(int(labels[start]), []).append((start, end))
        for number, stretches in of_label.items():
            _bars(ax, y, 0.8, self.first, stretches, _colour(self.colours[number]), alpha=0.6)
            name = short(self.classes[number], 24)
            for start, end in stretches:
                if len(name) * LETTER < (end - start) * inches:
                    at = self.first + (start + end) / 2
                    ax.text(at, y + 0.4, name, ha="center", va="center", fontsize=7.5, color=INK)


def runs(labels: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of equal labels `[T]`: (first step, step after the last)."""
    borders = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    return list(pairwise(borders))


Stretches = Sequence[tuple[int, int]]


def _bars(
    ax: Axes, y: float, height: float, first: int, stretches: Stretches, colour: str, **style: Any
) -> None:
    """Draw bars over stretches of steps, as one path, which takes the least space in the page."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    rectangles = [
        Path([(a, y), (b, y), (b, y + height), (a, y + height), (a, y)], closed=True)
        for a, b in (np.array(stretches).reshape(-1, 2) + first).tolist()
    ]
    if rectangles:
        path = Path.make_compound_path(*rectangles)
        ax.add_patch(PathPatch(path, facecolor=colour, linewidth=0, **style))


def _colour(colour: int | None) -> str:
    return LINE if colour is None else MUTED if colour < 0 else LABELS[colour]


def css_class(colour: int | None) -> str:
    """The class of a label's colour in the style sheet; "plain" without a colour of its own."""
    return "plain" if colour is None or colour < 0 else f"label-{colour}"
