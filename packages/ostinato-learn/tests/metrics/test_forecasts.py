"""Each measure against one that is written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ostinato_learn.metrics import forecasts as fm

LEVELS = [0.1, 0.5, 0.9]


def random_case(seed: int):
    rng = np.random.default_rng(seed)
    M, h = rng.integers(1, 7, size=2)
    actual = rng.normal(size=(M, h)) * 5
    actual[rng.random((M, h)) < 0.2] = np.nan
    actual[0, 0] = 1.5
    quantiles = np.sort(rng.normal(size=(M, h, 3)) * 5, axis=2)
    scales = rng.random(M) * rng.integers(0, 2, size=M)
    return actual, quantiles, scales


def present(actual):
    return [tuple(at) for at in np.argwhere(~np.isnan(actual))]


def slow_pinball(actual, quantiles, q, k):
    total = 0.0
    for i, j in present(actual):
        error = actual[i, j] - quantiles[i, j, k]
        total += q * error if error >= 0 else (1 - q) * -error
    return total


def slow_mase(actual, forecast, scales):
    windows = []
    for i, scale in enumerate(scales):
        errors = [
            abs(actual[i, j] - forecast[i, j])
            for j in range(actual.shape[1])
            if not math.isnan(actual[i, j])
        ]
        if scale > 0 and errors:
            windows.append(sum(errors) / len(errors) / scale)
    return sum(windows) / len(windows) if windows else math.nan


@pytest.mark.parametrize("seed", range(20))
def test_measures_are_what_loops_say(seed):
    actual, quantiles, scales = random_case(seed)
    n = len(present(actual))
    sums = [slow_pinball(actual, quantiles, q, k) for k, q in enumerate(LEVELS)]
    size = sum(abs(actual[at]) for at in present(actual))
    inside = sum(quantiles[at][0] <= actual[at] <= quantiles[at][2] for at in present(actual))
    median = quantiles[:, :, 1]
    wanted = {
        "mase": slow_mase(actual, median, scales),
        "wql": sum(2 * s / size for s in sums) / 3,
        "pinball": sum(sums) / (3 * n),
        "mae": sum(abs(actual[at] - median[at]) for at in present(actual)) / n,
        "coverage_80": inside / n,
        "n": n,
    }
    assert fm.measure(actual, quantiles, LEVELS, scales) == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("season", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_the_scale_is_what_a_loop_says(season, seed):
    rng = np.random.default_rng(seed)
    history = rng.normal(size=12)
    history[rng.random(12) < 0.2] = np.nan
    steps = [abs(history[t] - history[t - season]) for t in range(season, 12)]
    steps = [step for step in steps if not math.isnan(step)]
    assert fm.seasonal_scale(history, season) == pytest.approx(sum(steps) / len(steps))


def test_where_nothing_is_left_the_result_is_nan():
    assert math.isnan(fm.seasonal_scale([1.0, 2.0], 2))
    assert math.isnan(fm.seasonal_scale([1.0, np.nan, 2.0], 1))
    assert math.isnan(fm.mase([[1.0]], [[2.0]], [0.0]))
    assert math.isnan(fm.mase([[1.0]], [[2.0]], [np.nan]))
    nothing = [[np.nan]], [[[1.0, 2.0, 3.0]]], LEVELS
    assert math.isnan(fm.pinball(*nothing))
    assert math.isnan(fm.coverage(*nothing, share=0.8))
    assert math.isnan(fm.wql([[0.0]], [[[1.0, 2.0, 3.0]]], LEVELS))


def test_the_true_quantiles_have_the_least_loss_and_cover_their_share():
    """Of normal numbers; 20,000 of them: a share of 0.8 is right within 3 · √(0.16 / 20000)."""
    actual = np.random.default_rng(0).normal(size=(20_000, 1))
    true = np.array([-1.2815515655, 0.0, 1.2815515655])
    best = np.broadcast_to(true, (20_000, 1, 3))
    assert fm.coverage(actual, best, LEVELS, 0.8) == pytest.approx(0.8, abs=0.0085)
    for k in range(3):
        for shift in (-0.2, 0.2):
            other = best.copy()
            other[:, :, k] += shift
            assert fm.pinball(actual, other, LEVELS) > fm.pinball(actual, best, LEVELS)


def test_half_the_pinball_loss_and_wql_of_the_median_are_absolute_errors():
    actual, forecast = np.array([[3.0, -1.0, 4.0]]), np.array([[1.0, 1.0, 4.5]])
    assert fm.pinball(actual, forecast[:, :, None], [0.5]) == pytest.approx(4.5 / 3 / 2)
    assert fm.wql(actual, forecast[:, :, None], [0.5]) == pytest.approx(4.5 / 8)


@pytest.mark.parametrize(
    ("levels", "share"),
    [([0.1, 0.5, 0.9], 0.8), ([0.5], None), ([0.2, 0.5, 0.9], None), ([0.05, 0.3, 0.7], 0.4)],
)
def test_the_widest_interval(levels, share):
    assert fm.widest_interval(levels) == share


def test_an_interval_without_a_name_is_left_out():
    assert "coverage_80" not in fm.measure([[1.0]], [[[1.0]]], [0.5], [1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fm.pinball([1.0], [[[1.0]]], [0.5]), r"actual has shape \[1\]"),
        (lambda: fm.pinball([[np.inf]], [[[1.0]]], [0.5]), "without infinity"),
        (lambda: fm.pinball([[1.0]], [[[np.nan]]], [0.5]), "a forecast is NaN"),
        (lambda: fm.pinball([[1.0]], [[[1.0]]], [0.1, 0.5]), r"wanted \[1, 1, 2\]"),
        (lambda: fm.mase([[1.0]], [[1.0, 2.0]], [1.0]), r"forecast has shape \[1, 2\]"),
        (lambda: fm.mase([[1.0]], [[1.0]], [1.0, 2.0]), r"scales has shape \[2\]"),
        (lambda: fm.coverage([[1.0]], [[[1.0]]], [0.5], 0.8), "wanted 0.1 among them"),
        (lambda: fm.measure([[1.0]], [[[1.0]]], [0.4], [1.0]), "wanted 0.5 among them"),
        (lambda: fm.seasonal_scale([1.0, 2.0], 0), "season=0; wanted 1 or more"),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
