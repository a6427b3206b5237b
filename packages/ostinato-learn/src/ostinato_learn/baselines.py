"""Baselines: the results of simple methods on the same parts, to compare a network's with.

A classifier is compared with the most frequent class, and with the best of RBF-SVM and logistic
regression on flattened or pooled sequences. The best is chosen by cross-validation on the training
part alone. A sign test over the test part says whether a difference may be due to chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data import Ragged
from ostinato_learn.data.sequences.as_sequences import shape_sequences
from ostinato_learn.data.sequences.label_sets import rarest
from ostinato_learn.data.sequences.splits import folds
from ostinato_learn.data.text.words import Words

MOST_LEARNT, MOST_CHOSEN_BY = 5_000, 1_000  # examples; an SVM takes the square of their number
AT_ONCE = 1_000  # examples predicted in one call: an SVM of 5,000 examples takes 40 MB for them
MOST_FLAT = 2_048  # values of a flattened sequence
MOST_CLASSES = 300  # for the simple classifiers: an SVM has a classifier for each pair of classes
FOLDS = 3
_OF_WORDS = "logistic regression on words and pairs"
SURE = 0.05  # a difference is reported if its p-value is at most this


@dataclass(frozen=True, eq=False)
class Baseline:
    """The result of a simple method.

    Attributes:
        name: the name of the method.
        right: `[N]` bool, whether it is right about each test example; with several labels an
            example, the share of its labels that are right.
        n_learnt: the number of examples that it learnt from.
        answers: `[N, C]` zeros and ones, if an example may have several labels.
    """

    name: str
    right: np.ndarray
    n_learnt: int
    answers: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """The share of the test part that it is right about."""
        return float(self.right.mean())

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "accuracy": self.accuracy, "n_learnt": self.n_learnt}


def majority(y: Any, y_test: Any) -> Baseline:
    """Always the most frequent label of the training part.

    Args:
        y, y_test: `[N]` labels of the training and the test part.

    Example:
        >>> from ostinato_learn import baselines
        >>> baselines.majority(["a", "a", "b"], ["a", "b"]).accuracy
        0.5
    """
    names, counts = np.unique(np.asarray(y), return_counts=True)
    right = np.asarray(y_test) == names[counts.argmax()]
    return Baseline("the most frequent label", right, len(np.asarray(y)))


def classification(X: Any, y: Any, X_test: Any, y_test: Any, seed: int = 0) -> list[Baseline]:
    """The baselines of a classifier: the most frequent label, and the best simple classifier.

    The classifier is left out if there are more than 300 classes.

    Args:
        X, X_test: sequences, as `data.as_sequences` takes them; missing values (NaN) are allowed,
            and are replaced by the mean of their feature.
        y, y_test: `[N]` labels.
        seed: the seed of the sample to learn from, if there are more than 5,000 examples.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import baselines
        >>> X = np.random.default_rng(0).normal(size=(200, 10, 1))
        >>> y = (X.mean(axis=(1, 2)) > 0).astype(int)
        >>> found = baselines.classification(X[:150], y[:150], X[150:], y[150:])
        >>> found[0].accuracy < 0.7 < 0.8 < found[1].accuracy
        True
    """
    y, y_test = np.asarray(y), np.asarray(y_test)
    found = [majority(y, y_test)]
    if not 2 <= len(np.unique(y)) <= MOST_CLASSES:
        return found
    X, X_test = shape_sequences(X), shape_sequences(X_test)
    generator = np.random.default_rng(seed)
    learnt = _sample(y, MOST_LEARNT, generator)
    few = _sample(y[learnt], MOST_CHOSEN_BY, generator)
    name, answers = _best(X[learnt], y[learnt], X_test, few, y[learnt], seed)
    return [*found, Baseline(name, answers == y_test, len(learnt))]


def several(X: Any, y: Any, X_test: Any, y_test: Any, seed: int = 0) -> list[Baseline]:
    """The baselines of a classifier that gives several labels to an example.

    They are, for each label, the more frequent answer and the best simple classifier.

    Args:
        X, X_test, seed: as for `classification`.
        y, y_test: `[N, C]` zeros and ones.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import baselines
        >>> X = np.random.default_rng(0).normal(size=(200, 10, 2))
        >>> y = (X.mean(axis=1) > 0).astype(int)
        >>> found = baselines.several(X[:150], y[:150], X[150:], y[150:])
        >>> found[0].accuracy < 0.7 < 0.8 < found[1].accuracy
        True
    """
    y, y_test = np.asarray(y), np.asarray(y_test)
    found = [_commoner(y, y_test)]
    if (y == y[0]).all():
        return found
    X, X_test = shape_sequences(X), shape_sequences(X_test)
    generator, strata = np.random.default_rng(seed), rarest(y)
    learnt = _sample(strata, MOST_LEARNT, generator)
    few = _sample(strata[learnt], MOST_CHOSEN_BY, generator)
    name, answers = _best(X[learnt], y[learnt], X_test, few, strata[learnt], seed)
    right = (answers == y_test).mean(axis=1)
    return [*found, Baseline(name, right, len(learnt), answers)]


def _commoner(y: np.ndarray, y_test: np.ndarray) -> Baseline:
    """For each label the answer that is more frequent in the training part."""
    answers = np.broadcast_to((2 * y.sum(axis=0) > len(y)).astype(np.int64), y_test.shape)
    right = (answers == y_test).mean(axis=1)
    return Baseline("the more frequent answer to each label", right, len(y), answers)


def _best(
    X: Any, y: np.ndarray, X_test: Any, few: np.ndarray, strata: np.ndarray, seed: int
) -> tuple[str, np.ndarray]:
    """The name of the best simple classifier, and its answers to the test part.

    Args:
        X, y: sequences to learn from, and their labels `[N]`, or `[N, C]`.
        X_test: those to answer.
        few: positions of the examples of X that choose the classifier.
        strata: `[N]`, the classes that every fold contains in equal shares.
        seed: the seed of the folds.
    """
    kinds = [kind for kind in (flattened, pooled) if _fits(kind, X, X_test)]
    columns = {kind: kind(X) for kind in kinds}
    candidates = [
        (kind, name, partial(_ForEachLabel, make) if y.ndim == 2 else make)
        for kind in kinds
        for name, make in _methods()
    ]
    scores = [
        _cross_validated(make, columns[kind][few], y[few], strata[few], seed)
        for kind, _, make in candidates
    ]
    kind, name, make = candidates[int(np.argmax(scores))]
    fitted = make().fit(columns[kind], y)
    answers = [
        fitted.predict(kind(X_test[start : start + AT_ONCE]))
        for start in range(0, len(X_test), AT_ONCE)
    ]
    return f"{name} on {kind.__name__} sequences", np.concatenate(answers)


class _ForEachLabel:
    """A classifier for each label; a label that all or no examples have needs none.

    Args:
        make: a function that makes a classifier.
    """

    def __init__(self, make: Callable[[], Any]):
        self._make = make

    def fit(self, columns: Any, y: np.ndarray) -> _ForEachLabel:
        """Learn from columns `[N, D]` and labels `[N, C]`."""
        self._same = np.where((y == y[0]).all(axis=0), y[0], -1)
        self._fitted = [
            None if same >= 0 else self._make().fit(columns, labels)
            for same, labels in zip(self._same, y.T, strict=True)
        ]
        return self

    def predict(self, columns: Any) -> np.ndarray:
        """`[N, C]` zeros and ones."""
        n = columns.shape[0]
        answers = [
            np.full(n, same) if fitted is None else fitted.predict(columns)
            for same, fitted in zip(self._same, self._fitted, strict=True)
        ]
        return np.stack(answers, axis=1)


def words(X: Words, y: Any, X_test: Words, y_test: Any) -> list[Baseline]:
    """The baselines of a classifier of words: the most frequent label, and a linear classifier.

    The classifier, left out if there are more than 300 classes, is a logistic regression on the
    words and pairs of words of a sequence, weighted by tf-idf: 1 + log(occurrences), times log((1 +
    N) / (1 + n)) + 1 with n sequences that have it.

    Args:
        X, X_test: the sequences.
        y, y_test: `[N]` labels.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> from ostinato_learn import baselines
        >>> from ostinato_learn.data.text.words import Words
        >>> X, y = Words.of([["good", "film"], ["bad", "film"]] * 20), ["+", "-"] * 20
        >>> baselines.words(X, y, X, y)[1].accuracy
        1.0
    """
    y, y_test = np.asarray(y), np.asarray(y_test)
    found = [majority(y, y_test)]
    if not 2 <= len(np.unique(y)) <= MOST_CLASSES:
        return found
    right = _of_words(X, y, X_test) == y_test
    return [*found, Baseline(_OF_WORDS, right, len(y))]


def several_words(X: Words, y: Any, X_test: Words, y_test: Any) -> list[Baseline]:
    """`words` for examples with several labels: a logistic regression for each label.

    Args:
        X, X_test: the sequences.
        y, y_test: `[N, C]` zeros and ones.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import baselines
        >>> from ostinato_learn.data.text.words import Words
        >>> X = Words.of([["cold", "wet"], ["warm", "wet"], ["cold", "dry"], ["warm", "dry"]] * 9)
        >>> y = np.array([[1, 1], [0, 1], [1, 0], [0, 0]] * 9)
        >>> baselines.several_words(X, y, X, y)[1].accuracy
        1.0
    """
    y, y_test = np.asarray(y), np.asarray(y_test)
    found = [_commoner(y, y_test)]
    if (y == y[0]).all():
        return found
    answers = _of_words(X, y, X_test)
    return [*found, Baseline(_OF_WORDS, (answers == y_test).mean(axis=1), len(y), answers)]


def _of_words(X: Words, y: np.ndarray, X_test: Words) -> np.ndarray:
    """The answers of a logistic regression on words and pairs of words."""
    with needs("ostinato-learn[torch]", "sklearn"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

    make = partial(LogisticRegression, C=10, max_iter=1000)
    columns = TfidfVectorizer(analyzer=words_and_pairs, sublinear_tf=True)
    model = _ForEachLabel(make) if y.ndim == 2 else make()
    model.fit(columns.fit_transform(lists_of(X)), y)
    return model.predict(columns.transform(lists_of(X_test)))


def lists_of(X: Words) -> list[list[str]]:
    """The words of each sequence."""
    return [[X.different[i] for i in X.places[n]] for n in range(len(X))]


def words_and_pairs(sequence: list[str]) -> list[str]:
    """The words of a sequence, and its pairs of words that follow each other."""
    return sequence + [f"{a} {b}" for a, b in pairwise(sequence)]


def labels_of_words(X: Words, y: Any, X_test: Words, y_test: Any) -> Baseline:
    """Give each word its most frequent label in training, and a new word the most frequent label.

    Args:
        X, X_test: the sequences.
        y, y_test: their labels, an array for each sequence.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import baselines
        >>> from ostinato_learn.data.text.words import Words
        >>> X, y = Words.of([["a", "run"], ["run", "run"]]), [["DET", "NOUN"], ["VERB", "NOUN"]]
        >>> X_test, y_test = Words.of([["a", "run", "walk"]]), [["DET", "NOUN", "VERB"]]
        >>> baselines.labels_of_words(X, y, X_test, y_test).right.tolist()
        [True, True, False]
    """
    labels, true = np.concatenate(y), np.concatenate(y_test)
    of_word: dict[str, Counter[Any]] = {}
    for word, label in zip(_flat(X), labels.tolist(), strict=True):
        of_word.setdefault(word, Counter())[label] += 1
    commonest = Counter(labels.tolist()).most_common(1)[0][0]
    answer = {word: counts.most_common(1)[0][0] for word, counts in of_word.items()}
    given = np.array([answer.get(word, commonest) for word in _flat(X_test)])
    return Baseline("each word's most frequent label", given == true, len(labels))


def _flat(X: Words) -> list[str]:
    """The words of all sequences, end to end."""
    return [X.different[i] for i in X.places.values.tolist()]


def verdict(right: Any, found: list[Baseline]) -> str:
    """The comparison of a network with the best baseline, in a sentence.

    Args:
        right: `[N]` bool, whether the network is right about each test example; or the share of an
            example's labels that are right.
        found: baselines on the same examples.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import baselines
        >>> weak = baselines.majority(["a", "a", "b"], ["a", "b"] * 50)
        >>> baselines.verdict(np.ones(100, bool), [weak])
        'better than the most frequent label (100.0 % and 50.0 %)'
        >>> baselines.verdict(np.arange(100) < 30, [weak])
        'WORSE than the most frequent label (30.0 % and 50.0 %)'
    """
    right = np.asarray(right, float)
    best = max(found, key=lambda baseline: baseline.accuracy)
    won, lost = int((right > best.right).sum()), int((right < best.right).sum())
    figures = f"({100 * right.mean():.1f} % and {100 * best.accuracy:.1f} %)"
    if sign_test(won, lost) >= SURE:
        return f"no significant difference from {best.name} {figures}"
    return f"{'better' if won > lost else 'WORSE'} than {best.name} {figures}"


def sign_test(won: int, lost: int) -> float:
    """The probability of a difference of `won` and `lost` coin throws at least as large as this.

    Example:
        >>> from ostinato_learn import baselines
        >>> baselines.sign_test(5, 0)
        0.0625
    """
    n, fewer = won + lost, min(won, lost)
    if n == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def flattened(X: np.ndarray) -> np.ndarray:
    """All values of each sequence, `[N, T·F]`."""
    return X.reshape(len(X), -1)


def pooled(X: np.ndarray | Ragged) -> np.ndarray:
    """Each feature's mean, deviation, least, greatest, first, last, mean change; and the length.

    Args:
        X: `[N, T, F]` or a Ragged; a feature without a value in a sequence gives NaN.

    Returns:
        `[N, 7 F + 1]` float64.
    """
    if isinstance(X, Ragged):
        values, offsets = X.values.astype(np.float64), X.offsets
    else:
        values = X.reshape(-1, X.shape[2]).astype(np.float64)
        offsets = np.arange(len(X) + 1) * X.shape[1]
    starts, lengths = offsets[:-1], np.diff(offsets)[:, None]
    if (lengths == 0).any():
        raise ValueError(f"sequence {lengths[:, 0].argmin()} has no steps; wanted at least one")
    missing = np.isnan(values)
    known = np.add.reduceat(~missing, starts, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(np.where(missing, 0, values), starts) / known
        deviations = np.where(missing, 0, values - np.repeat(mean, lengths[:, 0], axis=0))
        deviation = np.sqrt(np.add.reduceat(deviations**2, starts) / known)
        change = np.abs(np.diff(values, axis=0, prepend=values[:1]))
        change[starts] = 0
        changes = np.add.reduceat(np.where(np.isnan(change), 0, change), starts)
    least, greatest = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    first, last = values[starts], values[offsets[1:] - 1]
    per_step = changes / np.maximum(lengths - 1, 1)
    return np.concatenate(
        [mean, deviation, least, greatest, first, last, per_step, lengths], axis=1
    )


def _fits(kind: Any, X: Any, X_test: Any) -> bool:
    """Whether sequences can be turned into such columns."""
    if kind is pooled:
        return True
    arrays = isinstance(X, np.ndarray) and isinstance(X_test, np.ndarray)
    return arrays and X.shape[1:] == X_test.shape[1:] and X[0].size <= MOST_FLAT


def _methods() -> Iterator[tuple[str, Any]]:
    """Names, and functions that make a classifier for columns `[N, D]`, which may contain NaN."""
    with needs("ostinato-learn[torch]", "sklearn"):
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics.pairwise import rbf_kernel
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

    def after_scaling(classifier: Any) -> Any:
        return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), classifier)

    yield "logistic regression", lambda: after_scaling(LogisticRegression(max_iter=1000))
    # A kernel by matrix products takes a tenth of the time of libsvm's own; its width is 1/D too.
    yield "an RBF-SVM", lambda: after_scaling(SVC(C=10, kernel=rbf_kernel))


def _cross_validated(
    make: Any, columns: np.ndarray, y: np.ndarray, strata: np.ndarray, seed: int
) -> float:
    """The mean accuracy over folds, without folds whose training part has a single class."""
    scores = [
        (make().fit(columns[train], y[train]).predict(columns[test]) == y[test]).mean()
        for train, test in folds(len(y), FOLDS, seed, stratify=strata)
        if (y[train] != y[train][0]).any()
    ]
    return float(np.mean(scores)) if scores else 0.0


def _sample(y: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """At most `most` increasing positions, with each class among them."""
    if len(y) <= most:
        return np.arange(len(y))
    each = np.unique(y, return_index=True)[1]
    others = np.setdiff1d(generator.permutation(len(y)), each, assume_unique=True)
    others = generator.permutation(others)[: max(0, most - len(each))]
    return np.sort(np.concatenate([each, others]))
