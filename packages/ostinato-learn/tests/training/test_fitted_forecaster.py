from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forecasting_examples import CONTEXT, HORIZON, LENGTHS, bare, fit, panel

from ostinato_learn.data.series.panel import Panel
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.metrics import forecasts as forecast_metrics
from ostinato_learn.metrics import naive_forecasts as forecast_baselines
from ostinato_learn.models.saved_model import load, save
from ostinato_learn.tasks.forecast import fit as forecast
from ostinato_learn.tasks.forecast.loss import ForecastSettings
from ostinato_learn.tasks.forecast.model import Forecaster, in_turn
from ostinato_learn.training import Plan


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return fit(panel())[0]


def test_the_true_future_of_each_series_is_forecast(fitted):
    given = panel()
    answer = fitted.predict_quantiles(given)
    assert answer.shape == (4, HORIZON, 9) and answer.dtype == np.float64
    assert (np.diff(answer, axis=2) > 0).all()
    np.testing.assert_array_equal(fitted.predict(given), answer[:, :, 4])


def test_a_backtest_is_the_forecast_of_that_day(fitted):
    """Cut off `back` steps before the end, `predict` says what `backtest` says of that cutoff."""
    given = panel(missing=0)
    made = fitted.backtest(given, windows=3, stride=2)
    for back in (0, 2, 4):
        long = [i for i, T in enumerate(LENGTHS) if HORIZON + back < T]
        earlier = fitted.predict_quantiles(select(given, long).before(HORIZON + back))
        for i, answer in zip(long, earlier, strict=True):
            (at,) = np.flatnonzero(
                (made.series == i) & (made.cutoffs == LENGTHS[i] - HORIZON - back)
            )
            # float32 products, whose rounding may differ with the rows of a batch
            np.testing.assert_allclose(made.quantiles[at], answer, rtol=1e-5)
            wanted = given.series(i)[made.cutoffs[at] :][:HORIZON]
            np.testing.assert_array_equal(made.actual[at], wanted)


def select(given: Panel, which: list[int]) -> Panel:
    def cut(values, offsets):
        return [values[offsets[i] : offsets[i + 1]] for i in which]

    return Panel.of(
        cut(given.target, given.offsets),
        past=cut(given.past, given.offsets),
        future=cut(given.future, given.future_offsets),
        static=given.static[which],
    )


def test_no_value_after_a_cutoff_changes_its_forecast(fitted):
    """Target and past inputs are replaced from each cutoff on: its forecast keeps its bits."""
    given = panel()
    made = fitted.backtest(given, windows=4, stride=1)
    changed = 0
    for back in range(4):
        target, past = given.target.copy(), given.past.copy()
        for i, T in enumerate(LENGTHS):
            start = given.offsets[i] + max(T - HORIZON - back, 0)
            end = given.offsets[i + 1]
            target[start:end] = [1e6, np.nan, -1e6, 3.0, 0.0, 1e9][: end - start]
            past[start:end] = 1e6
        other = fitted.quantiles_after(
            replace(given, target=target, past=past), made.series, made.cutoffs
        )
        at = made.cutoffs == np.array(LENGTHS)[made.series] - HORIZON - back
        np.testing.assert_array_equal(other[at], made.quantiles[at])
        later = made.cutoffs > np.array(LENGTHS)[made.series] - HORIZON - back
        changed += (other[later] != made.quantiles[later]).any()
    assert changed  # the change is one that a later cutoff sees


def test_values_at_the_cutoff_are_seen_and_known_inputs_ahead_are_used(fitted):
    given = panel()
    before = fitted.predict_quantiles(given)
    rows = {
        "target": given.offsets[1:] - 1,
        "past": given.offsets[1:] - 1,
        "future": given.future_offsets[1:] - 1,
        "static": np.arange(4),
    }
    for name, row in rows.items():
        values = getattr(given, name).copy()
        values[row] += 2.0
        after = fitted.predict_quantiles(replace(given, **{name: values}))
        assert (after != before).any((1, 2)).all(), name


def test_measures_are_those_of_the_backtest(fitted):
    given = panel()
    made = fitted.backtest(given, windows=2)
    came = fitted.evaluate(given, windows=2)
    scales = [
        forecast_metrics.seasonal_scale(given.series(i)[:t], 2)
        for i, t in zip(made.series, made.cutoffs, strict=True)
    ]
    wanted = forecast_metrics.measure(made.actual, made.quantiles, fitted.levels, scales)
    assert came == wanted
    assert came["n"] == np.isfinite(made.actual).sum()
    assert fitted.evaluate(given, windows=2, season=1)["mase"] != came["mase"]


def test_baselines_are_measured_on_the_same_windows(fitted):
    given = panel()
    made = fitted.backtest(given, windows=2)
    for season, name in ((1, "last value"), (2, "seasonal naive")):
        answers = [
            forecast_baselines.seasonal_naive(given.series(i)[:t], HORIZON, fitted.levels, season)
            for i, t in zip(made.series, made.cutoffs, strict=True)
        ]
        wanted = fitted.evaluate(given, 2, season=2, answer=in_turn(np.array(answers)))
        assert fitted.baselines(given, windows=2)[name] == wanted
    assert list(fitted.baselines(given, season=1)) == ["last value"]


def test_a_saved_forecaster_forecasts_the_same_bits(fitted, tmp_path):
    save(fitted, tmp_path / "m", {"horizon": HORIZON}, 8)
    again = load(tmp_path / "m")
    assert (again.windows, again.season, again.levels) == (
        fitted.windows,
        fitted.season,
        fitted.levels,
    )
    one, other = (each.predict_quantiles(panel()) for each in (fitted, again))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("fitted", "context", 0, "context has 0"),
        ("fitted", "context", "6", "context has '6'"),
        ("fitted", "season", 0.5, "season has 0.5"),
        ("fitted", "season", 5, "1 lags are not the network's"),
        ("fitted", "scaling", "none", "'scaling' is 'none'"),
        ("fitted", "past", {"mean": [], "deviation": []}, "windows of 5 inputs"),
        ("fitted", "extra", 1, "extra"),
        ("net", "horizon", 4, "horizon is 4 for a network of 3"),
        ("net", "quantiles", [0.9, 0.5], "wanted increasing numbers"),
        ("net", "quantiles", 0.5, "wanted increasing numbers"),
        ("net", "cell", "tree", "cell='tree'"),
    ],
)
def test_a_damaged_configuration_is_refused(fitted, tmp_path, part, name, value, message):
    save(fitted, tmp_path / "m", {}, 8)
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    config[part][name] = value
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "m")


def test_the_context_of_a_saved_forecaster_is_kept_where_it_was_the_default(tmp_path):
    made, _ = fit(panel(), context=None)
    save(made, tmp_path / "m", {}, 8)
    assert load(tmp_path / "m").windows.context == made.windows.context == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bare, r"X has 1 features, but SequenceForecaster is expecting 3 features"),
        (
            lambda p: replace(p, future=np.zeros((len(p.future), 2))),
            "future has 2 columns; wanted 1",
        ),
        (lambda p: replace(p, static=np.zeros((4, 0))), "static has 0 columns; wanted 2"),
        (lambda p: panel(ahead=2), r"future\[0\] reaches 2 steps beyond the end of series 0"),
        (
            lambda p: replace(p, target=np.where(np.arange(60) < 43, p.target, np.nan)),
            f"series 3 has no value in its last {CONTEXT} steps",
        ),
    ],
)
def test_series_that_cannot_be_forecast_are_refused(fitted, change, message):
    with pytest.raises(ValueError, match=message):
        fitted.predict(change(panel()))


def test_a_backtest_needs_no_known_inputs_beyond_the_end(fitted):
    assert len(fitted.backtest(panel(ahead=0)).series) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "windows=0; wanted a whole number, 1 or more"),
        ({"windows": 1, "stride": -1}, "stride=-1; wanted a whole number"),
        ({"windows": 1.5}, r"windows=1\.5; wanted a whole number"),
    ],
)
def test_backtests_that_make_no_sense_are_refused(fitted, options, message):
    with pytest.raises(ValueError, match=message):
        fitted.backtest(panel(), **options)


def test_series_too_short_for_a_backtest_are_refused():
    made, _ = fit(bare(panel()))
    with pytest.raises(ValueError, match="the longest of 1 has 3 steps"):
        made.evaluate(Panel.of([[1.0, 2.0, 3.0]]))


@pytest.mark.parametrize(
    ("lengths", "settings", "message"),
    [
        ((2, 3), {}, "the longest of 2 has 3 steps; wanted more than horizon"),
        ((6, 5), {}, r"validation_windows=1 and horizon=3 need a series of 7 steps .* has 6"),
        ((20,), {"validation_windows": 6}, "need a series of 22 steps"),
    ],
)
def test_series_too_short_to_learn_from_are_refused(lengths, settings, message):
    given = Panel.of([np.arange(float(T)) for T in lengths])
    with pytest.raises(ValueError, match=message):
        fit(given, **settings)


def test_short_series_are_learnt_from_without_validation():
    given = Panel.of([np.arange(4.0), np.arange(5.0)])
    made, history = fit(given, validation_windows=0)
    assert history.best_iteration is None
    assert made.predict(given).shape == (2, HORIZON)


def test_constant_series_are_forecast_finitely_and_in_order():
    given = Panel.of([np.full(20, c) for c in (0.0, 0.3, -1e30, 1e-30)])
    made, _ = fit(given, {"iterations": 150})
    answer = made.predict_quantiles(given)
    assert (np.diff(answer, axis=2) >= 0).all()
    # what never moved is not expected to move by more than a part of its size
    np.testing.assert_allclose(answer[1:, :, 4] / [[0.3], [-1e30], [1e-30]], 1, atol=0.1)


def test_the_start_of_a_network_is_the_plans_and_nothing_elses():
    import torch

    torch.manual_seed(1)
    one, state = fit(panel())[0], torch.get_rng_state()
    torch.manual_seed(2)
    other = fit(panel())[0]
    for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_init_for_classifiers_is_refused():
    with pytest.raises(ValueError, match="init='notebook' is for classifiers"):
        forecast.fit(panel(), ForecastSettings(), Architecture(init="notebook"), Plan())


@pytest.mark.slow
def test_it_learns_what_a_season_and_a_known_input_say():
    """y = season + 3 · known input + noise of 0.1: the error ends near that of the noise."""
    rng = np.random.default_rng(0)
    T, ahead = 150, 4
    future = rng.normal(size=(20, T + ahead))
    phase = rng.integers(0, 6, size=20)
    season = np.sin(2 * np.pi * (np.arange(T + ahead) + phase[:, None]) / 6)
    y = 5 + 2 * season + 3 * future + 0.1 * rng.normal(size=future.shape)
    made, _ = forecast.fit(
        Panel.of(list(y[:, :T]), future=list(future)),
        ForecastSettings(horizon=4, context=12, season=6),
        Architecture(cell="gru", hidden_size=32),
        Plan(
            iterations=600,
            batch_size=64,
            optimizer="adamw",
            learning_rate=5e-3,
            schedule="cosine",
            clip_norm=1.0,
            eval_every=100,
        ),
    )
    error = np.abs(made.predict(Panel.of(list(y[:, :T]), future=list(future))) - y[:, T:]).mean()
    assert error < 0.5  # 0.08 is the noise's; without the known input it is above 2


@pytest.mark.slow
@pytest.mark.process
def test_it_forecasts_without_scikit_learn(fitted, tmp_path):
    save(fitted, tmp_path / "m", {}, 8)
    script = f"""
        import sys
        sys.modules["sklearn"] = None  # an import of it fails
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from forecasting_examples import fit, panel
        from ostinato_learn.tasks.forecast import fit as forecast
        from ostinato_learn.tasks.forecast.model import Forecaster
        from ostinato_learn.models.saved_model import load, save
        assert load({str(tmp_path / "m")!r}).predict(panel()).shape == (4, 3)
        fit(panel(), {{"iterations": 1}})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
