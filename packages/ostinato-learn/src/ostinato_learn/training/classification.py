"""`Classification`: the task of giving each sequence its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ostinato_learn.data import Batches
from ostinato_learn.models.inputs import tensors
from ostinato_learn.training import evaluation
from ostinato_learn.training.distributed import Share
from ostinato_learn.training.examples import (
    as_inputs,
    class_indices,
    cross_entropy,
    example_weights,
    fingerprint,
)
from ostinato_learn.training.task import Mean, OfBatches, probed


class Classification(OfBatches):
    """Cross-entropy of a `models.ClassifierNet` on batches of labelled sequences.

    Args:
        batches: X as `data.as_sequences` takes it or `CodedWords`, y as classes 0…C−1.
        n_classes: C.
        class_weight: class -> weight, or "balanced"; classes not named weigh 1.
        sample_weight: `[N]`, the weights of the examples in a batch's mean loss.
        validation: (X, y), not weighted.
    """

    def __init__(
        self,
        batches: Batches,
        n_classes: int,
        class_weight: Mapping[int, float] | str | None = None,
        sample_weight: Any = None,
        validation: tuple[Any, Any] | None = None,
    ):
        super().__init__(batches, validation)
        self.X = as_inputs(batches.X)
        self.y = class_indices(batches.y, n_classes)
        self.weights = example_weights(self.y, class_weight, sample_weight)

    def loss(self, net: torch.nn.Module) -> Share:
        indices = self.next_rows()
        x, lengths = tensors(self.X, indices)
        y = torch.tensor(self.y[indices])
        weights = None if self.weights is None else torch.tensor(self.weights[indices])
        logits = net(x, lengths)
        accuracy = (logits.argmax(1) == y).double().mean().item()
        weight = len(y) if weights is None else weights.sum().item()
        loss = cross_entropy(logits, y, weights)
        return Share(loss, weight, {"train_accuracy": accuracy}, len(y))

    def fingerprint(self) -> str:
        chosen = probed(len(self.y))
        weights = None if self.weights is None else self.weights[chosen]
        return fingerprint(self.X, chosen, self.y[chosen], weights)

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None
        X, y = self.validation
        return evaluation.of_share(self.ranks, net, X, y, evaluation.measure)
