"""Figures as values: curves, a matrix, fans of quantiles. Each is a panel, drawn as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.metrics.forecasts import bands
from ostinato_learn.report import parts
from ostinato_learn.report.markup import distinct, tag
from ostinato_learn.report.panels import SCROLLS, PagePanel
from ostinato_learn.report.svg import (
    ACCENT,
    ACCENT_RGB,
    INK,
    LETTER,
    LINE,
    MUTED,
    WRONG_RGB,
    inline_svg,
    tinted,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

NARROW, WIDE = 4.7, 10.0  # inches: half of the page, and all of it
MAX_NAMED_CLASSES = 60  # more classes than this leave no room for their names
MAX_MARKERS = 40  # more points than this are a line without dots
DOTTED: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (2, 3))}


@dataclass(frozen=True, eq=False, kw_only=True)
class Figure(PagePanel):
    """The base of all figures.

    Attributes:
        id: unique within the page.
        label: a description for screen readers, which also read the caption.
        caption: a sentence under the figure.
        below: markup between the figure and its caption.
        height: the height in inches.
        wide: whether the figure takes the whole width; on a narrow page it scrolls.
    """

    id: str
    label: str
    caption: str = ""
    below: str = ""
    height: float = 3.0
    wide: bool = False

    @property
    def width(self) -> float:
        return WIDE if self.wide else NARROW

    def draw(self, fig: Canvas) -> None:
        """Paint an empty figure."""
        raise NotImplementedError

    def html(self) -> str:
        label = f"{self.label}. {self.caption}" if self.caption else self.label
        svg = inline_svg(self.id, label, (self.width, self.height), self.draw)
        below = self.below + (tag("figcaption", self.caption) if self.caption else "")
        if not self.wide:
            return f'<figure><div class="scroll">{svg}</div>{below}</figure>'
        return f'<figure>{SCROLLS}<div class="scroll wide" tabindex="0">{svg}</div>{below}</figure>'


@dataclass(frozen=True, eq=False)
class Line:
    """Points `[n]` and the line through them.

    Attributes:
        x, y: the coordinates; NaN is a gap.
        name: the name in the legend; "": the legend leaves the line out.
        style: the arguments for matplotlib.
        errors: `[2, n]`, the lengths of the error bar below and above each point.
    """

    x: np.ndarray
    y: np.ndarray
    name: str = ""
    style: Mapping[str, Any] = field(default_factory=dict)
    errors: np.ndarray | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve(Figure):
    """Lines over a common axis.

    Attributes:
        lines: the lines.
        x, y, title: the names of the axes and of the figure, above the axes.
        shares: "x", "y" or both: axes whose values are shares of 1, shown in per cent.
        log: axes that are logarithmic.
        names: the names of the places 0, 1, … along x, instead of numbers.
        x_limits, y_limits: the ends of the axes; None: the ends of the data.
        level: the height of a dotted horizontal line.
        diagonal: whether a dotted line shows y = x.
        bars: `[n]`, shares drawn as bars below the points of the first line.
    """

    lines: Sequence[Line]
    x: str
    y: str = ""
    title: str = ""
    shares: str = ""
    log: str = ""
    names: Sequence[str] = ()
    x_limits: tuple[float | None, float | None] = (None, None)
    y_limits: tuple[float | None, float | None] = (None, None)
    level: float | None = None
    diagonal: bool = False
    bars: np.ndarray | None = None

    def draw(self, fig: Canvas) -> None:
        if self.bars is None:
            ax = foot = fig.add_subplot()
        else:
            ax, foot = fig.subplots(2, 1, sharex=True, height_ratios=(4, 1))
            at = self.lines[0].x
            foot.bar(at, self.bars, width=0.06, color=LINE, edgecolor=MUTED, linewidth=0.8)
            foot.set_ylabel("share")
            _per_cent(foot.yaxis, 2)
        if self.diagonal:
            ax.plot([0, 1], [0, 1], **DOTTED)
        if self.level is not None:
            ax.axhline(self.level, **DOTTED)
        for line in self.lines:
            style: dict[str, Any] = {"color": ACCENT, "label": line.name or None, **line.style}
            if line.errors is None:
                ax.plot(line.x, line.y, **style)
            else:
                ax.errorbar(line.x, line.y, line.errors, fmt="o", ms=4, elinewidth=1, **style)
        ax.set_title(self.title, loc="left", fontsize=10)
        ax.set_ylabel(self.y)
        foot.set_xlabel(self.x)
        self._axes(ax, foot)
        if sum(bool(line.name) for line in self.lines) > 1:
            ax.legend()

    def _axes(self, ax: Axes, foot: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

        if not self.log and not self.names and "x" not in self.shares:
            foot.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
            if name in self.log:
                getattr(ax, f"set_{name}scale")("log")
                # The default writes 10 to a power as TeX, which the page would show as source.
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
            elif name in self.shares:
                _per_cent(foot.xaxis if name == "x" else axis, decimals=None)
        if self.names:
            width = max(map(len, self.names)) * LETTER + 0.1
            every = int(np.ceil(len(self.names) * width / (self.width - 0.9)))
            places = np.arange(len(self.names))[::every]
            ax.set_xticks(places, self.names[::every], fontsize=7.5)
            ax.grid(False, axis="x")
        ax.set_xlim(*self.x_limits)
        ax.set_ylim(*self.y_limits)


def _per_cent(axis: Any, ticks: int = 0, decimals: int | None = 0) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    if ticks:
        axis.set_major_locator(MaxNLocator(ticks))
    axis.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol="\u202f%"))


def dots(n: int) -> dict[str, Any]:
    """The style of a line through n points; few points also get dots."""
    return {"marker": "o", "markersize": 3.5} if n <= MAX_MARKERS else {}


def limits(shares: np.ndarray) -> tuple[float, float]:
    """Ends of an axis a little beyond finite shares `[n]`, at least two per cent apart."""
    shares = shares[np.isfinite(shares)]
    low, high = (shares.min(), shares.max()) if len(shares) else (0.0, 1.0)
    margin = max(0.06 * (high - low), 0.01)
    return max(0.0, low - margin), min(1.0, high) + margin


@dataclass(frozen=True, eq=False, kw_only=True)
class Matrix(Figure):
    """A confusion matrix `[C, C]` too large for a table, as shares of each true class."""

    counts: np.ndarray
    names: Sequence[str]
    height: float = 8.0
    wide: bool = True

    @property
    def width(self) -> float:
        return self.height

    def draw(self, fig: Canvas) -> None:
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        pixels = tinted(np.sqrt(shares), WRONG_RGB)  # the square root makes single mistakes visible
        diagonal = np.arange(len(self.names))
        pixels[diagonal, diagonal, :3] = ACCENT_RGB
        ax = fig.add_subplot()
        ax.imshow(pixels, interpolation="none")
        ax.grid(False)
        ax.spines[["top", "right"]].set_visible(True)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        if len(self.names) <= MAX_NAMED_CLASSES:
            shown = distinct(list(self.names), 18)
            ax.set_xticks(diagonal, shown, rotation=90, fontsize=7)
            ax.set_yticks(diagonal, shown, fontsize=7)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fan(Figure):
    """A series with its forecasts, each a median in bands of quantiles.

    Attributes:
        x: `[t]`, times (datetime64) or steps.
        values: `[t]`, the true values; NaN where a value is missing, and after the end.
        windows: for each forecast the index of its first step in x, and its quantiles `[h, Q]`.
        levels: the levels of the Q quantiles.
    """

    x: np.ndarray
    values: np.ndarray
    windows: Sequence[tuple[int, np.ndarray]]
    levels: Sequence[float]

    def draw(self, fig: Canvas) -> None:
        from matplotlib import dates
        from matplotlib.ticker import MaxNLocator

        ax, x = fig.add_subplot(), self.x
        for first, quantiles in self.windows:
            self._forecast(ax, x[first : first + len(quantiles)], quantiles)
            ax.axvline(x[max(0, first - 1)], **DOTTED | {"linewidth": 0.7})
        known = np.flatnonzero(np.isfinite(self.values))
        shown = known[parts.extremes(self.values[known], 300)]
        ax.plot(x[shown], self.values[shown], color=INK, linewidth=1)
        ax.margins(x=0.01)
        if x.dtype.kind != "M":
            ax.xaxis.set_major_locator(MaxNLocator(7))
            ax.set_xlabel("step" if x.dtype.kind == "i" else "time")
            return
        # With at least five ticks instead of two, 31 to 59 months and 2.5 to 5 hours fit no unit.
        locator = dates.AutoDateLocator(minticks=2, maxticks=6)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))

    def _forecast(self, ax: Axes, ahead: np.ndarray, quantiles: np.ndarray) -> None:
        one = len(ahead) == 1  # a forecast of one step is as wide as a step
        shown = parts.extremes(quantiles[:, list(self.levels).index(0.5)])
        ahead, quantiles = ahead[shown], quantiles[shown]
        for low, high, _ in bands(self.levels):
            if one:
                pair = quantiles[0, [low, high]]
                ax.plot([ahead[0]] * 2, pair, color=ACCENT, alpha=0.25, linewidth=4)
            else:
                ends = quantiles[:, low], quantiles[:, high]
                ax.fill_between(ahead, *ends, color=ACCENT, alpha=0.17, linewidth=0)
        median = quantiles[:, list(self.levels).index(0.5)]
        ax.plot(ahead, median, color=ACCENT, linewidth=1.4, **dots(1) if one else {})
