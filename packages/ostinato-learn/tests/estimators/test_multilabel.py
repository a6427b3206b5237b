from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from ostinato_learn import SequenceClassifier, load
from ostinato_learn.models import ClassifierNet
from ostinato_learn.tasks.classify.loss import MultiLabels, measure

SMALL = {
    "hidden_size": 12,
    "iterations": 200,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.02,
    "recipe": "notebook",
}


def several(n: int = 160):
    """Three questions about each sequence: is the sum of this feature above zero?"""
    X = np.random.default_rng(0).normal(size=(n, 5, 3)).astype(np.float32)
    return X, (X.sum(1) > 0).astype(int)


def test_each_label_is_learnt(tmp_path):
    X, y = several()
    model = SequenceClassifier(**SMALL).fit(X[:120], y[:120])
    answers = model.predict(X[120:])
    assert answers.shape == (40, 3) and set(np.unique(answers)) == {0, 1}
    assert (answers == y[120:]).mean() > 0.85  # 0.5 by chance, with a deviation of 0.05
    assert model.score(X[120:], y[120:]) == accuracy_score(y[120:], answers)
    proba = model.predict_proba(X[120:])
    assert np.array_equal(proba > 0.5, answers == 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X[120:])), proba, rtol=1e-12)
    measured = model.evaluate(X[120:], y[120:])
    assert measured["accuracy"] == model.score(X[120:], y[120:])
    each = [log_loss(y[120:, c], proba[:, c], labels=[0, 1]) for c in range(3)]
    np.testing.assert_allclose(measured["loss"], np.mean(each), rtol=1e-6)  # of float32
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict_proba(X), model.predict_proba(X))


def test_a_batch_costs_the_mean_over_examples_and_labels():
    X, y = several(6)
    net = ClassifierNet(3, 3, hidden_size=4)
    from ostinato_learn.data import Batches

    weights = np.array([1.0, 0.0, 2.0, 1.0, 1.0, 3.0])
    task = MultiLabels(Batches(X, y, 6, shuffle=False), sample_weight=weights)
    share = task.loss(net)
    loss, measured = share.loss, share.measured
    p = torch.sigmoid(net(torch.from_numpy(X))).double().detach().numpy()
    each = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(loss.item(), (weights * each).sum() / weights.sum(), rtol=1e-5)
    assert measured["train_accuracy"] == ((p > 0.5) == y).all(1).mean()
    assert measure(net(torch.from_numpy(X)), y).accuracy == measured["train_accuracy"]


def test_validation_chooses_the_best_weights():
    X, y = several()
    model = SequenceClassifier(**SMALL, validation_fraction=0.25, eval_every=20).fit(X, y)
    losses = model.history_["validation_loss"]
    assert len(losses) == 11 and min(losses) < losses[0]
    given = SequenceClassifier(**SMALL | {"iterations": 3})
    given.fit(X[:100], y[:100], validation=(X[100:], y[100:]))
    assert "validation_accuracy" in given.history_.reports[-1]


def test_what_does_not_go_with_several_labels_is_refused():
    X, y = several(20)
    with pytest.raises(ValueError, match="class_weight is for one label an example"):
        SequenceClassifier(class_weight="balanced", iterations=1).fit(X, y)
    with pytest.raises(ValueError, match="ensemble=2 is for one label an example"):
        SequenceClassifier(ensemble=2, iterations=1).fit(X, y)
    model = SequenceClassifier(iterations=1).fit(X, y)
    with pytest.raises(ValueError, match=r"y has shape \[20\]; wanted \[N, 3\] zeros and ones"):
        model.evaluate(X, y[:, 0])
    with pytest.raises(ValueError, match="wanted the same labels"):
        model.fit(X, y, validation=(X, y[:, :2]))
