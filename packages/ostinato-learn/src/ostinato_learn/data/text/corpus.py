"""`Corpus`: documents as one ring of tokens, and `Streams` that read it side by side.

The documents follow each other, with an END after each. To predict the token at a place the model
reads the token before it. If that is an END, a document begins, and the state is reset:

    place     0    1    2    3    4    5    6
    target    a    b   END   c    d    e   END
    input    END   a    b   END   c    d    e
    reset     ×              ×

The last END comes before place 0: the corpus is a ring. B streams begin at places spread evenly
over it, and each reads the ring again and again. There is no padding, no token is left out, and the
state of a stream is carried from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ostinato_learn.data.text.vocabulary import END, Vocabulary


class Chunk(NamedTuple):
    """The next T tokens of B streams."""

    inputs: np.ndarray  # [B, T] int64
    targets: np.ndarray  # [B, T] int64
    resets: np.ndarray | None  # [B, T] bool, before which steps a document begins; None: nowhere


class Corpus:
    """Encoded documents, one behind the other, each with an END.

    Attributes:
        tokens: `[N]` int32.
        n_documents: how many there are.

    Raises:
        ValueError: there is no document, or no token in any.

    Example:
        >>> vocabulary = Vocabulary.fit(["ab", "c"], "character")
        >>> Corpus([vocabulary.encode(text) for text in ["ab", "c"]]).tokens
        array([2, 3, 0, 4, 0], dtype=int32)
    """

    def __init__(self, documents: Sequence[np.ndarray]):
        if sum(map(len, documents)) == 0:
            raise ValueError(
                f"the {len(documents)} documents have no token; wanted a text to learn from"
            )
        end = np.array([END], dtype=np.int32)
        self.tokens = np.concatenate([part for each in documents for part in (each, end)])
        self.n_documents = len(documents)

    @staticmethod
    def of(texts: Sequence[str], vocabulary: Vocabulary) -> Corpus:
        """The corpus of some texts."""
        return Corpus([vocabulary.encode(text) for text in texts])

    def __len__(self) -> int:
        return len(self.tokens)


class Streams:
    """B streams through a corpus, T tokens at a time.

    Args:
        corpus: N tokens.
        n_streams: B; no more than there are tokens.
        length: T, the tokens of a chunk.

    Raises:
        ValueError: a number is below 1, or there are fewer tokens than streams.

    Example:
        >>> streams = Streams(Corpus([np.array([5, 6, 7]), np.array([8, 9])]), 2, length=4)
        >>> chunk = streams.next_chunk()
        >>> chunk.inputs.tolist(), chunk.targets.tolist()
        ([[0, 5, 6, 7], [7, 0, 8, 9]], [[5, 6, 7, 0], [0, 8, 9, 0]])
        >>> chunk.resets.astype(int).tolist()
        [[1, 0, 0, 0], [0, 1, 0, 0]]
    """

    def __init__(self, corpus: Corpus, n_streams: int, length: int):
        for name, value in (("n_streams", n_streams), ("length", length)):
            if value < 1:
                raise ValueError(f"Streams: {name}={value}; wanted 1 or more")
        if n_streams > len(corpus):
            raise ValueError(
                f"{n_streams} streams through {len(corpus)} tokens; wanted no more streams than "
                "tokens: lower batch_size"
            )
        self.corpus, self.n_streams, self.length = corpus, n_streams, length
        self._starts = np.arange(n_streams) * len(corpus) // n_streams
        self._place = 0  # of stream 0

    @property
    def chunks_per_epoch(self) -> int:
        """Chunks of one stream in which all together read every token, the last one begun."""
        return -(-len(self.corpus) // (self.n_streams * self.length))

    def next_chunk(self) -> Chunk:
        """The chunk that follows the one before."""
        places = self._starts[:, None] + np.arange(self._place - 1, self._place + self.length)
        tokens = self.corpus.tokens[places % len(self.corpus)].astype(np.int64)
        self._place = (self._place + self.length) % len(self.corpus)
        resets = tokens[:, :-1] == END
        return Chunk(tokens[:, :-1].copy(), tokens[:, 1:].copy(), resets if resets.any() else None)

    def state_dict(self) -> dict[str, Any]:
        """The places of the streams, as JSON values."""
        return {
            "n_tokens": len(self.corpus),
            "n_streams": self.n_streams,
            "length": self.length,
            "place": self._place,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the streams that gave `state` stood.

        Raises:
            ValueError: they belong to another corpus, or differ in number or length.
        """
        own = self.state_dict()
        for name in ("n_tokens", "n_streams", "length"):
            if state.get(name) != own[name]:
                raise ValueError(
                    f"the state has streams with {name}={state.get(name)}; wanted {own[name]}, "
                    "as these have: give the same documents, batch_size and truncate"
                )
        self._place = int(state["place"])
