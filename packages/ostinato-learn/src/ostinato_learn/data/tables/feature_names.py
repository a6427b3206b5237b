"""The columns of data frames, by which a model knows its features again.

A model that was fitted on data frames in Python refuses columns in another order, by the rules and
in the words of scikit-learn; they are written anew, since scikit-learn takes a second to import. A
model of a table finds its columns by their names, as in a file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.sequences.as_array import as_array, check_in_time
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.mapped import Mapped
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.tables.names import named_twice

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.preparation import Preparation

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
    frames = _listed_frames(X)
    if frames is not None:
        return _names_of_all(frames, name)
    names = _columns(X)
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


def _columns(frame: Any) -> Any:
    """The names of a frame's columns as it has them; pyarrow calls them `column_names`."""
    names = getattr(frame, "column_names", None)
    return names if isinstance(names, list) else getattr(frame, "columns", None)


def _listed_frames(X: Any) -> Sequence[Any] | None:
    """X as a list, if it is one, a column of a data frame, or an array of objects."""
    if isinstance(X, (list, tuple)):
        return X
    is_column = getattr(X, "ndim", None) == 1 and getattr(X, "dtype", "") in ("O", "object")
    return X.tolist() if is_column else None


def _names_of_all(frames: Sequence[Any], name: str) -> np.ndarray | None:
    is_nested = len(frames) == 0 or isinstance(frames[0], (list, tuple))
    wanted = None if is_nested else column_names(frames[0])
    if wanted is None:
        return None
    for i, frame in enumerate(frames):
        names = _columns(frame)
        if names is None or list(names) != wanted.tolist():
            came = "no names of columns" if names is None else f"the columns {list(names)}"
            raise ValueError(
                f"{name}[{i}] has {came}, {name}[0] has {wanted.tolist()}; wanted the same in all "
                "sequences, in the same order"
            )
    return wanted


def as_trained(
    X: Any, fitted: np.ndarray | None, preparation: Preparation | None, estimator: str
) -> Any:
    """Sequences whose columns are those that a model was trained with, in their order.

    Args:
        X: sequences, or `Examples`; without names, columns are taken in their order.
        fitted: the columns of the data frames that the model was fitted on, if it was.
        preparation: of the table that the model was trained on, if it was.
        estimator: its name; a `SequenceTagger` takes one data frame for one sequence.

    Raises:
        ValueError: a frame has other columns; or one frame came where a list of them is wanted.
    """
    if isinstance(X, Examples):
        return _of_table(X, fitted, estimator)
    if estimator == "SequenceTagger":
        check_in_time(X, "X")
    elif fitted is not None and len(fitted) == 1 and is_frame(X):
        raise ValueError(
            f"X is one data frame, and the model was fitted on a list of them with the column "
            f"{fitted[0]!r}; wanted such a list: [X] for a single sequence"
        )
    if preparation is None or preparation.roles is None:
        check_columns(X, fitted, estimator)
        return X
    wanted: Sequence[str] = [feature.name for feature in preparation.features]
    is_one = is_frame(X)
    if preparation.roles.shape == "wide":
        if not is_one:
            return X  # sequences of one feature
        wanted = preparation.roles.features
    elif is_one and estimator != "SequenceTagger":
        raise ValueError(
            f"X is one data frame, and the model was trained with sequences of {_shown(wanted)}; "
            "wanted a list of data frames, one for each sequence: [part[features] for _, part in "
            "X.groupby(id)]"
        )
    return in_order(X, wanted)


def _of_table(examples: Examples, fitted: np.ndarray | None, estimator: str) -> Any:
    """The sequences of a table for a model that was fitted on data frames or on arrays."""
    X, roles = examples.X, examples.roles
    if fitted is None or roles is None:
        return X
    came = roles.features if roles.shape == "wide" else examples.features
    if sorted(came) != sorted(fitted) or isinstance(X, Mapped) or roles.shape == "wide":
        check_names(np.array(came, dtype=object), fitted, estimator)
        return X
    order = _places(list(came), fitted.tolist(), "X")
    return Ragged(X.values[:, order], X.offsets) if isinstance(X, Ragged) else X[:, :, order]


def are_steps(names: np.ndarray | None) -> bool:
    """Whether names of columns are numbered, such as t0, t1 or 2024-01, or missing."""
    if names is None:
        return True
    return len({re.sub(r"\d+", "", name) for name in names}) == 1 and any(map(_digit, names))


_digit = re.compile(r"\d").search


def check_rows_are_sequences(X: Any, y: Any) -> None:
    """Refuse a long table, whose rows are steps, as sequences of as many steps as it has columns.

    Its columns have names, not numbers; or its labels come in runs, and it has few columns.

    Args:
        X: the argument of `fit`.
        y: `[N]`, the labels of its rows.

    Raises:
        ValueError: X is such a table; the message says how to give it.
    """
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if _listed_frames(X) is not None or len(shape) != 2 or np.ndim(y) != 1:
        return
    n, steps = shape[0], shape[1]
    labels = np.asarray(y)
    runs = 1 + int((labels[1:] != labels[:-1]).sum()) if len(labels) == n > 0 else n
    in_runs = n >= 50 and len(set(labels.tolist())) < runs < n / 4
    named = not are_steps(column_names(X))
    if (named and (steps < 8 or in_runs)) or (in_runs and steps < 8):
        raise ValueError(
            f"X is one table, and would be {n} sequences of {steps} steps of one feature; wanted "
            "a list of sequences [steps, features] and a label for each, as [part[features] for "
            "_, part in table.groupby(id)] makes it of a row for each step; if each row is a "
            "sequence, pass np.asarray(X)[:, :, None]"
        )


def is_frame(X: Any) -> bool:
    """Whether X is one data frame whose columns have names."""
    return _listed_frames(X) is None and column_names(X) is not None


def in_order(X: Any, wanted: Sequence[str], name: str = "X") -> Any:
    """The values of a data frame, or of each of a list, their columns in the wanted order.

    X without names of columns is unchanged.

    Raises:
        ValueError: a frame lacks a column, or has others.

    Example:
        >>> class Frame:  # as of pandas
        ...     columns = ["y", "x"]
        ...     def __array__(self, dtype=None, copy=None):
        ...         return np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> in_order(Frame(), ["x", "y"])
        array([[2., 1.],
               [4., 3.]])
    """
    frames = _listed_frames(X)
    if frames is not None:
        if all(_columns(frame) is None for frame in frames):
            return X
        for i, frame in enumerate(frames):
            check_in_time(frame, f"{name}[{i}]")
        return [in_order(frame, wanted, f"{name}[{i}]") for i, frame in enumerate(frames)]
    came = column_names(X, name)
    return X if came is None else as_array(X)[:, _places(came.tolist(), wanted, name)]


def row_in_order(row: Any, wanted: Sequence[str] | None) -> Any:
    """`in_order` of one step: a dictionary, a named tuple, or a row of a data frame; or of several.

    Raises:
        ValueError: as `in_order`.
        TypeError: a dictionary came, and no names are known.
    """
    if isinstance(row, np.ndarray):
        return row
    if isinstance(row, Mapping):
        names: Any = list(row)
        if wanted is None:
            raise TypeError(
                f"x has the names {_shown(names)}, and the model was trained without names; "
                "wanted an array, its features in the order of the training"
            )
        row = list(row.values())
    else:
        names = getattr(row, "_fields", None)
        names = list(getattr(row, "index", [])) if names is None and _is_row(row) else names
    if names is None or wanted is None or not all(isinstance(name, str) for name in names):
        return row if wanted is None else in_order(row, wanted, "x")
    values = list(row)
    return [values[place] for place in _places(list(names), wanted, "x")]


def _is_row(row: Any) -> bool:
    """Whether it is a row of a data frame, which has an index of names."""
    return getattr(row, "ndim", None) == 1 and hasattr(row, "index")


def _places(came: list[str], wanted: Sequence[str], name: str) -> list[int]:
    """The places of the wanted names among the given ones."""
    if sorted(came) != sorted(wanted):
        raise ValueError(_differences(came, wanted, name))
    at = {each: i for i, each in enumerate(came)}
    return [at[each] for each in wanted]


def _shown(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def check_columns(X: Any, wanted: np.ndarray | None, estimator: str = "SequenceClassifier") -> None:
    """Raise ValueError if a data frame lacks the columns, in their order, of the trained one.

    Warns:
        UserWarning: one of the two has no names.

    Raises:
        ValueError: the names differ.
    """
    check_names(column_names(X), wanted, estimator)


def check_names(
    came: np.ndarray | None, wanted: np.ndarray | None, estimator: str, name: str = "X"
) -> None:
    """`check_columns` for names of columns, or None without names; `name` is the argument's."""
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
    raise ValueError(_differences(came.tolist(), wanted.tolist(), name))


def _differences(came: Sequence[str], wanted: Sequence[str], name: str) -> str:
    """What differs between two lists of names."""
    unseen, missing = sorted({*came} - {*wanted}), sorted({*wanted} - {*came})
    twice = named_twice(came)
    of = "" if name == "X" else f" of {name}"
    text = f"The feature names{of} should match those that were passed during fit.\n"
    if unseen:
        text += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        text += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if twice:
        text += f"Feature names that come twice:\n{_listed(twice)}"
    if not unseen and not missing and not twice:
        text += "Feature names must be in the same order as they were in fit.\n"
    return text


def _listed(names: list[str]) -> str:
    more = ["- ...\n"] if len(names) > _SHOWN else []
    return "".join([*(f"- {name}\n" for name in names[:_SHOWN]), *more])
