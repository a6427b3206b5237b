"""Curves and confusion: the figures about all examples, returned as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from ostinato.report.markup import short
from ostinato.report.svg import ACCENT, ACCENT_RGB, MUTED, WRONG, WRONG_RGB, inline_svg, tinted

MAX_NAMED_CLASSES = 60  # more classes than this leave no room for their names
MAX_MARKERS = 40  # more points than this are a line without dots


def curves(
    name: str, label: str, title: str, metrics: Sequence[dict[str, Any]], keys: dict[str, str]
) -> str:
    """Metrics over iterations, a line for each of `keys` (metric → legend) that was reported."""
    present = [key for key in keys if any(key in report for report in metrics)]
    iterations = np.array([report["iteration"] for report in metrics])

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        for key, colour, marker in zip(present, (ACCENT, WRONG), "os", strict=False):
            values = np.array([report.get(key, np.nan) for report in metrics], dtype=float)
            known = np.isfinite(values)
            few = known.sum() <= MAX_MARKERS
            ax.plot(
                iterations[known],
                values[known],
                color=colour,
                label=keys[key],
                marker=marker if few else None,
                markersize=3.5,
            )
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_xlabel("iteration")
        ax.margins(x=0.03)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        if title == "Accuracy":
            _share_axis(ax)
            ax.set_ylim(top=1.02)
        elif _spans_decades(ax):
            ax.set_yscale("log")
            # By default 10 to a power, in mathematics, which the page shows as it is written.
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_ylim(bottom=0)
        if len(present) > 1:
            ax.legend()

    return inline_svg(name, label, (4.7, 3.0), draw)


def _spans_decades(ax: Axes) -> bool:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    return len(values) > 0 and values.min() > 0 and values.max() > 30 * values.min()


def accuracy_by_step(label: str, accuracy: np.ndarray, chance: float, unit: str) -> str:
    """Accuracy `[T]` after each step; `chance` is the share of the most frequent class."""
    steps = np.arange(1, len(accuracy) + 1)

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        ax.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        ax.plot(steps, accuracy, color=ACCENT)
        ax.plot(steps[-1], accuracy[-1], "o", color=ACCENT, markersize=5)
        ax.set_xlabel(f"{unit}s read")
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 5, 7, 10]))
        _share_axis(ax)
        ax.set_ylim(0, 1.02)

    return inline_svg("accuracy-by-step", label, (4.7, 3.0), draw)


def confusion_image(label: str, matrix: np.ndarray, classes: Sequence[str]) -> str:
    """A confusion matrix `[C, C]` too large for a table, as shares of each true class."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = tinted(np.sqrt(shares), WRONG_RGB)  # the root lets single mistakes show
    diagonal = np.arange(len(classes))
    pixels[diagonal, diagonal, :3] = ACCENT_RGB

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        ax.imshow(pixels, interpolation="none")
        ax.grid(False)
        ax.spines[["top", "right"]].set_visible(True)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        if len(classes) <= MAX_NAMED_CLASSES:
            names = [short(name) for name in classes]
            ax.set_xticks(diagonal, names, rotation=90, fontsize=7)
            ax.set_yticks(diagonal, names, fontsize=7)

    return inline_svg("confusion-matrix", label, (8.0, 8.0), draw)


def _share_axis(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol="\u202f%"))
