"""`Task`: the data and the loss of a training, which the training loop calls."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ostinato_learn.data import Batches
from ostinato_learn.training.distributed import ALONE, Ranks, Share

Measured = dict[str, float]
Carry = Tensor | tuple[Tensor, ...] | None
Mean = tuple[float, float]  # a mean, and the weight it was divided by: 0 for an empty share


# A fingerprint reads this many examples, evenly spread: enough to notice other scales or labels.
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
    """The batches, the loss, and the measures of a network.

    Attributes:
        n_examples: the number of examples of an epoch.
        batch_size: the number of examples of a batch.
        has_validation: whether there are validation data.
        ranks: the processes that train together; each takes its share of every batch.
    """

    n_examples: int
    batch_size: int
    has_validation: bool
    ranks: Ranks = ALONE

    def loss(self, net: torch.nn.Module) -> Share:
        """The loss and the measures of this process's share of the next batch.

        The names of measures begin with "train_": {"train_accuracy": 0.5}.
        """

    def measures(self, loss: float, measured: Measured) -> Measured:
        """The entries of a report for a batch, given its mean loss and the means over all
        shares."""
        return measured

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        """Measures of the network on this process's share of the validation data.

        Names begin with "validation_", "validation_loss" is among them, and all shares have the
        same. Called only if there are validation data.
        """

    def validated(self, means: Measured) -> Measured:
        """The entries of a report for the validation data, given the means over all shares."""
        return means

    def fingerprint(self) -> str:
        """A `digest` of some examples, as the network reads them."""

    def state_dict(self) -> dict[str, Any]:
        """The place in the data, as JSON values, from which the training is resumed exactly."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the place of the task that gave `state`.

        Raises:
            ValueError: the state belongs to other data.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint, in addition to the state: a carry from one batch to the next.

        They are those of all shares: called in every process, or in none.
        """

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over this process's share of the result of `tensors`."""


class Carrying(Task):
    """A task whose rows go on from batch to batch with their state; the gradient does not.

    Attributes:
        carry: the state after the last batch, leaves `[layers, B, …]`; None: the first one.
    """

    carry: Carry = None

    def keep(self, carry: Carry) -> None:
        """Go on with this state, without its gradient."""
        if isinstance(carry, tuple):
            self.carry = tuple(leaf.detach() for leaf in carry)
        else:
            self.carry = None if carry is None else carry.detach()

    def tensors(self) -> dict[str, Tensor]:
        if self.carry is None:
            return {}
        leaves = self.carry if isinstance(self.carry, tuple) else (self.carry,)
        n = self.batch_size
        return {f"carry.{i}": self.ranks.gathered(leaf, n, 1) for i, leaf in enumerate(leaves)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        # Copied into memory that PyTorch has aligned, as for `models.inputs.tensors`.
        rows = self.ranks.rows(self.batch_size)
        leaves = [tensors[f"carry.{i}"][:, rows].clone() for i in range(len(tensors))]
        self.carry = None if not leaves else leaves[0] if len(leaves) == 1 else tuple(leaves)


class OfBatches(Task):
    """A task whose examples come in `data.Batches`, without a carry from batch to batch.

    Args:
        batches: the examples in batches.
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
