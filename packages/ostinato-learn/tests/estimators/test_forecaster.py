"""`SequenceForecaster`: what scikit-learn wants of it, and what its methods say."""

from __future__ import annotations

import pickle
from inspect import getdoc, signature

import numpy as np
import pytest
from estimator_examples import expected_failures
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from ostinato_learn import SequenceForecaster, load, runtime, training
from ostinato_learn.data.series.panel import as_panel
from ostinato_learn.hyperparameters import Architecture, Training, declarations
from ostinato_learn.metrics import forecasts as forecast_metrics
from ostinato_learn.tasks.forecast.loss import ForecastSettings

RAN = 35  # with scikit-learn 1.6 to 1.9, without those that it skips


def small(**parameters) -> SequenceForecaster:
    defaults = {"horizon": 3, "context": 8, "hidden_size": 8, "iterations": 30, "batch_size": 16}
    return SequenceForecaster(**defaults | parameters)


def waves(n: int = 6, T: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    phase = rng.integers(0, 6, size=(n, 1))
    return 3 + np.sin(2 * np.pi * (np.arange(T) + phase) / 6) + 0.1 * rng.normal(size=(n, T))


@pytest.mark.filterwarnings("ignore")
def test_it_is_an_estimator_of_scikit_learn():
    estimator = small(horizon=1, context=4, hidden_size=4, iterations=5, validation_windows=0)
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == expected_failures("SequenceForecaster")
    assert sum(result["status"] == "passed" for result in results) >= RAN - len(failed)


def test_parameters_are_the_declared_ones():
    own = {"quantiles", "random_state", "verbose"}
    declared = {
        each.name
        for kind in (ForecastSettings, Architecture, Training)
        for each in declarations(kind)
    }
    of_others = {"init", "similar_lengths", "window"}
    wanted = (declared - {"seed"} - of_others) | own
    assert wanted <= signature(SequenceForecaster).parameters.keys()
    for name in signature(SequenceForecaster).parameters:
        assert f"\n    {name}: " in getdoc(SequenceForecaster), name
    assert "{hyperparameters}" not in SequenceForecaster.__doc__


def test_it_forecasts_waves_better_than_the_baselines():
    X = waves(n=30, T=48)
    model = small(season=6, context=18, hidden_size=16, iterations=300, learning_rate=0.01)
    came = model.fit(X[:, :-3]).evaluate(X)
    naive = model.baselines(X)
    for measure in ("mase", "wql"):
        assert came[measure] < 0.95 * min(each[measure] for each in naive.values())
    assert came["n"] == naive["last value"]["n"] == 90


def test_series_of_different_lengths_missing_values_and_inputs():
    rng = np.random.default_rng(0)
    lengths = (40, 25, 33)
    X = [rng.normal(size=(T, 2)) for T in lengths]
    X[1][3:6, 0] = np.nan
    inputs = {
        "future": [rng.normal(size=(T + 3, 1)) for T in lengths],
        "static": np.eye(3),
    }
    model = small().fit(X, **inputs)
    assert model.n_features_in_ == 2
    assert model.predict(X, **inputs).shape == (3, 3)
    answer = model.predict_quantiles(X, **inputs)
    assert answer.shape == (3, 3, 9) and (np.diff(answer, axis=2) >= 0).all()
    assert np.isfinite(model.score(X, **inputs))
    assert model.evaluate(X, windows=2, stride=1, **inputs)["n"] == 18
    assert model.baselines(X, windows=2, stride=1)["last value"]["n"] == 18
    with pytest.raises(ValueError, match="static has 0 columns; wanted 3"):
        model.predict(X, future=inputs["future"])


def test_a_single_series_is_one_row():
    x = waves(1)[0]
    model = small().fit(x)
    assert model.predict(x).shape == (1, 3)
    np.testing.assert_array_equal(model.predict(x), model.predict(x[None]))


def test_the_median_is_predicted_and_other_quantiles_on_demand():
    X = waves()
    model = small(quantiles=(0.05, 0.5, 0.6)).fit(X)
    assert model.predict_quantiles(X).shape == (6, 3, 3)
    np.testing.assert_array_equal(model.predict_quantiles(X)[:, :, 1], model.predict(X))
    assert not any(name.startswith("coverage") for name in model.evaluate(X))


def test_the_score_is_minus_the_weighted_quantile_loss():
    X = waves()
    model = small().fit(X[:, :-3])
    assert model.score(X) == -model.evaluate(X)["wql"]
    after = model.score(X[:, :-3], X[:, -3:])
    assert after == pytest.approx(model.score(X))
    answers = model.predict_quantiles(X[:, :-3])
    assert after == -forecast_metrics.wql(X[:, -3:], answers, model.quantiles)
    assert model.score(X[:, :-3], X[:, -3:] + 9) < after < 0
    one = small(horizon=1).fit(X)
    assert one.score(X[:, :-1], X[:, -1]) == one.score(X[:, :-1], X[:, -1:])


def test_clone_and_grid_search():
    X = waves()
    model = small(iterations=5)
    assert clone(model).get_params() == model.get_params()
    grid = {"hidden_size": [2, 4], "quantiles": [(0.5,), (0.1, 0.5, 0.9)]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X)
    assert np.isfinite(search.best_score_)
    assert cross_val_score(model, list(X), cv=2, error_score="raise").shape == (2,)


def test_a_loaded_forecaster_is_the_same(tmp_path):
    X = waves()
    model = small(quantiles=[0.1, 0.5, 0.9], season=6, random_state=3).fit(X)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.predict_quantiles(X).tobytes() == model.predict_quantiles(X).tobytes()
    assert again.get_params() == model.get_params() | {"quantiles": (0.1, 0.5, 0.9)}
    assert again.n_iter_ == 30
    assert again.evaluate(X) == model.evaluate(X)
    assert pickle.loads(pickle.dumps(model)).predict(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.parametrize(
    ("shift", "nonnegative", "whole"), [(0, True, True), (0.25, True, False), (-1, False, True)]
)
def test_forecasts_are_whole_and_not_negative_if_the_past_is(shift, nonnegative, whole, tmp_path):
    X = np.random.default_rng(0).poisson(1.0, (6, 40)) + float(shift)
    X[0, 5] = np.nan
    free = small(bounds="any").fit(X).predict_quantiles(X)
    assert (free < 0).any() and (free != np.rint(free)).any()
    wanted = np.rint(free) if whole else free
    wanted = np.maximum(wanted, 0) if nonnegative else wanted
    model = small().fit(X)
    model.save(tmp_path / "m")
    for each in (model, load(tmp_path / "m"), runtime.load(tmp_path / "m")):
        found = each.predict_quantiles(X)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)  # module, graph
        assert not np.signbit(found[found == 0]).any()
        measured = each.evaluate(X, windows=2)
        of_end = each.predict_quantiles(X[:, :-3]), each.predict_quantiles(X[:, :-6])
        actual = np.concatenate([X[:, -3:], X[:, -6:-3]])
        loss = forecast_metrics.pinball(actual, np.concatenate(of_end), model.quantiles)
        assert measured["pinball"] == pytest.approx(loss, rel=1e-12)
    naive = model._fitted().naive(1)["last value"]
    (last,) = naive(as_panel(X[1:2]), (np.array([0]), np.array([40])))
    assert (last >= 0).all() or not nonnegative
    assert (last == np.rint(last)).all() or not whole


def test_parameters_of_a_later_version_are_refused(tmp_path):
    small(iterations=1).fit(waves()).save(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    file.write_text(file.read_text().replace('"verbose"', '"loudness"'))
    with pytest.raises(ValueError, match=r"'loudness'.*does not know"):
        load(tmp_path / "m")


def test_random_state_decides_the_training():
    X = waves()
    same = [small(random_state=1).fit(X).predict(X) for _ in range(2)]
    assert same[0].tobytes() == same[1].tobytes()
    assert (small(random_state=2).fit(X).predict(X) != same[0]).any()
    drawn = [small(random_state=np.random.RandomState(7)).fit(X).predict(X) for _ in range(2)]
    assert drawn[0].tobytes() == drawn[1].tobytes()
    small(random_state=None, iterations=1).fit(X)


def test_a_twentieth_of_the_updates_warms_up_unless_configured():
    X = waves()
    plan = {"iterations": 40, "eval_every": 1}
    assert small(**plan).fit(X).hyperparameters_["warmup"] == 2
    plan["schedule"] = "constant"
    assert small(**plan).fit(X).hyperparameters_["warmup"] == 0
    rates = small(**plan, warmup=4).fit(X).history_["learning_rate"]
    assert rates[:4] == pytest.approx([5e-4, 1e-3, 1.5e-3, 2e-3])


def test_epochs_are_passes_over_all_windows():
    X = waves(n=2, T=30)  # cutoffs 4 … 24 of each series, whose last horizon is kept
    model = small(iterations=None, epochs=2, batch_size=10).fit(X)
    assert model.n_iter_ == 9  # ⌈2 · 2 · 21 / 10⌉


def test_callbacks_and_resume(tmp_path):
    X = waves()
    small().fit(X, callbacks=[training.Checkpoint(tmp_path / "c", every=10)])
    again = small().fit(X, resume=tmp_path / "c")
    assert again.predict(X).tobytes() == small().fit(X).predict(X).tobytes()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"horizon": 0}, "horizon=0"),
        ({"context": 2.5}, "context=2.5"),
        ({"scaling": "log"}, "scaling='log': wanted one of 'std', 'mean_abs'"),
        ({"quantiles": (0.1, 0.9)}, "0.5, the median"),
        ({"validation_windows": -1}, "validation_windows=-1"),
        ({"cell": "tree"}, "cell='tree'"),
        ({"epochs": 1.0}, "both given"),
        ({"warmup": -1}, "warmup=-1"),
        ({"horizon": 40}, "longest of 6 has 40 steps"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(waves())


@pytest.mark.parametrize("method", ["predict", "predict_quantiles", "score", "evaluate"])
def test_before_fit_there_is_nothing_to_ask(method):
    with pytest.raises(NotFittedError):
        getattr(SequenceForecaster(), method)(waves())


def test_before_fit_there_is_nothing_to_save(tmp_path):
    with pytest.raises(NotFittedError):
        SequenceForecaster().save(tmp_path / "m")


def test_a_panel_is_taken_as_it_is():
    X = waves()
    model = small().fit(as_panel(X))
    np.testing.assert_array_equal(model.predict(as_panel(X)), model.predict(X))


def test_columns_are_known_by_their_names(tmp_path):
    pd = pytest.importorskip("pandas")
    generator = np.random.default_rng(0)
    X = [pd.DataFrame(generator.normal(size=(30, 2)), columns=["sales", "temp"]) for _ in range(4)]
    future = [pd.DataFrame(generator.normal(size=(32, 2)), columns=["a", "b"]) for _ in X]
    static = pd.DataFrame(generator.normal(size=(4, 2)), columns=["size", "age"])
    given = {"future": future, "static": static}
    model = SequenceForecaster(horizon=2, hidden_size=4, iterations=3).fit(X, **given)
    assert model.feature_names_in_.tolist() == ["sales", "temp"]
    model.save(tmp_path / "m")
    for each in (model, load(tmp_path / "m"), runtime.load(tmp_path / "m")):
        np.testing.assert_allclose(each.predict(X, **given), model.predict(X, **given), rtol=1e-5)
        for changed, message in (
            ({"X": [x[["temp", "sales"]] for x in X]}, "must be in the same order"),
            ({"X": [x.rename(columns={"temp": "rain"}) for x in X]}, "unseen at fit time:\n- rain"),
            ({"future": [f[["b", "a"]] for f in future]}, "names of future should match"),
            ({"static": static[["age", "size"]]}, "names of static should match"),
        ):
            with pytest.raises(ValueError, match=message):
                each.predict(**{"X": X, **given, **changed})
        with pytest.warns(UserWarning, match="static does not have valid feature names"):
            each.predict(X, future=future, static=static.to_numpy())
    with pytest.raises(ValueError, match=r"X\[1\] has the columns \['temp', 'sales'\]"):
        model.fit([X[0], X[1][["temp", "sales"]]])
    model.set_params(warm_start=True)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.fit([x[["temp", "sales"]] for x in X], **given)
    with pytest.raises(ValueError, match="names of static should match"):
        model.fit(X, future=future, static=static[["age", "size"]])


def test_what_pandas_calls_missing_is_missing():
    pd = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(4, 20))
    X[1, 3] = np.nan
    frame = pd.DataFrame(X).convert_dtypes()
    frame.iloc[1, 3] = pd.NA
    model = SequenceForecaster(horizon=2, hidden_size=4, iterations=3)
    wanted = model.fit(X).predict(X)
    assert frame.to_numpy().dtype == object
    np.testing.assert_array_equal(model.fit(frame).predict(frame), wanted)
