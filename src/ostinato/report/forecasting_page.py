"""The sections of a forecaster's report."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib.dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ostinato.metrics.forecasts import widest_interval
from ostinato.report import frame, markup, parts, tables
from ostinato.report.forecasting import ForecastData, SeriesView, of_series
from ostinato.report.frame import tile
from ostinato.report.markup import count, note, omitted, percent, plain, row, section, short, text
from ostinato.report.svg import ACCENT, INK, LABELS, MUTED, inline_svg

MOST_ROWS = 12  # of the table of series


def header(data: ForecastData) -> str:
    """The heading, the numbers that matter, and the way to the sections."""
    test = data.evaluation.get("test", {})
    tiles = []
    for key, name in (("mase", "MASE"), ("wql", "WQL")):
        if test.get(key) is not None:
            tiles.append(tile(f"{test[key]:.4f}", name, _beside(data, key)))
    share = widest_interval(data.levels)
    if share is not None:
        inside = f"of what came lies inside the {percent(share, 0)} interval"
        tiles.append(tile(percent(_coverage(data, share), 1), inside))
    tiles += frame.training_tiles(data, data.parameters)
    return frame.head(data, _sizes(data), tiles, _CONTENTS)


def _beside(data: ForecastData, key: str) -> str:
    """The measure, and that of each baseline."""
    told = {"mase": "mean absolute scaled error", "wql": "weighted quantile loss"}[key]
    theirs = [
        f"{name}: {measures[key]:.4f}"
        for name, measures in data.evaluation.get("baselines", {}).items()
        if measures.get(key) is not None
    ]
    return "; ".join([told, *theirs])


def _sizes(data: ForecastData) -> str:
    n = len(data.names)
    series = f"{count(n)} series" if n > 1 else "one series"
    n_forecasts = f"{count(len(data.actual))} forecasts of known values"
    return f"{series}; {data.read}; {n_forecasts}"


def measured(data: ForecastData) -> str:
    """The measures of the network, beside those of the baselines."""
    return frame.beside_baselines(data, "forecast")


def training(data: ForecastData) -> str:
    """The loss of the training over its iterations."""
    told = "Loss: the mean pinball loss of the quantiles, of windows scaled by what is read."
    return frame.training(data, told)


def forecasts(data: ForecastData) -> str:
    """Fans over the held-out windows."""
    heading = "Forecasts of what was held out"
    if not data.views:
        return section("forecasts", heading, omitted("None: no forecast has a value beside it."))
    wide = len(data.views) == 1
    cards = "\n".join(_card(rank, view, data, wide) for rank, view in enumerate(data.views))
    bands = ", ".join(percent(share, 0) for *_, share in _bands(data.levels))
    told = f"Bands: the intervals in which {bands} should lie. Line in them: the median."
    told += " Each forecast begins at a dotted line and knows nothing that came after it."
    if not wide:
        by = "MASE" if data.scaled else "mean absolute error"
        told += f" The series are those with the largest, middle and smallest {by}."
    return section(
        "forecasts",
        heading,
        note(told),
        '<p class="key"><span>what came</span> <span class="true">forecast</span></p>',
        f'<div class="{"cards" if wide else "grid"}">\n{cards}\n</div>',
    )


def _card(rank: int, view: SeriesView, data: ForecastData, wide: bool) -> str:
    by = "MASE" if data.scaled else "mean absolute error"
    told = f"{by} {view.error:.3g}"
    name = f"<strong>{text(view.name)}</strong>, " if len(data.names) > 1 else ""
    place = "" if wide or not view.place else f" ({view.place})"
    median = data.levels.index(0.5)
    last = view.windows[-1][1][-1, median] if view.windows else np.nan
    label = (
        f"Series {plain(view.name)}{place}: {told}; {len(view.windows)} forecasts, the last ends "
        f"at {last:.4g}, where {view.values[-1]:.4g} came"
    )

    def draw(fig: Figure) -> None:
        _fan(fig.add_subplot(), view, data.levels)

    svg = inline_svg(f"series-{rank}", label, (10.0, 3.2) if wide else (4.7, 2.5), draw)
    return f"<article><h3>{name}{text(told + place)}</h3>{markup.figure(svg, wide=wide)}</article>"


def _fan(ax: Axes, view: SeriesView, levels: tuple[float, ...]) -> None:
    x = view.x
    for first, quantiles in view.windows:
        ahead = x[first : first + len(quantiles)]
        # A forecast of one step is drawn as wide as a step.
        marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(ahead) == 1 else {}
        for low, high, _ in _bands(levels):
            if len(ahead) == 1:
                ends = quantiles[0, [low, high]]
                ax.plot([ahead[0]] * 2, ends, color=ACCENT, alpha=0.25, linewidth=4)
            else:
                band: dict[str, Any] = {"color": ACCENT, "alpha": 0.17, "linewidth": 0}
                ax.fill_between(ahead, quantiles[:, low], quantiles[:, high], **band)
        ax.plot(ahead, quantiles[:, levels.index(0.5)], color=ACCENT, linewidth=1.4, **marker)
        ax.axvline(x[max(0, first - 1)], color=MUTED, linewidth=0.7, linestyle=(0, (1, 3)))
    known = np.flatnonzero(np.isfinite(view.values))
    shown = known[parts.extremes(view.values[known], 300)]
    ax.plot(x[shown], view.values[shown], color=INK, linewidth=1)
    ax.margins(x=0.01)
    if x.dtype.kind == "M":
        # From two ticks on: with five, 31 to 59 months and 2.5 to 5 hours have no unit that fits.
        locator = matplotlib.dates.AutoDateLocator(minticks=2, maxticks=6)
        ax.xaxis.set_major_locator(locator)
        formatter = matplotlib.dates.ConciseDateFormatter(locator)
        ax.xaxis.set_major_formatter(formatter)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(7))
        ax.set_xlabel("step" if x.dtype.kind == "i" else "time")


def _bands(levels: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """Central intervals between two of the levels, the widest first: (low, high, share)."""
    found = []
    for low, level in enumerate(levels):
        high = next((i for i, other in enumerate(levels) if abs(level + other - 1) < 1e-9), None)
        if level < 0.5 and high is not None:
            found.append((low, high, 1 - 2 * level))
    return found


def by_step(data: ForecastData) -> str:
    """The error of each step ahead, beside those of the baselines."""
    heading, horizon = "Error by step ahead", data.actual.shape[1]
    if horizon == 1:
        why = "The forecasts are one step long; the measures say how good they are."
        return section("steps", heading, omitted(why))
    by = "mean absolute scaled error" if data.scaled else "mean absolute error"
    answers = {"network": data.quantiles, **data.naive}
    curves = {name: _means(data.shown_errors(each)) for name, each in answers.items()}
    first, last = (_number(data, curves["network"][k]) for k in (0, -1))
    told = f"From {first} at the first step ahead to {last} at step {horizon}."
    steps = np.arange(1, horizon + 1)

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        for i, (name, values) in enumerate(curves.items()):
            ours = name == "network"
            colour = ACCENT if ours else (MUTED, LABELS[1])[(i - 1) % 2]
            few: dict[str, Any] = {"marker": "o", "markersize": 3.5} if horizon <= 24 else {}
            dashed: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.4}
            ax.plot(
                steps,
                values,
                color=colour,
                label=short(name, 40),
                **({} if ours else dashed),
                **few,
            )
        known = np.concatenate(list(curves.values()))
        ax.set_ylim(0, 1.25 * float(np.nanmax(known)) or 1.0)  # room for the legend
        ax.set_xlabel("steps ahead")
        ax.set_ylabel(by)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()

    marks = np.unique(np.linspace(0, horizon - 1, 8).round().astype(int))
    rows = [row(k + 1, [_number(data, v[k]) for v in curves.values()]) for k in marks]
    svg = inline_svg("by-step", f"{heading}. {told}", (4.7, 3.0), draw)
    shown = tables.table(
        f"The {by} of each", ["steps ahead", *map(text, curves)], rows, "numbers measures"
    )
    return section(
        "steps",
        heading,
        f'<div class="grid">{markup.figure(svg, told)}\n{shown}</div>',
    )


def calibration(data: ForecastData) -> str:
    """How many of the values lie below each quantile, and inside each interval."""
    known = np.isfinite(data.actual)
    shares = np.array([_below(data, i) for i in range(len(data.levels))])
    gaps = np.abs(shares - data.levels)
    worst = int(gaps.argmax())
    told = (
        f"Furthest from honest: {percent(shares[worst], 1)} lie below the quantile "
        f"{data.levels[worst]:g}."
    )

    def draw(fig: Figure) -> None:
        ax = fig.add_subplot()
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        ax.plot(data.levels, shares, color=ACCENT, marker="o", markersize=4)
        ax.set_xlabel("level of the quantile")
        ax.set_ylabel("share of values below it")
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(-0.03, 1.03)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u202f%"))

    rows = [
        row(
            percent(share, 0),
            [percent(_coverage(data, share), 1), f"{_width(data, low, high):.4g}"],
        )
        for low, high, share in _bands(data.levels)
    ]
    header = ["interval", "of the values inside", "mean width"]
    table = tables.table("Central intervals", header, rows, "numbers measures") if rows else ""
    svg = inline_svg("calibration", f"Calibration of the quantiles. {told}", (4.7, 3.2), draw)
    return section(
        "calibration",
        "Calibration",
        note(
            "Below an honest quantile of level 0.9 lie 90\u202f% of the values: its point is on "
            f"the dotted line. Counted over {count(int(known.sum()))} values."
        ),
        f'<div class="grid">{markup.figure(svg, told)}\n{table}</div>',
    )


def _below(data: ForecastData, level: int) -> float:
    """The share of the values below a quantile, those equal to it counted half."""
    known = np.isfinite(data.actual)
    values, quantile = data.actual[known], data.quantiles[:, :, level][known]
    return float(((values < quantile) + 0.5 * (values == quantile)).mean())


def _coverage(data: ForecastData, share: float) -> float:
    low, high = next((a, b) for a, b, each in _bands(data.levels) if abs(each - share) < 1e-9)
    known = np.isfinite(data.actual)
    above = data.quantiles[:, :, low] <= data.actual
    return float((above & (data.actual <= data.quantiles[:, :, high]))[known].mean())


def _width(data: ForecastData, low: int, high: int) -> float:
    return float((data.quantiles[:, :, high] - data.quantiles[:, :, low]).mean())


def each_series(data: ForecastData) -> str:
    """The errors of each series, the worst first."""
    if len(data.names) == 1:
        return section("series", "Series", omitted("There is one series; see the measures."))
    ours = of_series(data, data.shown_errors(data.quantiles))
    plain_errors = of_series(data, data.errors(data.quantiles))
    theirs = {n: of_series(data, data.shown_errors(each)) for n, each in data.naive.items()}
    order = [int(i) for i in np.argsort(-ours, kind="stable") if np.isfinite(ours[i])]
    if len(order) > MOST_ROWS:
        half = MOST_ROWS // 2
        chosen = [*order[:half], *order[-half:]]
        told = f"The {half} worst and the {half} best of {count(len(order))} series"
    else:
        chosen, told = order, "All series, the worst first"
    by = "MASE" if data.scaled else "mean absolute error"
    header = ["series", by, *map(text, theirs), *(["mean absolute error"] if data.scaled else [])]
    rows = []
    for i in chosen:
        cells = [_number(data, each[i]) for each in (ours, *theirs.values())]
        rows.append(row(data.names[i], [*cells, *([f"{plain_errors[i]:.4g}"] * data.scaled)]))
    notes = []
    if theirs and order:
        best = np.nanmin(np.stack([each[order] for each in theirs.values()]), axis=0)
        n = int((best < ours[order]).sum())
        notes.append(f"A baseline is better in {count(n)} of {count(len(order))} series.")
    if len(order) < len(data.names):
        n_out = count(len(data.names) - len(order))
        why = "a history that changes, and a value to compare with" if data.scaled else "a value"
        notes.append(f"Left out, since they lack {why}: {n_out} of {count(len(data.names))}.")
    table = tables.table(told, header, rows, "numbers measures")
    return section("series", "Series", note(" ".join(notes)) if notes else "", table)


def _number(data: ForecastData, error: float) -> str:
    """An error as it is shown: scaled ones are of the order of 1."""
    return f"{error:.3f}" if data.scaled else f"{error:.4g}"


def _means(errors: np.ndarray) -> np.ndarray:
    """`[h]`: the mean error of each step; NaN where nothing came."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(errors, axis=0)


IN_ORDER: list[Callable[[Any], str]] = [
    measured,
    forecasts,
    by_step,
    calibration,
    each_series,
    training,
    frame.configuration,
    frame.environment,
]
_CONTENTS = [
    ("measures", "Measures"),
    ("forecasts", "Forecasts"),
    ("steps", "By step ahead"),
    ("calibration", "Calibration"),
    ("series", "Series"),
    ("training", "Training"),
    ("configuration", "Configuration"),
    ("environment", "Environment"),
]
