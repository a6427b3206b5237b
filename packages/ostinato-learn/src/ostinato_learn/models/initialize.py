"""The initial weights of a network.

Shapes as in torch.nn: weight_ih `[G·H, F]` and weight_hh `[G·H, H]` stack the G gates; in the
notebook's letters U = weight_ih.T, W = weight_hh.T, and V = readout.weight.T.
"""

from __future__ import annotations

import torch
from torch import Tensor

FORGET_GATE = 1  # the gates of torch.nn.LSTM are i, f, g, o


@torch.no_grad()
def initialize(body: torch.nn.Module, readout: torch.nn.Linear, init: str) -> None:
    """Set the initial weights of a recurrent body and its readout.

    A body of a user's own cells keeps the weights that these made.

    "default": U from Glorot's uniform distribution (Glorot and Bengio 2010) and W orthogonal (Saxe
    et al. 2014), both gate by gate; V as U; biases zero, but one for the LSTM's forget gate (Gers
    et al. 2000), so that it begins by remembering.

    "notebook": U, W and biases zero; V from a normal distribution with deviation 0.01, cut off at
    two deviations.
    """
    if isinstance(body, torch.nn.RNNBase):
        _layers(body, init)
    readout.bias.zero_()
    if init == "notebook":
        torch.nn.init.trunc_normal_(readout.weight, std=0.01, a=-0.02, b=0.02)
    else:
        torch.nn.init.xavier_uniform_(readout.weight)


def _layers(body: torch.nn.RNNBase, init: str) -> None:
    for name, weight in body.named_parameters():
        if init == "notebook" or name.startswith("bias"):
            weight.zero_()
        elif name.startswith("weight_ih"):
            for gate in weight.split(body.hidden_size):
                torch.nn.init.xavier_uniform_(gate)
        else:
            for gate in weight.split(body.hidden_size):
                torch.nn.init.orthogonal_(gate)
        if init == "default" and name.startswith("bias_ih") and body.mode == "LSTM":
            _gate(weight, FORGET_GATE, body.hidden_size).fill_(1)


def _gate(weight: Tensor, i: int, hidden_size: int) -> Tensor:
    return weight[i * hidden_size : (i + 1) * hidden_size]
