"""`Task`: what the training loop does not know about what is learnt."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ostinato.data import Batches
from ostinato.training.distributed import ALONE, Ranks, Share

Measured = dict[str, float]
Mean = tuple[float, float]  # a mean, and the weight that it was divided by: 0 of an empty share


# A fingerprint looks at so many examples, evenly spread: enough to notice other scales or labels.
PROBED = 64


def digest(*parts: Any) -> str:
    """SHA-256 of tensors, arrays and other values, in their order.

    Example:
        >>> digest(torch.zeros(2), "a") == digest(np.zeros(2, np.float32), "a") != digest("a")
        True
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.numpy()
        is_array = isinstance(part, np.ndarray)
        found.update(np.ascontiguousarray(part).tobytes() if is_array else repr(part).encode())
    return found.hexdigest()


def probed(n: int) -> np.ndarray:
    """The places of some of n examples, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, PROBED)).astype(np.int64))


class Task(Protocol):
    """Where batches come from, what an answer costs, and how good a network is.

    Attributes:
        n_examples: of an epoch.
        batch_size: examples of a batch.
        has_validation: whether there are validation data.
        ranks: the processes that learn it; each takes its share of every batch.
    """

    n_examples: int
    batch_size: int
    has_validation: bool
    ranks: Ranks = ALONE

    def loss(self, net: torch.nn.Module) -> Share:
        """What this process's share of the next batch says: the loss, and what else is measured.

        The names of measures begin with "train_": {"train_accuracy": 0.5}.
        """

    def measures(self, loss: float, measured: Measured) -> Measured:
        """What a report says of a batch, given its mean loss and the means over all shares."""
        return measured

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        """Measures of the network on this process's share of the validation data.

        Names begin with "validation_", "validation_loss" is among them, and all shares have the
        same. Called only if there are validation data.
        """

    def validated(self, means: Measured) -> Measured:
        """What a report says of the validation data, given the means over all shares."""
        return means

    def fingerprint(self) -> str:
        """What is learnt, as the network reads it: a `digest` of some examples."""

    def state_dict(self) -> dict[str, Any]:
        """Where the batches stand, as JSON values, from which the training goes on exactly."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the task that gave `state` stood.

        Raises:
            ValueError: it is the state of other data.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside the state: a carry from one batch to the next.

        Of all shares: called in every process, or in none.
        """

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over this process's share of what `tensors` gave."""


class OfBatches(Task):
    """A task whose examples come in `data.Batches`, and that carries nothing from one to the next.

    Args:
        batches: of the examples.
        validation: the validation data, if there are any.
    """

    def __init__(self, batches: Batches, validation: Any):
        self.n_examples, self.batch_size = batches.n_examples, batches.batch_size
        self.batches = batches
        self.validation = validation
        self.has_validation = validation is not None

    def next_rows(self) -> np.ndarray:
        """The examples of this process's share of the next batch, as positions in X."""
        indices = self.batches.next_indices()
        return indices[self.ranks.rows(len(indices))]

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        assert not tensors
