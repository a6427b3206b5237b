"""`Forecaster`: a saved model that says what the next values of series may be."""

from __future__ import annotations

from typing import Any

import numpy as np

from ostinato.data.series.panel import Panel, as_panel
from ostinato.runtime import checks
from ostinato.runtime.model import Model
from ostinato.runtime.tensors import Array

ROWS = 256  # windows at a time


class Forecaster(Model):
    """A model that forecasts.

    Attributes:
        labels: `[Q]`, the levels of the quantiles.
        windows: how windows are cut from series and scaled.
        preparation: how a user's table becomes the inputs; None: they are arrays.

    Example:
        >>> model = ostinato.runtime.load("runs/sales/model")
        >>> model.n_features, len(model.labels)
        (1, 9)
        >>> series = [np.sin(np.arange(n) / 3) for n in (50, 40)]
        >>> model.predict(series).shape, model.predict_quantiles(series).shape
        ((2, 3), (2, 3, 9))
        >>> model.evaluate(series, windows=2)["n"]
        12
    """

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        wanted = {"context", "scaling", "season", "past", "future", "static", "preparation"}
        checks.names(fitted, {*wanted, "names"}, where)
        self.windows = checks.windows(fitted, self.graph, where)
        self.labels = np.array(checks.levels(self._net.get("quantiles"), self.n_outputs, where))
        self.preparation = checks.columns_of_table(fitted["preparation"], where)

    @property
    def n_outputs(self) -> int:
        """Q, the quantiles of each forecast."""
        return self.graph.n_outputs

    @property
    def levels(self) -> tuple[float, ...]:
        """`labels`, by the name that they have in torch."""
        return tuple(self.labels.tolist())

    @property
    def n_features(self) -> int:
        """The target, and the inputs that are known as long as it is."""
        return 1 + len(self.windows.past)

    def predict(self, X: Any, *, future: Any = None, static: Any = None) -> Array:
        """The medians of the values that follow the end of each series, `[N, h]` float64.

        Args:
            X: the series: N arrays `[T_i]`, or `[T_i, 1 + P]` with P past inputs; NaN is missing.
            future: N arrays `[U_i, K]`, inputs known in advance, to h steps beyond each end.
            static: `[N, S]`, inputs that do not change.

        Raises:
            ValueError: there are other inputs than in the training, `future` ends too early, or a
                series has no value in the steps that the network reads.
        """
        quantiles = self.predict_quantiles(X, future=future, static=static)
        return quantiles[:, :, self.labels.tolist().index(0.5)]

    def predict_quantiles(self, X: Any, *, future: Any = None, static: Any = None) -> Array:
        """The quantiles of these values, `[N, h, Q]` float64, in the order of `labels`."""
        panel = self._panel(X, future, static)
        self.windows.check_inputs(panel)
        self.windows.check_ends(panel)
        return self.quantiles_after(panel, np.arange(len(panel)), panel.lengths)

    def quantiles_after(self, panel: Panel, series: Array, cutoffs: Array) -> Array:
        """The quantiles of the values of some series from these steps on, `[M, h, Q]` float64."""
        found = [
            self._forecasts(panel, series[first : first + ROWS], cutoffs[first : first + ROWS])
            for first in range(0, len(series), ROWS)
        ]
        return np.concatenate(found)

    def evaluate(
        self, X: Any, windows: int = 1, stride: int | None = None, *, future: Any = None,
        static: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """How good forecasts of the last values of series are, made as if these had not come.

        Args:
            X, future, static: as for `predict`.
            windows: forecasts of each, the last of which ends with the series.
            stride: steps from one to the next; None: the horizon.

        Returns:
            mase, wql, pinball, mae, coverage_80 and n; see `ostinato.metrics.forecasts`.

        Raises:
            ValueError: as for `predict`; or no series is long enough.
        """
        from ostinato.runtime import measures

        return measures.of_forecaster(self, self._panel(X, future, static), windows, stride)

    def _panel(self, X: Any, future: Any, static: Any) -> Any:
        if isinstance(X, Panel):
            return X
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
        return read.centre[:, :, None] + read.scale[:, :, None] * answers


MODEL = Forecaster
