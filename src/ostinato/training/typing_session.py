"""`TypingSession`: the answers of a network to a text that grows and shrinks at its end."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ostinato.data.growing_text import GrowingText
from ostinato.models.language import Carry, LanguageNet


class TypingSession:
    """Reads only what is new of a text; see `GrowingText`.

    Args:
        net: the network, in evaluation mode; its weights must not change.
    """

    def __init__(self, net: LanguageNet):
        self._net = net
        self._text: GrowingText[Tensor] = GrowingText(self.read)

    def logits(self, tokens: np.ndarray) -> Tensor:
        """The logits `[V]` of the token that follows tokens `[N]`, the beginning of a document."""
        return self._text.answer(tokens)

    @torch.no_grad()
    def read(self, tokens: np.ndarray, carry: Carry) -> tuple[Tensor, Carry]:
        """The logits `[V]` after further tokens `[N]`, and the state there; see `GrowingText`."""
        features, carry = self._net(torch.from_numpy(tokens.astype(np.int64))[None], carry)
        return self._net.logits(features[0, -1]), carry
