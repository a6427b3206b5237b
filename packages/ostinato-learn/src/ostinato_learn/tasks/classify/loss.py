"""`MultiLabels`: the loss of a classifier that may give a sequence several labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato_learn.tasks.fitting import OfExamples
from ostinato_learn.training import evaluation
from ostinato_learn.training.evaluation import Evaluation
from ostinato_learn.training.task import Mean


class MultiLabels(OfExamples):
    """Binary cross-entropy of a `models.ClassifierNet`; each class is a yes-no question.

        loss = mean over examples and labels of −log σ(±logit),   + if the example has the label

    y is `[N, C]` of zeros and ones; see `OfExamples` for the rest.
    """

    def losses(self, found: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(found, y, reduction="none").mean(1)

    def measured(self, found: Tensor, y: Tensor) -> dict[str, float]:
        return {"train_accuracy": _all_right(found, y)}

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
    loss = F.binary_cross_entropy_with_logits(answers, labels).item()
    return Evaluation(loss, _all_right(answers, labels), len(labels))


def _all_right(logits: Tensor, labels: Tensor) -> float:
    return ((logits > 0) == (labels > 0)).all(1).double().mean().item()
