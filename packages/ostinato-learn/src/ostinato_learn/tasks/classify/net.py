"""`ClassifierNet`: a recurrent network that gives a class to a whole sequence; and several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ostinato_learn.hyperparameters import Architecture, Classifying, arguments, declare, documented
from ostinato_learn.models.body import last_state, recurrent, width
from ostinato_learn.models.initialize import initialize
from ostinato_learn.models.inputs import WordBatch, WordReader
from ostinato_learn.models.readout import Readout


@dataclass(frozen=True, kw_only=True)
class _ClassifierArguments(Classifying):
    """The arguments of `ClassifierNet`, checked."""

    n_features: int | None = declare(MISSING, "F.", low=1)
    n_classes: int = declare(MISSING, "C.", low=1)
    n_words: int | None = declare(None, "V.", low=1)
    embedding_size: int = declare(100, "Size of a word's embedding.", low=1)
    nonlinearity: Literal["tanh", "relu"] = declare("tanh", "Nonlinearity of the cell rnn.")


@documented
class ClassifierNet(torch.nn.Module):
    """A recurrent body and a linear readout of its last state, or of all of them.

        s_t = cell(x_t, s_{t−1}),   logits = V s_T + c

    With another `readout`, s_T is replaced by the mean or the maximum of all states, or by their
    mean weighted by attention; see `models.readout`.

    Args:
        n_features: F, size of one element of a sequence; None if the elements are words.
        n_classes: C, number of classes.
        {hyperparameters}
        bidirectional: also read from the end to the beginning; the readout sees the last state of
            both directions, `[B, 2·H]`.
        nonlinearity: "tanh" or "relu", for the cell "rnn".
        init: "default" (Glorot U and V, orthogonal W) or "notebook" (U and W zero, V truncated
            normal of 0.01); see `ostinato_learn.models.initialize`.
        n_words: V, if the elements are words, 0…V−1, each with an embedding.
        embedding_size: size of a word's embedding.

    Attributes:
        config: the arguments as a dict; `ClassifierNet(**net.config)` builds the same network.

    Raises:
        ValueError: an argument of another type or out of its range, both or neither of n_features
            and n_words, or initial weights from which nothing could be learnt.

    Example:
        >>> net = ClassifierNet(n_features=28, n_classes=10)
        >>> net(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 10])
    """

    task = "classify"  # of the folder that knows it as a graph

    def __init__(
        self,
        n_features: int | None,
        n_classes: int,
        cell: str = Architecture.cell,
        hidden_size: int = Architecture.hidden_size,
        num_layers: int = Architecture.num_layers,
        bidirectional: bool = Architecture.bidirectional,
        dropout: float = Architecture.dropout,
        nonlinearity: str = _ClassifierArguments.nonlinearity,
        init: str = Architecture.init,
        readout: str = _ClassifierArguments.readout,
        n_words: int | None = None,
        embedding_size: int = _ClassifierArguments.embedding_size,
    ):
        checked = _ClassifierArguments(**arguments(locals()))
        super().__init__()
        if (checked.n_features is None) == (checked.n_words is None):
            raise ValueError(
                f"n_features={n_features} and n_words={n_words}; wanted one of them: the elements "
                "are vectors or words"
            )
        _check_notebook_start(checked)
        self.config: dict[str, Any] = asdict(checked)
        self._arguments = checked
        self.words: WordReader | None = None
        inputs = checked.n_features
        if checked.n_words is not None:
            self.words = WordReader(checked.n_words, checked.embedding_size)
            inputs = checked.embedding_size
        assert inputs is not None
        self.body = recurrent(checked, inputs, checked.nonlinearity)
        self.dropout = torch.nn.Dropout(checked.dropout)
        last = checked.readout == "last"
        self.pool = None if last else Readout(checked.readout, width(checked))
        self.readout = torch.nn.Linear(width(checked), checked.n_classes)
        initialize(self.body, self.readout, checked.init)

    def forward(self, x: Tensor | WordBatch, lengths: Tensor | None = None) -> Tensor:
        """Logits of every class.

        Args:
            x: `[B, T, F]`, or a `WordBatch`.
            lengths: `[B]` integers, the valid steps of each row; by default all.

        Returns:
            `[B, C]`, before the softmax.
        """
        states, carry = self.body(self._vectors(x), lengths=lengths)
        if self.pool is None:
            state = last_state(self._arguments, carry)
        else:
            state = self.pool(states, lengths)
        return self.readout(self.dropout(state))

    def forward_steps(
        self, x: Tensor | WordBatch, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The logits after every step, as if the sequence ended there.

        Args:
            x: `[B, T, F]`, or a `WordBatch`.
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
        states, _ = self.body(self._vectors(x), lengths=lengths)
        read = states if self.pool is None else self.pool.steps(states)
        return self.readout(self.dropout(read)), states

    def _vectors(self, x: Tensor | WordBatch) -> Tensor:
        """The input of the body, `[B, T, F]`."""
        if self.words is None:
            assert isinstance(x, Tensor)
            return x
        assert isinstance(x, WordBatch)
        return self.dropout(self.words(x))


def _check_notebook_start(network: _ClassifierArguments) -> None:
    """Refuse a network in which the notebook's zeros leave weights without a gradient."""
    if network.init != "notebook":
        return
    if not isinstance(network.cell, str):
        raise ValueError("init='notebook' is for cells given by name; use init='default'")
    if network.cell == "rnn" and network.nonlinearity == "relu":
        stuck = "nonlinearity='relu' has no slope at zero"
    elif network.num_layers > 1:
        stuck = f"of num_layers={network.num_layers} none but the top one has a gradient"
    else:
        return
    raise ValueError(
        f"init='notebook' sets all weights below the readout to zero, and {stuck}, so "
        "little or nothing would be learnt; use init='default'"
    )


class ClassifierEnsemble(torch.nn.Module):
    """Networks whose probabilities are averaged: p = Σ_m softmax(logits_m) / M.

    Args:
        members: M networks of the same sizes.

    Attributes:
        config: the arguments of a member, and "ensemble": M.

    Example:
        >>> nets = [ClassifierNet(3, 2, hidden_size=4) for _ in range(5)]
        >>> ClassifierEnsemble(nets)(torch.zeros(7, 10, 3)).shape
        torch.Size([7, 2])
    """

    task = "classify"  # of the folder that knows it as a graph

    def __init__(self, members: Sequence[ClassifierNet]):
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self._members = tuple(members)  # the same, with their type
        self.config: dict[str, Any] = {**members[0].config, "ensemble": len(members)}

    def forward(self, x: Tensor | WordBatch, lengths: Tensor | None = None) -> Tensor:
        """The logarithms of the mean probabilities, `[B, C]`, which serve as logits."""
        return _mean([net(x, lengths) for net in self._members])

    def forward_steps(
        self, x: Tensor | WordBatch, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `ClassifierNet.forward_steps`; the states are those of the first member."""
        found = [net.forward_steps(x, lengths) for net in self._members]
        return _mean([logits for logits, _ in found]), found[0][1]


def _mean(logits: list[Tensor]) -> Tensor:
    """log Σ_m softmax(logits_m) / M, along the last axis."""
    each = torch.stack([torch.log_softmax(answer, dim=-1) for answer in logits])
    return torch.logsumexp(each, dim=0) - math.log(len(logits))


def network(ensemble: int = 1, **arguments: Any) -> ClassifierNet | ClassifierEnsemble:
    """The network of a `config`."""
    nets = [ClassifierNet(**arguments) for _ in range(ensemble)]
    return nets[0] if ensemble == 1 else ClassifierEnsemble(nets)
