"""`SequenceTagger`."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from estimator_examples import expected_failures
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import ostinato_learn
from ostinato_learn import SequenceTagger, load
from ostinato_learn.data import Ragged
from ostinato_learn.metrics.spans import to_iob2
from ostinato_learn.models import saved_model
from ostinato_learn.tasks.tag import estimator as module
from ostinato_learn.training import Plan
from zoo.suites import one_in

N_PASSED = 39  # of scikit-learn 1.9, where pandas is not installed


def above_or_below(n: int = 60, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(rng.integers(2, 7), 1)) for _ in range(n)]
    return X, [np.where(x[:, 0].cumsum() > 0, "above", "below") for x in X]


def small(**parameters) -> SequenceTagger:
    defaults = {"cell": "gru", "hidden_size": 8, "iterations": 60, "learning_rate": 0.03}
    return SequenceTagger(**defaults | parameters)


def weights(model: SequenceTagger) -> bytes:
    return b"".join(w.numpy().tobytes() for w in model.net_.state_dict().values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_it_is_an_estimator_of_scikit_learn():
    results = check_estimator(small(iterations=20, hidden_size=4), on_fail=None, on_skip=None)
    of = {status: [] for status in ("passed", "failed", "skipped")}
    for result in results:
        of[result["status"]].append(result["check_name"])
    assert set(of["failed"]) == expected_failures("SequenceTagger")
    assert len(of["passed"]) >= N_PASSED, of["skipped"]


def test_parameters_are_those_of_the_plan():
    parameters = SequenceTagger().get_params()
    assert Plan().as_dict().keys() - parameters.keys() == {"seed"}
    for cls in (SequenceTagger, module.TaggerSettings):
        for name in inspect.signature(cls).parameters:
            assert name in parameters
    for name in inspect.signature(SequenceTagger).parameters:
        assert inspect.getdoc(SequenceTagger).count(f"\n    {name}: ") == 1, name
    assert max(map(len, SequenceTagger.__doc__.splitlines())) <= 100


def test_cross_validation_takes_lists_of_sequences():
    X, y = above_or_below()
    model = small(iterations=40, hidden_size=6)
    assert cross_val_score(model, X, y, cv=3, error_score="raise").min() > 0.8
    folds = GroupKFold(3)
    groups = np.arange(60) // 5
    assert cross_val_score(model, X, y, cv=folds, groups=groups, error_score="raise").min() > 0.8
    grid = GridSearchCV(model, {"crf": [False, True]}, cv=2, error_score="raise").fit(X, y)
    assert grid.best_score_ > 0.8


def test_the_forms_of_x_give_the_same_model():
    X = np.random.default_rng(0).normal(size=(30, 5, 1)).astype(np.float32)
    y = np.where(X.cumsum(1)[:, :, 0] > 0, "above", "below")
    wanted = weights(small(iterations=5).fit(X, y))
    for form in (list(X), list(X[:, :, 0]), X.astype(np.float64), torch.tensor(X), X.tolist()):
        assert weights(small(iterations=5).fit(form, y.tolist())) == wanted
    lists, labels = above_or_below()
    one, other = small(iterations=5).fit(lists, labels), small(iterations=5)
    assert weights(other.fit(Ragged.from_list(lists), labels)) == weights(one)


@pytest.mark.parametrize(
    "labels",
    [np.array(["no", "yes"]), np.array([3, 7]), np.array([False, True]), np.array([-1.0, 1.0])],
    ids=lambda a: a.dtype.str,
)
def test_labels_keep_their_values_and_type_also_through_a_file(labels, tmp_path):
    X, y = above_or_below()
    y = [labels[(each == "above").astype(int)] for each in y]
    model = small().fit(X, y)
    assert model.score(X, y) > 0.85
    model.save(tmp_path / "model")
    for each in (model, load(tmp_path / "model")):
        assert each.predict(X)[0].dtype == labels.dtype
        assert each.classes_.tolist() == labels.tolist()
        assert each.evaluate(X, y)["accuracy"] == pytest.approx(each.score(X, y))


def test_the_score_is_the_share_of_right_steps():
    X, y = above_or_below()
    model = small(iterations=10).fit(X, y)
    right = np.concatenate(model.predict(X)) == np.concatenate(y)
    assert model.score(X, y) == pytest.approx(right.mean())
    one = X[0], y[0]
    assert model.score(*one) == pytest.approx((model.predict(X[0]) == y[0]).mean())
    assert model.score([X[0]], [["left"] * len(X[0])]) == 0


def test_words_and_spans(tmp_path):
    X = [["Emma", "saw", "Jane", "Fairfax"], ["Jane", "Fairfax", "and", "Emma", "walked"]] * 4
    y = [["S-PER", "O", "B-PER", "E-PER"], ["B-PER", "E-PER", "O", "S-PER", "O"]] * 4
    model = small(crf=True, scheme="iobes", embedding_size=8, character_size=4).fit(X, y)
    assert model.classes_.tolist() == ["B-PER", "I-PER", "O"]
    assert [a.tolist() for a in model.predict(X)] == [to_iob2(tags, "iobes") for tags in y]
    assert model.predict(["Jane", "Fairfax"]).tolist() == ["B-PER", "I-PER"]
    measures = model.evaluate(X, y)
    assert (measures["f1"], measures["accuracy"], measures["unknown"]) == (1, 1, 0)
    assert not hasattr(model, "n_features_in_")
    model.save(tmp_path / "m")
    again = ostinato_learn.load(tmp_path / "m")
    assert again.get_params() == model.get_params() and again.n_iter_ == model.n_iter_
    assert np.array_equal(again.predict_proba(X)[1], model.predict_proba(X)[1])
    with pytest.raises(ValueError, match="sequence 1 of y: the tag 'E-PER' at step 0"):
        model.fit(X, [y[0], ["E-PER", "E-PER", "O", "S-PER", "O"], *y[2:]])


def test_columns_of_a_data_frame_are_known_again(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"])
    labels = (frame["a"].cumsum() > 0).to_numpy()
    model = small(iterations=2).fit(frame, labels)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert model.predict(frame).shape == (30,)
    model.save(tmp_path / "m")
    for each in (model, load(tmp_path / "m")):
        with pytest.raises(ValueError, match="feature names should match"):
            each.predict(frame[["b", "a"]])
    assert not hasattr(model.fit(frame.to_numpy(), labels), "feature_names_in_")


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    one_in(
        2,
        [
            ({"batch_size": 60}, 30),  # 30 epochs of one batch
            ({}, 225),  # of 7.5: an eighth of 60 examples is 8, the least
            ({"epochs": 2}, 15),
            ({"iterations": 3}, 3),
        ],
        of_several=True,
    ),
)
def test_the_length_follows_the_data_where_none_is_given(parameters, wanted):
    X, y = above_or_below()
    model = small(**{"iterations": None, "hidden_size": 1, "cell": "rnn"} | parameters)
    assert model.fit(X, y).n_iter_ == wanted


def test_the_learning_rate_warms_up_by_a_twentieth():
    X, y = above_or_below()
    model = small(iterations=40, eval_every=1).fit(X, y)
    rates = model.history_["learning_rate"]
    assert np.argmax(rates) in (1, 2) and rates[0] < 0.02
    given = small(iterations=40, eval_every=1, warmup=10).fit(X, y).history_["learning_rate"]
    assert 9 <= np.argmax(given) <= 10


def test_validation_chooses_the_weights_and_stops():
    X, y = above_or_below()
    noise = [np.random.default_rng(1).permutation(labels) for labels in y]
    model = small(iterations=300, eval_every=5, patience=2, schedule="constant")
    model.fit(X, y, validation=(X[:20], noise[:20]))
    assert model.history_.outcome == "stopped early" and model.n_iter_ < 300
    model = small(iterations=4, validation_fraction=0.25).fit(X, y)
    assert "validation_accuracy" in model.history_.reports[0]
    with pytest.raises(ValueError, match=r"validation was given, and validation_fraction=0\.5"):
        small(validation_fraction=0.5).fit(X, y, validation=(X, y))


def test_pickle_deepcopy_and_clone():
    X, y = above_or_below()
    model = small(iterations=5).fit(X, y)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(again.predict_proba(X)[0], model.predict_proba(X)[0])
    assert clone(model).get_params() == model.get_params()
    assert weights(clone(model).fit(X, y)) == weights(model)


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    X, y = above_or_below()
    model = small(iterations=2).fit(X, y)
    before = weights(model)
    for parameters, message in [
        ({"cell": "cnn"}, "cell='cnn': wanted one of"),
        ({"scheme": "iob1"}, "scheme='iob1': wanted one of"),
        ({"crf": 3}, "crf=3: wanted True or False"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: wanted"),
        ({"iterations": 5, "epochs": 1}, "iterations=5 and epochs=1"),
        ({"patience": 1}, "patience=1 without a validation set"),
    ]:
        with pytest.raises(ValueError, match=message):
            copy.copy(model).set_params(**parameters).fit(X, y)
    assert weights(model) == before


def test_before_fit_there_is_nothing_to_ask(tmp_path):
    X, y = above_or_below(3)
    model = SequenceTagger()
    for call in (
        lambda: model.predict(X),
        lambda: model.predict_proba(X),
        lambda: model.score(X, y),
        lambda: model.evaluate(X, y),
        lambda: model.save(tmp_path / "m"),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_a_parameter_that_is_not_known_is_named(tmp_path):
    X, y = above_or_below()
    model = small(iterations=2).fit(X, y)
    saved_model.save(model._fitted(), tmp_path / "m", {"newer": 1}, 2)
    with pytest.raises(ValueError, match=r"'params' has \['newer'\], which this version"):
        load(tmp_path / "m")


def test_words_may_come_in_every_form_of_data_frames():
    pd = pytest.importorskip("pandas")
    sentences, tags = [["a", "b"], ["b", "a"], ["a", "a"]] * 3, [[0, 1], [1, 0], [0, 0]] * 3
    model = SequenceTagger(hidden_size=4, iterations=5, character_size=0)
    wanted = [row.tolist() for row in model.fit(sentences, tags).predict_proba(sentences)]
    column = pd.Series(sentences)
    for X in (
        column,
        [pd.Series(words) for words in sentences],
        np.array(sentences, dtype=object),
        np.array(sentences),
    ):
        found = model.fit(X, pd.Series(tags)).predict_proba(X)
        assert [row.tolist() for row in found] == wanted
    numbers = np.random.default_rng(0).normal(size=(5, 2))
    of_numbers = SequenceTagger(hidden_size=4, iterations=2).fit(numbers, [0, 1, 0, 1, 1])
    one = of_numbers.predict(numbers.astype(object))  # one sequence, as of floats
    assert one.tolist() == of_numbers.predict(numbers).tolist()
    assert model.predict(pd.Series(["a", "b"])).tolist() == model.predict(["a", "b"]).tolist()
