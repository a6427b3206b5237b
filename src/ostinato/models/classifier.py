"""A recurrent network that reads a whole sequence and names its class."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ostinato import nn
from ostinato.models.start import STARTS, begin

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
NONLINEARITIES = ("tanh", "relu")


class ClassifierNet(torch.nn.Module):
    """A recurrent body and a linear readout of its last state.

        s_t = cell(x_t, s_{t−1}),   logits = V s_T + c

    Args:
        n_features: F, size of one element of a sequence.
        n_classes: C, number of classes.
        cell: "rnn", "gru" or "lstm".
        hidden_size: H, size of the state.
        num_layers: recurrent layers, one upon the other.
        bidirectional: also read from the end to the beginning; the readout sees the last state of
            both directions, `[B, 2·H]`.
        dropout: probability of a zero, between layers and before the readout, in training only.
        nonlinearity: "tanh" or "relu", for the cell "rnn".
        init: "default" (Glorot U and V, orthogonal W) or "notebook" (U and W zero, V truncated
            normal of 0.01); see `ostinato.models.start`.

    Attributes:
        config: the arguments as a dict; `ClassifierNet(**net.config)` builds the same network.

    Raises:
        ValueError: an argument out of its range, or a start from which nothing could be learnt.

    Example:
        >>> net = ClassifierNet(n_features=28, n_classes=10)
        >>> net(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        cell: str = "rnn",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        nonlinearity: str = "tanh",
        init: str = "default",
    ):
        super().__init__()
        n_features = _count("n_features", n_features)
        n_classes = _count("n_classes", n_classes)
        hidden_size = _count("hidden_size", hidden_size)
        num_layers = _count("num_layers", num_layers)
        dropout = _probability("dropout", dropout)
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "n_classes": n_classes,
            "cell": _choice("cell", cell, tuple(CELLS)),
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "bidirectional": bool(bidirectional),
            "dropout": dropout,
            "nonlinearity": _choice("nonlinearity", nonlinearity, NONLINEARITIES),
            "init": _choice("init", init, STARTS),
        }
        if init == "notebook":
            _check_notebook_start(self.config)
        self.body = CELLS[cell](
            n_features,
            hidden_size,
            num_layers,
            batch_first=True,
            # torch's layers warn about dropout where there is no second layer
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bool(bidirectional),
            **({"nonlinearity": nonlinearity} if cell == "rnn" else {}),
        )
        self.dropout = torch.nn.Dropout(dropout)
        self.readout = torch.nn.Linear(hidden_size * (2 if bidirectional else 1), n_classes)
        begin(self.body, self.readout, init)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of every class.

        Args:
            x: `[B, T, F]`.
            lengths: `[B]` integers, the valid steps of each row; by default all.

        Returns:
            `[B, C]`, before the softmax.
        """
        _, last = self.body(x, lengths=lengths)
        if self.config["cell"] == "lstm":
            last, _ = last  # (h, c)
        state = last[-1]  # of the top layer
        if self.config["bidirectional"]:
            state = torch.cat([last[-2], state], dim=1)
        return self.readout(self.dropout(state))

    def forward_steps(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the network believes after every step, had the sequence ended there.

        Args:
            x: `[B, T, F]`.
            lengths: `[B]` integers, the valid steps of each row; states beyond them are zero.

        Returns:
            Logits `[B, T, C]` and the top layer's states `[B, T, H]`.

        Raises:
            ValueError: the network is bidirectional: its backward half needs the end first.
        """
        if self.config["bidirectional"]:
            raise ValueError(
                "forward_steps of a bidirectional network: it cannot say anything before the end "
                "of the sequence; build it with bidirectional=False"
            )
        states, _ = self.body(x, lengths=lengths)
        return self.readout(self.dropout(states)), states


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: wanted one of {choices}")
    return value


def _count(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}: wanted a whole number, 1 or more")
    return int(value)


def _probability(name: str, value: Any) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{name}={value!r}: wanted a number from 0 to below 1")
    return float(value)


def _check_notebook_start(config: dict[str, Any]) -> None:
    """All states begin at zero there; what multiplies only zeros, or has no slope, stays so."""
    if config["cell"] == "rnn" and config["nonlinearity"] == "relu":
        stuck = "nonlinearity='relu' has no slope at zero"
    elif config["num_layers"] > 1:
        stuck = f"of num_layers={config['num_layers']} none but the top one has a gradient"
    else:
        return
    raise ValueError(
        f"init='notebook' begins with all weights below the readout at zero, and {stuck}, so "
        "little or nothing would be learnt; use init='default'"
    )
