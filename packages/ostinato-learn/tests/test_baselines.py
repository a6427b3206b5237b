"""Baselines: pooled features against loops, the choice made without the test part, sign tests."""

import sys

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ostinato_learn import baselines, datasets
from ostinato_learn.data import Ragged
from ostinato_learn.data.text.words import Words


def pooled_slowly(sequence):
    columns = sequence.T.astype(float)
    known = [column[~np.isnan(column)] for column in columns]
    changes = [np.abs(np.diff(c)) for c in columns]
    steps = max(len(sequence) - 1, 1)
    return np.concatenate(
        [
            [k.mean() if len(k) else np.nan for k in known],
            [k.std() if len(k) else np.nan for k in known],
            [k.min() if len(k) else np.nan for k in known],
            [k.max() if len(k) else np.nan for k in known],
            [c[0] for c in columns],
            [c[-1] for c in columns],
            [np.nansum(c) / steps for c in changes],
            [len(sequence)],
        ]
    )


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_pooled_features_are_those_of_a_loop(missing):
    generator = np.random.default_rng(0)
    sequences = [generator.normal(size=(n, 3)).astype(np.float32) for n in (1, 4, 2, 9, 1)]
    for sequence in sequences:
        sequence[generator.random(sequence.shape) < missing] = np.nan
    wanted = np.array([pooled_slowly(s) for s in sequences])
    np.testing.assert_allclose(baselines.pooled(Ragged.from_list(sequences)), wanted, rtol=1e-6)


def test_pooled_features_of_an_array_are_those_of_its_sequences():
    X = np.random.default_rng(1).normal(size=(5, 7, 2)).astype(np.float32)
    assert (baselines.pooled(X) == baselines.pooled(Ragged.from_list(list(X)))).all()


def test_pooled_refuses_a_sequence_without_steps():
    with pytest.raises(ValueError, match="sequence 1 has no steps"):
        baselines.pooled(Ragged(np.zeros((3, 1)), [0, 2, 2, 3]))


@pytest.mark.parametrize("won, lost", [(0, 0), (5, 0), (0, 5), (7, 7), (12, 3), (300, 240), (1, 0)])
def test_sign_test(won, lost):
    wanted = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert baselines.sign_test(won, lost) == pytest.approx(wanted, rel=1e-9)


def test_majority_is_of_the_training_part():
    found = baselines.majority([1, 1, 2], [2, 2, 2, 1])
    assert found.accuracy == 0.25
    assert found.right.tolist() == [False, False, False, True]


def test_vowels():
    train, test = datasets.vowels()
    found = baselines.classification(*train, *test)
    assert [b.name for b in found] == ["the most frequent label", "an RBF-SVM on pooled sequences"]
    assert found[1].accuracy > 0.97
    reference = make_pipeline(StandardScaler(), SVC(C=10))  # with libsvm's own kernel
    reference.fit(baselines.pooled(train[0]), train[1])
    assert found[1].accuracy == reference.score(baselines.pooled(test[0]), test[1])


def test_the_choice_does_not_look_at_the_test_part():
    (X, y), (X_test, y_test) = datasets.vowels()
    names = {
        baselines.classification(X, y, X_test, labels)[1].name
        for labels in (y_test, np.roll(y_test, 100), np.full_like(y_test, y_test[0]))
    }
    assert len(names) == 1


def test_flattened_where_the_place_of_a_step_tells():
    generator = np.random.default_rng(2)
    X = generator.normal(size=(300, 12, 1))
    y = np.where(X[:, 3, 0] > 0, "up", "down")
    found = baselines.classification(X[:200], y[:200], X[200:], y[200:])
    assert "flattened" in found[1].name
    assert found[1].accuracy > 0.9


def test_parts_of_different_lengths_are_pooled():
    generator = np.random.default_rng(3)
    X, X_test = generator.normal(size=(60, 12, 1)), generator.normal(size=(20, 9, 1))
    X[::2] += 2
    X_test[::2] += 2
    found = baselines.classification(X, np.arange(60) % 2, X_test, np.arange(20) % 2)
    assert "pooled" in found[1].name
    assert found[1].accuracy > 0.9


def test_missing_values_and_a_class_of_one():
    generator = np.random.default_rng(4)
    X = generator.normal(size=(50, 6, 2))
    X[:25] += 3
    X[generator.random(X.shape) < 0.2] = np.nan
    y = np.array([0] * 25 + [1] * 24 + [2])
    found = baselines.classification(X, y, X[:40], y[:40])
    assert found[1].accuracy > 0.9


def test_a_sample_has_every_class():
    y = np.array([0] * 9000 + [1, 2, 3])
    chosen = baselines._sample(y, 100, np.random.default_rng(0))
    assert len(chosen) == 100 == len(set(chosen.tolist()))
    assert set(y[chosen]) == {0, 1, 2, 3}


def test_one_class_leaves_the_majority_alone():
    found = baselines.classification(np.zeros((4, 3, 1)), [7] * 4, np.zeros((2, 3, 1)), [7, 7])
    assert [b.accuracy for b in found] == [1.0]


def test_many_classes_leave_the_majority_alone():
    y = np.arange(2 * baselines.MOST_CLASSES + 2) // 2
    X = np.zeros((len(y), 3, 1))
    assert len(baselines.classification(X, y, X, y)) == 1
    assert len(baselines.words(Words.of([["a"]] * len(y)), y, Words.of([["a"]]), y[:1])) == 1


def test_without_scikit_learn(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs sklearn: pip install 'ostinato-learn\[torch\]'"
    ):
        baselines.classification(np.zeros((6, 3, 1)), [0, 1] * 3, np.zeros((2, 3, 1)), [0, 1])


def test_verdicts():
    best = baselines.Baseline("an RBF-SVM", np.arange(100) < 90, 500)
    weak = baselines.Baseline("the most frequent label", np.arange(100) < 50, 500)
    assert baselines.verdict(np.ones(100, bool), [weak, best]) == (
        "better than an RBF-SVM (100.0 % and 90.0 %)"
    )
    assert baselines.verdict(np.arange(100) < 70, [weak, best]) == (
        "WORSE than an RBF-SVM (70.0 % and 90.0 %)"
    )
    close = baselines.verdict(np.arange(100) < 92, [weak, best])
    assert close == "no significant difference from an RBF-SVM (92.0 % and 90.0 %)"
