"""What the tests of estimators share."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ostinato_learn import SequenceClassifier, estimators


def up_or_down(n: int = 90, steps: int = 6) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(n, steps, 1))
    return X, np.where(X.sum((1, 2)) > 0, "up", "down")


def expected_failures(estimator: str) -> set[str]:
    """scikit-learn's checks that an estimator fails, as `estimators` tells its readers."""
    sections = re.split(r"\n    (?=\w)", estimators.__doc__)
    (section,) = [text for text in sections if text.startswith(f"{estimator} ")]
    return set(re.findall(r"check_\w+", section))


def small(**parameters) -> SequenceClassifier:
    defaults = {
        "recipe": "notebook",
        "hidden_size": 8,
        "iterations": 150,
        "batch_size": 30,
        "optimizer": "adam",
        "learning_rate": 0.02,
    }
    return SequenceClassifier(**defaults | parameters)


def weights(model: SequenceClassifier) -> bytes:
    return b"".join(w.numpy().tobytes() for w in model.net_.state_dict().values())


def saved(tmp_path: Path, **parameters) -> tuple[SequenceClassifier, Path]:
    X, y = up_or_down()
    model = small(iterations=2, **parameters).fit(X, y)
    model.save(tmp_path / "model")
    return model, tmp_path / "model"
