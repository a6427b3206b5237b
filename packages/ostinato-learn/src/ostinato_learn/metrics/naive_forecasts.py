"""A baseline for forecasts: the value of one season before, or with a season of one step the last.

It forecasts from a history `[T]` alone, as quantiles `[h, Q]`. The spread of the quantiles comes
from the errors that the same forecast made within the history, for each step ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def seasonal_naive(history: Any, horizon: int, levels: Sequence[float], season: int) -> np.ndarray:
    """The value of one season before, with quantiles from the errors of such forecasts so far.

        m = season · ⌈k / season⌉                                       for step k = 1…h
        median     y_{T+k−m}
        quantile q median + quantile_q(errors) − median(errors),   errors = {y_t − y_{t−m}}

    If the value of one season before is missing (NaN), that of two seasons before is taken, and so
    on; if all are missing, the last value that is present.

    Args:
        history: `[T]`, NaN where a value is missing.
        horizon: h, steps to forecast.
        levels: the levels of the Q quantiles, between 0 and 1.
        season: steps of a season, from 1.

    Returns:
        `[h, Q]`. Without errors at the distance m, those at the next smaller multiple of the season
        are taken; without any errors, every quantile is the median.

    Raises:
        ValueError: the history has no value, or the season is below 1.

    Example:
        >>> seasonal_naive([1.0, 5.0, 1.0, 5.0], 3, [0.1, 0.9], season=2)
        array([[1., 1.],
               [5., 5.],
               [1., 1.]])
    """
    values = np.asarray(history, dtype=np.float64)
    if season < 1:
        raise ValueError(f"season={season}; wanted 1 or more steps")
    if not np.isfinite(values).any():
        raise ValueError("the history has no value to forecast from; wanted at least one")
    distances = [season * -(-k // season) for k in range(1, horizon + 1)]
    spreads = {m: _spread(values, m, season, levels) for m in sorted(set(distances))}
    steps = enumerate(distances, start=1)
    return np.array(
        [_before(values, len(values) - 1 + k - m, season) + spreads[m] for k, m in steps]
    )


def _before(values: np.ndarray, t: int, season: int) -> float:
    """The value at t, or if it is missing that of some seasons before, or the last one."""
    while t >= 0 and np.isnan(values[t]):
        t -= season
    return values[t] if t >= 0 else values[np.isfinite(values)][-1]


def _spread(values: np.ndarray, m: int, season: int, levels: Sequence[float]) -> np.ndarray:
    """The quantiles `[Q]` of the errors at distance m, about their median."""
    for distance in range(m, 0, -season):
        errors = values[distance:] - values[:-distance]
        errors = errors[~np.isnan(errors)]
        if len(errors):
            return np.quantile(errors, levels) - np.median(errors)
    return np.zeros(len(levels))
