"""Simple methods that a regressor is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.baselines import MOST_LEARNT, lists_of, pooled, words_and_pairs
from ostinato_learn.data.sequences.as_sequences import shape_sequences
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.text.words import Words
from ostinato_learn.tasks.regress import TASK
from ostinato_learn.tasks.regress.model import Regressor, as_targets, mean_of, measures
from ostinato_learn.tasks.verdicts import best_of, verdict

PENALTIES = 10.0 ** np.arange(-3, 5)  # of the ridge regression; chosen by cross-validation


def of_all(
    X: Any, y: np.ndarray, X_test: Any, y_test: np.ndarray, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The measures of all baselines; see `answers`."""
    return {name: measured(y_test, v) for name, v in answers(X, y, X_test, seed).items()}


def compared(
    model: Regressor,
    train: Examples,
    test: Examples,
    found: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """The measures of the baselines, and a comparison of a network with the best of them in words.

    Args:
        model: the trained model.
        train, test: the examples that it learnt from, and those that it is measured on.
        found: its answers to these, `[M, K, Q]`.
        seed: see `answers`.
    """
    read = model.prepared if model.vocabulary is None else model.words
    simple = answers(read(train), as_targets(train.y, len(train)), read(test), seed)
    y, ours = as_targets(test.y, len(test)), model.measured(found, test.y)
    measures_of = {name: measured(y, values) for name, values in simple.items()}
    best, best_name = best_of(TASK, ours, measures_of)
    # Squared errors, of which R² is made; absolute ones where a target without spread has none.
    power, spread = (1, 1.0) if ours["r2"] is None else (2, y.std(axis=0))
    points = model.points(found).reshape(y.shape)
    losses, theirs = (
        (np.abs((values - y) / spread) ** power).mean(axis=1) for values in (points, simple[best])
    )
    return {"baselines": measures_of, "verdict": verdict(losses - theirs, best_name, "sequences")}


def answers(X: Any, y: np.ndarray, X_test: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """The answers `[M, K]` of the mean, the median, and a linear method on summaries of a sequence.

    Args:
        X, X_test: sequences as a network reads them, or words.
        y: `[N, K]`.
        seed: the seed of the sample to learn from, if there are more than 5,000 examples.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    shape = len(X_test), y.shape[1]
    found = {
        "always the mean": np.broadcast_to(y.mean(axis=0), shape),
        "always the median": np.broadcast_to(np.median(y, axis=0), shape),
    }
    learnt = np.sort(np.random.default_rng(seed).permutation(len(y))[:MOST_LEARNT])
    if isinstance(X, Words):
        found["ridge regression on words and pairs"] = _of_words(X[learnt], y[learnt], X_test)
    else:
        columns = [pooled(part) for part in (shape_sequences(X)[learnt], shape_sequences(X_test))]
        found["ridge regression on summaries"] = _linear(columns[0], y[learnt], columns[1])
    return found


def measured(y: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """The measures of answers `[M, K]`."""
    return mean_of([measures(y[:, k], values[:, k]) for k in range(y.shape[1])])


def _linear(columns: np.ndarray, y: np.ndarray, tested: np.ndarray) -> np.ndarray:
    with needs("ostinato-learn[torch]", "sklearn"):
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    scaled = SimpleImputer(keep_empty_features=True), StandardScaler()
    method = make_pipeline(*scaled, RidgeCV(PENALTIES)).fit(columns, y)
    return np.asarray(method.predict(tested)).reshape(len(tested), -1)


def _of_words(X: Words, y: np.ndarray, tested: Words) -> np.ndarray:
    with needs("ostinato-learn[torch]", "sklearn"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import RidgeCV
    columns = TfidfVectorizer(analyzer=words_and_pairs, sublinear_tf=True)
    method = RidgeCV(PENALTIES).fit(columns.fit_transform(lists_of(X)), y)
    return np.asarray(method.predict(columns.transform(lists_of(tested)))).reshape(len(tested), -1)
