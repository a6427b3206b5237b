"""A forecaster's report: what is collected, compared with plain loops, and what the page says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_reader
import task_examples

from ostinato_learn import SequenceForecaster
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.report import RunFacts, figures, write_report
from ostinato_learn.report import forecast as module
from ostinato_learn.report.forecast import ForecastData, collect_forecasts
from ostinato_learn.tasks.forecast.fit import fit
from ostinato_learn.tasks.forecast.loss import ForecastSettings
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.training import Plan
from zoo.suites import one_in


def read(tmp_path: Path, data: ForecastData) -> report_reader.Page:
    write_report(tmp_path / "report.html", data)
    return report_reader.read((tmp_path / "report.html").read_text(encoding="utf-8"))


def panel(n: int = 8, length: int = 40, seed: int = 0) -> Panel:
    rng = np.random.default_rng(seed)
    steps = [np.arange(length + i) for i in range(n)]
    series = [
        np.sin(t / 3 + i) * (i + 1) + 0.2 * rng.normal(size=len(t)) for i, t in enumerate(steps)
    ]
    series[0][-2] = np.nan
    return Panel.of(series)


def fitted(given: Panel, horizon: int = 3, season: int = 2) -> Forecaster:
    settings = ForecastSettings(horizon=horizon, context=6, season=season)
    plan = Plan(iterations=4, batch_size=8)
    model = Architecture(cell="gru", hidden_size=4)
    return fit(given.before(2 * horizon), settings, model, plan)[0]


@pytest.fixture(scope="module")
def collected() -> tuple[Panel, Forecaster, ForecastData]:
    given = panel()
    model = fitted(given)
    names = [f"s{i}" for i in range(len(given))]
    days = np.datetime64("2024-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    times = [days[:n] for n in given.lengths]
    facts = RunFacts(title="t")
    return given, model, collect_forecasts(model, given, facts, windows=2, ids=names, times=times)


def test_what_is_collected_agrees_with_the_measures(collected: Any) -> None:
    given, model, data = collected
    measures = model.evaluate(given, 2)
    assert np.nanmean(data.errors(data.quantiles)) == pytest.approx(measures["mae"])
    assert np.isnan(data.actual).sum() == 1 and len(data.actual) == 16
    each = [np.nanmean(row) for row in data.shown_errors(data.quantiles)]
    assert np.mean(each) == pytest.approx(measures["mase"])
    for name, theirs in model.baselines(given, 2).items():
        each = [np.nanmean(row) for row in data.shown_errors(data.naive[name])]
        assert np.mean(each) == pytest.approx(theirs["mase"])
    assert set(data.naive) == {"last value", "seasonal naive"}


def test_an_estimator_and_arrays(collected: Any) -> None:
    given, *_ = collected
    series = [given.series(i) for i in range(len(given))]
    model = SequenceForecaster(horizon=3, context=6, hidden_size=4, iterations=2).fit(series)
    data = collect_forecasts(model, series, RunFacts(title="t"))
    assert (data.quantiles == model._fitted().backtest(given).quantiles).all()
    assert (
        data.names[:2] == ["1", "2"]
        and data.views[0].x[-1] == given.lengths[int(data.views[0].name) - 1]
    )


def test_errors_of_a_series_are_means_over_its_forecasts(collected: Any) -> None:
    *_, data = collected
    errors = data.errors(data.quantiles)
    found = module.of_series(data, errors)
    for i in range(len(data.names)):
        assert found[i] == pytest.approx(np.nanmean(errors[data.series == i]))
    two = replace(data, names=[*data.names, "without a forecast"])
    assert np.isnan(module.of_series(two, errors)[-1])


def test_the_series_drawn_are_the_worst_the_middle_and_the_best(collected: Any) -> None:
    given, _, data = collected
    found = module.of_series(data, data.shown_errors(data.quantiles))
    order = [f"s{i}" for i in np.argsort(-found)]
    assert [v.name for v in data.views] == [order[k] for k in (0, 1, 3, 4, 6, 7)]
    assert [v.place for v in data.views] == ["worst"] * 2 + ["middle"] * 2 + ["best"] * 2
    for view in data.views:
        i = int(view.name[1:])
        values = given.series(i)[-len(view.values) :]
        assert ((view.values == values) | np.isnan(values)).all()
        assert len(view.values) == 6 + module.LEAST_HISTORY and len(view.x) == 30
        assert view.x.dtype.kind == "M"
        (first, _), (second, given_there) = view.windows
        assert (first, second) == (24, 27) and given_there.shape == (3, 9)
        assert view.error == pytest.approx(found[i])
    assert module._chosen([4, 2]) == [(4, "worst"), (2, "best")]
    assert module._chosen([4]) == [(4, "worst")]


def test_what_follows_is_forecast_if_its_inputs_are_known(collected: Any, tmp_path: Path) -> None:
    given, model, data = collected
    wanted = model.predict_quantiles(given)
    for view in data.views:
        times, ahead = view.ahead
        # In another batch PyTorch may round a readout of float32 otherwise: some units of 1e-7.
        assert np.allclose(ahead, wanted[int(view.name[1:])], rtol=1e-5, atol=1e-5)
        assert (np.diff([view.x[-1], *times]) == np.timedelta64(1, "D")).all()
    page = read(tmp_path, data)
    assert "goes beyond the end of the series" in page.sections["forecasts"]
    end = f"{data.views[0].ahead[1][-1, 4]:.4g} is forecast 3 steps after the end"
    assert any(label.startswith("Series") and end in label for label in page.svg_texts)
    series = [given.series(i) for i in range(len(given))]
    known = Panel.of(series, future=[np.ones(len(x) + i) for i, x in enumerate(series)])
    views = collect_forecasts(fitted(known), known, RunFacts(title="t")).views
    assert {v.name for v in views if v.ahead is None} == {v.name for v in views} & {"1", "2", "3"}


def test_a_quantile_below_which_half_of_the_values_lie() -> None:
    data = task_examples.forecasts()
    known = np.isfinite(data.actual)
    for i in range(len(data.levels)):
        below = sum(
            float(a > q)
            for q, a in zip(data.actual[known], data.quantiles[:, :, i][known], strict=True)
        )
        found = module.below(data.actual, data.quantiles[:, :, i])
        assert found == pytest.approx(below / known.sum())
    tied = replace(data, quantiles=np.repeat(np.nan_to_num(data.actual)[:, :, None], 5, axis=2))
    assert module.below(tied.actual, tied.quantiles[:, :, 2]) == 0.5
    bands = [(low, high, round(share, 9)) for low, high, share in figures.bands(data.levels)]
    assert bands == [(0, 4, 0.8), (1, 3, 0.4)]


def test_the_page_says_what_the_data_hold(tmp_path: Path) -> None:
    data = task_examples.forecasts()
    page = read(tmp_path, data)
    rows = page.tables["Measures on the test part; the best of each in bold"]
    assert rows[0] == ["measure", "network", "last value", "made up"]
    assert rows[1][1:] == ["1.2000", "1.0000", "1.1000"] and rows[2][1:] == [
        "0.5000",
        "0.6000",
        "–",
    ]
    rows = page.tables["The mean absolute scaled error of each"][1:]
    for row in rows:
        errors = data.shown_errors(data.quantiles)[:, int(row[0]) - 1]
        assert float(row[1]) == pytest.approx(np.nanmean(errors), abs=6e-4)
    rows = page.tables["All series, the worst first"][1:]
    shown = [float(row[1]) for row in rows]
    assert len(rows) == 9 and shown == sorted(shown, reverse=True)
    lost = sum(min(float(row[2]), float(row[3])) < float(row[1]) for row in rows)
    assert f"A baseline is better in {lost} of 9 series." in page.sections["series"]
    labels = [label for label in page.svg_texts if label.startswith("Series made up")]
    assert len(labels) == 3 and "2 forecasts" in labels[0]


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_measures(tmp_path: Path) -> None:
    data = task_examples.forecasts()
    text = read(tmp_path, replace(data, evaluation={})).sections["measures"]
    assert "The test part was not measured." in text


@pytest.mark.usefixtures("undrawn")
def test_series_without_a_scale_are_counted(tmp_path: Path) -> None:
    data = task_examples.forecasts()
    constant = replace(data, scales=np.where(data.series == 3, 0.0, data.scales))
    page = read(tmp_path, constant)
    names = [row[0] for row in page.tables["All series, the worst first"][1:]]
    assert len(names) == 8 and "made up 3" not in names
    unscaled = read(tmp_path, replace(data, scales=np.full(len(data.actual), np.nan)))
    rows = unscaled.tables["All series, the worst first"]
    assert rows[0] == ["series", "mean absolute error", "last value", "made up"]
    text = "Left out, since they lack a value to compare with, and a history that changes: 1 of 9."
    assert text in page.sections["series"]


def test_one_series_one_step(tmp_path: Path) -> None:
    page = read(tmp_path, task_examples.forecasts(1, 1))
    assert {"steps", "series"}.isdisjoint(page.sections)  # the measures say it all


@pytest.mark.parametrize(
    "step", one_in(4, ["1m", "5m", "1h", "6h", "1D", "7D", "30D", "31D", "91D", "366D"])
)
@pytest.mark.filterwarnings("error")
def test_dates_at_any_distance_have_ticks(step: str) -> None:
    distance = np.timedelta64(int(step[:-1]), step[-1])
    for n in (8, 13, 24, 31, 36, 48, 59):
        x = np.datetime64("2021-11-28T07:50", "ns") + distance * np.arange(n)
        view = module.SeriesView(
            name="a", x=x, values=np.arange(float(n)), windows=[], place="best", error=1.0
        )
        assert "<svg" in task_examples.forecasts(2, 2)._card(0, view, wide=True).html()


@pytest.mark.slow
def test_long_series_make_no_large_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = Panel.of([rng.normal(size=1400) for _ in range(7)])
    data = collect_forecasts(fitted(given, 330), given, RunFacts(title="long"), windows=2)
    assert max(len(view.values) for view in data.views) <= module.MOST_STEPS
    read(tmp_path, data)
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_what_does_not_fit_is_refused() -> None:
    data = task_examples.forecasts()
    with pytest.raises(ValueError, match=r"quantiles has shape \[18, 4, 3\].*wanted \[M, h, 5\]"):
        replace(data, quantiles=data.quantiles[:, :, :3])
    with pytest.raises(ValueError, match=r"wanted 0\.5 among them"):
        replace(data, levels=(0.1, 0.3, 0.6, 0.7, 0.9))


def test_inputs_are_counted_in_words() -> None:
    given = panel()
    model = fitted(given)
    assert module._read(model, given) == "3 steps ahead from the last 6"
    series = Panel.of([np.arange(9)], past=[np.ones((9, 2))], future=[np.ones(12)])
    text = "3 steps ahead from the last 6, with 2 inputs past, 1 input known ahead"
    assert module._read(model, series) == text
