"""`ClassifierEnsemble`: several networks whose answers are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.models.inputs import WordBatch
from ostinato.tasks.classify.net import ClassifierNet


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
