"""`FittedForecaster`: a trained network that forecasts, and its training. No scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato.data.sequences.moments import Moments
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.series.panel import Panel, column_names_from
from ostinato.hyperparameters import Architecture
from ostinato.metrics import forecasts as forecast_metrics
from ostinato.metrics import naive_forecasts as forecast_baselines
from ostinato.tasks.forecast import loss as forecasting
from ostinato.tasks.forecast.loss import Forecasting
from ostinato.tasks.forecast.net import NINE, ForecasterNet, check_levels
from ostinato.tasks.forecast.windows import (
    Columns,
    ForecastSettings,
    Pairs,
    Windows,
    every_window,
    last_windows,
)
from ostinato.training import loop, saved_model
from ostinato.training.build import built
from ostinato.training.callbacks import Callback
from ostinato.training.distributed import Ranks
from ostinato.training.history import History
from ostinato.training.plan import Plan
from ostinato.training.saved_model import SavedModel
from ostinato.training.start import check_network
from ostinato.training.tensor_file import fill

KIND = "sequence_forecaster"
_KEPT = {"context", "scaling", "season", "names", "past", "future", "static", "preparation"}

Measures = dict[str, "float | int"]
Answer = Callable[[Panel, Pairs], np.ndarray]  # gives the quantiles of some windows, [M, h, Q]


@dataclass(frozen=True, eq=False)
class Backtest:
    """Forecasts of known values, each made from the values before a cutoff.

    Attributes:
        series, cutoffs: `[M]`, the number of the series, and the first step forecast.
        actual: `[M, h]`, the actual values; NaN where a value is missing.
        quantiles: `[M, h, Q]`.
        levels: the Q levels of the quantiles.
    """

    series: np.ndarray
    cutoffs: np.ndarray
    actual: np.ndarray
    quantiles: np.ndarray
    levels: tuple[float, ...]

    def measures(self, panel: Panel, season: int) -> Measures:
        """The measures of `forecast_metrics.measure`; MASE by each window's history."""
        return _measured([(np.arange(len(panel)), panel, self)], season)


@dataclass(frozen=True)
class FittedForecaster:
    """A trained network with all that turns its outputs into forecasts in a user's units.

    Attributes:
        net: the network.
        windows: how windows are cut from series and scaled.
        preparation: how a user's table becomes the inputs of a panel; None for arrays.
    """

    net: ForecasterNet
    windows: Windows
    preparation: Preparation | None = None

    @property
    def season(self) -> int:
        """Steps of a season, also for MASE and the seasonal naive baseline."""
        return self.windows.season

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels of the quantiles."""
        return tuple(self.net.config["quantiles"])

    @staticmethod
    @torch.inference_mode(False)  # the caller's mode would make tensors without gradients
    def fit(
        panel: Panel,
        settings: ForecastSettings,
        model: Architecture,
        plan: Plan,
        *,
        quantiles: Sequence[float] = NINE,
        warm_up: float | None = None,
        start: FittedForecaster | None = None,
        callbacks: Sequence[Callback] = (),
        resume: str | Path | None = None,
    ) -> tuple[FittedForecaster, History]:
        """Train a network.

        Args:
            panel: the series. Batches hold no more windows than there are.
            settings, model, plan: the task, the network, and how to train it.
            quantiles: levels, with 0.5 among them.
            warm_up: the share of the updates over which the learning rate rises, instead of
                `plan.warmup` of them.
            start: a forecaster of the same sizes and settings, whose weights and input scales are
                the start.
            callbacks, resume: see `training.train`.

        Raises:
            ValueError: something does not fit together, or no series is long enough.
            Diverged: the loss became NaN or infinite.
        """
        if model.init != "default":
            raise ValueError(f"init={model.init!r} is for classifiers; wanted 'default'")
        levels = check_levels(quantiles)
        context, horizon = settings.n_context, settings.horizon
        held_back = _held_back(panel.lengths, settings)
        learnt = every_window(panel, context, horizon, held_back)
        windows, n_windows = _windows(panel, settings, held_back), len(learnt[0])
        if start is not None:
            start.windows.check_inputs(panel)
            check_network(_sizes(start.windows), _sizes(windows))
            windows = start.windows
        if not n_windows:
            raise ValueError(
                f"no series has a value to read and one to forecast within horizon={horizon} "
                f"steps; the longest of {len(panel)} has {panel.lengths.max()} steps; wanted more "
                "than horizon, or a shorter horizon"
            )
        plan = replace(plan, batch_size=min(plan.batch_size, n_windows))
        if warm_up is not None:
            plan = replace(plan, warmup=int(warm_up * plan.total_iterations(n_windows)))
        validation = _validation(panel, settings, held_back)
        task = Forecasting(
            panel, windows, learnt, levels, plan.batch_size, plan.seed, validation
        )
        net = built(
            ForecasterNet,
            horizon,
            len(windows.past),
            len(windows.future),
            len(windows.static),
            windows.n_lags,
            levels,
            seed=plan.seed,
            **{n: v for n, v in asdict(model).items() if n in _NET},
        )
        if start is not None:
            check_network(start.net.config, net.config)
            net.load_state_dict(start.net.state_dict())
        history = loop.learn(net, task, plan, callbacks=callbacks, resume=resume)
        return FittedForecaster(net, windows), history

    def predict(self, panel: Panel) -> np.ndarray:
        """The median of each of the steps that follow a series, `[N, h]`.

        Raises:
            ValueError: the series have other inputs than those trained on; inputs known in advance
                end too early; a series has no value in its last `context` steps.
        """
        return self.predict_quantiles(panel)[:, :, self.levels.index(0.5)]

    def predict_quantiles(self, panel: Panel) -> np.ndarray:
        """The quantiles of each of the steps that follow a series, `[N, h, Q]`; increasing.

        Raises:
            ValueError: as for `predict`.
        """
        self.windows.check_inputs(panel)
        pairs = np.arange(len(panel)), panel.lengths
        self.windows.check_ends(panel)
        return self._quantiles(panel, pairs)

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
    ) -> Iterator[tuple[np.ndarray, Panel, Backtest]]:
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
                answers = (answer or self._quantiles)(part, pairs)
                yield chosen, part, self._tested(part, pairs, answers)
        if not any_yet:
            raise ValueError(
                f"no series has a value to forecast in its last {self.windows.horizon} steps and "
                f"one before them; the longest of {len(panel)} has {panel.lengths.max()} steps"
            )

    def evaluate(
        self,
        panel: Panel,
        windows: int = 1,
        stride: int | None = None,
        season: int | None = None,
        answer: Answer | None = None,
    ) -> Measures:
        """Measure the forecasts of `backtest`.

        Args:
            panel, windows, stride: see `backtest`.
            season: steps of a season for MASE; by default that of the training.
            answer: see `backtests`.

        Returns:
            mase, wql, pinball, mae, coverage_80 (of the widest interval) and n; see
            `forecast_metrics.measure`.
        """
        season = self.season if season is None else season
        return _measured(self.backtests(panel, windows, stride, answer), season)

    def answers(self, panel: Panel, windows: int, ranks: Ranks) -> np.ndarray:
        """The quantiles of this process's share of `backtests`, `[M_r, h, Q]`, in their order."""
        self.windows.check_inputs(panel)
        series, cutoffs = self._rolled_back(panel, windows, None)
        rows = ranks.rows(len(series))
        if not len(series[rows]):
            return np.empty((0, self.windows.horizon, len(self.levels)))
        return self._quantiles(panel, (series[rows], cutoffs[rows]))

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
        result = {}
        for name, step in {"last value": 1, "seasonal naive": season}.items():
            if name == "last value" or season > 1:
                naive = partial(self._naive, season=step)
                result[name] = _measured(self.backtests(panel, windows, stride, naive), season)
        return result

    def save(self, path: Path, params: dict[str, Any], iterations: int) -> None:
        """Write the directory of a saved model: all or nothing.

        Args:
            path: the directory.
            params: the arguments of the constructor of `SequenceForecaster` except the quantiles,
                which are the network's.
            iterations: updates made.

        Raises:
            ValueError, OSError: see `saved_model.write`.
        """
        windows = self.windows
        model = SavedModel.of(
            self.net,
            kind=KIND,
            params={name: value for name, value in params.items() if name != "quantiles"},
            fitted={
                "context": windows.context,
                "scaling": windows.scaling,
                "season": self.season,
                "names": {name: columns.tolist() for name, columns in windows.names.items()},
                "preparation": self.preparation and self.preparation.as_json(),
                **{name: getattr(windows, name).as_json() for name in ("past", "future", "static")},
            },
            iterations=iterations,
        )
        saved_model.write(path, model)

    @staticmethod
    def of(saved: SavedModel, path: Path) -> FittedForecaster:
        """The forecaster of a saved model; `path` is its origin, for errors.

        Raises:
            ValueError: the configuration and the weights do not belong together.
        """
        net = built(ForecasterNet, **saved.net)
        kept, horizon = saved.fitted, net.config["horizon"]
        settings = ForecastSettings(
            horizon=horizon,
            context=kept["context"],
            season=kept["season"],
            scaling=kept["scaling"],
        )
        columns = {
            name: Columns.from_json(
                kept[name], net.config[f"n_{name}"], f"{path / saved_model.CONFIG}: {name!r}"
            )
            for name in ("past", "future", "static")
        }
        fill(net, saved.weights, str(path))
        windows = Windows(
            settings.n_context,
            horizon,
            settings.scaling,
            settings.season,
            **columns,
            names=column_names_from(kept["names"], f"{path / saved_model.CONFIG}: 'names'"),
        )
        if net.config["n_lags"] != windows.n_lags:
            raise ValueError(
                f"{path} has season={windows.season} and context={windows.context} for a network "
                f"of {net.config['n_lags']} lags; wanted {windows.n_lags}; it is damaged"
            )
        preparation = kept["preparation"] and Preparation.from_json(kept["preparation"])
        return FittedForecaster(net.eval(), windows, preparation)

    def _rolled_back(self, panel: Panel, windows: int, stride: int | None) -> Pairs:
        """The windows of a backtest."""
        context, horizon = self.windows.context, self.windows.horizon
        stride = horizon if stride is None else stride
        for name, value in (("windows", windows), ("stride", stride)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name}={value!r}; wanted a whole number, 1 or more")
        return last_windows(panel, context, horizon, windows, stride)

    def _tested(self, panel: Panel, pairs: Pairs, quantiles: np.ndarray) -> Backtest:
        return Backtest(*pairs, self.windows.actual(panel, *pairs), quantiles, self.levels)

    def _naive(self, panel: Panel, pairs: Pairs, season: int) -> np.ndarray:
        horizon = self.windows.horizon
        answers = [
            forecast_baselines.seasonal_naive(history, horizon, self.levels, season)
            for history in _histories(panel, pairs)
        ]
        return np.array(answers)

    def _quantiles(self, panel: Panel, pairs: Pairs) -> np.ndarray:
        answers = forecasting.quantiles(self.net.eval(), self.windows, panel, pairs)
        wrong = np.argwhere(~np.isfinite(answers))
        if len(wrong):
            window, step, _ = wrong[0].tolist()
            raise ValueError(
                f"the forecast of series {pairs[0][window]} is not finite at step {step}: the "
                "weights or the values are too large for float32; scale the values, or train "
                "again with a lower learning_rate"
            )
        return answers


_NET = set(signature(ForecasterNet).parameters)


def in_turn(quantiles: np.ndarray) -> Answer:
    """Gives known answers, `[M, h, Q]`, to one window after the other."""
    rest = quantiles

    def answer(_: Panel, pairs: Pairs) -> np.ndarray:
        nonlocal rest
        found, rest = np.split(rest, [len(pairs[0])])
        return found

    return answer


def load(path: str | Path) -> FittedForecaster:
    """The forecaster in the directory of a saved model.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign.
    """
    return FittedForecaster.of(read(Path(path)), Path(path))


def read(path: Path) -> SavedModel:
    """The saved forecaster in a directory, as values."""
    return saved_model.read(path, KIND, _NET, _KEPT)


def _histories(panel: Panel, pairs: Pairs) -> list[np.ndarray]:
    """The series of each window before the cutoff."""
    return [panel.series(i)[:cutoff] for i, cutoff in zip(*pairs, strict=True)]


def _measured(tested: Iterable[tuple[np.ndarray, Panel, Backtest]], season: int) -> Measures:
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


def _held_back(lengths: np.ndarray, settings: ForecastSettings) -> np.ndarray:
    """The number of steps of each series to keep from training, `[N]`; 0 for too short ones."""
    steps = settings.validation_windows * settings.horizon
    return np.where(lengths > steps + settings.horizon, steps, 0)


def _validation(panel: Panel, settings: ForecastSettings, held_back: np.ndarray) -> Pairs | None:
    """The windows that end in the steps held back, a horizon apart; None without validation.

    Args:
        panel: the series.
        settings: the task.
        held_back: the number of steps of each series that are kept from training, `[N]`.

    Raises:
        ValueError: no series is long enough.
    """
    if not settings.validation_windows:
        return None
    horizon = settings.horizon
    series, cutoffs = last_windows(
        panel, settings.n_context, horizon, settings.validation_windows, horizon
    )
    kept = held_back[series] > 0
    if not kept.any():
        raise ValueError(
            f"validation_windows={settings.validation_windows} and horizon={horizon} need a series "
            f"of {(settings.validation_windows + 1) * horizon + 1} steps with values near its end; "
            f"the longest has {panel.lengths.max()}; give longer ones, or validation_windows=0"
        )
    return series[kept], cutoffs[kept]


def _sizes(windows: Windows) -> dict[str, Any]:
    """The settings that must be equal in two models that read series in the same way."""
    inputs = {f"n_{name}": len(getattr(windows, name)) for name in ("past", "future", "static")}
    names = ("context", "horizon", "scaling", "season")
    return {name: getattr(windows, name) for name in names} | inputs


def _windows(panel: Panel, settings: ForecastSettings, held_back: np.ndarray) -> Windows:
    """How windows are cut; inputs are standardised by the training part."""
    past, future = ([Moments() for _ in range(n)] for n in (panel.n_past, panel.n_future))
    for add in (Moments.add, Moments.add_deviations):
        for chosen, part in panel.parts() if past or future else ():
            kept = part.lengths - held_back[chosen]
            known = zip((past, future), (part.past, part.future),
                        (part.offsets, part.future_offsets), strict=True)  # fmt: skip
            for moments, values, offsets in known:
                for each, column in zip(moments, values[_first(offsets, kept)].T, strict=True):
                    add(each, column)
    return Windows(
        settings.n_context,
        settings.horizon,
        settings.scaling,
        settings.season,
        past=Columns.of_moments(past),
        future=Columns.of_moments(future),
        static=Columns.of(panel.static),
        names=panel.names,
    )


def _first(offsets: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which rows are among the first `kept` `[N]` of their series."""
    lengths = np.diff(offsets)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) < np.repeat(kept, lengths)
