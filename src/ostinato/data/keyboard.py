"""`Keyboard`: the tokens that a keyboard suggests, and the keys that they save."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from ostinato.data.vocabulary import SPECIAL, Vocabulary

SUGGESTED = 3  # as on a phone


class Suggestion(NamedTuple):
    """A token that may come next, and how likely it is among those that begin as typed."""

    text: str
    probability: float


class Keyboard:
    """The suggestions of a keyboard, and the keys they save.

    Suggested are tokens of two keys or more, since a suggestion costs one; where there are none, as
    among characters, all tokens are. Tokens that begin with the same letters stand together in the
    sorted vocabulary, so that they are a range of columns.

    Attributes:
        saved: keys saved so far; see `LanguageEvaluation.keystrokes_saved`.
    """

    def __init__(self, vocabulary: Vocabulary):
        self._keys = vocabulary.keys()
        suggested = [i for i, keys in enumerate(self._keys) if len(keys) > 1]
        suggested = suggested or list(range(SPECIAL, len(self._keys)))
        self._columns = np.array(sorted(suggested, key=self._keys.__getitem__))
        self._sorted = [self._keys[i] for i in self._columns]
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self.saved = 0

    def likeliest(self, logits: np.ndarray, beginning: str, n: int) -> list[tuple[int, float]]:
        """The n likeliest tokens that begin so, by logits `[V]`, the best first.

        Each with its probability among all tokens that are suggested and begin so.
        """
        low, high = self._range(beginning)
        columns = self._columns[low:high]
        if not len(columns):
            return []
        scores = logits[columns].astype(np.float64)
        weights = np.exp(scores - scores.max())
        best = np.argsort(-scores, kind="stable")[:n]
        shares = weights[best] / weights.sum()
        return list(zip(columns[best].tolist(), shares.tolist(), strict=True))

    def type(self, logits: np.ndarray, targets: np.ndarray) -> None:
        """Count the keys that suggestions save at tokens `[N]`, foretold by logits `[N, V]`."""
        in_order = logits[:, self._columns]
        right = np.take_along_axis(logits, targets[:, None], 1)
        ahead = (in_order > right).sum(1)
        for i, target in enumerate(targets.tolist()):
            most = len(self._keys[target]) - 1  # keys saved by a suggestion before the first letter
            if most < 1:
                continue
            found = ahead[i] < SUGGESTED
            self.saved += most if found else self._later(in_order[i], right[i], target)

    def _later(self, in_order: np.ndarray, right: np.ndarray, target: int) -> int:
        """Keys saved at a token that has to be typed in part."""
        n_keys = len(self._keys[target])
        for typed, (low, high) in enumerate(self._beginnings(target), start=1):
            if (in_order[low:high] > right).sum() < SUGGESTED:
                return n_keys - typed - 1
        return 0

    def _beginnings(self, target: int) -> list[tuple[int, int]]:
        """The ranges of tokens with the same first letter, first two letters, and so on."""
        if target not in self._ranges:
            keys = self._keys[target]
            self._ranges[target] = [self._range(keys[:n]) for n in range(1, len(keys) - 1)]
        return self._ranges[target]

    def _range(self, beginning: str) -> tuple[int, int]:
        """The range of sorted texts that begin so."""
        n, low = len(beginning), bisect_left(self._sorted, beginning)
        return low, bisect_right(self._sorted, beginning, low, key=lambda text: text[:n])
