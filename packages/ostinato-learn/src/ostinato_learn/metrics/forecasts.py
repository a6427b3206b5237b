"""Measures of forecasts.

Shapes: M windows, h steps of a forecast, Q quantiles. Forecasts are `[M, h, Q]`, the actual values
`[M, h]`. Errors are positive, and smaller is better. Steps whose actual value is missing (NaN) are
left out everywhere; if nothing is left, or a ratio would divide by zero, the result is NaN.
Forecasts themselves must be finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


def pinball(actual: Any, quantiles: Any, levels: Sequence[float]) -> float:
    """The mean pinball loss over windows, steps and quantiles, in the unit of the series.

        loss_q(y, f) = max(q · (y − f), (q − 1) · (y − f))

    At q = 0.5 it is half the absolute error. Source: Koenker and Bassett, 1978.

    Args:
        actual: `[M, h]`.
        quantiles: `[M, h, Q]`.
        levels: q of each of the Q quantiles, between 0 and 1.

    Raises:
        ValueError: the shapes do not fit together, or a forecast is not finite.

    Example:
        >>> pinball([[3.0]], [[[2.0, 5.0]]], [0.5, 0.9])  # (0.5 · 1 + 0.1 · 2) / 2
        0.35
    """
    return _mean(_losses(actual, quantiles, levels))


def wql(actual: Any, quantiles: Any, levels: Sequence[float]) -> float:
    """The weighted quantile loss: 2 · Σ pinball loss / Σ |actual|, the mean over the quantiles.

    It has no unit; windows of large values weigh more. With the quantile 0.5 alone it is
    Σ |error| / Σ |actual|. NaN if all actual values are 0.

    Args, Raises: as for `pinball`.

    Example:
        >>> wql([[3.0, -1.0]], [[[2.0], [-1.0]]], [0.5])  # 1 / 4
        0.25
    """
    losses = _losses(actual, quantiles, levels)
    total = np.nansum(np.abs(_two(actual)))
    return float(2 * np.nansum(losses) / len(levels) / total) if total > 0 else float("nan")


def mase(actual: Any, forecast: Any, scales: Any) -> float:
    """The mean absolute scaled error: the mean over windows of mean |error| / scale.

    1 is as good as the naive forecast of one season earlier within the history; less is better.
    Source: Hyndman and Koehler, 2006.

    Args:
        actual, forecast: `[M, h]`.
        scales: `[M]`, the scale of each window's history; see `seasonal_scale`. Windows whose scale
            is 0 or NaN (a constant history, or a short one) are left out.

    Raises:
        ValueError: the shapes do not fit together, or a forecast is not finite.

    Example:
        >>> mase([[3.0, 4.0]], [[2.0, 4.0]], [2.0])  # (1 + 0) / 2 / 2
        0.25
    """
    actual, forecast = _two(actual), _finite(forecast)
    scales = np.asarray(scales, dtype=np.float64)
    _check_shape("forecast", forecast, actual.shape)
    _check_shape("scales", scales, actual.shape[:1])
    errors = row_means(np.abs(actual - forecast))
    usable = scales > 0
    return _mean(errors[usable] / scales[usable])


def seasonal_scale(history: Any, season: int) -> float:
    """Mean |y_t − y_{t−season}| over a history `[T]`, by which `mase` divides.

    Pairs with a missing value are left out; NaN if none is left.

    Args:
        history: `[T]`, the values before the forecast.
        season: steps of a season, from 1 (which compares with the value before).

    Raises:
        ValueError: the season is below 1.

    Example:
        >>> seasonal_scale([1.0, 5.0, 2.0, 7.0], season=2)  # (1 + 2) / 2
        1.5
    """
    if season < 1:
        raise ValueError(f"season={season}; wanted 1 or more steps")
    values = np.asarray(history, dtype=np.float64)
    return _mean(np.abs(values[season:] - values[:-season]))


def coverage(actual: Any, quantiles: Any, levels: Sequence[float], share: float) -> float:
    """The share of the actual values that lie within a central interval, its ends included.

    With correct quantiles it is `share`.

    Args:
        actual, quantiles, levels: as for `pinball`.
        share: the nominal share of the interval: 0.8 for the quantiles 0.1 and 0.9.

    Raises:
        ValueError: as for `pinball`, or the levels lack the two of the interval.

    Example:
        >>> coverage([[1.0, 9.0]], [[[0.0, 2.0], [0.0, 2.0]]], [0.1, 0.9], share=0.8)
        0.5
    """
    actual, quantiles = _checked(actual, quantiles, levels)
    low, high = (_level(levels, (1 + sign * share) / 2) for sign in (-1, 1))
    inside = (quantiles[:, :, low] <= actual) & (actual <= quantiles[:, :, high])
    return _mean(np.where(np.isnan(actual), np.nan, inside))


def bands(levels: Sequence[float]) -> list[tuple[int, int, float]]:
    """Central intervals between two of the levels, the widest first: (low, high, share).

    Example:
        >>> bands([0.1, 0.5, 0.9])
        [(0, 2, 0.8)]
    """
    found = []
    for low, level in enumerate(levels):
        high = next((i for i, other in enumerate(levels) if abs(level + other - 1) < 1e-9), None)
        if level < 0.5 and high is not None:
            found.append((low, high, round(1 - 2 * level, 9)))
    return found


def widest_interval(levels: Sequence[float]) -> float | None:
    """The share of the widest central interval between two of the levels; None without one."""
    return next((share for *_, share in bands(levels)), None)


def measure(
    actual: Any, quantiles: Any, levels: Sequence[float], scales: Any
) -> dict[str, float | int]:
    """All of the above, by name.

    Args:
        actual, quantiles, levels: as for `pinball`; 0.5 among the levels.
        scales: as for `mase`.

    Returns:
        mase and mae (of the median), wql, pinball, coverage_80 (80 being the percentage of the
        widest central interval, if there is one) and n, the number of values forecast.
    """
    actual, quantiles = _checked(actual, quantiles, levels)
    median = quantiles[:, :, _level(levels, 0.5)]
    result: dict[str, float | int] = {
        "mase": mase(actual, median, scales),
        "wql": wql(actual, quantiles, levels),
        "pinball": pinball(actual, quantiles, levels),
        "mae": _mean(np.abs(actual - median)),
    }
    share = widest_interval(levels)
    if share is not None:
        result[f"coverage_{100 * share:g}"] = coverage(actual, quantiles, levels, share)
    return result | {"n": int(np.isfinite(actual).sum())}


def _losses(actual: Any, quantiles: Any, levels: Sequence[float]) -> np.ndarray:
    """`[M, h, Q]`; NaN where the actual value is missing."""
    actual, quantiles = _checked(actual, quantiles, levels)
    errors = actual[:, :, None] - quantiles
    q = np.asarray(levels, dtype=np.float64)
    return np.maximum(q * errors, (q - 1) * errors)


def _checked(actual: Any, quantiles: Any, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    actual, quantiles = _two(actual), _finite(quantiles)
    _check_shape("quantiles", quantiles, (*actual.shape, len(levels)))
    return actual, quantiles


def _two(actual: Any) -> np.ndarray:
    values = np.asarray(actual, dtype=np.float64)
    if values.ndim != 2 or np.isinf(values).any():
        raise ValueError(
            f"actual has shape {list(values.shape)}; wanted [windows, steps], without infinity"
        )
    return values


def _finite(forecast: Any) -> np.ndarray:
    values = np.asarray(forecast, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a forecast is NaN or infinite; wanted finite numbers")
    return values


def _check_shape(name: str, array: np.ndarray, wanted: tuple[int, ...]) -> None:
    if array.shape != wanted:
        raise ValueError(
            f"{name} has shape {list(array.shape)}; wanted {list(wanted)}, to fit the actual values"
        )


def _level(levels: Sequence[float], wanted: float) -> int:
    distances = np.abs(np.asarray(levels) - wanted)
    if distances.min() > 1e-9:
        raise ValueError(f"the quantiles are {list(levels)}; wanted {wanted:g} among them")
    return int(distances.argmin())


def _mean(values: np.ndarray) -> float:
    """The mean without NaN; NaN if nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def row_means(values: np.ndarray) -> np.ndarray:
    """The mean of each row without NaN; NaN if nothing is left."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(values, axis=1)
