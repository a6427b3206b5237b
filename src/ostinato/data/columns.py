"""The columns of data frames, by which a model knows its features again.

The rules and the texts are scikit-learn's, which every estimator's user knows; written anew, since
scikit-learn takes a second to import.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

_SHOWN = 5


def column_names(X: Any, name: str = "X") -> np.ndarray | None:
    """The names of a data frame's columns; of a list of them, the names that all have.

    Returns:
        `[T]` of a data frame `[N, T]`, `[F]` of frames `[T_i, F]`; None if X is neither, or has
        numbers there.

    Raises:
        TypeError: some names are strings and some are not.
        ValueError: a frame of a list has other columns than the first, or in another order.

    Example:
        >>> class Frame:  # as of pandas
        ...     columns = ["x", "y"]
        >>> column_names([Frame(), Frame()])
        array(['x', 'y'], dtype=object)
    """
    if isinstance(X, (list, tuple)):
        return _names_of_all(X, name)
    names = getattr(X, "columns", None)
    if names is None or len(names) == 0:
        return None
    kinds = sorted({type(name).__name__ for name in names})
    if "str" not in kinds:
        return None
    if len(kinds) > 1:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your "
            f"input has {kinds} as column name types; convert them with "
            "X.columns = X.columns.astype(str)"
        )
    return np.array(list(names), dtype=object)


def _names_of_all(frames: Sequence[Any], name: str) -> np.ndarray | None:
    is_nested = len(frames) == 0 or isinstance(frames[0], (list, tuple))
    wanted = None if is_nested else column_names(frames[0])
    if wanted is None:
        return None
    for i, frame in enumerate(frames):
        names = getattr(frame, "columns", None)
        if names is None or list(names) != wanted.tolist():
            came = "no names of columns" if names is None else f"the columns {list(names)}"
            raise ValueError(
                f"{name}[{i}] has {came}, {name}[0] has {wanted.tolist()}; wanted the same in all "
                "sequences, in the same order"
            )
    return wanted


def check_columns(X: Any, wanted: np.ndarray | None, estimator: str = "SequenceClassifier") -> None:
    """Whether a data frame has the columns, in their order, of the one that was trained on.

    Warns:
        UserWarning: one of the two has no names.

    Raises:
        ValueError: the names differ.
    """
    check_names(column_names(X), wanted, estimator)


def check_names(
    came: np.ndarray | None, wanted: np.ndarray | None, estimator: str, name: str = "X"
) -> None:
    """`check_columns` for names of columns, None where there are none; `name` is the argument's."""
    if came is None or wanted is None:
        if wanted is not None:
            warnings.warn(
                f"{name} does not have valid feature names, but {estimator} was fitted with "
                "feature names",
                stacklevel=2,
            )
        elif came is not None:
            warnings.warn(
                f"{name} has feature names, but {estimator} was fitted without feature names",
                stacklevel=2,
            )
        return
    if came.tolist() == wanted.tolist():
        return
    unseen, missing = sorted({*came} - {*wanted}), sorted({*wanted} - {*came})
    of = "" if name == "X" else f" of {name}"
    text = f"The feature names{of} should match those that were passed during fit.\n"
    if unseen:
        text += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        text += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if not unseen and not missing:
        text += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(text)


def _listed(names: list[str]) -> str:
    more = ["- ...\n"] if len(names) > _SHOWN else []
    return "".join([*(f"- {name}\n" for name in names[:_SHOWN]), *more])
