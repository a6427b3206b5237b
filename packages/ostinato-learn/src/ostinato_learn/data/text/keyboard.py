"""`Keyboard`: the tokens that a keyboard suggests."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from ostinato_learn.data.text.vocabulary import SPECIAL, Vocabulary

SUGGESTED = 3  # as on a phone


class Suggestion(NamedTuple):
    """A token that may come next, and how likely it is among those that begin as typed."""

    text: str
    probability: float


class Keyboard:
    """The suggestions of a keyboard.

    Suggestions are tokens of two keys or more, since a suggestion costs one key; without such
    tokens, as among characters, all tokens. Tokens that begin with the same letters are adjacent in
    the sorted vocabulary, so that they are a range of columns.
    """

    def __init__(self, vocabulary: Vocabulary):
        texts = vocabulary.keys()
        suggested = [i for i, text in enumerate(texts) if len(text) > 1]
        suggested = suggested or list(range(SPECIAL, len(texts)))
        self._columns = np.array(sorted(suggested, key=texts.__getitem__))
        self._sorted = [texts[i] for i in self._columns]

    def likeliest(self, logits: np.ndarray, beginning: str, n: int) -> list[tuple[int, float]]:
        """The n likeliest tokens that begin so, by logits `[V]`, the best first.

        Each has its probability among all suggested tokens with this beginning.
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

    def _range(self, beginning: str) -> tuple[int, int]:
        """The range of sorted texts that begin so."""
        n, low = len(beginning), bisect_left(self._sorted, beginning)
        return low, bisect_right(self._sorted, beginning, low, key=lambda text: text[:n])
