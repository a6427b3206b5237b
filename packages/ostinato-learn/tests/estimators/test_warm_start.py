"""`warm_start`: a fitted network goes on, and reads its input as it has learnt to."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn import SequenceClassifier, SequenceForecaster, SequenceTagger
from ostinato_learn.data import Panel

SMALL = {"hidden_size": 6, "iterations": 15, "random_state": 0}
UNMOVED = {"warm_start": True, "iterations": 1, "learning_rate": 1e-30, "optimizer": "sgd"}


def steps(n=24, seed=0):
    """Sequences whose sum says more than each step."""
    return np.random.default_rng(seed).normal(size=(n, 7, 2))


def classifier(**options):
    X = steps()
    model = SequenceClassifier(standardize=True, **{**SMALL, **options})
    return model, (X, np.where(X[:, :, 0].sum(1) > 0, "up", "down"))


def tagger(**options):
    X = steps()
    labels = np.where(X.cumsum(1)[:, :, 0] > 0, "above", "below")
    return SequenceTagger(**{**SMALL, **options}), (X, labels)


def of_words(**options):
    words = np.array(["the", "cat", "sat"])
    X = [words[np.random.default_rng(i).integers(0, 3, 5)].tolist() for i in range(20)]
    y = [[word == "cat" for word in x] for x in X]
    return SequenceTagger(**{**SMALL, **options}), (X, y)


def forecaster(**options):
    model = SequenceForecaster(horizon=2, context=8, season=4, **{**SMALL, **options})
    return model, (np.random.default_rng(1).normal(size=(5, 40, 2)).cumsum(1),)


MODELS = {f.__name__: f for f in (classifier, tagger, of_words, forecaster)}


def other(X):
    """Further sequences: of another scale, or with other words."""
    if isinstance(X, np.ndarray):
        return X[::-1] * 30 + 7
    return [["dog" if word == "the" else word for word in x] for x in X]


def answers(model, X):
    quantiles = getattr(model, "predict_quantiles", None)
    found = quantiles(X) if quantiles else model.predict_proba(X)
    return found if isinstance(found, np.ndarray) else np.concatenate(found)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_has_not_learnt_anything_new_answers_as_before(name):
    model, (X, *y) = MODELS[name]()
    unlike = other(X)
    before = answers(model.fit(X, *y), unlike)
    warm = model.set_params(**UNMOVED).fit(unlike, *y)
    np.testing.assert_array_equal(answers(warm, unlike), before)
    assert warm.n_iter_ == 1


@pytest.mark.parametrize("name", MODELS)
def test_without_it_fit_begins_anew(name):
    model, (X, *y) = MODELS[name]()
    first = answers(model.fit(X, *y), X)
    np.testing.assert_array_equal(answers(model.fit(X, *y), X), first)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("tagger", {"hidden_size": 5}, "hidden_size=6, not 5"),
        ("tagger", {"crf": True}, "crf=False, not True"),
        ("of_words", {"embedding_size": 9}, "embedding_size=100, not 9"),
        ("forecaster", {"cell": "lstm"}, "cell='gru', not 'lstm'"),
        ("forecaster", {"horizon": 3}, "horizon=2, not 3"),
        ("forecaster", {"season": 1}, "season=4, not 1"),
        ("forecaster", {"quantiles": (0.1, 0.5, 0.9)}, "quantiles="),
    ],
)
def test_another_network_is_refused(name, parameters, message):
    model, (X, *y) = MODELS[name](warm_start=True)
    before = answers(model.fit(X, *y), X)
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters).fit(X, *y)
    np.testing.assert_array_equal(answers(model, X), before)


def test_x_of_another_width_and_y_of_another_kind_are_refused():
    model, (X, y) = classifier(warm_start=True)
    model.fit(X, y)
    for wrong in (X[:, :, :1], np.concatenate([X, X], axis=2)):
        with pytest.raises(ValueError, match=r"X has [14] features; wanted the 2 of"):
            model.fit(wrong, y)
    several = np.stack([y == "up", y == "down"], axis=1).astype(int)
    with pytest.raises(ValueError, match="with one of its labels a sequence, and y has several"):
        model.fit(X, several)
    model.set_params(warm_start=False).fit(X, several).set_params(warm_start=True)
    with pytest.raises(ValueError, match="with several of its labels a sequence, and y has one"):
        model.fit(X, several[:, 0])


def test_other_labels_columns_and_inputs_are_refused():
    pd = pytest.importorskip("pandas")
    model, (X, y) = tagger(warm_start=True)
    with pytest.raises(ValueError, match=r"it had \['above', 'below'\], and y has \['left'"):
        model.fit(X, y).fit(X, np.where(X[:, :, 1] > 0, "left", "right"))
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in X]
    model.set_params(warm_start=False).fit(frames, y).set_params(warm_start=True)
    with pytest.raises(ValueError, match=r"the columns \['a', 'b'\], and X has \['b', 'a'\]"):
        model.fit([frame[["b", "a"]] for frame in frames], y)

    model, (series,) = forecaster(warm_start=True)
    model.fit(series)
    with pytest.raises(ValueError, match="X has 1 features, but SequenceForecaster is expect"):
        model.fit(Panel.of(list(series[:, :, 0]), static=np.ones((5, 1))))
