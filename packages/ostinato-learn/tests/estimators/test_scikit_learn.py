"""What scikit-learn wants of an estimator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from estimator_examples import expected_failures, small, up_or_down, weights
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from ostinato_learn import SequenceClassifier, load
from ostinato_learn.data import Ragged

N_PASSED = 50  # of scikit-learn 1.9: 59


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_is_a_classifier_of_scikit_learn():
    estimator = SequenceClassifier(hidden_size=8, iterations=30, learning_rate=0.03)
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == expected_failures("SequenceClassifier")
    assert sum(result["status"] == "passed" for result in results) >= N_PASSED


def test_clone_and_grid_search_and_pipeline():
    X, y = up_or_down()
    model = small(iterations=60)
    assert clone(model).get_params() == model.get_params()
    grid = {"hidden_size": [2, 8], "learning_rate": np.array([0.02])}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.8
    search.best_estimator_.predict(X)
    ragged = list(X)
    assert cross_val_score(model, ragged, y, cv=2, error_score="raise").mean() > 0.8
    assert cross_val_score(model, Ragged.from_list(ragged), y, cv=2, error_score="raise").all()
    pipeline = make_pipeline(FunctionTransformer(lambda X: 2 * X), clone(model)).fit(X, y)
    assert pipeline.score(X, y) > 0.8


def test_an_object_array_of_sequences_is_validated_across():
    X, y = up_or_down()
    ragged = np.empty(len(X), dtype=object)
    ragged[:] = [x[i % 2 :] for i, x in enumerate(X)]
    model = small(iterations=60)
    assert cross_val_score(model, ragged, y, cv=2, error_score="raise").mean() > 0.7
    grid = GridSearchCV(model, {"hidden_size": [4, 8]}, cv=2, error_score="raise").fit(ragged, y)
    assert grid.best_score_ > 0.7


def test_columns_of_a_data_frame_are_known_again(tmp_path):
    pandas = pytest.importorskip("pandas")
    X, y = up_or_down()
    frame = pandas.DataFrame(X[:, :, 0], columns=[f"t{i}" for i in range(X.shape[1])])
    model = small(iterations=2).fit(frame, y)
    assert model.feature_names_in_.tolist() == list(frame.columns)
    model.save(tmp_path / "m")
    for each in (model, load(tmp_path / "m")):
        each.predict(frame)
        with pytest.raises(ValueError, match="feature names should match"):
            each.predict(frame[frame.columns[::-1]])
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            each.predict(X)
    assert not hasattr(model.fit(X, y), "feature_names_in_")


def test_logarithms_of_probabilities():
    X, y = up_or_down()
    model = small(iterations=2).fit(X, y)
    log = model.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(log), model.predict_proba(X), rtol=1e-12)
    with torch.no_grad():
        model.net_.readout.bias[0] = 1e4
    assert np.isfinite(model.predict_log_proba(X)).all()
    assert (model.predict_proba(X) == 0).any()


def test_a_warm_start_goes_on_from_the_weights():
    X, y = up_or_down()
    cold = small(iterations=40).fit(X, y)
    first = cold.history_["loss"][0]
    warm = cold.set_params(warm_start=True).fit(X, y)
    assert warm.history_["loss"][0] < 0.9 * first
    assert warm.n_iter_ == 40
    again = small(iterations=40, warm_start=True).fit(X, y)  # nothing to go on from
    assert again.history_["loss"][0] == first


@pytest.mark.parametrize(
    ("parameters", "labels", "message"),
    [
        ({"hidden_size": 9}, None, "hidden_size=8, not 9"),
        ({"cell": "gru"}, None, "cell='rnn', not 'gru'"),
        ({}, ["up", "down", "still"], "has the same classes as in the previous call"),
    ],
)
def test_a_warm_start_with_another_network_is_refused(parameters, labels, message):
    X, y = up_or_down()
    model = small(iterations=2, warm_start=True).fit(X, y)
    before = weights(model)
    y = y if labels is None else np.array(labels)[np.arange(len(X)) % len(labels)]
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters).fit(X, y)
    assert weights(model) == before


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_before_fit_there_is_nothing_to_ask(method):
    with pytest.raises(NotFittedError):
        getattr(SequenceClassifier(), method)(np.zeros((1, 2, 3)))


def test_before_fit_there_is_nothing_to_save(tmp_path):
    with pytest.raises(NotFittedError):
        SequenceClassifier().save(tmp_path / "m")
    with pytest.raises(NotFittedError):
        SequenceClassifier().evaluate(np.zeros((1, 2, 3)), [0])
