"""Measures of a classifier that gives several labels to a sequence."""

from __future__ import annotations

import numpy as np


def measure(y: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Compare the labels that a model gave with the true ones.

        label_accuracy   the share of the N · C decisions that are right (1 − Hamming loss)
        accuracy         the share of sequences whose labels are all right
        f1               2 TP / (2 TP + FP + FN) over all labels of all sequences (micro average);
                         0 if there is no label, true or given

    Args:
        y: `[N, C]` zeros and ones, which labels each sequence has.
        answers: `[N, C]`, which labels the model gave.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import numpy as np
        >>> measure(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]))
        {'label_accuracy': 0.75, 'accuracy': 0.5, 'f1': 0.8}
    """
    if y.shape != answers.shape or y.ndim != 2:
        raise ValueError(
            f"the answers have shape {list(answers.shape)} and the labels {list(y.shape)}; wanted "
            "both [N, C]"
        )
    right = y == answers
    _, _, f1 = of_labels(y.reshape(-1, 1), answers.reshape(-1, 1))
    return {
        "label_accuracy": float(right.mean()),
        "accuracy": float(right.all(axis=1).mean()),
        "f1": float(np.nan_to_num(f1[0])),
    }


def of_labels(y: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each label, `[C]` each; NaN where there is nothing to count.

    Args:
        y, answers: as for `measure`.

    Example:
        >>> import numpy as np
        >>> of_labels(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]))[1]  # recall
        array([0.5, 1. ])
    """
    both = ((y > 0) & (answers > 0)).sum(axis=0)
    given, there = (answers > 0).sum(axis=0), (y > 0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return both / given, both / there, 2 * both / (given + there)
