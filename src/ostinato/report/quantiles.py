"""A section that the reports of numbers share: the calibration of quantiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ostinato.metrics.forecasts import coverage
from ostinato.report.figures import Curve, Line, bands, dots
from ostinato.report.markup import count, percent
from ostinato.report.panels import Grid, PageSection, PageTable


def calibration(
    levels: Sequence[float], actual: np.ndarray, quantiles: np.ndarray
) -> PageSection:
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
