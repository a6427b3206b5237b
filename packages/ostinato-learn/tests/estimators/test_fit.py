"""`fit`, `predict` and `evaluate`."""

from __future__ import annotations

import copy
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from estimator_examples import small, up_or_down, weights
from sklearn.base import clone

from ostinato_learn import SequenceClassifier, datasets, load
from ostinato_learn.data import Ragged
from ostinato_learn.training import Callback, Checkpoint


def test_it_tells_the_nine_speakers_of_the_vowels_apart():
    train, test = datasets.vowels()
    model = SequenceClassifier(
        recipe="notebook",
        cell="gru",
        hidden_size=32,
        iterations=250,
        batch_size=54,
        optimizer="adam",
        learning_rate=0.01,
        clip_norm=1.0,
    )
    model.fit(train.X, train.y)
    assert model.score(test.X, test.y) >= 0.95
    assert model.classes_.tolist() == list(range(1, 10))
    assert set(model.predict(test.X)) <= set(range(1, 10))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes"]),
        np.array(["no", "yes"], dtype=object),
        np.array([3, 7]),
        np.array([3, 7], dtype=np.int32),
        np.array([False, True]),
        np.array([-1.0, 1.0]),
    ],
    ids=lambda a: a.dtype.str,
)
def test_labels_keep_their_values_and_type_also_through_a_file(labels, tmp_path):
    X, y = up_or_down()
    y = labels[(y == "up").astype(int)]
    model = small().fit(X, y)
    assert model.score(X, y) > 0.9
    model.save(tmp_path / "model")
    for each in (model, load(tmp_path / "model")):
        assert each.predict(X).dtype == labels.dtype
        assert each.classes_.dtype == labels.dtype
        assert each.classes_.tolist() == labels.tolist()
        assert each.evaluate(X, y)["accuracy"] == each.score(X, y)


def test_the_forms_of_x_give_the_same_model():
    X, y = up_or_down()
    X = X.astype(np.float32)
    wanted = weights(small().fit(X, y))
    for form in (X[:, :, 0], X.astype(np.float64), list(X), torch.tensor(X), X.tolist()):
        assert weights(small().fit(form, y.tolist())) == wanted


def test_sequences_of_different_lengths():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(rng.integers(1, 8), 2)) for _ in range(60)]
    y = np.array([x[:, 1].sum() > 0 for x in X])
    model = small().fit(X, y)
    assert model.score(X, y) > 0.9
    assert weights(small().fit(Ragged.from_list(X), y)) == weights(model)
    # a sequence is answered alike alone and among others
    alone = np.concatenate([model.predict_proba([x]) for x in X])
    np.testing.assert_array_equal(model.predict_proba(X), alone)


def test_probabilities_are_of_the_classes_and_evaluate_agrees_with_them():
    X, y = up_or_down()
    model = small(iterations=20).fit(X, y)
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=2**-22)  # of float32
    assert (model.classes_[probability.argmax(1)] == model.predict(X)).all()
    right = probability[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    assert model.evaluate(X, y) == {
        "accuracy": model.score(X, y),
        "loss": pytest.approx(-np.log(right).mean()),
        "n": 90,
    }


def test_pickle_and_deepcopy_predict_the_same():
    X, y = up_or_down()
    model = small(iterations=20).fit(X, y)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_parameters_set_after_fit_are_for_the_next_fit(tmp_path):
    X, y = up_or_down()
    model = small(iterations=20).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(hidden_size=3, cell="lstm")
    assert np.array_equal(model.predict_proba(X), before)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert np.array_equal(again.predict_proba(X), before)
    assert again.get_params() == model.get_params()
    assert again.fit(X, y).net_.config["hidden_size"] == 3


@pytest.mark.parametrize("random_state", [0, 7, np.int64(7), np.random.RandomState(3)])
def test_the_same_random_state_gives_the_same_bits(random_state):
    X, y = up_or_down()

    def fitted(state):
        return weights(small(iterations=5, dropout=0.5, random_state=state).fit(X, y))

    one, other = fitted(copy.deepcopy(random_state)), fitted(copy.deepcopy(random_state))
    assert one == other


def test_another_random_state_gives_another_model():
    X, y = up_or_down()
    assert weights(small(random_state=0).fit(X, y)) != weights(small(random_state=1).fit(X, y))
    assert weights(small(random_state=None).fit(X, y)) != weights(
        small(random_state=None).fit(X, y)
    )


def test_fit_and_load_leave_the_callers_random_state_threads_and_mode_alone(tmp_path):
    X, y = up_or_down()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    np.random.seed(0)
    numpy_before = np.random.get_state()[1].tolist()
    model = small(iterations=5, validation_fraction=0.2).fit(X, y)
    model.save(tmp_path / "m")
    load(tmp_path / "m").predict(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


def test_the_validation_fraction_is_stratified_seeded_and_not_trained_on():
    X, y = up_or_down()
    y[:60], y[60:] = "down", "up"
    seen = []

    class Look(Callback):
        def on_start(self, run):
            seen.append((run.task.y, run.task.X))

    for random_state in (0, 0, 1):
        model = small(iterations=5, validation_fraction=0.2, random_state=random_state)
        model.fit(X, y, sample_weight=np.ones(90), callbacks=[Look()])
        assert "validation_loss" in model.history_.reports[0]
    assert all(np.bincount(labels).tolist() == [48, 24] for labels, _ in seen)
    assert np.array_equal(seen[0][1], seen[1][1])
    assert not np.array_equal(seen[0][1], seen[2][1])


def test_a_validation_set_stops_early():
    X, y = up_or_down()
    rng = np.random.default_rng(1)
    model = small(iterations=2000, eval_every=10, patience=2, learning_rate=0.1)
    model.fit(X, y, validation=(rng.normal(size=(30, 6, 1)), rng.choice(["up", "down"], 30)))
    assert model.history_.outcome == "stopped early"
    assert model.n_iter_ == model.history_.iterations < 2000


def test_class_weights_go_by_label():
    X, y = up_or_down()
    ups = [
        (small(iterations=30, class_weight={"up": w}).fit(X, y).predict(X) == "up").mean()
        for w in (0.01, 100.0)
    ]
    assert ups[0] < 0.5 < ups[1]
    small(iterations=2, class_weight="balanced").fit(X, y)


def test_a_batch_is_never_larger_than_the_data():
    X, y = up_or_down(10)
    SequenceClassifier(iterations=2).fit(X, y)


def test_verbose_shows_the_progress_on_stderr(capsys):
    X, y = up_or_down()
    small(iterations=5, verbose=1).fit(X, y)
    printed = capsys.readouterr()
    assert "iteration      0" in printed.err and printed.out == ""
    small(iterations=5).fit(X, y)
    assert capsys.readouterr().err == ""


def test_an_interrupted_fit_is_resumed(tmp_path):
    X, y = up_or_down()

    class CtrlC(Callback):
        def on_iteration(self, run):
            if run.iteration == 20:
                signal.raise_signal(signal.SIGINT)

    model = small(iterations=40, dropout=0.2, validation_fraction=0.2, eval_every=10)
    whole = clone(model).fit(X, y)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, callbacks=[Checkpoint(tmp_path / "c"), CtrlC()])
    assert not hasattr(model, "net_")
    model.fit(X, y, resume=tmp_path / "c")
    assert weights(model) == weights(whole)
    assert model.history_["loss"] == whole.history_["loss"]


def test_fit_in_another_thread():
    X, y = up_or_down()
    model = small(iterations=5)
    thread = threading.Thread(target=model.fit, args=(X, y))
    thread.start()
    thread.join()
    assert model.n_iter_ == 5
