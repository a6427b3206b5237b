"""SeriesWindows against ones that are cut step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from forecasting_examples import CONTEXT, HORIZON, LENGTHS, bare, panel, windows

from ostinato_learn.data.sequences.moments import Moments
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.data.series.windows import Columns, every_window, last_windows, scales
from ostinato_learn.metrics.naive_forecasts import seasonal_naive
from ostinato_learn.tasks.forecast.loss import ForecastSettings


def slow_context(given: Panel, i: int, t: int, scaling: str):
    """x `[context, 2 + P + K + S]`, future `[h, K]`, centre and scale of one window."""
    values = [given.series(i)[s] if s >= 0 else math.nan for s in range(t - CONTEXT, t)]
    known = [v for v in values if not math.isnan(v)]
    if scaling == "std":
        centre = sum(known) / len(known)
        scale = math.sqrt(sum((v - centre) ** 2 for v in known) / len(known))
    else:
        centre, scale = 0.0, sum(abs(v) for v in known) / len(known)
    if scale < 1e-9:
        scale = sum(abs(v) for v in known) / len(known) or 1.0

    def standard(column, value):
        return (value - column.mean()) / column.std()

    rows = []
    for s, value in zip(range(t - CONTEXT, t), values, strict=True):
        there = not math.isnan(value)
        row = [(value - centre) / scale if there else 0.0, float(there)]
        for p in range(given.n_past):
            at = given.past[given.offsets[i] + s, p] if s >= 0 else given.past[:, p].mean()
            row.append(standard(given.past[:, p], at))
        for k in range(given.n_future):
            column = given.future[:, k]
            at = column[given.future_offsets[i] + s] if s >= 0 else column.mean()
            row.append(standard(column, at))
        row += [standard(given.static[:, c], given.static[i, c]) for c in range(given.n_static)]
        rows.append(row)
    future = [
        [
            standard(given.future[:, k], given.future[given.future_offsets[i] + t + j, k])
            for k in range(given.n_future)
        ]
        for j in range(HORIZON)
    ]
    return rows, future, centre, scale


@pytest.mark.parametrize("scaling", ["std", "mean_abs"])
def test_a_window_is_what_loops_cut(scaling):
    given = panel()
    series, cutoffs = np.array([0, 1, 2, 3, 1, 2]), np.array([9, 30, 4, 5, 2, 1])
    read = windows(given, scaling).contexts(given, series, cutoffs)
    for b, (i, t) in enumerate(zip(series, cutoffs, strict=True)):
        x, future, centre, scale = slow_context(given, i, t, scaling)
        np.testing.assert_allclose(read.x[b], x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(read.future[b], future, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose((read.centre[b, 0], read.scale[b, 0]), (centre, scale))


@pytest.mark.parametrize(("season", "context"), [(1, 6), (2, 6), (2, 9), (5, 9), (7, 6), (3, 40)])
def test_lags_are_the_values_at_the_same_place_in_the_last_seasons(season, context):
    given = panel()
    cut = replace(windows(given), context=context, season=season)
    series, cutoffs = np.array([1, 1, 3, 2]), np.array([30, 22, 9, 3])
    read = cut.contexts(given, series, cutoffs)
    assert cut.n_lags == (1 if season == 1 else max(1, min(4, context // season)))
    for b, (i, t) in enumerate(zip(series, cutoffs, strict=True)):
        for k in range(1, HORIZON + 1):
            for j in range(cut.n_lags):
                step = t + k - 1 - season * (math.ceil(k / season) + j)
                value = given.series(i)[step] if max(0, t - context) <= step else math.nan
                assert step < t
                wanted = (value - read.centre[b, 0]) / read.scale[b, 0]
                wanted = 0.0 if math.isnan(wanted) else wanted
                assert read.lags[b, k - 1, j] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_the_first_lag_is_the_seasonal_naive_forecast():
    given = panel(missing=0)
    read = windows(given).contexts(given, np.array([1]), np.array([20]))
    naive = seasonal_naive(given.series(1)[:20], HORIZON, [0.5], season=2)[:, 0]
    lags = read.centre[0] + read.scale[0] * read.lags[0, :, 0].astype(np.float64)
    np.testing.assert_allclose(lags, naive, rtol=1e-6)


def test_a_window_of_a_series_alone():
    given = bare(panel())
    read = windows(given).contexts(given, np.array([1]), np.array([20]))
    assert read.x.shape == (1, CONTEXT, 2) and read.future is None


def test_what_came_is_what_the_series_has():
    given = panel()
    series, cutoffs = np.array([1, 3]), np.array([27, 2])
    came = windows(given).actual(given, series, cutoffs)
    wanted = [given.series(1)[27:30], given.series(3)[2:5]]
    np.testing.assert_array_equal(came, wanted)


@pytest.mark.parametrize(
    ("values", "std", "mean_abs"),
    [
        ([2.0, 4.0, math.nan], (3, 1), (0, 3)),
        ([0.3, 0.3, 0.3], (0.3, 0.3), (0, 0.3)),  # their deviation is 0 but for rounding
        ([-5.0, -5.0, math.nan], (-5, 5), (0, 5)),
        ([0.0, 0.0, 0.0], (0, 1), (0, 1)),
        ([math.nan] * 3, (0, 1), (0, 1)),
        ([1e9, 1e9 + 1, 1e9 + 2], (1e9 + 1, math.sqrt(2 / 3)), (0, 1e9 + 1)),
        ([1e30, -1e30, 1e30], (1e30 / 3, 1e30 * math.sqrt(8) / 3), (0, 1e30)),
    ],
)
def test_scales_are_safe(values, std, mean_abs):
    for scaling, wanted in (("std", std), ("mean_abs", mean_abs)):
        centre, scale = scales(np.array([values]), scaling)
        assert (centre.item(), scale.item()) == pytest.approx(wanted, rel=1e-6)


def slow_every(given: Panel, held_back: np.ndarray) -> list[tuple[int, int]]:
    pairs = []
    for i in range(len(given)):
        values = given.series(i)[: len(given.series(i)) - held_back[i]]
        last = len(values) - HORIZON
        for t in range(max(1, min(3, last)), last + 1):
            read, ahead = values[max(0, t - CONTEXT) : t], values[t : t + HORIZON]
            if np.isfinite(read).any() and np.isfinite(ahead).any():
                pairs.append((i, t))
    return pairs


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("held_back", [0, 3, 20])
def test_every_window_that_can_be_learnt_from(missing, held_back):
    given = panel(missing=missing)
    kept = np.minimum(held_back, np.array(LENGTHS) - 1)
    series, cutoffs = every_window(given, CONTEXT, HORIZON, kept)
    assert list(zip(series, cutoffs, strict=True)) == slow_every(given, kept)
    assert (cutoffs + HORIZON <= given.lengths[series] - kept[series]).all()


def test_the_last_windows_roll_back_from_the_end():
    given = panel(missing=0)
    series, cutoffs = last_windows(given, CONTEXT, HORIZON, windows=3, stride=2)
    assert list(zip(series, cutoffs, strict=True)) == [
        (0, 2),
        (0, 4),
        (0, 6),
        (1, 23),
        (1, 25),
        (1, 27),
        (2, 1),
        (3, 10),
        (3, 12),
        (3, 14),
    ]


def test_windows_without_a_value_to_read_or_to_forecast_are_left_out():
    nan = math.nan
    given = Panel.of([[1, nan, nan, 2, nan, 3], [nan, nan, 1, 2, 3], [1, 2, 3, nan, nan]])
    pairs = last_windows(given, context=2, horizon=2, windows=2, stride=1)
    # the others read or forecast NaN alone
    assert list(zip(*pairs, strict=True)) == [(0, 4), (1, 3), (2, 2)]


def test_standard_columns_have_mean_0_and_deviation_1():
    values = np.random.default_rng(0).normal(3, 5, size=(50, 3))
    values[:, 1] = 0.3
    columns = Columns.of(values)
    standard = columns.standard(values)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(0), [1, 0, 1], atol=1e-12)
    assert Columns.from_json(columns.as_json(), 3, "here") == columns
    assert len(Columns.of(np.zeros((5, 0)))) == 0


def test_columns_of_moments_are_those_of_all_values():
    values = np.random.default_rng(0).normal(3, 5, size=(50, 3))
    values[:, 1] = 0.3
    moments = [Moments() for _ in range(3)]
    for part in (values[:7], values[7:]):
        for each, column in zip(moments, part.T, strict=True):
            each.add(column)
    for each, column in zip(moments, values.T, strict=True):
        each.add_deviations(column)
    found, wanted = Columns.of_moments(moments), Columns.of(values)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-14)
    np.testing.assert_allclose(found.deviation, wanted.deviation, rtol=1e-14)
    assert Columns.of_moments([]) == Columns.of(np.zeros((5, 0)))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"mean": [0.0]},
        {"mean": [0.0], "deviation": [0.0]},
        {"mean": [0.0], "deviation": [-1.0]},
        {"mean": [math.nan], "deviation": [1.0]},
        {"mean": [0.0, 1.0], "deviation": [1.0, 1.0]},
        {"mean": ["0"], "deviation": [1.0]},
        {"mean": 0.0, "deviation": 1.0},
    ],
)
def test_damaged_columns_are_refused(value):
    with pytest.raises(ValueError, match=r"here is .*; wanted mean and deviation of 1 columns"):
        Columns.from_json(value, 1, "here")


@pytest.mark.parametrize(
    ("given", "context"),
    [
        ({"horizon": 2}, 16),
        ({"horizon": 12}, 36),
        ({"horizon": 2, "season": 24}, 96),
        ({"horizon": 12, "context": 5}, 5),
    ],
)
def test_the_default_context(given, context):
    assert ForecastSettings(**given).n_context == context
