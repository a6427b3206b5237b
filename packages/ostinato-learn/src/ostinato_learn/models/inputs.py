"""What a network reads: batches of sequences as tensors, and words as vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ostinato import nn
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.words import CodedWords
from ostinato_learn.runtime.network import Inputs


class WordBatch(NamedTuple):
    """B sequences of words, with U different words."""

    places: Tensor  # [B, T] int64, which of the U words is at each step; any beyond the lengths
    words: Tensor  # [U] int64, their numbers, 0…V−1
    characters: Tensor  # [U, L] int64, the numbers of their characters; any beyond n_characters
    n_characters: Tensor  # [U] int64, 1…L


def tensors(X: Inputs, indices: np.ndarray) -> tuple[Tensor | WordBatch, Tensor | None]:
    """Some examples of X: x `[B, T, F]`, and lengths `[B]` if X is ragged (zeros beyond them).

    For words x is a `WordBatch`, with lengths if they differ.

    The values are copied into memory that PyTorch has aligned: matrix products may differ in their
    last bit with the alignment of their operands, and a run must be repeatable to the last bit.
    """
    if isinstance(X, CodedWords):
        *arrays, lengths = map(torch.from_numpy, X.arrays(indices))
        batch = WordBatch(*arrays)
        return batch, (lengths if lengths.min() < batch.places.shape[1] else None)
    if isinstance(X, Ragged):
        padded, n_steps = X[indices].padded()
        return torch.tensor(padded), torch.tensor(n_steps)
    x = torch.empty((len(indices), *X.shape[1:]), dtype=torch.float32)
    np.take(X, indices, axis=0, out=x.numpy(), mode="clip")  # "clip" needs no buffer beside x
    return x, None


class WordReader(torch.nn.Module):
    """Words as vectors, `[B, T, size]`.

    A vector is the word's embedding and, if characters are read, the last states of a GRU that
    reads its characters forwards and of one that reads them backwards (Lample et al. 2016).

    Args:
        n_words: V.
        embedding_size: size of a word's embedding.
        n_characters: how many characters there are.
        character_size: size of a character's embedding, and of the GRUs' states; 0: characters are
            not read.

    Example:
        >>> one, n = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
        >>> batch = WordBatch(torch.zeros(2, 5, dtype=torch.int64), n, one, n)
        >>> WordReader(n_words=9, embedding_size=4)(batch).shape
        torch.Size([2, 5, 4])
    """

    def __init__(
        self, n_words: int, embedding_size: int, n_characters: int = 1, character_size: int = 0
    ):
        super().__init__()
        self.embedding = _embedding(n_words, embedding_size)
        self.size = embedding_size
        self.characters: torch.nn.Embedding | None = None
        if character_size:
            self.characters = _embedding(n_characters, character_size)
            self.spelling = nn.GRU(
                character_size, character_size, batch_first=True, bidirectional=True
            )
            self.size += 2 * character_size

    def forward(self, batch: WordBatch) -> Tensor:
        """The vectors of the words of a batch, `[B, T, size]`; each different word is read once."""
        vectors = self.embedding(batch.words)  # [U, E]
        if self.characters is not None:
            _, last = self.spelling(self.characters(batch.characters), lengths=batch.n_characters)
            vectors = torch.cat([vectors, last[0], last[1]], dim=1)
        return vectors[batch.places]


def _embedding(n: int, size: int) -> torch.nn.Embedding:
    """Initial embeddings of a length of about 1, like the states that they are joined with."""
    embedding = torch.nn.Embedding(n, size)
    torch.nn.init.normal_(embedding.weight, std=size**-0.5)
    return embedding
