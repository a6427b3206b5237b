"""What the report shows of a fitted forecaster, and how it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.data.series.panel import Panel, as_panel
from ostinato.metrics.forecasts import seasonal_scale
from ostinato.metrics.naive_forecasts import seasonal_naive
from ostinato.report.contents import RunFacts
from ostinato.report.markup import counted
from ostinato.runtime.card import n_parameters

if TYPE_CHECKING:
    from ostinato.estimators import SequenceForecaster
    from ostinato.tasks.forecast.fit import FittedForecaster

SHOWN = 6  # series: the worst, the middle and the best ones
LEAST_HISTORY = 24  # steps before the first forecast; else as many as there are after it
MOST_STEPS = 600  # of a series that are drawn, at most
MOST_AGAIN = 2_000  # forecasts, at most, for which baselines are computed again: a millisecond each


@dataclass(frozen=True, eq=False, kw_only=True)
class SeriesView:
    """The end of a series with the forecasts of it.

    Attributes:
        name: of the series.
        x: `[t]`, times (datetime64) or steps.
        values: `[t]`, what came; NaN where a value is missing.
        windows: of each forecast the first of its steps among the t, and quantiles `[h, Q]`.
        place: "worst", "middle" or "best".
        error: the mean absolute error of its forecasts, scaled (MASE) where that is possible.
    """

    name: str
    x: np.ndarray
    values: np.ndarray
    windows: list[tuple[int, np.ndarray]]
    place: str
    error: float


@dataclass(frozen=True, eq=False, kw_only=True)
class ForecastData(RunFacts):
    """The contents of a forecaster's report.

    Args:
        title, metrics, losses, evaluation, config, environment: see `RunFacts`.
        levels: of the quantiles, Q of them, with 0.5.
        series: `[M]`, the series of each forecast, a number below len(names).
        actual: `[M, h]`, what came; NaN where a value is missing.
        quantiles: `[M, h, Q]`.
        scales: `[M]`, by which errors are divided for MASE; NaN where there is none.
        naive: baseline → its quantiles `[M, h, Q]`.
        names: of the series.
        views: the series that are drawn, the worst first.
        read: what the network reads, in words.
        parameters: of the network.

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
    parameters: int | None = None

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
        """Whether errors can be scaled, so that series of different sizes count alike."""
        return bool((self.scales > 0).any())

    def shown_errors(self, quantiles: np.ndarray) -> np.ndarray:
        """`errors`, divided by the scales where any is there; those without are left out (NaN)."""
        if not self.scaled:
            return self.errors(quantiles)
        return self.errors(quantiles) / np.where(self.scales > 0, self.scales, np.nan)[:, None]


def collect_forecasts(
    forecaster: FittedForecaster | SequenceForecaster,
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
        forecaster: fitted.
        X: the series, whole: a `Panel`, or what `SequenceForecaster` takes for X.
        facts: of the run.
        windows: forecasts of each series, a horizon apart, the last one of its end.
        ids: `[N]`, the names of the series; by default their numbers from 1.
        times: of each series, `[T_i]`, datetime64 or numbers; by default its steps from 1.
        quantiles: `[M, h, Q]`, those of `FittedForecaster.backtest`, if they are known.

    Raises:
        ValueError: see `FittedForecaster.backtest`.
    """
    from ostinato.tasks.forecast.fit import in_turn

    fitted: FittedForecaster = (
        forecaster._fitted() if hasattr(forecaster, "_fitted") else forecaster
    )
    panel = as_panel(X)
    answer = None if quantiles is None else in_turn(quantiles)
    ((_, _, tested),) = fitted.backtests(panel, windows, answer=answer)
    names = [str(name) for name in (range(1, len(panel) + 1) if ids is None else ids)]
    pairs = list(zip(tested.series.tolist(), tested.cutoffs.tolist(), strict=True))
    histories = [panel.series(i)[:cutoff] for i, cutoff in pairs]
    season, horizon = fitted.season, fitted.windows.horizon
    seasons = {"last value": 1} | ({"seasonal naive": season} if season > 1 else {})
    naive = {
        name: np.array([seasonal_naive(h, horizon, tested.levels, step) for h in histories])
        for name, step in seasons.items()
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
    return replace(data, views=_views(data, tested.cutoffs, panel, times))


def of_series(data: ForecastData, values: np.ndarray) -> np.ndarray:
    """`[N]`: the mean of values `[M, h]` over the forecasts of each series; NaN without any."""
    known = np.isfinite(values)
    n = np.bincount(data.series, known.sum(axis=1), minlength=len(data.names))
    total = np.bincount(data.series, np.nansum(values, axis=1), minlength=len(data.names))
    with np.errstate(invalid="ignore"):
        return total / n


def _views(
    data: ForecastData, cutoffs: np.ndarray, panel: Panel, times: Sequence[np.ndarray] | None
) -> list[SeriesView]:
    errors = of_series(data, data.shown_errors(data.quantiles))
    order = [int(i) for i in np.argsort(-errors, kind="stable") if np.isfinite(errors[i])]
    return [
        _view(data, i, place, float(errors[i]), cutoffs, panel, times)
        for i, place in _chosen(order)
    ]


def _chosen(order: list[int]) -> list[tuple[int, str]]:
    """Series, the worst first, and their places: all of a few, else some of each place."""
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
) -> SeriesView:
    of = np.flatnonzero(data.series == i)
    first, end = int(cutoffs[of].min()), int(panel.lengths[i])
    start = max(0, first - max(LEAST_HISTORY, end - first), end - MOST_STEPS)
    shown = of[cutoffs[of] >= start]
    steps = np.arange(start, end)
    x = steps + 1 if times is None else np.asarray(times[i])[start:end]
    return SeriesView(
        name=data.names[i],
        x=x if x.dtype.kind in "Miuf" else steps + 1,
        values=panel.series(i)[start:end],
        windows=[(int(cutoffs[m]) - start, data.quantiles[m]) for m in shown],
        place=place,
        error=error,
    )


def _read(forecaster: FittedForecaster, panel: Panel) -> str:
    """The inputs of a forecast, in words."""
    inputs = {"past": panel.n_past, "known ahead": panel.n_future, "fixed": panel.n_static}
    further = ", ".join(f"{counted(n, 'input')} {name}" for name, n in inputs.items() if n)
    steps = forecaster.windows
    told = f"{steps.horizon} steps ahead from the last {steps.context}"
    return f"{told}, with {further}" if further else told
