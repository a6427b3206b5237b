"""`MultiLabels`: the task of giving each sequence its labels, if it may have several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.data import Batches
from ostinato.models.inputs import tensors
from ostinato.training import evaluation
from ostinato.training.distributed import Share
from ostinato.training.evaluation import Evaluation
from ostinato.training.examples import as_inputs, example_weights, fingerprint
from ostinato.training.task import Mean, OfBatches, probed


class MultiLabels(OfBatches):
    """Binary cross-entropy of a `models.ClassifierNet`; each class is a yes-no question.

        loss = mean over examples and labels of −log σ(±logit),   + if the example has the label

    Args:
        batches: X as `data.as_sequences` takes it or `CodedWords`, y `[N, C]` of zeros and ones.
        sample_weight: `[N]`, the weights of the examples in a batch's mean loss.
        validation: (X, y), not weighted.
    """

    def __init__(
        self,
        batches: Batches,
        sample_weight: Any = None,
        validation: tuple[Any, Any] | None = None,
    ):
        super().__init__(batches, validation)
        self.X = as_inputs(batches.X)
        self.y = batches.y.astype(np.float32)
        self.weights = example_weights(self.y, None, sample_weight)

    def loss(self, net: torch.nn.Module) -> Share:
        indices = self.next_rows()
        x, lengths = tensors(self.X, indices)
        y = torch.tensor(self.y[indices])
        logits = net(x, lengths)
        losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(1)
        right = ((logits > 0) == (y > 0)).all(1).double().mean().item()
        measured = {"train_accuracy": right}
        if self.weights is None:
            return Share(losses.mean(), len(y), measured, len(y))
        weights = torch.tensor(self.weights[indices])
        total = weights.sum()
        loss = (weights * losses).sum() / total.clamp(min=torch.finfo(weights.dtype).tiny)
        return Share(loss, total.item(), measured, len(y))

    def fingerprint(self) -> str:
        chosen = probed(len(self.y))
        weights = None if self.weights is None else self.weights[chosen]
        return fingerprint(self.X, chosen, self.y[chosen], weights)

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None
        X, y = self.validation
        return evaluation.of_share(self.ranks, net, X, y, measure)


def measure(logits: Tensor, y: np.ndarray) -> Evaluation:
    """The mean loss of a label, and the share of examples whose labels are all right.

    Args:
        logits: `[N, C]`.
        y: `[N, C]` of zeros and ones.
    """
    answers, labels = logits.double(), torch.from_numpy(y.astype(np.float64))
    return Evaluation(
        loss=F.binary_cross_entropy_with_logits(answers, labels).item(),
        accuracy=((answers > 0) == (labels > 0)).all(1).double().mean().item(),
        n=len(labels),
    )
