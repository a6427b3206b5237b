"""`Forecaster`: a model that says what the next values of series may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.series import of_examples
from ostinato_learn.data.series.panel import Panel, as_panel
from ostinato_learn.data.series.windows import Pairs, SeriesWindows, last_windows
from ostinato_learn.metrics import forecasts as forecast_metrics
from ostinato_learn.metrics import naive_forecasts as forecast_baselines
from ostinato_learn.runtime.model import Model
from ostinato_learn.runtime.values import Array
from ostinato_learn.saved import checks
from ostinato_learn.saved.read import Saved

ROWS = 256  # windows at a time

Measures = dict[str, "float | int"]
Answer = Callable[[Panel, Pairs], Array]  # gives the quantiles of some windows, [M, h, Q]


@dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of known values, each made from the values before a cutoff.

    Attributes:
        series, cutoffs: `[M]`, the number of the series, and the first step forecast.
        actual: `[M, h]`, the actual values; NaN where a value is missing.
        quantiles: `[M, h, Q]`.
        levels: the Q levels of the quantiles.
    """

    series: Array
    cutoffs: Array
    actual: Array
    quantiles: Array
    levels: tuple[float, ...]


@dataclass(eq=False, repr=False, kw_only=True)
class Forecaster(Model):
    """A model that forecasts.

    Attributes:
        levels: the Q levels of the quantiles.
        windows: how windows are cut from series and scaled.
        preparation: how a user's table becomes the inputs of a panel; None for arrays.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/sales/model")
        >>> model.n_features, len(model.labels)
        (1, 9)
        >>> series = [np.sin(np.arange(n) / 3) for n in (50, 40)]
        >>> model.predict(series).shape, model.predict_quantiles(series).shape
        ((2, 3), (2, 3, 9))
        >>> model.evaluate(series, windows=2)["n"]
        12
        >>> list(model.baselines(as_panel(series)))
        ['last value', 'seasonal naive']
    """

    task = "forecast"
    looks_ahead = True

    windows: SeriesWindows
    levels: tuple[float, ...]

    @classmethod
    def values(cls, saved: Saved, where: str) -> dict[str, Any]:
        fitted = saved.fitted
        wanted = {"context", "scaling", "season", "past", "future", "static", "preparation"}
        checks.names(fitted, {*wanted, "names"}, where, checks.BOUNDS)
        n = None if saved.graph is None else saved.graph.n_outputs
        return {
            "windows": checks.windows(fitted, saved.graph, saved.net, where),
            "levels": tuple(checks.levels(saved.net.get("quantiles"), n, where)),
            "preparation": checks.columns_of_table(fitted["preparation"], where),
        }

    def fitted(self) -> dict[str, Any]:
        windows = self.windows
        return {
            "context": windows.context,
            "scaling": windows.scaling,
            "season": windows.season,
            "names": {name: columns.tolist() for name, columns in windows.names.items()},
            "preparation": self.preparation and self.preparation.as_json(),
            **{name: getattr(windows, name).as_json() for name in ("past", "future", "static")},
            **{name: getattr(windows, name) for name in checks.BOUNDS},
        }

    @property
    def labels(self) -> Array:
        """`[Q]`, the levels of the quantiles."""
        return np.array(self.levels)

    @property
    def season(self) -> int:
        """Steps of a season, also for MASE and the seasonal naive baseline."""
        return self.windows.season

    @property
    def n_outputs(self) -> int:
        """Q, the quantiles of each forecast."""
        return len(self.levels)

    @property
    def n_features(self) -> int:
        """The target, and the inputs that are known as long as it is."""
        return 1 + len(self.windows.past)

    def described_answer(self) -> dict[str, Any]:
        return {"answer": "quantiles"}

    def predict(self, X: Any, *, future: Any = None, static: Any = None) -> Array:
        """The medians of the values that follow the end of each series, `[N, h]` float64.

        Args:
            X: the series; a table of them, if the model was trained on one; or N arrays
                `[T_i]`, or `[T_i, 1 + P]` with P past inputs; NaN is missing.
            future: N arrays `[U_i, K]`, inputs known in advance, to h steps beyond each end.
            static: `[N, S]`, inputs that do not change.

        Raises:
            ValueError: there are other inputs than in the training, `future` ends too early, or a
                series has no value in the steps that the network reads.
        """
        quantiles = self.predict_quantiles(X, future=future, static=static)
        return quantiles[:, :, self.levels.index(0.5)]

    def predict_quantiles(self, X: Any, *, future: Any = None, static: Any = None) -> Array:
        """The quantiles of these values, `[N, h, Q]` float64, in the order of `labels`."""
        X = self.read(X)
        panel = self.panel(X, future, static)
        if isinstance(X, Examples):
            of_examples.check_future(X, panel, self.windows.horizon)
        self.windows.check_inputs(panel)
        self.windows.check_ends(panel)
        return self.quantiles_after(panel, np.arange(len(panel)), panel.lengths)

    def quantiles_after(self, panel: Panel, series: Array, cutoffs: Array) -> Array:
        """The quantiles of the values of some series from these steps on, `[M, h, Q]` float64."""
        found = [
            self._forecasts(panel, series[first : first + ROWS], cutoffs[first : first + ROWS])
            for first in range(0, len(series), ROWS)
        ]
        return np.concatenate([np.empty((0, self.windows.horizon, len(self.levels))), *found])

    def backtest(self, panel: Panel, windows: int = 1, stride: int | None = None) -> Backtest:
        """Forecast the last values of each series from the values before, for one or more cutoffs.

        The cutoffs roll back from the end of a series: horizon, horizon + stride, … steps before
        it. No value at or after a cutoff affects its forecast, except inputs known in advance.

        Args:
            panel: the series.
            windows: the number of cutoffs for each series, if it is long enough.
            stride: steps from one cutoff to the next; by default the horizon.

        Raises:
            ValueError: other inputs than those trained on, or no series is long enough.
        """
        ((_, _, tested),) = self.backtests(panel, windows, stride)
        return tested

    def backtests(
        self,
        panel: Panel,
        windows: int = 1,
        stride: int | None = None,
        answer: Answer | None = None,
    ) -> Iterator[tuple[Array, Panel, Backtest]]:
        """`backtest` of series in memory, and of those on disk some at a time.

        Args:
            panel, windows, stride: see `backtest`.
            answer: a function that gives the quantiles; by default the network.

        Yields:
            The positions of some series, their panel, and the forecasts.
        """
        any_yet = False
        for chosen, part in panel.parts():
            if answer is None:
                self.windows.check_inputs(part)
            pairs = self._rolled_back(part, windows, stride)
            if len(pairs[0]):
                any_yet = True
                answers = (answer or self._after)(part, pairs)
                yield chosen, part, self._tested(part, pairs, answers)
        if not any_yet:
            raise ValueError(
                f"no series has a value to forecast in its last {self.windows.horizon} steps and "
                f"one before them; the longest of {len(panel)} has {panel.lengths.max()} steps"
            )

    def evaluate(
        self,
        X: Any,
        windows: int = 1,
        stride: int | None = None,
        season: int | None = None,
        answer: Answer | None = None,
        *,
        future: Any = None,
        static: Any = None,
    ) -> Measures:
        """How good forecasts of the last values of series are, made as if these had not come.

        Args:
            X, future, static: as for `predict`.
            windows, stride: see `backtest`.
            season: steps of a season for MASE; by default that of the training.
            answer: see `backtests`.

        Returns:
            mase, wql, pinball, mae, coverage_80 (of the widest interval) and n; see
            `ostinato_learn.metrics.forecasts.measure`.

        Raises:
            ValueError: as for `predict`; or no series is long enough.
        """
        season = self.season if season is None else season
        panel = self.panel(X, future, static)
        return _measured(self.backtests(panel, windows, stride, answer), season)

    def answers(self, panel: Panel, windows: int, rows: Callable[[int], slice]) -> Array:
        """The quantiles of some windows of `backtests`, `[M_r, h, Q]`, in their order.

        Args:
            rows: which of so many.
        """
        self.windows.check_inputs(panel)
        series, cutoffs = self._rolled_back(panel, windows, None)
        chosen = rows(len(series))
        return self.quantiles_after(panel, series[chosen], cutoffs[chosen])

    def baselines(
        self,
        panel: Panel,
        windows: int = 1,
        stride: int | None = None,
        season: int | None = None,
    ) -> dict[str, Measures]:
        """The measures of the naive forecasts on the windows of `evaluate`, by their names.

        They are "last value" and, if a season has more than one step, "seasonal naive".
        """
        season = self.season if season is None else season
        return {
            name: _measured(self.backtests(panel, windows, stride, naive), season)
            for name, naive in self.naive(season).items()
        }

    def naive(self, season: int) -> dict[str, Answer]:
        """The naive forecasts, by their names, as functions that give quantiles."""
        steps = {"last value": 1} | ({"seasonal naive": season} if season > 1 else {})
        return {name: partial(self._naive, season=step) for name, step in steps.items()}

    def losses(
        self, panel: Panel, windows: int = 1, answer: Answer | None = None
    ) -> tuple[Array, Array]:
        """The mean pinball loss of each window of `backtests`, `[M]`, and its series, `[M]`.

        A window without a known value has NaN.
        """
        found, series = [], []
        for chosen, _, each in self.backtests(panel, windows, None, answer):
            error = each.actual[:, :, None] - each.quantiles
            levels = np.asarray(each.levels)
            loss = np.maximum(levels * error, (levels - 1) * error).mean(axis=2)
            known = np.isfinite(loss)
            with np.errstate(invalid="ignore"):
                found.append(np.where(known, loss, 0).sum(axis=1) / known.sum(axis=1))
            series.append(chosen[each.series])
        return np.concatenate(found), np.concatenate(series)

    def panel(self, X: Any, future: Any = None, static: Any = None) -> Panel:
        """Series as the model reads them; arguments and errors as of `predict`."""
        X = self.read(X)
        if isinstance(X, Panel):
            return X
        if isinstance(X, Examples):
            if future is not None or static is not None:
                raise ValueError("X is a table with its inputs; leave out future and static")
            of_examples.check_values(X)
            return of_examples.panel_of(X, self.preparation)
        return as_panel(X, future=future, static=static, trained=self.preparation)

    def _forecasts(self, panel: Panel, series: Array, cutoffs: Array) -> Array:
        read = self.windows.contexts(panel, series, cutoffs)
        parts = [part for part in (read.future, read.lags) if part is not None]
        answers = self.network.forecasts(read.x, np.concatenate(parts, axis=2)).astype(np.float64)
        wrong = ~np.isfinite(answers).all(axis=(1, 2))
        if wrong.any():
            raise ValueError(
                f"the forecast of series {series[np.argmax(wrong)]} is not finite: the weights or "
                "the values are too large for float32"
            )
        return self.windows.bounded(read.centre[:, :, None] + read.scale[:, :, None] * answers)

    def _after(self, panel: Panel, pairs: Pairs) -> Array:
        return self.quantiles_after(panel, *pairs)

    def _rolled_back(self, panel: Panel, windows: int, stride: int | None) -> Pairs:
        """The windows of a backtest."""
        context, horizon = self.windows.context, self.windows.horizon
        stride = horizon if stride is None else stride
        for name, value in (("windows", windows), ("stride", stride)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name}={value!r}; wanted a whole number, 1 or more")
        return last_windows(panel, context, horizon, windows, stride)

    def _tested(self, panel: Panel, pairs: Pairs, quantiles: Array) -> Backtest:
        return Backtest(*pairs, self.windows.actual(panel, *pairs), quantiles, self.levels)

    def _naive(self, panel: Panel, pairs: Pairs, season: int) -> Array:
        horizon = self.windows.horizon
        answers = [
            forecast_baselines.seasonal_naive(history, horizon, self.levels, season)
            for history in _histories(panel, pairs)
        ]
        return self.windows.bounded(np.array(answers))


def in_turn(quantiles: Array) -> Answer:
    """Gives known answers, `[M, h, Q]`, to one window after the other."""
    rest = quantiles

    def answer(_: Panel, pairs: Pairs) -> Array:
        nonlocal rest
        found, rest = np.split(rest, [len(pairs[0])])
        return found

    return answer


def _histories(panel: Panel, pairs: Pairs) -> list[Array]:
    """The series of each window before the cutoff."""
    return [panel.series(i)[:cutoff] for i, cutoff in zip(*pairs, strict=True)]


def _measured(tested: Iterable[tuple[Array, Panel, Backtest]], season: int) -> Measures:
    """The measures of one or more backtests together."""
    scales: list[float] = []
    every: list[Backtest] = []
    for _, panel, each in tested:
        histories = _histories(panel, (each.series, each.cutoffs))
        scales += [forecast_metrics.seasonal_scale(history, season) for history in histories]
        every.append(each)
    actual, quantiles = (
        np.concatenate([getattr(each, name) for each in every]) for name in ("actual", "quantiles")
    )
    return forecast_metrics.measure(actual, quantiles, every[0].levels, scales)


MODEL = Forecaster
