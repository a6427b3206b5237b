from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_sample_weight
from training_examples import ragged_examples

from ostinato_learn.data import Batches
from ostinato_learn.models import ClassifierNet
from ostinato_learn.models.inputs import tensors
from ostinato_learn.training.classification import Classification
from ostinato_learn.training.examples import class_indices, cross_entropy, example_weights


def test_tensors_of_an_array_are_the_rows_asked_for():
    X = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    x, lengths = tensors(X, np.array([2, 0]))
    assert lengths is None
    assert np.array_equal(x.numpy(), X[[2, 0]])
    assert x.data_ptr() % 64 == 0


def test_tensors_of_ragged_sequences_are_padded_with_zeros():
    X, _ = ragged_examples()
    x, lengths = tensors(X, np.array([4, 1, 7]))
    for row, i in enumerate((4, 1, 7)):
        assert lengths[row] == len(X[i])
        assert np.array_equal(x[row, : lengths[row]].numpy(), X[i])
        assert not x[row, lengths[row] :].any()


def test_the_task_takes_the_batches_in_turn():
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(7, 3, 2)), np.arange(7) % 3, rng.uniform(size=7)
    task = Classification(Batches(X, y, 2), n_classes=3, sample_weight=w)
    same = Batches(X, y, 2)
    net = ClassifierNet(2, 3, hidden_size=4)
    for _ in range(9):
        indices = same.next_indices()
        share = task.loss(net)
        loss, measured = share.loss, share.measured
        logits = net(torch.tensor(X[indices], dtype=torch.float32))
        labels, weights = torch.tensor(y[indices]), torch.tensor(w[indices], dtype=torch.float32)
        torch.testing.assert_close(loss, cross_entropy(logits, labels, weights))
        assert measured == {"train_accuracy": (logits.argmax(1) == labels).double().mean().item()}


def test_a_weight_of_two_counts_as_the_example_twice():
    logits, y = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 3, 1])
    weighted = cross_entropy(logits, y, torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    repeated = cross_entropy(logits[[0, 1, 1]], y[[0, 1, 1]], None)
    torch.testing.assert_close(weighted, repeated)


def test_a_batch_without_any_weight_teaches_nothing():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 3, 1]), torch.zeros(3))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0, 2: 0.5}])
def test_class_weights_are_scikit_learns(class_weight):
    y = np.array([0, 0, 0, 1, 2, 2])
    complete = class_weight if class_weight == "balanced" else {1: 1.0, **class_weight}
    wanted = compute_sample_weight(complete, y)
    np.testing.assert_allclose(example_weights(y, class_weight, None), wanted, rtol=1e-6)
    both = example_weights(y, class_weight, np.arange(6))
    np.testing.assert_allclose(both, wanted * np.arange(6), rtol=1e-6)


def test_no_weights_are_no_weights():
    assert example_weights(np.zeros(3, int), None, None) is None


@pytest.mark.parametrize(
    ("class_weight", "sample_weight", "message"),
    [
        ("uniform", None, "class_weight='uniform': wanted 'balanced'"),
        ({0: -1.0}, None, r"class_weight\[0\] is -1.0"),
        (None, [1.0, 2.0], r"sample_weight has shape \[2\]; wanted \[3\]"),
        (None, [1.0, -2.0, 1.0], r"sample_weight\[1\] is -2.0"),
        (None, [1.0, 1.0, np.nan], r"sample_weight\[2\] is nan"),
        (None, [0.0, 0.0, 0.0], "zero for all examples"),
    ],
)
def test_bad_weights_are_named(class_weight, sample_weight, message):
    with pytest.raises(ValueError, match=message):
        example_weights(np.array([0, 1, 0]), class_weight, sample_weight)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 3], r"y\[2\] is 3; wanted 0 to 2"),
        ([0, -1, 1], r"y\[1\] is -1; wanted 0 to 2"),
        ([0.0, 1.0], r"y is float64\[2\]; wanted class numbers"),
        ([[0], [1]], r"y is int64\[2, 1\]; wanted class numbers"),
    ],
)
def test_labels_that_are_no_classes_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        class_indices(np.array(y), 3)
