"""Measures of several labels: equal to scikit-learn's on random cases."""

import numpy as np
import pytest
from sklearn import metrics

from ostinato_learn.metrics import label_sets as label_metrics


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    y, answers = generator.integers(0, 2, (2, 30, 4))
    found = label_metrics.measure(y, answers)
    assert found["label_accuracy"] == pytest.approx(1 - metrics.hamming_loss(y, answers))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, answers))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, answers, average="micro"))
    scores = metrics.precision_recall_fscore_support(y, answers)[:3]
    for ours, theirs in zip(label_metrics.of_labels(y, answers), scores, strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_nothing_there_and_nothing_given():
    none = np.zeros((3, 2), int)
    assert label_metrics.measure(none, none) == {"label_accuracy": 1, "accuracy": 1, "f1": 0}
    assert np.isnan(label_metrics.of_labels(none, none)).all()


def test_shapes_that_differ():
    with pytest.raises(ValueError, match=r"\[2, 3\] and the labels \[3, 2\]"):
        label_metrics.measure(np.zeros((3, 2)), np.zeros((2, 3)))
