from __future__ import annotations

import copy
import json
import pickle
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from ostinato import SequenceClassifier, datasets, load
from ostinato.data import Ragged
from ostinato.training import Callback, Checkpoint, Plan


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def up_or_down(n: int = 90, steps: int = 6) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(n, steps, 1))
    return X, np.where(X.sum((1, 2)) > 0, "up", "down")


def small(**parameters) -> SequenceClassifier:
    defaults = {
        "hidden_size": 8,
        "iterations": 150,
        "batch_size": 30,
        "optimizer": "adam",
        "learning_rate": 0.02,
    }
    return SequenceClassifier(**defaults | parameters)


def weights(model: SequenceClassifier) -> bytes:
    return b"".join(w.numpy().tobytes() for w in model.net_.state_dict().values())


OWN_WORDS = "refused, in this package's own words"
UNIVARIATE = "a 2-D X is [examples, steps] of one feature; another number of columns is a length"
EXPECTED = {
    "check_n_features_in": UNIVARIATE,
    "check_n_features_in_after_fitting": UNIVARIATE,
    "check_classifiers_train": UNIVARIATE,
    "check_sample_weight_equivalence_on_dense_data": "batches are drawn at random",
    "check_dtype_object": "arrays of objects are refused: a list is how lengths may differ",
    "check_complex_data": OWN_WORDS,
    "check_estimators_empty_data_messages": OWN_WORDS,
    "check_estimators_nan_inf": OWN_WORDS,
    "check_fit2d_predict1d": OWN_WORDS,
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@parametrize_with_checks(
    [small(iterations=60, learning_rate=0.03)], expected_failed_checks=lambda _: EXPECTED
)
def test_it_is_a_classifier_of_scikit_learn(estimator, check):
    check(estimator)


def test_it_tells_the_nine_speakers_of_the_vowels_apart():
    train, test = datasets.vowels()
    model = SequenceClassifier(
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


def test_parameters_are_those_of_the_plan_with_the_same_defaults():
    parameters = SequenceClassifier().get_params()
    plan = Plan().as_dict()
    assert plan.pop("seed") == parameters["random_state"]
    assert plan.items() <= parameters.items()


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
    # a sequence is answered alike alone and among others, up to the rounding of another batch
    alone = np.concatenate([model.predict_proba([x]) for x in X])
    np.testing.assert_allclose(model.predict_proba(X), alone, atol=1e-5)


def test_probabilities_are_of_the_classes_and_evaluate_agrees_with_them():
    X, y = up_or_down()
    model = small(iterations=20).fit(X, y)
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-12)
    assert (model.classes_[probability.argmax(1)] == model.predict(X)).all()
    right = probability[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    assert model.evaluate(X, y) == {
        "accuracy": model.score(X, y),
        "loss": pytest.approx(-np.log(right).mean()),
        "n": 90,
    }


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
            seen.append((run.batches.y, run.batches.X))

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


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_before_fit_there_is_nothing_to_ask(method):
    with pytest.raises(NotFittedError):
        getattr(SequenceClassifier(), method)(np.zeros((1, 2, 3)))


def test_before_fit_there_is_nothing_to_save(tmp_path):
    with pytest.raises(NotFittedError):
        SequenceClassifier().save(tmp_path / "m")
    with pytest.raises(NotFittedError):
        SequenceClassifier().evaluate(np.zeros((1, 2, 3)), [0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cell": "cnn"}, "cell='cnn': wanted one of"),
        ({"iterations": 0}, "iterations=0: wanted"),
        ({"iterations": 5, "epochs": 1}, "iterations=5 and epochs=1"),
        ({"patience": 2}, "patience=2 without a validation set"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: wanted a number"),
        ({"validation_fraction": "a"}, "validation_fraction='a': wanted a number"),
        ({"class_weight": {"left": 2}}, "class_weight has the label 'left', which was not trained"),
        ({"class_weight": "uniform"}, "class_weight='uniform': wanted 'balanced'"),
        ({"init": "zero"}, "init='zero': wanted one of"),
    ],
)
def test_a_bad_parameter_is_named_by_fit_and_not_before(parameters, message):
    X, y = up_or_down()
    model = small(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


def test_bad_arguments_of_fit_are_named():
    X, y = up_or_down()
    for arguments, message in [
        ({"X": X, "y": y[:-1]}, "X has 90 examples and y has 89"),
        ({"X": X, "y": None}, "the target y is None"),
        ({"X": X, "y": ["up"] * 90}, "y has one class only, .*'up'"),
        ({"X": X, "y": X[:, 0, 0]}, "Unknown label type"),
        ({"X": X, "y": y, "sample_weight": [1.0]}, r"sample_weight has shape \[1\]; wanted \[90\]"),
        ({"X": X, "y": y, "validation": (X[:, :, [0, 0]], y)}, "X has 2 features, but"),
        ({"X": X, "y": y, "validation": (X, y[:3])}, "X has 90 examples and y has 3"),
        ({"X": X, "y": y, "validation": (X[:1], ["left"])}, "y has the label 'left'"),
    ]:
        with pytest.raises(ValueError, match=message):
            small().fit(**arguments)
    with pytest.raises(ValueError, match=r"sample_weight has shape \[1\]; wanted \[90\]"):
        small(validation_fraction=0.2).fit(X, y, sample_weight=[1.0])
    with pytest.raises(ValueError, match=r"validation was given, and validation_fraction=0\.2"):
        small(validation_fraction=0.2).fit(X, y, validation=(X, y))


def test_bad_arguments_of_a_fitted_model_are_named():
    X, y = up_or_down()
    model = small(iterations=2).fit(X, y)
    for ask in (model.predict, model.predict_proba, lambda X: model.evaluate(X, y)):
        with pytest.raises(ValueError, match=r"X has 2 features, but .* expecting 1 features"):
            ask(X[:, :, [0, 0]])
    with pytest.raises(ValueError, match="y has the label 'left', which was not trained"):
        model.evaluate(X[:1], ["left"])
    with pytest.raises(ValueError, match="X has 90 examples and y has 1"):
        model.evaluate(X, ["up"])


def test_a_fit_that_fails_leaves_the_fitted_model_as_it_was():
    X, y = up_or_down()
    model = small(iterations=2).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="one class only"):
        model.fit(X, ["same"] * 90)
    assert np.array_equal(model.predict_proba(X), before)


# ---- save and load


def saved(tmp_path: Path, **parameters) -> tuple[SequenceClassifier, Path]:
    X, y = up_or_down()
    model = small(iterations=2, **parameters).fit(X, y)
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_loaded_model_is_the_saved_one(tmp_path, cell):
    X, _ = up_or_down()
    model, path = saved(
        tmp_path,
        cell=cell,
        num_layers=np.int64(2),
        bidirectional=True,
        dropout=0.1,
        learning_rate=np.float64(0.1) + 0.2,
        class_weight={"up": 1.5},
    )
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    again = load(path)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.get_params() == model.get_params()
    assert (again.n_features_in_, again.n_iter_) == (1, 2)
    again.save(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (path / name).read_bytes()


def test_a_class_weight_by_number_comes_back_by_number(tmp_path):
    X, y = up_or_down()
    weights = {0: 2.0, 1: 0.5}
    small(iterations=2, class_weight=weights).fit(X, y == "up").save(tmp_path / "m")
    assert load(tmp_path / "m").class_weight == weights


def test_a_random_generator_is_not_saved(tmp_path):
    _, path = saved(tmp_path, random_state=np.random.RandomState(0))
    assert load(path).random_state is None


def test_labels_that_json_has_not_are_refused(tmp_path):
    X, _ = up_or_down()
    y = np.array(["2024-01-01", "2024-01-02"], "datetime64[D]")[np.arange(90) % 2]
    with pytest.raises(ValueError, match="train with integers or strings"):
        small(iterations=2).fit(X, y).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_saved_model_is_replaced_and_nothing_else_is(tmp_path):
    model, path = saved(tmp_path)
    model.save(path)
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    load(tmp_path / "empty")

    (path / "notes.txt").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    (foreign / "model.safetensors").write_bytes(b"")
    file = tmp_path / "file"
    file.write_text("mine")
    for taken, name in ((path, "notes.txt"), (foreign, "config.json"), (file, "file")):
        with pytest.raises(ValueError, match=f"{name} would be lost"):
            model.save(taken)
    assert (path / "notes.txt").read_text() == file.read_text() == "mine"


def changed(path: Path, **entries) -> None:
    config = json.loads((path / "config.json").read_text())
    for name, value in entries.items():
        if isinstance(value, dict):
            value = config[name] | value
        config[name] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "tagger"}, "has the kind 'tagger'; wanted 'sequence_classifier'"),
        ({"format": 2}, "has format 2; this version of ostinato reads 1"),
        ({"colour": 1}, r"the configuration lacks \[\] and has \['colour'\]"),
        ({"params": {"colour": 1}}, r"'params' lacks \[\] and has \['colour'\]"),
        ({"net": {"colour": 1}}, r"'net' lacks \[\] and has \['colour'\]"),
        (
            {"net": {"hidden_size": 9}},
            r"float32\[8, 1\] for 'body.weight_ih_l0'; wanted float32\[9",
        ),
        ({"net": {"num_layers": 2}}, "nothing for 'body.weight_ih_l1'; wanted float32"),
        ({"net": {"hidden_size": "a"}}, "hidden_size='a': wanted a whole number"),
        ({"net": None}, "'net' lacks"),
        ({"classes": {"values": ["a", "b", "c"]}}, "has 3 labels for a network of 2 classes"),
        ({"classes": {"dtype": "V8"}}, "'classes' are of type 'V8'"),
        ({"classes": {"dtype": "?!"}}, r"'classes' are of type '\?!'"),
    ],
)
def test_a_configuration_that_does_not_fit_says_why(tmp_path, entries, message):
    _, path = saved(tmp_path)
    changed(path, **entries)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_a_damaged_model_is_refused_and_named(tmp_path, name, damage):
    _, path = saved(tmp_path)
    file = path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "truncated": content[:-9], "foreign": b"[1]"}[damage])
    with pytest.raises(ValueError, match=str(path)):
        load(path)


def test_a_place_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no config\.json"):
        load(tmp_path / "nowhere")
    load_a_file = tmp_path / "file"
    load_a_file.write_text("")
    with pytest.raises(ValueError, match="wanted a directory"):
        load(load_a_file)
