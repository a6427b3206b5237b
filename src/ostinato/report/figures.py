"""Curves and confusion: the figures about all examples, returned as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from ostinato.report import parts
from ostinato.report.markup import short
from ostinato.report.svg import ACCENT, ACCENT_RGB, MUTED, WRONG, WRONG_RGB, inline_svg, tinted

MAX_NAMED_CLASSES = 60  # more classes than this leave no room for their names
MAX_BATCHES = 500  # points of the loss of single batches
MAX_MARKERS = 40  # more points than this are a line without dots


def loss_curve(
    label: str,
    metrics: Sequence[dict[str, Any]],
    losses: Sequence[tuple[int, float]],
    name: str = "Loss",
    *,
    wide: bool = False,
) -> str:
    """The loss over iterations: of single batches faint, their running mean, validation.

    Without `losses` the batches are those of the reports.
    """

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        if losses:
            _course(ax, np.array(losses, dtype=float))
        else:
            _reports(ax, metrics, "loss", ACCENT, "o", "training batch")
        _reports(ax, metrics, "validation_loss", WRONG, "s", "validation")
        _iteration_axis(ax, name)
        if _spans_decades(ax):
            ax.set_yscale("log")
            # By default 10 to a power, in mathematics, which the page shows as it is written.
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_ylim(bottom=0)

    return inline_svg("loss", label, (10.0 if wide else 4.7, 3.0), draw)


def accuracy_curve(label: str, metrics: Sequence[dict[str, Any]]) -> str:
    """The accuracy over iterations, on an axis for what was reported after the start."""

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        _reports(ax, metrics, "train_accuracy", ACCENT, "o", "training batch")
        _reports(ax, metrics, "validation_accuracy", WRONG, "s", "validation")
        _iteration_axis(ax, "Accuracy")
        _share_axis(ax)
        ax.set_ylim(*accuracy_limits(metrics))

    return inline_svg("accuracy", label, (4.7, 3.0), draw)


def accuracy_limits(metrics: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The accuracies that the axis shows: all but those before the first update, if far below."""
    shares = [[r[k] for k in r if k.endswith("accuracy")] for r in metrics]
    low, high = _range(np.concatenate(shares[1:] or shares))
    start = min(shares[0])
    return (low, high) if start < low - (high - low) else _range(np.concatenate(shares))


def _range(shares: np.ndarray) -> tuple[float, float]:
    """Limits a little beyond the finite values, at least two per cent apart."""
    shares = shares[np.isfinite(shares)]
    low, high = (shares.min(), shares.max()) if len(shares) else (0.0, 1.0)
    margin = max(0.06 * (high - low), 0.01)
    return max(0.0, low - margin), min(1.0, high) + margin


def _course(ax: Axes, losses: np.ndarray) -> None:
    """`[K, 2]` iterations and losses of single batches."""
    iterations, values = losses.T
    window = max(1, len(values) // 25)
    told = "training batch"
    if window > 1:
        told = f"mean of {window} of them"
        every = f"a batch every {iterations[1] - iterations[0]:.0f} iterations"
        shown = parts.extremes(values, MAX_BATCHES)
        faint: dict[str, Any] = {"color": MUTED, "alpha": 0.5, "linewidth": 0.6, "label": every}
        ax.plot(iterations[shown], values[shown], **faint)
    mean = parts.running_mean(values, window)
    smooth = np.unique(np.linspace(0, len(values) - 1, MAX_BATCHES).round().astype(int))
    ax.plot(iterations[smooth], mean[smooth], color=ACCENT, label=told)


def _reports(
    ax: Axes, metrics: Sequence[dict[str, Any]], key: str, colour: str, marker: str, label: str
) -> None:
    """One entry of the reports over iterations, where it was reported."""
    known = [r for r in metrics if np.isfinite(r.get(key, np.nan))]
    if known:
        ax.plot(
            [r["iteration"] for r in known],
            [r[key] for r in known],
            color=colour,
            label=label,
            marker=marker if len(known) <= MAX_MARKERS else None,
            markersize=3.5,
        )


def _iteration_axis(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel("iteration")
    ax.margins(x=0.03)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    if len(ax.lines) > 1:
        ax.legend()


def _spans_decades(ax: Axes) -> bool:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    return len(values) > 0 and values.min() > 0 and values.max() > 30 * values.min()


def accuracy_by_step(label: str, accuracy: np.ndarray, chance: float, unit: str) -> str:
    """Accuracy `[T]` after each step; `chance` is the share of the most frequent class."""
    ends = parts.edges(len(accuracy))[1:]
    shown = parts.means(accuracy)

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        ax.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        ax.plot(ends, shown, color=ACCENT)
        ax.plot(len(accuracy), accuracy[-1], "o", color=ACCENT, markersize=5)
        ax.set_xlabel(f"{unit}s read")
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 5, 7, 10]))
        _share_axis(ax)
        ax.set_ylim(*_range(np.append(accuracy, chance)))

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
