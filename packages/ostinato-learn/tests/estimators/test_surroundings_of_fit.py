"""`fit` where a program has set PyTorch otherwise, or does other things at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import ostinato_learn
from ostinato_learn import (
    LanguageModel,
    SequenceClassifier,
    SequenceForecaster,
    SequenceTagger,
    runtime,
    training,
)

SMALL = {"hidden_size": 4, "iterations": 8}
X = np.random.default_rng(0).normal(size=(12, 6, 2))
EACH = (X[:, :, 0] > 0).astype(int)
FITS = {
    "classifier": lambda **o: SequenceClassifier(**SMALL, **o).fit(X, EACH[:, -1]),
    "tagger": lambda **o: SequenceTagger(crf=True, **SMALL, **o).fit(X, EACH),
    "forecaster": lambda **o: SequenceForecaster(horizon=2, **SMALL, **o).fit(X),
    "language": lambda **o: LanguageModel(**SMALL, **o).fit(["ab cab " * 9]),
}


def weights(model):
    return {name: w.numpy().copy() for name, w in model.net_.state_dict().items()}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_computed_whatever_the_caller_has_set(name, mode):
    wanted = weights(FITS[name]())
    with mode():
        np.testing.assert_equal(weights(FITS[name]()), wanted)


@pytest.mark.parametrize("name", FITS)
def test_networks_are_float32_whatever_the_default_is(name, tmp_path):
    wanted = weights(FITS[name]())
    torch.set_default_dtype(torch.float64)
    try:
        model = FITS[name]()
        np.testing.assert_equal(weights(model), wanted)
        model.save(tmp_path / "m")
        np.testing.assert_equal(weights(ostinato_learn.load(tmp_path / "m")), weights(model))
        assert runtime.load(tmp_path / "m").graph is not None
    finally:
        torch.set_default_dtype(torch.float32)


def test_fits_that_overlap_leave_the_random_state_as_it_was():
    state, barrier = torch.get_rng_state(), threading.Barrier(2)

    class Wait(training.Callback):
        def on_start(self, run):
            barrier.wait(20)

    def fit(iterations):
        model = SequenceClassifier(hidden_size=4, iterations=iterations)
        model.fit(X, EACH[:, -1], callbacks=[Wait()])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(fit, (2, 60)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", FITS)
def test_threads_that_fit_at_the_same_time_draw_their_own_weights(name):
    def fitted(seed):  # masks of dropout are drawn by the one generator of the process
        return weights(FITS[name](random_state=seed, dropout=0.0))

    wanted = [fitted(i) for i in range(6)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(fitted, range(6)))
    np.testing.assert_equal(found, wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": 3}, r"callbacks has int; wanted a list of objects"),
        ({"callbacks": [ostinato_learn.training.Progress]}, "Progress'>; wanted a list of objects"),
    ],
)
def test_what_is_no_callback_is_refused(options, message):
    with pytest.raises(TypeError, match=message):
        SequenceClassifier(**SMALL).fit(X, EACH[:, -1], **options)


@pytest.mark.parametrize("estimator", [SequenceClassifier, SequenceTagger])
def test_validation_data_are_two(estimator):
    y = EACH[:, -1] if estimator is SequenceClassifier else EACH
    with pytest.raises(ValueError, match=r"validation is a tuple of 1; wanted \(X, y\)"):
        estimator(**SMALL).fit(X, y, validation=(X,))


def test_labels_and_weights_that_are_none():
    y = np.array(["a", None, "b"] * 4, dtype=object)
    with pytest.raises(ValueError, match="y has labels of the types NoneType, str; wanted one"):
        SequenceClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"y has the values \[0, 2\]; wanted zeros and ones"):
        SequenceClassifier(**SMALL).fit(X, 2 * EACH[:, :2])
    for class_weight in ([1, 2], {1: "a"}):
        with pytest.raises(ValueError, match=r"class_weight.*wanted"):
            SequenceClassifier(class_weight=class_weight, **SMALL).fit(X, EACH[:, -1])
    pd = pytest.importorskip("pandas")
    y = np.where(EACH[:, -1] > 0, "up", "down")
    given = {"up": 3.0, "down": 1.0}
    fits = [
        SequenceClassifier(class_weight=each, **SMALL).fit(X, y)
        for each in (given, pd.Series(given), None)
    ]
    np.testing.assert_equal(weights(fits[1]), weights(fits[0]))
    assert not np.array_equal(fits[2].predict_proba(X), fits[0].predict_proba(X))
    tagger = SequenceTagger(warm_start=True, **SMALL).fit(X, EACH)
    with pytest.raises(ValueError, match="X has words, but the tagger was trained with numbers"):
        tagger.fit([["a", "b"]] * 3, [[0, 1]] * 3)


def interrupted(name, folder, **options):
    """A fit that ends with an error after a checkpoint."""

    class Stop(training.Callback):
        def on_iteration(self, run):
            if run.iteration == 5:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        model, data = UNFITTED[name](**options)
        model.fit(*data, callbacks=[training.Checkpoint(folder, 4), Stop()])


UNFITTED = {
    "classifier": lambda X=X, y=EACH[:, -1], **o: (SequenceClassifier(**SMALL, **o), (X, y)),
    "tagger": lambda X=X, y=EACH, **o: (SequenceTagger(**SMALL, **o), (X, y)),
    "forecaster": lambda X=X, **o: (SequenceForecaster(horizon=2, **SMALL, **o), (X,)),
    "language": lambda text="ab cab ", **o: (LanguageModel(**SMALL, **o), ([text * 9],)),
}


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("classifier", {"readout": "mean"}, "made with another network"),
        ("classifier", {"standardize": False}, "made with other examples"),
        ("classifier", {"class_weight": "balanced"}, "made with other examples"),
        ("classifier", {"y": 1 - EACH[:, -1]}, "made with other examples"),
        ("tagger", {"dropout": 0.5}, "made with another network"),
        ("tagger", {"standardize": False}, "made with other examples"),
        ("forecaster", {"quantiles": (0.2, 0.5, 0.8, *np.arange(0.81, 0.87, 0.01))}, "network"),
        ("forecaster", {"X": X**2}, "made with other examples"),
        ("language", {"text": "xy zxy "}, "made with other examples"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(name, changed, message, tmp_path):
    interrupted(name, tmp_path / "c")
    model, data = UNFITTED[name](**changed)
    with pytest.raises(ValueError, match=message):
        model.fit(*data, resume=tmp_path / "c")
    model, data = UNFITTED[name]()
    whole = weights(UNFITTED[name]()[0].fit(*data))
    np.testing.assert_equal(weights(model.fit(*data, resume=tmp_path / "c")), whole)
