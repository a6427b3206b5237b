"""Windows of series as tensors, and the settings of forecasts; see `data/series/windows.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ostinato.data.series.panel import Panel
from ostinato.data.series.windows import (
    Columns,
    Pairs,
    SeriesWindows,
    every_window,
    last_windows,
    n_observed,
    observed,
    scales,
)
from ostinato.hyperparameters import Declared, declare

__all__ = [
    "FARTHEST", "Columns", "Contexts", "ForecastSettings", "Pairs", "Windows", "every_window",
    "last_windows", "n_observed", "observed", "scales",
]  # fmt: skip

# Scaled values are cut off here for the loss: after a nearly constant context a jump may be this
# many deviations, and would dominate the loss of all other windows. The gradient of the pinball
# loss does not depend on the size of an error.
FARTHEST = 1e3


@dataclass(frozen=True)
class ForecastSettings(Declared):
    """Settings of forecasts: horizon, context, season, scaling, validation."""

    horizon: int = declare(1, "Steps to forecast.", low=1)
    context: int | None = declare(
        None,
        "Steps that the network reads; by default three horizons or four seasons, at least 16.",
        low=1,
    )
    season: int = declare(
        1, "Steps of a season, whose last values the network corrects; 1: none.", low=1
    )
    scaling: Literal["std", "mean_abs"] = declare(
        "std",
        "How each window is scaled: by the mean and deviation of its context, or by its mean "
        "absolute value.",
    )
    validation_windows: int = declare(
        1, "Horizons at the end of each series that are kept for validation.", low=0
    )

    @property
    def n_context(self) -> int:
        """`context`, or its default."""
        return self.context or max(3 * self.horizon, 4 * self.season, 16)


@dataclass(frozen=True)
class Contexts:
    """`data.series.windows.SeriesContexts` with the network's inputs as tensors."""

    x: Tensor
    future: Tensor | None
    lags: Tensor
    centre: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Windows(SeriesWindows):
    """How windows are cut from series and scaled; what a network reads of them, as tensors."""

    def contexts(  # type: ignore[override]  # tensors for arrays
        self, panel: Panel, series: np.ndarray, cutoffs: np.ndarray
    ) -> Contexts:
        """The values before the cutoffs; see `SeriesWindows.contexts`."""
        read = super().contexts(panel, series, cutoffs)
        future = None if read.future is None else torch.tensor(read.future)
        return Contexts(
            torch.tensor(read.x), future, torch.tensor(read.lags), read.centre, read.scale
        )
