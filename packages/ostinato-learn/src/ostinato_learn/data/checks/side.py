"""`Side`: the training or the test part as the checks read it, with a hash of every step.

    step hash       64 bits of the F values of a step
    sequence hash   64 bits of a sequence's steps: Σ_t step_hash[t] · BASE^t mod 2^64

The running sum S over all steps gives the hash of any stretch of steps: (S[end] − S[start]) ·
BASE^−start. Equal hashes are candidates; the steps themselves are then compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.label_sets import joined

# Odd, with bits that look random: ⌊2⁶⁴ / φ⌋ and ⌊2⁶⁴ / √2⌋, made odd.
SPREAD, BASE = 0x9E3779B97F4A7C15, 0xB504F333F9DE6485
BASE_INVERSE = pow(BASE, -1, 2**64)
_AT_ONCE = 2**20  # values, or steps, hashed at a time


@dataclass(frozen=True)
class Side:
    """Sequences end to end.

    Attributes:
        name: "training", "test", or "" if there is only one part.
        values, offsets: `[ΣT, F]` float32 and `[N + 1]`, as in a `Ragged`.
        examples: their origin.
    """

    name: str
    values: np.ndarray
    offsets: np.ndarray
    examples: Examples

    @staticmethod
    def of(examples: Examples, name: str) -> Side:
        offsets = np.concatenate([[0], np.cumsum(examples.lengths)]).astype(np.int64)
        return Side(name, examples.values, offsets, examples)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_features(self) -> int:
        return self.values.shape[1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Steps of each sequence, `[N]`."""
        return np.diff(self.offsets)

    @property
    def sequences(self) -> str:
        """What its sequences are called in a message: `test sequences`"""
        return f"{self.name} sequences".strip()

    def place(self, i: Any) -> str:
        """Sequence i by its name in the file."""
        identity = self.examples.ids[i]
        named = repr(str(identity)) if isinstance(identity, str) else identity
        return f"{self.name} sequence {named}".strip()

    def feature(self, f: int) -> str:
        """Feature f by its name in the file, or by its number."""
        number = f"feature {f}"
        name = self.examples.features[f] if self.examples.features else number
        return number if name == number else repr(name)

    @cached_property
    def step_hashes(self) -> np.ndarray:
        """`[ΣT]` uint64; steps are equal if their values are: −0 is 0, and NaN is NaN."""
        hashes = np.empty(len(self.values), np.uint64)
        rows = max(1, _AT_ONCE // self.n_features)
        for start in range(0, len(hashes), rows):
            values = self.values[start : start + rows] + np.float32(0)
            values[np.isnan(values)] = np.nan
            hashes[start : start + rows] = row_hashes(values.view(np.uint32))
        return hashes

    @cached_property
    def sequence_hashes(self) -> np.ndarray:
        """A hash of all steps of each sequence, `[N]` uint64."""
        return stretch_hashes(self.step_hashes, self.offsets[:-1], self.offsets[1:])

    @cached_property
    def of_each(self) -> dict[str, np.ndarray] | None:
        """Whether each sequence has a label, `[N]` zeros and ones, by its name.

        None: a sequence has one label.
        """
        y, roles = self.examples.y, self.examples.roles
        if not hasattr(y, "ndim") or y.ndim != 2:
            return None
        names = roles.labels if roles is not None and roles.labels else range(y.shape[1])
        return {str(name): column for name, column in zip(names, y.T, strict=True)}

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The labels of sequences `[N]`, or of all steps `[ΣT]` to tag; None: no classes.

        Several labels of a sequence are one string.
        """
        y = self.examples.y
        if y is None:
            return None
        labels = np.concatenate(y) if isinstance(y, list) else np.asarray(y)
        if self.of_each is not None:
            return joined(labels, list(self.of_each))
        if labels.dtype.kind == "f" and (isinstance(y, list) or (labels != labels.round()).any()):
            return None  # a series or a number to predict
        return labels.astype(str) if labels.dtype == object else labels

    @cached_property
    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """The different labels `[C]`, and the number of each one's class, as `labels`."""
        assert self.labels is not None
        if self.labels.dtype.kind != "U" or self.labels.dtype.itemsize == 0:
            return np.unique(self.labels, return_inverse=True)
        words = np.ascontiguousarray(self.labels).view(np.uint32).reshape(len(self.labels), -1)
        hashes = row_hashes(words)  # numbers are sorted much faster than strings
        first, numbers = np.unique(hashes, return_index=True, return_inverse=True)[1:]
        names, order = np.unique(self.labels[first], return_inverse=True)
        return names, order[numbers]

    @cached_property
    def answers(self) -> np.ndarray | None:
        """64 bits for each sequence's label, or labels, `[N]` uint64; None: there are no classes.

        Equal for equal labels, on both sides.
        """
        if self.labels is None:
            return None
        names, numbers = self.classes
        codes = np.array([hash_of_text(str(name)) for name in names], np.uint64)[numbers]
        if not isinstance(self.examples.y, list):
            return codes
        return stretch_hashes(codes, self.offsets[:-1], self.offsets[1:])


def row_hashes(words: np.ndarray) -> np.ndarray:
    """A hash of each row of `[N, D]` uint32, `[N]` uint64."""
    salts = np.arange(1, words.shape[1] + 1, dtype=np.uint64) * np.uint64(SPREAD)
    hashes = np.empty(len(words), np.uint64)
    rows = max(1, _AT_ONCE // max(1, words.shape[1]))
    for start in range(0, len(hashes), rows):
        part = words[start : start + rows].astype(np.uint64)
        hashes[start : start + rows] = mixed(part + salts).sum(axis=1, dtype=np.uint64)
    return hashes


def mixed(words: np.ndarray) -> np.ndarray:
    """Each uint64 mixed by SplitMix64's last steps, so that every bit depends on every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def powers(base: int, n: int) -> np.ndarray:
    """base⁰ … base^(n − 1) mod 2⁶⁴."""
    factors = np.full(n, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def stretch_hashes(steps: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The hashes of stretches of steps, the number of their steps included, `[M]` uint64.

    Args:
        steps: `[ΣT]` uint64.
        starts, ends: `[M]`, from start to before end; starts do not decrease.
    """
    hashes = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):  # in blocks of steps, to bound the memory
        low = starts[first]
        last = max(first + 1, int(np.searchsorted(starts, low + _AT_ONCE)))
        start, end = starts[first:last] - low, ends[first:last] - low
        part = steps[low : low + end.max()]
        sums = np.zeros(len(part) + 1, np.uint64)
        np.cumsum(part * powers(BASE, len(part)), out=sums[1:])
        to_front = powers(BASE_INVERSE, len(part) + 1)[start]
        lengths = (end - start).astype(np.uint64)
        hashes[first:last] = mixed(
            (sums[end] - sums[start]) * to_front + lengths * np.uint64(SPREAD)
        )
        first = last
    return hashes


def hash_of_text(text: str) -> int:
    """64 bits of a text, the same in every process (Python's own are not)."""
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
