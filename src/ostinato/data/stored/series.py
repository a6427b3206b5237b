"""`StoredSeries`: a number or a time at every step of sequences in a file, without rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ostinato.data.stored.sequences import Stored

AT_ONCE = 1 << 20  # stored numbers that are read at a time where all are
WIDTH = 2  # columns of float32 that hold the bytes of a number


class StoredSeries(Sequence[np.ndarray]):
    """The values, or times, of N series in a file: what a list of arrays is for those in memory.

    An integer gives a series, `[T_i]`.

    Args:
        rows: the sequences, as they lie in the file.
        column: the first of the two columns that hold the bytes of a number.
        dtype: of the numbers: float64, or datetime64[ns].
    """

    def __init__(self, rows: Stored, column: int, dtype: str = "<f8"):
        self._rows = rows
        self._column = column
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._read(np.array([index]))[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for chosen in self._rows.stretches(AT_ONCE):
            yield from self._read(chosen)

    @property
    def width(self) -> int:
        """Numbers that the file has of a step."""
        return self._rows.n_features

    def take(self, chosen: np.ndarray) -> StoredSeries:
        """The series at positions `[M]`, which stay in the file."""
        return StoredSeries(self._rows.take(chosen), self._column, self._dtype)

    def _read(self, chosen: np.ndarray) -> list[np.ndarray]:
        rows = self._rows[chosen]
        columns = rows.values[:, self._column : self._column + WIDTH]
        values = np.ascontiguousarray(columns).view(self._dtype)[:, 0]
        return np.split(values, rows.offsets[1:-1])


def as_columns(series: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers of 8 bytes, end to end, as a file has them: `[ΣT, 2]` float32."""
    return np.concatenate(series).view(np.float32).reshape(-1, WIDTH)
