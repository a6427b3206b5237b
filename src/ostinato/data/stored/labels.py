"""A whole number, or a label, at every step of sequences in a file.

StoredIntegers  a column of the file, as `Integers` that are read when they are asked for
StoredLabels    the labels that such numbers stand for, as the list of arrays of N sequences
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ostinato.data.sequences.labels import LabelEncoder
from ostinato.data.stored.sequences import Stored
from ostinato.data.text.words import Integers
from ostinato.metrics.spans import in_iob2, to_iob2

AT_ONCE = 1 << 20  # stored numbers that are read at a time where all are


class StoredIntegers(Integers):
    """A column of sequences in a file.

    Args:
        rows: the sequences, as they lie in the file.
        column: of the whole numbers.
        numbers: `[D]`, what each of the stored numbers 0…D−1 stands for; None: itself.
    """

    __slots__ = ("_column", "_numbers", "_rows")

    def __init__(self, rows: Stored, column: int, numbers: np.ndarray | None = None):
        self._rows = rows
        self._column = column
        self._numbers = numbers
        self.offsets = rows.offsets

    @property
    def values(self) -> np.ndarray:  # type: ignore[override]
        """`[ΣT]` int64, read into memory."""
        stored = self._rows[:].values[:, self._column].astype(np.int64)
        return stored if self._numbers is None else self._numbers[stored]

    def __getitem__(self, i: int) -> np.ndarray:
        return self.take(np.array([i])).values

    def take(self, chosen: np.ndarray) -> StoredIntegers:
        """The sequences at positions `[M]`, which stay in the file."""
        return StoredIntegers(self._rows.take(chosen), self._column, self._numbers)

    def counts(self, n: int) -> np.ndarray:
        total = np.zeros(n, np.int64)
        for part in self.parts():
            total += np.bincount(part.values, minlength=n)
        return total

    def parts(self) -> Iterator[Integers]:
        """All sequences in the memory, some at a time."""
        for chosen in self._rows.stretches(AT_ONCE):
            taken = self.take(chosen)
            yield Integers(taken.values, taken.lengths)

    def standing_for(self, numbers: np.ndarray) -> StoredIntegers:
        """The same sequences with `numbers[i]` for each stored i."""
        return StoredIntegers(self._rows, self._column, numbers)


class StoredLabels(Sequence[np.ndarray]):
    """The labels of N sequences in a file: what a list of arrays is for those in the memory.

    An integer gives the labels of a sequence, `[T_i]`; a slice a list of such.

    Args:
        classes: `[C]`, all labels that the file may have.
        numbers: the place of each step's label among them.
    """

    def __init__(self, classes: np.ndarray, numbers: StoredIntegers):
        self.classes = classes
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            taken = self.numbers.take(np.arange(len(self))[index])
            return self._split(Integers(taken.values, taken.lengths))
        return self.classes[self.numbers[index]]

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.numbers.parts():
            yield from self._split(part)

    def take(self, chosen: np.ndarray) -> StoredLabels:
        """The labels of the sequences at positions `[M]`, which stay in the file."""
        return StoredLabels(self.classes, self.numbers.take(chosen))

    @cached_property
    def counts(self) -> np.ndarray:
        """`[C]`, how often each label occurs."""
        return self.numbers.counts(len(self.classes))

    def encoded(
        self, scheme: str | None, encoder: LabelEncoder | None
    ) -> tuple[LabelEncoder, Integers]:
        """`steps.encoded` of these labels, whose numbers stay in the file.

        Raises:
            ValueError: a label is none of the encoder's, or none of the scheme.
        """
        occur = self.counts > 0
        names = self.classes[occur]
        if scheme is not None:
            for i, labels in enumerate(self):
                try:
                    to_iob2([str(label) for label in labels], scheme)
                except ValueError as error:
                    raise ValueError(f"sequence {i} of y: {error}") from None
            names = np.array([in_iob2(str(label), scheme) for label in names])
        if encoder is None:
            encoder, numbers = LabelEncoder.fit(names)
        else:
            numbers = encoder.encode(names)
        table = np.full(len(self.classes), -1, np.int64)
        table[occur] = numbers
        return encoder, self.numbers.standing_for(table)

    def _split(self, part: Integers) -> list[np.ndarray]:
        labels = self.classes[part.values]
        return [labels[start:end] for start, end in pairwise(part.offsets.tolist())]
