"""`Stored`: sequences in a file, for data larger than the memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from ostinato.data.sequences.ragged import Ragged

_FLOAT = 4  # bytes


class HeldFile(io.FileIO):
    """A file that is open as long as somebody holds it.

    Python warns of an open file that nobody holds any more; the examples whose sequences this one
    has are its only owner, and they are not closed.
    """

    def __del__(self) -> None:
        self.close()


class Files:
    """Files as one: each goes on where the one before it ends. None of them grows any more."""

    def __init__(self, files: Sequence[IO[bytes]]):
        self._files = files
        self._ends = np.cumsum([os.fstat(file.fileno()).st_size for file in files])

    def read_into(self, content: memoryview, position: int) -> None:
        """Fill a stretch of memory with the bytes from `position` on."""
        while len(content):
            i = int(np.searchsorted(self._ends, position, side="right"))
            n = 0
            if i < len(self._files):
                begin = int(self._ends[i - 1]) if i else 0
                part = content[: int(self._ends[i]) - position]
                n = _read_into(self._files[i], part, position - begin)
            if not n:
                raise OSError("the file of stored examples ends early")
            content, position = content[n:], position + n


def _read_into(file: IO[bytes], content: memoryview, position: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [content], position)
    file.seek(position)
    return file.readinto(content)  # type: ignore[attr-defined]


class Stored(Ragged):
    """Sequences in a file: a `Ragged` whose elements are read when they are asked for.

    Indexing with an integer gives a sequence, with a slice or an array a `Ragged` in memory.
    Made by `store_examples`.

    Args:
        file: float32, the sequences end to end.
        starts, lengths: of each sequence, `[N]`, in steps.
        n_stored: features of a step in the file.
        prepare: what becomes of sequences when they are read, and the features that they have then.
    """

    __slots__ = ("_file", "_lengths", "_n_features", "_n_stored", "_prepare", "_starts")

    def __init__(
        self,
        file: Files,
        starts: np.ndarray,
        lengths: np.ndarray,
        n_stored: int,
        prepare: tuple[Callable[[Ragged], Ragged], int] | None = None,
    ):
        self._file = file
        self._starts = starts
        self._lengths = lengths
        self._n_stored = n_stored
        self._prepare = prepare
        self._n_features = prepare[1] if prepare else n_stored
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

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
        return self._n_features

    @property
    def n_values(self) -> int:
        """Numbers in the file."""
        return int(self.offsets[-1]) * self._n_stored

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            return super().__getitem__([int(index)]).values
        return super().__getitem__(index)

    def take(self, positions: np.ndarray) -> Stored:
        """The sequences at `positions`, which stay in the file."""
        lengths = self.lengths[positions]
        return Stored(self._file, self._starts[positions], lengths, self._n_stored, self._prepare)

    def prepared(self, prepare: Callable[[Ragged], Ragged], n_features: int) -> Stored:
        """The same sequences, prepared when they are read, after what was to be done until now."""
        before = self._prepare[0] if self._prepare else None
        both = prepare if before is None else lambda raw: prepare(before(raw))
        return Stored(self._file, self._starts, self.lengths, self._n_stored, (both, n_features))

    def stretches(self, most: int) -> Iterator[np.ndarray]:
        """The positions of all sequences, in stretches of about `most` stored numbers."""
        at_once = max(1, most * len(self) // max(1, self.n_values))
        for start in range(0, len(self), at_once):
            yield np.arange(start, min(start + at_once, len(self)))

    def equals(self, other: object) -> bool:
        return self[:].equals(other[:] if isinstance(other, Stored) else other)

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        return self[:].padded()

    def _stretch(self, start: int, stop: int) -> Ragged:
        return self._gather(np.arange(start, stop))

    def _gather(self, positions: np.ndarray) -> Ragged:
        lengths = self.lengths[positions]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = np.empty((offsets[-1], self._n_stored), np.float32)
        starts = self._starts[positions]
        # Sequences that follow each other in the file are read at once.
        apart = np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1
        firsts = np.append(0, apart)[: len(positions)]
        ends = np.append(apart, len(positions))[: len(positions)]
        for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
            self._read_into(values[offsets[first] : offsets[end]], int(starts[first]))
        raw = Ragged(values, offsets)
        return self._prepare[0](raw) if self._prepare else raw

    def _read_into(self, values: np.ndarray, start: int) -> None:
        """Fill an array, contiguous in memory, from the file."""
        content = values.reshape(-1).view(np.uint8).data
        self._file.read_into(content, start * self._n_stored * _FLOAT)
