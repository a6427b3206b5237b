"""`SequenceForecaster`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from ostinato_learn import training
from ostinato_learn.data.series.of_examples import check_values, panel_of
from ostinato_learn.data.series.panel import as_panel
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.metrics import forecasts as forecast_metrics
from ostinato_learn.tasks import recipe
from ostinato_learn.tasks.estimator import Estimator, described, own
from ostinato_learn.tasks.forecast import fit
from ostinato_learn.tasks.forecast.loss import ForecastSettings
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.tasks.forecast.net import NINE


@described
@dataclass(eq=False, repr=False, kw_only=True)  # the constructor, which stores its arguments
class SequenceForecaster(Estimator):
    """A recurrent network that forecasts the next values of one or many series.

    Series `X` are an array `[T]` (one series), an array or data frame `[N, T]` (a row each), a list
    or object array of N arrays `[T_i]` of different lengths, or a `data.Panel`. With a further axis
    of columns, `[N, T, 1 + P]` or `[T_i, 1 + P]`, column 0 is the series, and the others are inputs
    known for the same steps. NaN in a series is a missing value.

    One network learns all series. It forecasts all steps at once, as quantiles that do not cross.

    Args:
        horizon: steps to forecast. Default: 1.
        context: steps that the network reads; by default three horizons or four seasons, at
            least 16.
        season: steps of a season; 1: none. Untrained, the network forecasts the mean of the same
            place in the last seasons; training learns corrections. MASE and the baseline use it,
            too. Default: 1.
        scaling: "std": each window is scaled by the mean and the deviation of its context;
            "mean_abs": by its mean absolute value. Default: 'std'.
        quantiles: levels between 0 and 1, increasing, with 0.5 among them.
            Default: (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9).
        bounds: "past": forecasts are never negative if no value of the training is, and whole
            numbers if all of its values are; "any": they are as the network gives them.
            Default: 'past'.
        {hyperparameters}
        validation_windows: horizons at the end of each series that are kept from the training for
            the validation loss, by which the best weights are chosen; 0: none. Default: 1.

    Attributes:
        net_: the `models.ForecasterNet`.
        history_: the `training.History` (not saved).
        n_features_in_: 1 + P.
        feature_names_in_: `[1 + P]`, the names of the columns, if X was a list of data frames.
        n_iter_: updates made by `fit`.
        hyperparameters_: the parameters of the constructor, with those values that the recipe chose
            for the last `fit` (not saved).

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import SequenceForecaster
        >>> wave = np.sin(2 * np.pi * np.arange(144) / 12)
        >>> model = SequenceForecaster(horizon=6, season=12, hidden_size=16, iterations=150)
        >>> forecast = model.fit(wave).predict(wave)
        >>> forecast.shape
        (1, 6)
        >>> bool(np.abs(forecast - wave[:6]).max() < 0.4)
        True
    """

    _task = "forecast"

    horizon: int = ForecastSettings.horizon
    context: int | None = ForecastSettings.context
    season: int = ForecastSettings.season
    scaling: str = ForecastSettings.scaling
    quantiles: Sequence[float] = NINE
    bounds: str = ForecastSettings.bounds
    bidirectional: bool = Architecture.bidirectional
    validation_windows: int = ForecastSettings.validation_windows

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        future: Any = None,
        static: Any = None,
        callbacks: Sequence[training.Callback] = (),
        resume: str | Path | None = None,
        **columns: Any,
    ) -> SequenceForecaster:
        """Train a new network, or with `warm_start` the fitted one.

        Args:
            X: the series, N of them, without the steps that the model must not learn from; or a
                table with them: a data frame, the path of a file, or `data.Examples`. The series of
                a table are in its column `label`.
            y: ignored; scikit-learn passes it.
            future: N arrays `[U_i, K]`, or `[N, U, K]`: inputs known in advance, from the first
                step of each series; here U_i = T_i suffices.
            static: `[N, S]`, inputs that do not change over time; or their columns in a table.
            callbacks: called in the course of the training; see `training.Callback`.
            resume: the directory of a checkpoint of the same training, to go on from it.
            columns: of a table, the roles of its columns, with the names of the command line:
                `label`, `id`, `time`, `features`, …; see `data.Roles`. `missing` says how missing
                values are treated; see `data.Preparation`. Default:
                'forward'.

        Returns:
            self

        Raises:
            ValueError, TypeError: a parameter or an argument cannot be used; the message says why.
            training.Diverged: the loss became NaN or infinite.
        """
        start = self._start()
        trained = None if start is None else start.preparation
        if _names_columns(static):
            columns, static = columns | {"static": static}, None
        parts = self._table(X, y, columns, start=start, missing="forward")
        if parts is None:
            panel = as_panel(X, future=future, static=static, trained=trained)
        elif future is not None or static is not None:
            raise ValueError("X is a table; wanted the names of its columns: known=, static=")
        else:
            check_values(parts.train)
            trained = trained or parts.preparation(standardize=False)
            panel = panel_of(parts.train, trained)
        values = self._hyperparameters(_warm_up, start, resume)
        fitted, history = fit.fit(
            panel,
            own(ForecastSettings, values),
            own(Architecture, values),
            own(training.Plan, values, seed=self._seed()),
            quantiles=self.quantiles,
            start=start,
            callbacks=self._callbacks(callbacks, values),
            resume=resume,
        )
        return self._trained(replace(fitted, preparation=trained), history, values)

    def predict(self, X: Any, *, future: Any = None, static: Any = None) -> np.ndarray:
        """The median of each of the `horizon` values that follow a series, `[N, horizon]`.

        Args:
            X: the series; they need not be those of the training.
            future: as for `fit`, but reaching `horizon` steps beyond the end of each series.
            static: as for `fit`.

        Raises:
            ValueError: the series have other inputs than those trained on, `future` ends too
                early, or a series has no value in its last `context` steps.
        """
        return self._fitted().predict(X, future=future, static=static)

    def predict_quantiles(self, X: Any, *, future: Any = None, static: Any = None) -> np.ndarray:
        """The quantiles of these values, `[N, horizon, Q]`, in the order of `quantiles`.

        Args, Raises: as for `predict`.
        """
        return self._fitted().predict_quantiles(X, future=future, static=static)

    def score(self, X: Any, y: Any = None, *, future: Any = None, static: Any = None) -> float:
        """Minus the weighted quantile loss (`forecast_metrics.wql`): 0 is perfect.

        Args:
            X: the series.
            y: `[N, horizon]`, the values that follow their ends (`[N]` if horizon is 1). Without
                it the last `horizon` values of each series are forecast from those before.
            future, static: as for `predict`.
        """
        fitted = self._fitted()
        if y is None:
            panel = fitted.panel(X, future, static)
            made = fitted.backtest(panel)
            return -forecast_metrics.wql(made.actual, made.quantiles, fitted.levels)
        answers = self.predict_quantiles(X, future=future, static=static)
        actual = np.asarray(y, dtype=np.float64)
        actual = actual[:, None] if actual.ndim == 1 and answers.shape[1] == 1 else actual
        return -forecast_metrics.wql(actual, answers, fitted.levels)

    def evaluate(
        self,
        X: Any,
        *,
        windows: int = 1,
        stride: int | None = None,
        season: int | None = None,
        future: Any = None,
        static: Any = None,
    ) -> dict[str, float | int]:
        """Forecast the last values of each series from those before, and measure.

        Args:
            X: the series.
            windows: cutoffs for each series: horizon, horizon + stride, … steps before its end.
            stride: steps from one cutoff to the next; by default the horizon.
            season: steps of a season for MASE; by default that of the estimator.
            future, static: as for `fit`.

        Returns:
            mase, wql, pinball, mae, coverage_80 (the share of values in the widest interval) and n,
            the number of values; see `ostinato_learn.metrics.forecasts`. Errors: smaller is better.
        """
        panel = self._fitted().panel(X, future, static)
        return self._fitted().evaluate(panel, windows, stride, season)

    def baselines(
        self,
        X: Any,
        *,
        windows: int = 1,
        stride: int | None = None,
        season: int | None = None,
    ) -> dict[str, dict[str, float | int]]:
        """Measure two naive forecasts on the same windows: the last value, and that a season
        before.

        Args: as for `evaluate`.
        """
        fitted = self._fitted()
        return fitted.baselines(fitted.panel(X), windows, stride, season)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _attributes(self, model: Forecaster) -> dict[str, Any]:
        names = model.windows.names.get("X")
        return super()._attributes(model) | {"feature_names_in_": names}

    _of_model: ClassVar[Mapping[str, str]] = MappingProxyType({"quantiles": "levels"})


ESTIMATOR = SequenceForecaster


def _names_columns(static: Any) -> bool:
    """Whether static inputs are named, as columns of a table."""
    listed = isinstance(static, (list, tuple)) and len(static) and isinstance(static[0], str)
    return isinstance(static, str) or bool(listed)


def _warm_up(settings: recipe.Settings, given: recipe.Settings) -> recipe.Settings:
    """The warm-up of a training whose length is a number of updates."""
    return recipe.warm_up(settings["training.iterations"] or 0, settings, given)
