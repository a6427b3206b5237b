"""One example seen step by step: what was read, the beliefs beside it, the hidden states.

A picture is read from top to bottom, so its time axis runs down, row t of the picture level with
the belief after row t. Time of any other sequence runs to the right; a long one is drawn by equal
parts of it (`parts.py`), so that a report of thousands of steps stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ostinato.report import parts
from ostinato.report.contents import StepView
from ostinato.report.markup import short
from ostinato.report.svg import ACCENT, INK, LINE, MUTED, WRONG, diverging, inline_svg, tinted

IMAGE_SHAPE = (28, 28)  # sequences of this shape, with values in [0, 1], are shown as pictures
MAX_LANES = 12  # with more classes, the most probable ones have a lane
MAX_LINES = 12  # more features than this are a heat map, not lines
LINE_POINTS = 1000  # of all lines of an example together
MAX_ROWS = {"features": 64, "units": 128}  # of a heat map; more are drawn by equal parts
LANE = 0.88  # height of a belief of 1 in its lane


def is_image(x: np.ndarray) -> bool:
    """Whether a sequence `[T, F]` is a picture read row by row."""
    return x.shape == IMAGE_SHAPE and bool(x.min() >= 0 and x.max() <= 1)


def step_by_step(name: str, label: str, view: StepView, classes: Sequence[str], unit: str) -> str:
    """The sequence as the network read it, and beside it the beliefs after every step."""
    lanes = [] if view.beliefs is None else _lanes(view, classes)

    def down(fig: Figure) -> None:
        picture, beside = _side_by_side(fig)
        _picture(picture, view.x)
        if lanes:
            _beliefs_down(beside, view, classes, lanes)
        else:
            beside.set_axis_off()

    def across(fig: Figure) -> None:
        read = view.words is None  # words are written, not drawn
        ratios = [*([2.2] if read else []), *([0.4 * len(lanes)] if lanes else [])]
        axes = fig.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        if read:
            features(axes[0], view.x)
        if lanes:
            _beliefs_across(axes[-1], view, classes, lanes)
        _time_axis(axes[-1], unit)

    if is_image(view.x):
        return inline_svg(name, label, (4.7, 2.45), down)
    above = 1.9 if view.words is None else 0.7
    return inline_svg(name, label, (4.7, above + 0.24 * len(lanes)), across)


def hidden_states(label: str, view: StepView, unit: str) -> str:
    """Hidden states `[T, H]` as a heat map, its time axis that of the sequence beside it."""
    assert view.states is not None
    order = np.argsort(view.states[-1], kind="stable")
    states = view.states[:, order] / (np.abs(view.states).max() or 1.0)
    n_steps, n_units = states.shape

    def down(fig: Figure) -> None:
        picture, beside = _side_by_side(fig)
        _picture(picture, view.x)
        extent = (0, n_units, n_steps, 0)
        beside.imshow(diverging(states), interpolation="none", extent=extent, aspect="auto")
        beside.grid(False)
        beside.set_yticks(())
        beside.set_xlabel(f"{n_units} hidden units")

    def across(fig: Figure) -> None:
        if view.words is None:
            top, bottom = fig.subplots(2, 1, height_ratios=(1, 2), sharex=True)
            features(top, view.x)
        else:
            bottom = fig.subplots()
        _heat_map(bottom, states, MAX_ROWS["units"])
        bottom.set_ylabel(f"{n_units} hidden units")
        _time_axis(bottom, unit)

    if is_image(view.x):
        return inline_svg("hidden-states", label, (10.0, 2.9), down)
    return inline_svg("hidden-states", label, (10.0, 4.4), across)


def _side_by_side(fig: Figure) -> tuple[Axes, Axes]:
    """A square for the picture and the rest of the width, exactly as high; in inches, by hand."""
    fig.set_layout_engine("none")
    width, height = fig.get_size_inches()
    left, bottom, top, gap = 0.5, 0.37, 0.28, 0.22
    side = height - bottom - top

    def place(x: float, w: float) -> Axes:
        return fig.add_axes((x / width, bottom / height, w / width, side / height))

    rest = left + side + gap
    return place(left, side), place(rest, width - rest - 0.08)


def _picture(ax: Axes, x: np.ndarray) -> None:
    # Drawn in ink of varying strength; the page inverts it in the dark. Row t lies between t and
    # t + 1, and so does the belief after it.
    height, width = x.shape
    extent = (0, width, height, 0)
    picture = ax.imshow(tinted(x, (0, 0, 0)), interpolation="none", extent=extent, aspect="auto")
    picture.set_gid("ink")
    ax.grid(False)
    ax.set_xticks(())
    ax.set_yticks(range(0, height + 1, 7))
    ax.set_ylabel("rows read")
    ax.spines[["top", "right"]].set_visible(True)


def features(ax: Axes, x: np.ndarray, first: int = 0) -> None:
    """`[T, F]` over time from step `first`; feature values of step t between t and t + 1."""
    n_steps, n_features = x.shape
    ax.set_ylabel("feature" if n_features == 1 else f"{n_features} features")
    if n_features > MAX_LINES:
        _heat_map(ax, x / (np.abs(x).max() or 1.0), MAX_ROWS["features"], first)
        return
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if n_steps == 1 else {}
    for i, feature in enumerate(x.T):
        strength = 1 - 0.7 * i / n_features
        shown = parts.extremes(feature, min(parts.MOST, LINE_POINTS // n_features))
        ax.plot(
            first + shown + 0.5, feature[shown], color=INK, alpha=strength, linewidth=1.1, **marker
        )


def _heat_map(ax: Axes, values: np.ndarray, most: int, first: int = 0) -> None:
    """`[T, K]` values in [−1, 1], time to the right."""
    n_steps, n_rows = values.shape
    extent = (first, first + n_steps, n_rows, 0)
    shown = parts.means(parts.means(values).T, most)
    ax.imshow(diverging(shown), interpolation="none", extent=extent, aspect="auto")
    ax.grid(False)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _time_axis(ax: Axes, unit: str) -> None:
    ax.set_xlabel(f"{unit}s read")
    ax.margins(x=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _lanes(view: StepView, classes: Sequence[str]) -> list[int]:
    """The classes that get a lane: the true one, the chosen one, and the most believed in."""
    assert view.beliefs is not None
    peaks = view.beliefs.max(axis=0)
    peaks[[classes.index(view.label), classes.index(view.prediction)]] = np.inf
    return sorted(np.argsort(-peaks, kind="stable")[:MAX_LANES].tolist())


def _beliefs_down(ax: Axes, view: StepView, classes: Sequence[str], lanes: list[int]) -> None:
    assert view.beliefs is not None
    for lane, c in enumerate(lanes):
        lengths = lane + LANE * view.beliefs[:, c]
        ax.axvline(lane, color=LINE, linewidth=0.8)
        colour = _colour(view, classes[c])
        ax.stairs(lengths, baseline=lane, orientation="horizontal", fill=True, color=colour)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlim(-0.05, len(lanes))
    ax.set_ylim(len(view.beliefs), 0)
    ax.set_yticks(())
    ax.xaxis.tick_top()
    names = [short(classes[c], 2 if len(lanes) > 8 else 6) for c in lanes]
    ax.set_xticks(np.arange(len(lanes)) + LANE / 2, names)
    ax.tick_params(length=0)
    ax.set_xlabel("belief in each class", color=MUTED)
    ax.xaxis.set_label_position("bottom")
    _colour_names(ax.get_xticklabels(), view, classes, lanes)


def _beliefs_across(ax: Axes, view: StepView, classes: Sequence[str], lanes: list[int]) -> None:
    assert view.beliefs is not None
    bottoms = np.arange(len(lanes))[::-1]
    edges, beliefs = parts.edges(len(view.beliefs)), parts.means(view.beliefs)
    for bottom, c in zip(bottoms, lanes, strict=True):
        ax.axhline(bottom, color=LINE, linewidth=0.8)
        heights = bottom + LANE * beliefs[:, c]
        ax.stairs(heights, edges, baseline=bottom, fill=True, color=_colour(view, classes[c]))
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_ylim(-0.05, len(lanes))
    ax.set_yticks(bottoms + LANE / 2, [short(classes[c], 10) for c in lanes])
    ax.tick_params(axis="y", length=0)
    _colour_names(ax.get_yticklabels(), view, classes, lanes)


def _colour_names(names: list, view: StepView, classes: Sequence[str], lanes: list[int]) -> None:
    for name, c in zip(names, lanes, strict=True):
        colour = _colour(view, classes[c])
        name.set_color(colour)
        name.set_fontweight("normal" if colour == MUTED else "bold")


def _colour(view: StepView, class_name: str) -> str:
    if class_name == view.label:
        return ACCENT
    return WRONG if class_name == view.prediction else MUTED
