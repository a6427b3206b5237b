"""`written`: a text that a language model writes, token by token.

A model gives scores of all possible next tokens: logits, or logarithms of probabilities, which
differ by a constant. `Sampling` draws one of them, which is read before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato_learn.data.text.vocabulary import END, UNKNOWN, Vocabulary

# A function that reads further tokens [N] from a state on. It gives the scores [V] of the next
# token, and the state behind the last one. The first token is END, and the first state None.
Read = Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: divides the scores: below 1 the likely becomes likelier; at 0 the likeliest
            token is taken.
        top_k: draw only among this number of likeliest tokens; None: among all.
        top_p: draw only among the fewest likeliest tokens with this total probability (Holtzman et
            al. 2020, "The curious case of neural text degeneration"); 1: among all.
        seed: the same seed gives the same text.

    Raises:
        ValueError: temperature is not in [0, ∞), top_p not in (0, 1], top_k below 1, or seed below
            0.

    Example:
        >>> scores = np.log([0.3, 0.1, 0.4, 0.2])                # END, UNKNOWN and two words
        >>> generator = np.random.default_rng(0)
        >>> [Sampling(temperature=0).drawn(scores, generator) for _ in range(3)]
        [2, 2, 2]
        >>> sorted({Sampling(top_p=0.5).drawn(scores, generator) for _ in range(99)})
        [0, 2]
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise ValueError(
                f"generate: temperature={self.temperature}; wanted 0 or more, and finite"
            )
        if self.top_k is not None and not self.top_k >= 1:
            raise ValueError(f"generate: top_k={self.top_k}; wanted 1 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"generate: top_p={self.top_p}; wanted a share above 0, 1 at most")
        if self.seed < 0:
            raise ValueError(f"generate: seed={self.seed}; wanted 0 or more")

    def drawn(self, scores: np.ndarray, generator: np.random.Generator) -> int:
        """A token drawn by scores `[V]`, never UNKNOWN."""
        scores = scores.astype(np.float64)
        scores[UNKNOWN] = -np.inf
        likeliest = int(scores.argmax())
        if not self.temperature:
            return likeliest
        with np.errstate(over="ignore"):  # of a temperature near 0: the rest becomes impossible
            weights = np.exp((scores - scores[likeliest]) / self.temperature)
        if self.top_k is not None and self.top_k < len(weights):
            weights[weights < np.partition(weights, -self.top_k)[-self.top_k]] = 0
        if self.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            weights[order[before >= self.top_p * weights.sum()]] = 0
        sums = weights.cumsum()
        return int(np.searchsorted(sums / sums[-1], generator.random(), side="right"))


@dataclass(frozen=True)
class Generated:
    """A text that a model made.

    Attributes:
        text: the text without the prompt.
        n_tokens: its number of tokens, fewer than requested if the model ended the document.
    """

    text: str
    n_tokens: int


def written(read: Read, vocabulary: Vocabulary, prompt: str, n: int, how: Sampling) -> Generated:
    """What a model writes after a prompt until it ends the document.

    Args:
        read: the model.
        vocabulary: of its tokens.
        prompt: the beginning of a document; "" begins a new one.
        n: tokens at most.
        how: how tokens are drawn.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"generate: n={n}; wanted 1 or more")
    drawn = list(_drawn(read, vocabulary.encode(prompt), n, how))
    return Generated(_text(vocabulary, prompt, drawn), len(drawn))


def pieces(read: Read, vocabulary: Vocabulary, prompt: str, n: int, how: Sampling) -> Iterator[str]:
    """The text of `written`, piece by piece, as it is drawn; arguments and errors as there."""
    if n < 1:
        raise ValueError(f"generate: n={n}; wanted 1 or more")
    drawn: list[int] = []
    given = ""
    for token in _drawn(read, vocabulary.encode(prompt), n, how):
        drawn.append(token)
        text = _text(vocabulary, prompt, drawn)
        if text.startswith(given):  # a token may be a part of a character
            yield text[len(given) :]
            given = text


def _drawn(read: Read, prompt: np.ndarray, n: int, how: Sampling) -> Iterator[int]:
    generator = np.random.default_rng(how.seed)
    new, state = np.concatenate([[END], prompt]).astype(np.int32), None
    for _ in range(n):
        scores, state = read(new, state)
        token = how.drawn(scores, generator)
        if token == END:
            return
        yield token
        new = np.array([token], dtype=np.int32)


def _text(vocabulary: Vocabulary, prompt: str, drawn: list[int]) -> str:
    """The text of drawn tokens, with the blank between it and the prompt."""
    read = vocabulary.encode(prompt).tolist()
    before, whole = vocabulary.decode(read), vocabulary.decode([*read, *drawn])
    return whole[len(before) :] if whole.startswith(before) else vocabulary.decode(drawn)
