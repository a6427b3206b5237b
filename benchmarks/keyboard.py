"""A language model of the size that a phone's keyboard has, with random weights.

The sizes are those of Hard et al. (2018), "Federated Learning for Mobile Keyboard Prediction":
10,000 words, embeddings of 96 that are also the readout, one layer of 670 units whose input gate is
coupled to the forget gate. That model feeds back a projection of 96; this one feeds back all 670
units, which is more work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.models.saved_graph import describe
from ostinato_learn.models.stack import Stack
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.stream import Stream
from ostinato_learn.runtime.stream_source import StreamSource
from ostinato_learn.tasks.language.net import LanguageNet

WORDS, EMBEDDING, UNITS = 10_000, 96, 670


class CoupledCell(torch.nn.Module):
    """An LSTM whose input gate is what the forget gate leaves (Greff et al. 2017, CIFG).

    c = f · c + (1 − f) · g,   h = o · tanh(c)
    """

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.into = torch.nn.Linear(n_features, 3 * hidden_size)
        self.back = torch.nn.Linear(hidden_size, 3 * hidden_size, bias=False)

    def initial(self, x: Any) -> Any:
        zeros = x.new_zeros(len(x), self.hidden_size)
        return zeros, zeros

    def forward(self, carry: Any, x: Any) -> Any:
        h, c = carry
        f, o, g = (self.into(x) + self.back(h)).chunk(3, 1)
        f = torch.sigmoid(f)
        c = f * c + (1 - f) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h


def keyboard() -> tuple[Stream, Any]:
    """A stream of the model, and its table of embeddings `[V, E]`."""
    torch.manual_seed(0)
    net = LanguageNet(WORDS, "lstm", UNITS, embedding_size=EMBEDDING, tied=True)
    net.body = Stack(Architecture(cell=CoupledCell, hidden_size=UNITS), EMBEDDING)
    described = describe(net)
    tensors = {
        name: np.ascontiguousarray(t.detach().numpy())
        for name, t in {**net.state_dict(), **described.folded}.items()
    }
    network = Network(described.graph, tensors)
    return Stream(StreamSource(network, range(WORDS))), tensors["embedding.weight"]
