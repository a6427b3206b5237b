"""`Copies`: the share of a generated text that is copied from the training documents.

Each 20-gram (20 tokens in a row, within a document) of the training documents is kept as a hash of
64 bits. Of a large corpus only the hashes that are 0 modulo `one_in` are kept, and only such
20-grams of a generated text are looked at: a sample, the same on both sides, so that the share
stays unbiased and a saved model small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ostinato_learn.data.text.corpus import Corpus

LENGTH = 20
MOST = 2**19  # about the number of hashes kept: 4 MB
BLOCK = 2**20  # tokens that are hashed at a time
# Odd constants: the first spreads the tokens of a 20-gram, the second mixes the result (both are
# ⌊2⁶⁴ / φ⌋ and ⌊2⁶⁴ / √2⌋, made odd).
_SPREAD, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xB504F333F9DE6485)


@dataclass(frozen=True, eq=False)
class Copies:
    """The 20-grams of a corpus.

    Attributes:
        hashes: uint64, sorted, each once.
        one_in: the number of 20-grams for each one in the sample.

    Example:
        >>> text = np.arange(2, 42)
        >>> copies = Copies.of(Corpus([text]))
        >>> copies.share(text), copies.share(text[::-1]), copies.share(text[:19])
        (1.0, 0.0, None)
    """

    hashes: np.ndarray
    one_in: int

    @staticmethod
    def of(corpus: Corpus) -> Copies:
        """The 20-grams of training documents."""
        tokens, one_in = corpus.tokens, -(-len(corpus) // MOST)
        blocks = [
            _sample(_hashes(tokens[start : start + BLOCK + LENGTH - 1]), one_in)
            for start in range(0, len(tokens), BLOCK)
        ]
        return Copies(np.unique(np.concatenate(blocks)), one_in)

    def joined(self, other: Copies) -> Copies:
        """The 20-grams of both corpora."""
        one_in = math.lcm(self.one_in, other.one_in)
        both = np.union1d(self.hashes, other.hashes)
        return Copies(_sample(both, one_in), one_in)

    def share(self, tokens: np.ndarray) -> float | None:
        """The share of the 20-grams of a text that occur in the corpus; None if it has no
        20-grams."""
        sample = _sample(_hashes(tokens), self.one_in)
        return float(np.isin(sample, self.hashes).mean()) if len(sample) else None


def _sample(hashes: np.ndarray, one_in: int) -> np.ndarray:
    return hashes[hashes % np.uint64(one_in) == 0]


def _hashes(tokens: np.ndarray) -> np.ndarray:
    """A hash of every 20-gram of tokens `[N]`, uint64. One with an END is in no generated text."""
    n = len(tokens) - LENGTH + 1
    if n < 1:
        return np.empty(0, dtype=np.uint64)
    values = tokens.astype(np.uint64) + np.uint64(1)
    mixed = np.zeros(n, dtype=np.uint64)
    for i in range(LENGTH):
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _SPREAD + values[i : i + n]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    return mixed ^ (mixed >> np.uint64(29))
