"""similar_lengths: of classifiers, taggers and the command line; a training goes on exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ostinato_learn import SequenceClassifier, SequenceTagger, training

SMALL = {"hidden_size": 4, "batch_size": 8, "iterations": 12, "recipe": "notebook"}


def sequences(n=60):
    generator = np.random.default_rng(0)
    X = [generator.normal(size=(int(k), 2)) for k in generator.integers(2, 60, n)]
    return X, generator.integers(0, 2, n)


def weights(model):
    return torch.cat([p.detach().ravel() for p in model.net_.parameters()])


def test_sequences_of_one_length_are_learnt_as_before():
    X, y = np.random.default_rng(0).normal(size=(40, 5, 2)), np.arange(40) % 2
    one, other = (
        SequenceClassifier(**SMALL, similar_lengths=similar).fit(X, y) for similar in (False, True)
    )
    assert torch.equal(weights(one), weights(other))


def test_other_batches_are_learnt_from():
    X, y = sequences()
    one, other = (
        SequenceClassifier(**SMALL, similar_lengths=similar).fit(X, y) for similar in (False, True)
    )
    assert not torch.equal(weights(one), weights(other))
    labels = [np.where(x[:, 0] > 0, "up", "down") for x in X]
    one, other = (
        SequenceTagger(**SMALL, similar_lengths=similar).fit(X, labels) for similar in (False, True)
    )
    assert not torch.equal(weights(one), weights(other))


def test_a_training_goes_on_with_the_same_bits(tmp_path):
    X, y = sequences()
    settings = SMALL | {"similar_lengths": True}
    whole = SequenceClassifier(**settings).fit(X, y)
    half = settings | {"iterations": 5}
    SequenceClassifier(**half).fit(X, y, callbacks=[training.Checkpoint(tmp_path / "c", 5)])
    rest = SequenceClassifier(**settings).fit(X, y, resume=tmp_path / "c")
    assert torch.equal(weights(whole), weights(rest))
    with pytest.raises(ValueError, match="similar_lengths: True, not False"):
        SequenceClassifier(**SMALL).fit(X, y, resume=tmp_path / "c")


def test_a_plan_of_an_earlier_version_has_the_default():
    plan = training.Plan(iterations=5)
    saved = {name: value for name, value in plan.as_dict().items() if name != "similar_lengths"}
    assert plan.differences(saved) == []
    assert training.Plan(iterations=5, similar_lengths=True).differences(saved) != []
