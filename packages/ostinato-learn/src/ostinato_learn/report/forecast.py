"""The report of a forecaster: what is computed of it, and the panels that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.series.panel import Panel, as_panel
from ostinato_learn.metrics.forecasts import (
    bands,
    coverage,
    row_means,
    seasonal_scale,
    widest_interval,
)
from ostinato_learn.report import common, measures
from ostinato_learn.report.figures import Curve, Fan, Line, dots
from ostinato_learn.report.markup import Html, count, counted, percent, plain, short, tag, text
from ostinato_learn.report.page import PageData, RunFacts
from ostinato_learn.report.panels import Card, Grid, Key, PageSection, PageTable, Tile
from ostinato_learn.report.svg import LABELS, MUTED
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks.base import MeasureSpec
from ostinato_learn.tasks.forecast import TASK

if TYPE_CHECKING:
    from ostinato_learn.tasks.forecast.model import Forecaster

SHOWN = 6  # series: the worst, the middle and the best ones
LEAST_HISTORY = 24  # steps drawn before the first forecast; more if more are drawn after it
MOST_STEPS = 600  # drawn of a series
MOST_AGAIN = 2_000  # forecasts for which baselines are computed again: a millisecond each
MOST_ROWS = 12  # in the table of series
MEASURES = {**TASK.measures, "pinball": MeasureSpec("pinball loss", lower=True)}


@dataclass(frozen=True, eq=False, kw_only=True)
class SeriesView:
    """The end of a series with the forecasts of it.

    Attributes:
        name: the name of the series.
        x: `[t]`, times (datetime64) or steps.
        values: `[t]`, the actual values; NaN where a value is missing.
        windows: of each forecast the first of its steps among the t, and quantiles `[h, Q]`.
        ahead: times of the steps after the end, and their forecast `[h, Q]`; None without one.
        place: "worst", "middle" or "best".
        error: the mean absolute error of its forecasts, scaled (MASE) if possible.
    """

    name: str
    x: np.ndarray
    values: np.ndarray
    windows: list[tuple[int, np.ndarray]]
    place: str
    error: float
    ahead: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ForecastData(PageData):
    """The contents of a forecaster's report.

    Args:
        title, …, environment, parameters: see `RunFacts` and `PageData`.
        levels: of the quantiles, Q of them, with 0.5.
        series: `[M]`, the series of each forecast, a number below len(names).
        actual: `[M, h]`, the actual values; NaN where a value is missing.
        quantiles: `[M, h, Q]`.
        scales: `[M]`, the divisors of errors for MASE; NaN where it is not defined.
        naive: baseline → its quantiles `[M, h, Q]`.
        names: the names of the series.
        views: the series that are drawn, the worst first.
        read: what the network reads, in words.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    levels: tuple[float, ...]
    series: np.ndarray
    actual: np.ndarray
    quantiles: np.ndarray
    scales: np.ndarray
    names: list[str]
    views: list[SeriesView] = field(default_factory=list)
    naive: dict[str, np.ndarray] = field(default_factory=dict)
    read: str = ""

    def __post_init__(self) -> None:
        wanted = (*self.actual.shape, len(self.levels))
        for name, came in (("quantiles", self.quantiles), *self.naive.items()):
            if self.actual.ndim != 2 or not self.actual.size or came.shape != wanted:
                raise ValueError(
                    f"ForecastData: {name} has shape {list(came.shape)} and actual "
                    f"{list(self.actual.shape)}; wanted [M, h, {len(self.levels)}] and [M, h]"
                )
        if 0.5 not in self.levels:
            raise ValueError(f"ForecastData: levels are {self.levels}; wanted 0.5 among them")

    def errors(self, quantiles: np.ndarray) -> np.ndarray:
        """`[M, h]`, the absolute errors of the medians; NaN where a value is missing."""
        return np.abs(self.actual - quantiles[:, :, self.levels.index(0.5)])

    @property
    def scaled(self) -> bool:
        """Whether errors can be scaled, so that series of different sizes weigh the same."""
        return bool((self.scales > 0).any())

    def shown_errors(self, quantiles: np.ndarray) -> np.ndarray:
        """`errors`, divided by the scales if there are any; errors without a scale become NaN."""
        if not self.scaled:
            return self.errors(quantiles)
        return self.errors(quantiles) / np.where(self.scales > 0, self.scales, np.nan)[:, None]

    @property
    def by(self) -> str:
        """The name of `shown_errors`."""
        return "MASE" if self.scaled else "mean absolute error"

    def sizes(self) -> str:
        n = len(self.names)
        series = f"{count(n)} series" if n > 1 else "one series"
        return f"{series}; {self.read}; {count(len(self.actual))} forecasts of known values"

    def tiles(self) -> list[Tile]:
        tiles = []
        names = {"mase": "mean absolute scaled error", "wql": "weighted quantile loss"}
        for key, wording in names.items():
            if self.test.get(key) is not None:
                tiles.append(Tile(f"{self.test[key]:.4f}", key.upper(), self._beside(key, wording)))
        share = widest_interval(self.levels)
        if share is not None:
            wording = f"of what came lies inside the {percent(share, 0)} interval"
            inside = coverage(self.actual, self.quantiles, self.levels, share)
            tiles.append(Tile(percent(inside, 1), wording))
        return tiles

    def _beside(self, key: str, wording: str) -> str:
        """The measure of the network and of each baseline."""
        baselines = self.evaluation.get("baselines", {}).items()
        theirs = {name: each[key] for name, each in baselines if each.get(key) is not None}
        return "; ".join([wording, *(f"{name}: {value:.4f}" for name, value in theirs.items())])

    def sections(self) -> list[PageSection | None]:
        wording = (
            "Loss: the mean pinball loss of the quantiles; windows are scaled by their context."
        )
        return [
            measures.section(self, MEASURES),
            self._forecasts(),
            self._by_step(),
            _calibration(self.levels, self.actual, self.quantiles),
            self._each_series(),
            common.training(self, wording),
            *common.surroundings(self),
        ]

    def _forecasts(self) -> PageSection:
        """Fans over the held-out windows, and over what follows."""
        wide = len(self.views) == 1
        cards = [self._card(rank, view, wide) for rank, view in enumerate(self.views)]
        shares = ", ".join(percent(share, 0) for *_, share in bands(self.levels))
        wording = f"Bands: the intervals in which {shares} should lie. Line in them: the median."
        wording += " Each forecast begins at a dotted line, and uses no value after it."
        ahead = any(view.ahead is not None for view in self.views)
        if ahead:
            wording += " The last one goes beyond the end of the series."
        if not wide:
            wording += f" The series are those with the largest, middle and smallest {self.by}."
        key = Key([("", "what came"), ("true", "forecast")])
        heading = "Forecasts of the held-out steps" + " and of what follows" * ahead
        return PageSection(
            "forecasts",
            "Forecasts",
            [key, Grid(cards)] if cards else [],
            heading,
            wording,
            "None: no forecast has a value beside it.",
        )

    def _card(self, rank: int, view: SeriesView, wide: bool) -> Card:
        wording = f"{self.by} {view.error:.3g}"
        name = f"{tag('strong', view.name)}, " if len(self.names) > 1 else ""
        place = "" if wide or not view.place else f" ({view.place})"
        median = self.levels.index(0.5)
        last = view.windows[-1][1][-1, median] if view.windows else np.nan
        label = (
            f"Series {plain(view.name)}{place}: {wording}; {len(view.windows)} forecasts, the last "
            f"ends at {last:.4g}, where {view.values[-1]:.4g} came"
        )
        x, values, windows = view.x, view.values, list(view.windows)
        if view.ahead is not None:
            when, quantiles = view.ahead
            label += f"; {quantiles[-1, median]:.4g} is forecast {len(when)} steps after the end"
            windows.append((len(x), quantiles))
            x = np.concatenate([x, when])
            values = np.concatenate([values, np.full(len(when), np.nan)])
        fan = Fan(
            id=f"series-{rank}",
            label=label,
            height=3.2 if wide else 2.5,
            wide=wide,
            x=x,
            values=values,
            windows=windows,
            levels=self.levels,
        )
        return Card(Html(f"{name}{text(wording + place)}"), [fan])

    def _by_step(self) -> PageSection | None:
        """The error of each step ahead, beside those of the baselines; None of a single step."""
        heading, horizon = "Error by step ahead", self.actual.shape[1]
        if horizon == 1:
            return None
        by = "mean absolute scaled error" if self.scaled else "mean absolute error"
        answers = {"network": self.quantiles, **self.naive}
        curves = {name: row_means(self.shown_errors(each).T) for name, each in answers.items()}
        first, last = (self._number(curves["network"][k]) for k in (0, -1))
        wording = f"From {first} at the first step ahead to {last} at step {horizon}."
        dashed = {"linestyle": (0, (4, 2)), "linewidth": 1.4}
        colours = ((MUTED, LABELS[1])[i % 2] for i in range(len(self.naive)))
        styles: list[dict[str, Any]] = [{}, *({**dashed, "color": each} for each in colours)]
        steps, few = np.arange(1, horizon + 1), dots(horizon)
        drawn = Curve(
            id="by-step",
            label=heading,
            caption=wording if first != last else "",
            lines=[
                Line(steps, values, short(name, 40), {**few, **style})
                for (name, values), style in zip(curves.items(), styles, strict=True)
            ],
            x="steps ahead",
            y=by,
            # room for the legend
            y_limits=(0, 1.25 * float(np.nanmax(list(curves.values()))) or 1.0),
        )
        marks = np.unique(np.linspace(0, horizon - 1, 8).round().astype(int))
        rows = [[k + 1, *(self._number(v[k]) for v in curves.values())] for k in marks.tolist()]
        header = ["steps ahead", *curves]
        table = PageTable(f"The {by} of each", header, rows, "numbers measures")
        return PageSection("steps", "By step ahead", [Grid([drawn, table])], heading)

    def _each_series(self) -> PageSection | None:
        """The errors of each series, the worst first; None of a single series."""
        if len(self.names) == 1:
            return None
        ours = of_series(self, self.shown_errors(self.quantiles))
        plain_errors = of_series(self, self.errors(self.quantiles))
        theirs = {n: of_series(self, self.shown_errors(each)) for n, each in self.naive.items()}
        order = [int(i) for i in np.argsort(-ours, kind="stable") if np.isfinite(ours[i])]
        chosen, wording = order, "All series, the worst first"
        if len(order) > MOST_ROWS:
            half = MOST_ROWS // 2
            chosen = [*order[:half], *order[-half:]]
            wording = f"The {half} worst and the {half} best of {count(len(order))} series"
        header = ["series", self.by, *theirs, *(["mean absolute error"] * self.scaled)]
        rows = []
        for i in chosen:
            cells = [self._number(each[i]) for each in (ours, *theirs.values())]
            rows.append([self.names[i], *cells, *([f"{plain_errors[i]:.4g}"] * self.scaled)])
        notes = []
        if theirs and order:
            best = np.nanmin(np.stack([each[order] for each in theirs.values()]), axis=0)
            n = int((best < ours[order]).sum())
            notes.append(f"A baseline is better in {count(n)} of {count(len(order))} series.")
        if len(order) < len(self.names):
            out = count(len(self.names) - len(order))
            why = "a value" + " to compare with, and a history that changes" * self.scaled
            notes.append(f"Left out, since they lack {why}: {out} of {count(len(self.names))}.")
        table = PageTable(wording, header, rows, "numbers measures")
        return PageSection("series", "Series", [table], note=" ".join(notes))

    def _number(self, error: float) -> str:
        """An error as text; scaled errors are of the order of 1."""
        return f"{error:.3f}" if self.scaled else f"{error:.4g}"


def collect_forecasts(
    forecaster: Any,
    X: Any,
    facts: RunFacts,
    *,
    windows: int = 1,
    ids: Sequence[Any] | np.ndarray | None = None,
    times: Sequence[np.ndarray] | None = None,
    quantiles: np.ndarray | None = None,
) -> ForecastData:
    """Compute the contents of a forecaster's report from the ends of series, for `write_report`.

    Args:
        forecaster: a fitted estimator, or its model.
        X: the whole series: a `Panel`, or an X of `SequenceForecaster`.
        facts: the facts of the run.
        windows: the number of forecasts of each series, a horizon apart; the last one is at its
            end.
        ids: `[N]`, the names of the series; by default their numbers from 1.
        times: for each series `[T_i]`, datetime64 or numbers; by default its steps from 1.
        quantiles: `[M, h, Q]`, those of `Forecaster.backtest`, if they are known.

    Raises:
        ValueError: see `Forecaster.backtest`.
    """
    from ostinato_learn.tasks.forecast.model import in_turn

    fitted: Forecaster = common.fitted_of(forecaster)
    panel = as_panel(X)
    answer = None if quantiles is None else in_turn(quantiles)
    ((_, _, tested),) = fitted.backtests(panel, windows, answer=answer)
    names = [str(name) for name in (range(1, len(panel) + 1) if ids is None else ids)]
    pairs = list(zip(tested.series.tolist(), tested.cutoffs.tolist(), strict=True))
    histories = [panel.series(i)[:cutoff] for i, cutoff in pairs]
    season, answers = fitted.season, fitted.naive(fitted.season)
    naive = {
        name: of(panel, (tested.series, tested.cutoffs))
        for name, of in answers.items()
        if len(pairs) <= MOST_AGAIN
    }
    data = ForecastData(
        **vars(facts),
        levels=tuple(tested.levels),
        series=tested.series,
        actual=tested.actual,
        quantiles=tested.quantiles,
        scales=np.array([seasonal_scale(history, season) for history in histories]),
        names=names,
        naive=naive,
        read=_read(fitted, panel),
        parameters=n_parameters(fitted.net.state_dict()),
    )
    return replace(data, views=_views(data, fitted, tested.cutoffs, panel, times))


def of_series(data: ForecastData, values: np.ndarray) -> np.ndarray:
    """`[N]`: the mean of values `[M, h]` over the forecasts of each series; NaN without any."""
    known = np.isfinite(values)
    n = np.bincount(data.series, known.sum(axis=1), minlength=len(data.names))
    total = np.bincount(data.series, np.nansum(values, axis=1), minlength=len(data.names))
    with np.errstate(invalid="ignore"):
        return total / n


def _views(
    data: ForecastData,
    fitted: Forecaster,
    cutoffs: np.ndarray,
    panel: Panel,
    times: Sequence[np.ndarray] | None,
) -> list[SeriesView]:
    """The series that are drawn, with forecasts of what was held back and of what follows."""
    errors = of_series(data, data.shown_errors(data.quantiles))
    order = [int(i) for i in np.argsort(-errors, kind="stable") if np.isfinite(errors[i])]
    chosen = _chosen(order)
    ahead = _ahead(fitted, panel, [i for i, _ in chosen])
    return [
        _view(data, i, place, float(errors[i]), cutoffs, panel, times, ahead.get(i))
        for i, place in chosen
    ]


def _ahead(fitted: Forecaster, panel: Panel, chosen: list[int]) -> dict[int, np.ndarray]:
    """The forecasts `[h, Q]` of what follows each series, where its inputs are known so far."""
    known = np.diff(panel.future_offsets) - panel.lengths
    context, horizon = fitted.windows.context, fitted.windows.horizon
    able = [
        i
        for i in chosen
        if (not panel.n_future or known[i] >= horizon)
        and np.isfinite(panel.series(i)[-context:]).any()
    ]
    if not able:
        return {}
    pairs = np.array(able), panel.lengths[able]
    return dict(zip(able, fitted.quantiles_after(panel, *pairs), strict=True))


def _chosen(order: list[int]) -> list[tuple[int, str]]:
    """Series, the worst first, and their places: all if there are few, else some of each place."""
    n, each = len(order), SHOWN // 3
    if n <= SHOWN:
        last = n - 1
        return [(i, "worst" if not k else "best" if k == last else "") for k, i in enumerate(order)]
    middle = (n - each) // 2
    places = {"worst": 0, "middle": middle, "best": n - each}
    return [(i, place) for place, k in places.items() for i in order[k : k + each]]


def _view(
    data: ForecastData,
    i: int,
    place: str,
    error: float,
    cutoffs: np.ndarray,
    panel: Panel,
    times: Sequence[np.ndarray] | None,
    ahead: np.ndarray | None,
) -> SeriesView:
    of = np.flatnonzero(data.series == i)
    first, end = int(cutoffs[of].min()), int(panel.lengths[i])
    start = max(0, first - max(LEAST_HISTORY, end - first), end - MOST_STEPS)
    shown, horizon = of[cutoffs[of] >= start], data.actual.shape[1]
    x = np.arange(1, end + horizon + 1)
    if times is not None and np.asarray(times[i]).dtype.kind in "Miuf":
        x = _and_after(np.asarray(times[i]), end + horizon)
    return SeriesView(
        name=data.names[i],
        x=x[start:end],
        values=panel.series(i)[start:end],
        windows=[(int(cutoffs[m]) - start, data.quantiles[m]) for m in shown],
        place=place,
        error=error,
        ahead=None if ahead is None else (x[end:], ahead),
    )


def _and_after(times: np.ndarray, n: int) -> np.ndarray:
    """The first n times; where there are fewer, with further ones at the distance of the last."""
    missing = n - len(times)
    if missing <= 0:
        return times[:n]
    distance = times[-1] - times[-2]  # a series that is forecast has two steps at least
    return np.concatenate([times, times[-1] + np.arange(1, missing + 1) * distance])


def _read(forecaster: Forecaster, panel: Panel) -> str:
    """The inputs of a forecast, in words."""
    inputs = {"past": panel.n_past, "known ahead": panel.n_future, "fixed": panel.n_static}
    further = ", ".join(f"{counted(n, 'input')} {name}" for name, n in inputs.items() if n)
    steps = forecaster.windows
    wording = f"{steps.horizon} steps ahead from the last {steps.context}"
    return f"{wording}, with {further}" if further else wording


def _calibration(levels: Sequence[float], actual: np.ndarray, quantiles: np.ndarray) -> PageSection:
    """The section on the shares of true values below each quantile and inside each interval.

    Args:
        levels: the levels of the Q quantiles.
        actual: `[M, h]`, the true values; NaN where a value is missing.
        quantiles: `[M, h, Q]`, the predicted quantiles.
    """
    n = count(int(np.isfinite(actual).sum()))
    shares = np.array([below(actual, quantiles[:, :, i]) for i in range(len(levels))])
    worst = int(np.abs(shares - levels).argmax())
    drawn = Curve(
        id="calibration",
        label="Calibration of the quantiles",
        caption=f"Furthest from honest: {percent(shares[worst], 1)} lie below the quantile "
        f"{levels[worst]:g}.",
        height=3.2,
        lines=[Line(np.array(levels), shares, style=dots(1))],
        x="level of the quantile",
        y="share of values below it",
        shares="xy",
        x_limits=(-0.03, 1.03),
        y_limits=(-0.03, 1.03),
        diagonal=True,
    )
    rows = []
    for low, high, share in bands(levels):
        inside = coverage(actual, quantiles, levels, share)
        width = float((quantiles[:, :, high] - quantiles[:, :, low]).mean())
        rows.append([percent(share, 0), percent(inside, 1), f"{width:.4g}"])
    header = ["interval", "of the values inside", "mean width"]
    table = PageTable("Central intervals", header, rows, "numbers measures")
    return PageSection(
        "calibration",
        "Calibration",
        [Grid([drawn, table] if rows else [drawn])],
        note="Below an honest quantile of level 0.9 lie 90\u202f% of the values: its point is on "
        f"the dotted line. Counted over {n} values.",
    )


def below(actual: np.ndarray, quantile: np.ndarray) -> float:
    """The share of the values `[…]` below a quantile `[…]`; equal values count half."""
    known = np.isfinite(actual)
    values, quantile = actual[known], quantile[known]
    return float(((values < quantile) + 0.5 * (values == quantile)).mean())
