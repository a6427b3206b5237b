"""Arrays on disk, mapped into memory, and sequences in them: for data larger than memory.

    GrowingArray  a temporary file that rows are appended to, and then an array
    Pieces        arrays that become one, on disk or in memory
    Mapped        sequences of vectors in such an array, as a `Ragged`
    Series        sequences of numbers, times or names, in memory or in such an array

The system reads a page of a mapped array when it is accessed, and frees its memory when needed.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ostinato_learn.data.sequences.ragged import Ragged, gathered, offsets_of

S = TypeVar("S", bound="Series")


class GrowingArray:
    """An array `[n]` or `[n, width]` in a temporary file without a name, gone with the program.

    Example:
        >>> array = GrowingArray(np.float32, 2)
        >>> array.append([[1, 2]])
        >>> array.append([[3, 4], [5, 6]])
        >>> array.mapped()[1:].tolist()
        [[3.0, 4.0], [5.0, 6.0]]
    """

    def __init__(self, dtype: Any, *row: int, directory: str | os.PathLike[str] | None = None):
        """Rows of a dtype and the shape `row`, (width,) or none."""
        import tempfile  # a millisecond, which the runtime does not need

        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)
        self.dtype, self.row = np.dtype(dtype), row

    def append(self, rows: Any) -> None:
        """Write rows at the end."""
        self._write(os.fstat(self.descriptor).st_size, rows)

    def write_at(self, row: int, rows: Any) -> None:
        """Write rows from this one on."""
        self._write(row * self.dtype.itemsize * math.prod(self.row), rows)

    def mapped(self) -> np.ndarray:
        """What was written, as an array that cannot be written to."""
        size = os.fstat(self.descriptor).st_size
        content = mmap.mmap(self.descriptor, size, access=mmap.ACCESS_READ) if size else b""
        return np.frombuffer(content, self.dtype).reshape(-1, *self.row)

    def _write(self, position: int, rows: Any) -> None:
        content = np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data
        os.lseek(self.descriptor, position, os.SEEK_SET)
        while len(content):  # Linux writes at most 2 GiB at once
            content = content[os.write(self.descriptor, content) :]


def is_mapped(array: Any) -> bool:
    """Whether an array, or the one that it is a view of, lies on disk."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", array), mmap.mmap)


class Pieces:
    """Arrays that will be one, end to end: in memory, or on disk.

    Example:
        >>> pieces = Pieces(on_disk=True)
        >>> pieces.append(np.arange(2))
        >>> pieces.append(np.arange(3))
        >>> pieces.joined().tolist()
        [0, 1, 0, 1, 2]
    """

    def __init__(self, on_disk: bool):
        self._on_disk = on_disk
        self._kept: list[np.ndarray] = []
        self._file: GrowingArray | None = None

    def append(self, array: np.ndarray) -> None:
        """Take the next array."""
        if not self._on_disk or not array.size:  # a file cannot hold a width of 0
            self._kept.append(array)
            return
        self._file = self._file or GrowingArray(array.dtype, *array.shape[1:])
        self._file.append(array)

    def joined(self) -> np.ndarray:
        """The whole of one array or more."""
        return self._file.mapped() if self._file is not None else np.concatenate(self._kept)


def stretches(sizes: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """The positions 0…N−1 in stretches whose sizes `[N]` come to about `most`, or to one of them.

    Example:
        >>> [part.tolist() for part in stretches(np.array([2, 2, 9, 1, 1, 1]), 4)]
        [[0, 1], [2], [3, 4, 5]]
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield np.arange(start, stop)
        start = stop


class Mapped(Ragged):
    """Sequences in an array on disk: a `Ragged` whose elements are read when they are asked for.

    Indexing with an integer gives a sequence, with a slice or an array a `Ragged` in memory; `take`
    leaves the sequences on disk.

    Args:
        rows: `[n, F]`, on disk.
        starts, lengths: the first row, and the number of rows, of each sequence, `[N]`.
        prepare: the function applied to sequences when they are read, and their number of features
            then.
    """

    __slots__ = ("_lengths", "_prepare", "_rows", "_starts")

    def __init__(
        self,
        rows: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        prepare: tuple[Callable[[Ragged], Ragged], int] | None = None,
    ):
        self._rows, self._starts, self._lengths = rows, starts, lengths
        self._prepare = prepare
        self.offsets = offsets_of(lengths)

    @property
    def values(self) -> np.ndarray:  # type: ignore[override]
        """All steps, `[ΣT, F]`, read into memory."""
        return self[:].values

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each sequence, `[N]` int64."""
        return self._lengths

    @property
    def n_features(self) -> int:
        """F, the numbers of one time step."""
        return self._prepare[1] if self._prepare else self._rows.shape[1]

    @property
    def sizes(self) -> np.ndarray:
        """Numbers of each sequence on disk, `[N]`, with an answer at each step."""
        return self._lengths * (1 + self._rows.shape[1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            return super().__getitem__([int(index)]).values
        return super().__getitem__(index)

    def take(self, positions: np.ndarray) -> Mapped:
        """The sequences at `positions` `[M]`, which stay on disk."""
        return Mapped(self._rows, self._starts[positions], self._lengths[positions], self._prepare)

    def prepared(self, prepare: Callable[[Ragged], Ragged], n_features: int) -> Mapped:
        """The same sequences, prepared when they are read, after what was to be done until now."""
        before = self._prepare[0] if self._prepare else None
        both = prepare if before is None else lambda raw: prepare(before(raw))
        return Mapped(self._rows, self._starts, self._lengths, (both, n_features))

    def column(self, i: int) -> Series:
        """Feature i as it lies on disk."""
        return Series(self._rows[:, i], self._lengths, self._starts)

    def equals(self, other: object) -> bool:
        return self[:].equals(other[:] if isinstance(other, Mapped) else other)

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        return self[:].padded()

    def _stretch(self, start: int, stop: int) -> Ragged:
        return self._gather(np.arange(start, stop))

    def _gather(self, positions: np.ndarray) -> Ragged:
        lengths = self._lengths[positions]
        raw = Ragged(gathered(self._rows, self._starts[positions], lengths), offsets_of(lengths))
        return self._prepare[0](raw) if self._prepare else raw


class Series(Sequence[np.ndarray]):
    """N sequences of a value at each step: numbers, times or names. In memory, or on disk.

    An integer gives a sequence, `[T_i]`; a slice a list of them.

    Args:
        stored: `[n]`, the values of all sequences.
        lengths: `[N]`.
        starts: `[N]`, the begin of each; None: they are end to end.
        stand_for: the meaning of each of the stored whole numbers; None: itself.

    Attributes:
        offsets: `[N + 1]` int64; sequence i is `values[offsets[i]:offsets[i + 1]]`.
        lengths: `[N]` int64.
    """

    def __init__(
        self,
        stored: np.ndarray,
        lengths: Any,
        starts: np.ndarray | None = None,
        stand_for: np.ndarray | None = None,
    ):
        self.lengths = np.asarray(lengths, np.int64)
        self.offsets = offsets_of(self.lengths)
        self.stored, self.stand_for = stored, stand_for
        self.starts = self.offsets[:-1] if starts is None else starts
        self._is_whole = starts is None and stand_for is None

    @property
    def values(self) -> np.ndarray:
        """`[ΣT]`, all values."""
        if self._is_whole:
            return self.stored
        return self._meant(gathered(self.stored, self.starts, self.lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self.starts[index]
        return self._meant(self.stored[start : start + self.lengths[index]])

    def take(self: S, positions: np.ndarray) -> S:
        """The sequences at `positions` `[M]`; those on disk stay there."""
        lengths, starts = self.lengths[positions], self.starts[positions]
        if is_mapped(self.stored):
            return type(self)(self.stored, lengths, starts, self.stand_for)
        return type(self)(gathered(self.stored, starts, lengths), lengths, None, self.stand_for)

    def _meant(self, stored: np.ndarray) -> np.ndarray:
        return stored if self.stand_for is None else self.stand_for[stored.astype(np.int64)]
