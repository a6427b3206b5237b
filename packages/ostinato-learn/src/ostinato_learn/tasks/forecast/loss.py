"""`Forecasting`: the task of forecasting the next values of series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ostinato_learn.data import Batches
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.data.series.windows import Pairs, SeriesContexts, SeriesWindows
from ostinato_learn.hyperparameters import Declared, declare
from ostinato_learn.training.distributed import Share
from ostinato_learn.training.task import Mean, OfBatches, digest, probed

BATCH_SIZE = 1000
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
    bounds: Literal["past", "any"] = declare(
        "past",
        "Forecasts are never negative, and whole numbers, if all values of the training are so "
        "(past); or as the network gives them (any).",
    )
    validation_windows: int = declare(
        1, "Horizons at the end of each series that are kept for validation.", low=0
    )

    @property
    def n_context(self) -> int:
        """`context`, or its default."""
        return self.context or max(3 * self.horizon, 4 * self.season, 16)


class Forecasting(OfBatches):
    """The pinball loss of a `models.ForecasterNet` on windows of many series, in random order.

    An epoch is every window once. All windows weigh the same, each in its own scale.

    Args:
        panel: the series.
        windows: how windows are cut.
        learnt: series and cutoffs of the windows to learn from.
        levels: the levels of the network's quantiles.
        batch_size, seed: the size and the seed of the batches.
        validation: series and cutoffs of the windows to validate on.
    """

    def __init__(
        self,
        panel: Panel,
        windows: SeriesWindows,
        learnt: Pairs,
        levels: tuple[float, ...],
        batch_size: int,
        seed: int,
        validation: Pairs | None = None,
    ):
        self.panel, self.windows = panel, windows
        self.series, self.cutoffs = learnt
        super().__init__(Batches(self.series, self.cutoffs, batch_size, seed=seed), validation)
        self.levels = torch.tensor(levels, dtype=torch.float32)

    def loss(self, net: torch.nn.Module) -> Share:
        chosen = self.next_rows()
        pairs = self.series[chosen], self.cutoffs[chosen]
        total, count = window_losses(net, self.windows, self.levels, self.panel, pairs)
        return Share(total / max(1, count), count, {}, count)

    def fingerprint(self) -> str:
        chosen = probed(len(self.series))
        pairs = self.series[chosen], self.cutoffs[chosen]
        read = self.windows.contexts(self.panel, *pairs)
        actual = scaled(self.windows.actual(self.panel, *pairs), read)
        return digest(read.x, read.future, read.lags, actual, self.levels)

    @torch.no_grad()
    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        series, cutoffs = self.validation
        rows, was_training = self.ranks.rows(len(series)), net.training
        net.eval()
        sums = [
            window_losses(net, self.windows, self.levels, self.panel, part)
            for part in parts((series[rows], cutoffs[rows]))
        ]
        net.train(was_training)
        total, count = sum(loss.item() for loss, _ in sums), sum(count for _, count in sums)
        return {"validation_loss": (total / count, count) if count else (0.0, 0)}


def window_losses(
    net: torch.nn.Module, windows: SeriesWindows, levels: Tensor, panel: Panel, pairs: Pairs
) -> tuple[Tensor, int]:
    """The sum of a network's losses in some windows, and their number."""
    read = windows.contexts(panel, *pairs)
    actual = scaled(windows.actual(panel, *pairs), read)
    there = torch.isfinite(actual)
    losses = pinball(actual.nan_to_num(), net(*tensors(read)), levels)
    return (losses * there[:, :, None]).sum(), int(there.sum()) * len(levels)


def pinball(actual: Tensor, quantiles: Tensor, levels: Tensor) -> Tensor:
    """max(q · (y − f), (q − 1) · (y − f)) of y `[B, h]` and f `[B, h, Q]`, `[B, h, Q]`."""
    errors = actual[:, :, None] - quantiles
    return torch.maximum(levels * errors, (levels - 1) * errors)


def tensors(read: SeriesContexts) -> tuple[Tensor, Tensor | None, Tensor]:
    """What a network reads of some windows."""
    future = None if read.future is None else torch.tensor(read.future)
    return torch.tensor(read.x), future, torch.tensor(read.lags)


def scaled(actual: np.ndarray, read: SeriesContexts) -> Tensor:
    """Values `[B, h]` in the scale of their window, float32, cut off for the loss."""
    values = np.clip((actual - read.centre) / read.scale, -FARTHEST, FARTHEST)
    return torch.tensor(values.astype(np.float32))


def parts(pairs: Pairs, size: int = BATCH_SIZE) -> Iterator[Pairs]:
    """The windows in pieces of at most `size`, in their order."""
    series, cutoffs = pairs
    for start in range(0, len(series), size):
        yield series[start : start + size], cutoffs[start : start + size]
