"""`TypingSession`: the answers of a network to a text that grows and shrinks at its end."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ostinato.data.vocabulary import END
from ostinato.models.language import Carry, LanguageNet

# Each place of an LSTM of 512 units takes 4 kB.
KEPT = 256


class _Place(NamedTuple):
    """Where the network has been: after so many tokens."""

    n_tokens: int
    carry: Carry
    logits: Tensor  # [V], what it foretold there


class TypingSession:
    """Reads only what is new of a text, and goes back to an earlier place where its end changed.

    Args:
        net: the network, in evaluation mode; its weights must not change.
    """

    def __init__(self, net: LanguageNet):
        self._net = net
        self._tokens = np.empty(0, dtype=np.int32)
        self._places: deque[_Place] = deque(maxlen=KEPT)

    @torch.no_grad()
    def logits(self, tokens: np.ndarray) -> Tensor:
        """The logits `[V]` of the token that follows tokens `[N]`, the beginning of a document."""
        shared = _shared(self._tokens, tokens)
        while self._places and self._places[-1].n_tokens > shared:
            self._places.pop()
        self._tokens = tokens.copy()
        if not self._places:
            self._read(np.concatenate([[END], tokens]), None)
        elif self._places[-1].n_tokens < len(tokens):
            last = self._places[-1]
            self._read(tokens[last.n_tokens :], last.carry)
        return self._places[-1].logits

    def _read(self, tokens: np.ndarray, carry: Carry) -> None:
        features, carry = self._net(torch.from_numpy(tokens.astype(np.int64))[None], carry)
        self._places.append(_Place(len(self._tokens), carry, self._net.logits(features[0, -1])))


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two texts have in common at their beginning."""
    n = min(len(one), len(other))
    different = np.flatnonzero(one[:n] != other[:n])
    return int(different[0]) if len(different) else n
