"""The naive forecasts against ones that are written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ostinato_learn.metrics import naive_forecasts as fb

LEVELS = [0.1, 0.5, 0.8]


def slow(history, horizon, levels, season):
    T = len(history)
    rows = []
    for k in range(1, horizon + 1):
        m = season * math.ceil(k / season)
        t = T - 1 + k - m
        while t >= 0 and math.isnan(history[t]):
            t -= season
        median = history[t] if t >= 0 else [v for v in history if not math.isnan(v)][-1]
        errors: list[float] = []
        while m > 0 and not errors:
            pairs = [(history[s], history[s - m]) for s in range(m, T)]
            errors = [a - b for a, b in pairs if not math.isnan(a - b)]
            m -= season
        spread = [0.0] * len(levels)
        if errors:
            middle = np.median(errors)
            spread = [np.quantile(errors, q) - middle for q in levels]
        rows.append([median + s for s in spread])
    return rows


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("season", [1, 2, 3, 7])
@pytest.mark.parametrize("T", [1, 2, 5, 20])
def test_it_is_what_loops_say(T, season, missing):
    rng = np.random.default_rng(T)
    history = rng.normal(size=T)
    history[rng.random(T) < missing] = np.nan
    history[rng.integers(T)] = 2.5
    answer = fb.seasonal_naive(history, 8, LEVELS, season)
    np.testing.assert_allclose(answer, slow(history, 8, LEVELS, season), atol=1e-12)


def test_the_last_value_is_repeated_and_its_spread_grows_as_a_random_walks():
    walk = np.random.default_rng(0).normal(size=20_000).cumsum()
    answer = fb.seasonal_naive(walk, 4, [0.1, 0.5, 0.9], season=1)
    np.testing.assert_array_equal(answer[:, 1], walk[-1])
    # Quantiles of 20,000 overlapping errors, which are known to a few percent.
    wanted = 2 * 1.2816 * np.sqrt([1, 2, 3, 4])
    np.testing.assert_allclose(answer[:, 2] - answer[:, 0], wanted, rtol=0.05)


def test_a_pure_season_is_forecast_exactly():
    season = np.array([3.0, 1.0, 4.0, 1.5])
    answer = fb.seasonal_naive(np.tile(season, 3)[:-1], 6, [0.1, 0.5], 4)
    np.testing.assert_array_equal(
        answer, np.repeat([1.5, 3.0, 1.0, 4.0, 1.5, 3.0], 2).reshape(6, 2)
    )


@pytest.mark.parametrize(
    ("history", "season", "message"),
    [([np.nan], 1, "no value"), ([1.0], 0, "season=0; wanted 1 or more")],
)
def test_errors_say_what_was_wanted(history, season, message):
    with pytest.raises(ValueError, match=message):
        fb.seasonal_naive(history, 2, [0.5], season)
