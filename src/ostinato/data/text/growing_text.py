"""`GrowingText`: a model's answers to a text that grows and shrinks at its end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ostinato.data.text.vocabulary import END

# Each place of an LSTM of 512 units takes 4 kB.
KEPT = 256

Answer = TypeVar("Answer")


class _TextPlace(NamedTuple):
    """Where a model has been: after so many tokens."""

    n_tokens: int
    state: Any
    answer: Any


class GrowingText(Generic[Answer]):
    """Reads only what is new of a text, and goes back to an earlier place where its end changed.

    Threads take turns: each gets the answer to its own text.

    Args:
        read: `read(tokens, state)` reads further tokens `[N]` and returns the answer and the state
            after the last of them; the first state is None, and the first token END.

    Example:
        >>> def read(tokens, state):
        ...     print("reads", tokens.tolist())
        ...     return int(tokens[-1]), "the state"
        >>> text = GrowingText(read)
        >>> text.answer(np.array([5, 6]))
        reads [0, 5, 6]
        6
        >>> text.answer(np.array([5, 6, 7]))
        reads [7]
        7
        >>> text.answer(np.array([5, 6]))
        6
    """

    def __init__(self, read: Callable[[np.ndarray, Any], tuple[Answer, Any]]):
        self._read = read
        self._tokens = np.empty(0, dtype=np.int32)
        self._places: deque[_TextPlace] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has read nothing: a lock cannot be copied."""
        return GrowingText, (self._read,)

    def answer(self, tokens: np.ndarray) -> Answer:
        """The answer after tokens `[N]`, the beginning of a document."""
        with self._lock:
            return self._answer(tokens)

    def _answer(self, tokens: np.ndarray) -> Answer:
        shared = _shared(self._tokens, tokens)
        while self._places and self._places[-1].n_tokens > shared:
            self._places.pop()
        self._tokens = tokens.copy()
        if not self._places:
            self._go_on(np.concatenate([[END], tokens]), None)
        elif self._places[-1].n_tokens < len(tokens):
            last = self._places[-1]
            self._go_on(tokens[last.n_tokens :], last.state)
        found: Answer = self._places[-1].answer
        return found

    def _go_on(self, tokens: np.ndarray, state: Any) -> None:
        answer, state = self._read(tokens, state)
        self._places.append(_TextPlace(len(self._tokens), state, answer))


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two texts have in common at their beginning."""
    n = min(len(one), len(other))
    different = np.flatnonzero(one[:n] != other[:n])
    return int(different[0]) if len(different) else n
