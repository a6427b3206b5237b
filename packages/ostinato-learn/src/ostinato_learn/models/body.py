"""The recurrent layers that every network here is built on."""

from __future__ import annotations

import torch
from torch import Tensor

from ostinato import nn
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.models.stack import Stack

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def recurrent(
    model: Architecture, n_features: int, nonlinearity: str = "tanh"
) -> torch.nn.RNNBase | Stack:
    """The layers of a network, batch first: x `[B, T, F]` to states `[B, T, directions · H]`.

    Args:
        model: cell (a name, or a class: see `Stack`), sizes, directions, dropout.
        n_features: F.
        nonlinearity: "tanh" or "relu", for the cell "rnn".
    """
    if not isinstance(model.cell, str):
        return Stack(model, n_features)
    return CELLS[model.cell](
        n_features,
        model.hidden_size,
        model.num_layers,
        batch_first=True,
        # torch's layers warn about dropout without a second layer
        dropout=model.dropout if model.num_layers > 1 else 0.0,
        bidirectional=model.bidirectional,
        **({"nonlinearity": nonlinearity} if model.cell == "rnn" else {}),
    )


def last_state(model: Architecture, carry: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The top layer's last state `[B, directions · H]`, from the second result of the layers."""
    states = carry[0] if isinstance(carry, tuple) else carry  # of an LSTM: (h, c)
    return torch.cat([states[-2], states[-1]], dim=1) if model.bidirectional else states[-1]


def width(model: Architecture) -> int:
    """The size of a state of the top layer: H, or 2 · H in two directions."""
    return (2 if model.bidirectional else 1) * model.hidden_size
