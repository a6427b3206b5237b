"""`Ragged`: sequences of different lengths, stored end to end without padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from ostinato_learn.data.sequences.as_array import as_array


class Ragged:
    """N sequences of different lengths with F features each, in two arrays.

    Sequence i is `values[offsets[i]:offsets[i + 1]]`. Indexing with an integer gives that
    sequence, `[T_i, F]`; with a slice, an integer array or a boolean array, another `Ragged`.
    A single sequence and a slice of step 1 share memory with the whole.

    Args:
        values: `[ΣT, F]` numbers, kept as float32 (not copied if they are float32 already).
        offsets: `[N + 1]` integers from 0 to ΣT that never decrease, kept as int64.

    Raises:
        ValueError: values are not 2-D numbers, or offsets do not cut them into sequences.
        IndexError: an index is out of range, or a boolean index has another length than N.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data import Ragged
        >>> r = Ragged.from_list([[[1.0], [2.0]], [[3.0]], [[4.0], [5.0], [6.0]]])
        >>> len(r), r.n_features, r.lengths
        (3, 1, array([2, 1, 3]))
        >>> r[1]
        array([[3.]], dtype=float32)
        >>> r[[2, 0]].values.ravel()
        array([4., 5., 6., 1., 2.], dtype=float32)
        >>> X, lengths = r.padded()
        >>> X[:, :, 0]
        array([[1., 2., 0.],
               [3., 0., 0.],
               [4., 5., 6.]], dtype=float32)
    """

    __slots__ = ("offsets", "values")

    values: np.ndarray  # [ΣT, F] float32
    offsets: np.ndarray  # [N + 1] int64

    def __init__(self, values: Any, offsets: Any) -> None:
        values = _check_values(as_array(values))
        self.offsets = _check_offsets(np.asarray(offsets), len(values))
        self.values = as_float32(values, self.place)

    @classmethod
    def from_list(cls, sequences: Sequence[Any]) -> Ragged:
        """Join a list of `[T_i, F]` arrays, or of `[T_i]` arrays as one feature.

        Raises:
            ValueError: the list is empty, or its elements differ in F or are neither 1-D nor 2-D.
        """
        if len(sequences) == 0:
            raise ValueError("Ragged.from_list: the list is empty; wanted at least one sequence")
        arrays = [_two_axes(as_array(s), i) for i, s in enumerate(sequences)]
        n_features = arrays[0].shape[1]
        for i, array in enumerate(arrays):
            if array.shape[1] != n_features:
                raise ValueError(
                    f"sequence {i} has {array.shape[1]} features, sequence 0 has {n_features}; "
                    "wanted the same number in all"
                )
        return cls(np.concatenate(arrays), offsets_of([len(array) for array in arrays]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_features(self) -> int:
        """F, the numbers of one time step."""
        return self.values.shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each sequence, `[N]` int64."""
        return np.diff(self.offsets)

    @property
    def max_length(self) -> int:
        """The number of steps of the longest sequence; 0 without sequences."""
        return int(self.lengths.max(initial=0))

    @overload
    def __getitem__(self, index: int | np.integer) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Ragged: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._stretch(start, max(start, stop))
            return self._gather(np.arange(start, stop, step))
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            i = int(self._positions(np.asarray([index]))[0])
            return self.values[self.offsets[i] : self.offsets[i + 1]]
        return self._gather(self._positions(np.asarray(index)))

    def __iter__(self) -> Iterator[np.ndarray]:
        for i in range(len(self)):
            yield self[i]

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """`(X, lengths)`: X `[N, Tmax, F]` float32, zero beyond each sequence; lengths `[N]`."""
        X = np.zeros((len(self), self.max_length, self.n_features), np.float32)
        X[np.arange(self.max_length) < self.lengths[:, None]] = self.values
        return X, self.lengths

    def equals(self, other: object) -> bool:
        """Whether `other` is a Ragged of the same sequences, value by value (NaN equals none)."""
        return (
            isinstance(other, Ragged)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.values, other.values)
        )

    def __repr__(self) -> str:
        lengths = self.lengths
        steps = f"{lengths.min()} to {lengths.max()}" if len(self) else "no"
        return f"Ragged({len(self)} sequences of {steps} steps, {self.n_features} features)"

    def _positions(self, index: np.ndarray) -> np.ndarray:
        """An index array as positions 0…N−1."""
        n = len(self)
        if index.dtype == bool:
            if index.shape != (n,):
                raise IndexError(
                    f"a boolean index of shape {list(index.shape)} for a Ragged of {n} sequences; "
                    f"wanted shape [{n}]"
                )
            return np.flatnonzero(index)
        if index.size == 0:
            return np.zeros(0, np.int64)
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise IndexError(
                f"a Ragged cannot be indexed with {index.dtype}{list(index.shape)}; wanted an "
                "integer, a slice, or a 1-D array of integers or booleans"
            )
        wrong = np.flatnonzero((index < -n) | (index >= n))
        if len(wrong):
            raise IndexError(f"index {index[wrong[0]]} is out of range for {n} sequences")
        return np.where(index < 0, index + n, index).astype(np.int64)

    def place(self, row: int, feature: int) -> str:
        """An entry of values in words, for messages."""
        example = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"example {example}, step {row - int(self.offsets[example])}, feature {feature}"

    def _stretch(self, start: int, stop: int) -> Ragged:
        """Sequences start…stop−1, sharing memory."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def _gather(self, positions: np.ndarray) -> Ragged:
        """The sequences at `positions`, copied end to end."""
        lengths = self.lengths[positions]
        return Ragged(gathered(self.values, self.offsets[positions], lengths), offsets_of(lengths))


def gathered(rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Stretches of an array, of `lengths` `[M]` rows from `starts` `[M]` on, copied end to end."""
    offsets = offsets_of(lengths)
    # row r of the result lies in its stretch at r − offsets[i], hence at …
    shift = np.repeat(starts - offsets[:-1], lengths)
    found: np.ndarray = rows[shift + np.arange(offsets[-1])]
    return found


def as_float32(array: np.ndarray, place: Callable[..., str]) -> np.ndarray:
    """The numbers as float32, C-contiguous; `place` gives an index in words.

    Raises:
        ValueError: a finite number is too large for float32.
    """
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(array, dtype=np.float32)
    except FloatingPointError:
        largest = np.finfo(np.float32).max
        first = tuple(np.argwhere(np.isfinite(array) & (abs(array) > largest))[0].tolist())
        raise ValueError(
            f"X has {array[first]} at {place(*first)}, which overflows float32 (at most "
            f"{largest:.1e}); wanted smaller numbers: scale that feature down"
        ) from None


def offsets_of(lengths: Any) -> np.ndarray:
    """Where sequences of these lengths `[N]` begin that are end to end, and the end, `[N + 1]`."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _two_axes(array: np.ndarray, i: int) -> np.ndarray:
    if array.ndim == 1:
        return array[:, None]
    if array.ndim == 2:
        return array
    raise ValueError(
        f"sequence {i} has shape {list(array.shape)}; "
        "wanted [steps, features], or [steps] for one feature"
    )


def _check_values(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"Ragged: values are {values.dtype}{list(values.shape)}; "
            "wanted numbers of shape [all steps, features]"
        )
    return values


def _check_offsets(offsets: np.ndarray, n_steps: int) -> np.ndarray:
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) == 0:
        raise ValueError(
            f"Ragged: offsets are {offsets.dtype}{list(offsets.shape)}; "
            "wanted integers of shape [sequences + 1]"
        )
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != n_steps:
        raise ValueError(
            f"Ragged: offsets run from {offsets[0]} to {offsets[-1]}; wanted 0 to {n_steps}, "
            "the steps in values"
        )
    decreases = np.flatnonzero(np.diff(offsets) < 0)
    if len(decreases):
        i = decreases[0]
        raise ValueError(
            f"Ragged: offsets decrease from {offsets[i]} to {offsets[i + 1]} at entry {i + 1}; "
            "wanted the start of each sequence where the one before it ends"
        )
    return offsets
