"""`as_sequences`: the border at which a user's data become the arrays that models work on."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ostinato_learn.data.sequences.as_array import array_of, numbers
from ostinato_learn.data.sequences.mapped import Mapped
from ostinato_learn.data.sequences.ragged import Ragged, as_float32

WANTED = "an array [steps, features] for each sequence, and a list of such"
Sequences: TypeAlias = "np.ndarray | Ragged"  # [N, T, F] float32 C-contiguous, or N of [T_i, F]


def as_sequences(X: Any) -> Sequences:
    """Check sequences and bring them into one of the two forms that models accept.

    Args:
        X: one of
            an array `[N, T, F]`, or `[N, T]` for one feature; anything that NumPy reads as such,
            a torch tensor included;
            a list or object array of N arrays `[T_i, F]`, or `[T_i]` for one feature;
            a `Ragged`.
            Numbers of any real dtype.

    Returns:
        `[N, T, F]` float32, C-contiguous (`X` itself, if it already is), or, if lengths differ, a
        `Ragged`. A list of sequences of one length becomes an array.

    Raises:
        ValueError: X has another number of axes, no examples, no steps or no features; sequences
            differ in features; a value is not a number, is NaN or infinite, or overflows float32.
            The message names the first offender.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data import as_sequences
        >>> as_sequences(np.zeros((5, 7))).shape
        (5, 7, 1)
        >>> as_sequences([np.zeros((3, 2)), np.zeros((4, 2))])
        Ragged(2 sequences of 3 to 4 steps, 2 features)
        >>> as_sequences([[1.0, 2.0], [3.0, float("nan")]])
        Traceback (most recent call last):
        ...
        ValueError: X has NaN at example 1, step 1, feature 0; wanted finite float32 numbers: \
fill missing values in, or leave the example out
    """
    sequences = shape_sequences(X)
    _check_extent(sequences)
    if not isinstance(sequences, Mapped):  # sequences on disk were checked when they were prepared
        _check_finite(sequences)
    return sequences


def shape_sequences(X: Any) -> Sequences:
    """`as_sequences` without looking at the values: missing ones (NaN) pass."""
    if isinstance(X, Ragged):
        return X
    if not isinstance(X, (list, tuple)):
        X = array_of(X, "X", WANTED)
        if X.dtype == object and X.ndim == 2 and X.size and np.ndim(X.flat[0]) > 0:
            raise ValueError(
                "X is a table whose cells are lists; wanted an array [steps, features] for each "
                "sequence, as [np.stack(row, axis=1) for row in np.asarray(X)] makes them"
            )
        if X.dtype == object and X.ndim > 0:  # of arrays, or of Python's numbers
            X = X.tolist()
    if isinstance(X, (list, tuple)):
        arrays = [numbers(x, f"X[{i}]", WANTED) for i, x in enumerate(X)]
        if len({array.shape for array in arrays}) > 1:
            return Ragged.from_list(arrays)
        array = np.stack(arrays) if arrays else np.zeros((0, 0, 0))
    else:
        array = numbers(X, "X", WANTED)
    if array.ndim == 2:
        if array.shape[1] == 0:  # in scikit-learn's words, which its check_estimator expects
            raise ValueError(
                f"X has 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
            )
        array = array[:, :, None]
    if array.ndim != 3:
        raise ValueError(
            f"X has shape {list(array.shape)}; wanted [examples, steps, features], "
            "[examples, steps] for one feature, or a list of arrays [steps, features]. "
            "Reshape your data: a single sequence x is X = x[None]"
        )
    return as_float32(array, place)


def one_sequence(X: Sequences) -> str:
    """The end of a message about too few features: one sequence may have been given for many."""
    if isinstance(X, Ragged) or X.shape[2] > 1:
        return ""
    return "; an array [N, T] is N sequences of one feature: a single sequence x is X = x[None]"


def place(example: int, step: int, feature: int) -> str:
    """An index into `[N, T, F]` in words, for messages."""
    return f"example {example}, step {step}, feature {feature}"


def _check_extent(sequences: Sequences) -> None:
    if len(sequences) == 0:
        raise ValueError("X has no examples; wanted at least one")
    if isinstance(sequences, Ragged):
        lengths, n_features = sequences.lengths, sequences.n_features
    else:
        lengths, n_features = np.asarray(sequences.shape[1:2]), sequences.shape[2]
    if n_features == 0:
        raise ValueError("X has no features; wanted at least one for each step")
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise ValueError(f"example {empty[0]} of X has no steps; wanted at least one")


def _check_finite(sequences: Sequences) -> None:
    values = sequences.values if isinstance(sequences, Ragged) else sequences
    finite = np.isfinite(values)
    if finite.all():
        return
    first = tuple(np.argwhere(~finite)[0].tolist())
    where = sequences.place(*first) if isinstance(sequences, Ragged) else place(*first)
    value = "NaN" if np.isnan(values[first]) else values[first]
    raise ValueError(
        f"X has {value} at {where}; wanted finite float32 numbers: "
        "fill missing values in, or leave the example out"
    )
