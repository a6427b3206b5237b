"""The columns of answers in CSV: their names, and numbers as text.

`train`, `predict` and `stream` write the same columns:

    labels      [label,] prediction, probability [, probability_<class> …]
    numbers     [value,] prediction [, q0.1 …]        of several targets each with _<target>

The first is there if the true answer is known, the last if they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def label_columns(*, known: bool = False, classes: Iterable[Any] = ()) -> list[str]:
    """The names of the columns of an answer that is a label, or several joined by semicolons."""
    shares = [f"probability_{label}" for label in classes]
    return [*(["label"] if known else []), "prediction", "probability", *shares]


def number_columns(
    *, known: bool = False, levels: Iterable[float] = (), target: str | None = None
) -> list[str]:
    """The names of the columns of an answer that is a number.

    Args:
        known: whether the true value is known.
        levels: the levels of the quantiles that get columns.
        target: the name of the target, if there are several.
    """
    names = [*(["value"] if known else []), "prediction", *(f"q{level:g}" for level in levels)]
    return names if target is None else [f"{name}_{target}" for name in names]


def share(value: float) -> str:
    """A probability as text."""
    return f"{value:.6f}"


def number(value: float) -> str:
    """A number that was computed in float32 as text: as many digits as it has."""
    return f"{value:.9g}"


def least_certain(proba: np.ndarray) -> np.ndarray:
    """The probability of the least certain decision for or against a label.

    Args:
        proba: `[…, C]`, the probability of each of several labels.
    """
    import numpy as np

    return np.maximum(proba, 1 - proba).min(axis=-1)
