"""The answers of a network to many examples, in batches, and their measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato_learn.models.inputs import tensors
from ostinato_learn.training.distributed import Ranks
from ostinato_learn.training.examples import as_inputs, class_indices
from ostinato_learn.training.task import Mean

BATCH_SIZE = 1000


@dataclass(frozen=True)
class Evaluation:
    """Mean loss (cross-entropy in nats) and share of right answers over n examples."""

    loss: float
    accuracy: float
    n: int


@torch.no_grad()
def logits(
    net: torch.nn.Module, X: Any, batch_size: int = BATCH_SIZE, rows: slice = slice(None)
) -> Tensor:
    """The network's logits for every example, in evaluation mode.

    Args:
        net: forward(x `[B, T, F]`, lengths `[B]` or None) gives `[B, C]`. Its mode is kept.
        X: whatever `data.as_sequences` takes, or `CodedWords`. Sequences of different lengths go in
            order of their length, so that a batch has little padding.
        batch_size: examples at a time.
        rows: the positions in X to compute, at least one.

    Returns:
        `[N, C]`, in the order of X.

    Example:
        >>> from ostinato_learn.models import ClassifierNet
        >>> net = ClassifierNet(n_features=2, n_classes=3, hidden_size=8)
        >>> logits(net, [torch.randn(n, 2).numpy() for n in (9, 4, 7)]).shape
        torch.Size([3, 3])
    """
    X = as_inputs(X)
    wanted = np.arange(len(X))[rows]
    order = np.arange(len(wanted))
    if not isinstance(X, np.ndarray):
        order = np.argsort(X.lengths[rows], kind="stable")
    was_training = net.training
    net.eval()
    parts = []
    for start in range(0, len(order), batch_size):
        x, lengths = tensors(X, wanted[order[start : start + batch_size]])
        parts.append(net(x, lengths))
    net.train(was_training)
    in_order = torch.cat(parts)
    result = torch.empty_like(in_order)
    result[torch.from_numpy(order)] = in_order
    return result


def evaluate(net: torch.nn.Module, X: Any, y: Any, batch_size: int = BATCH_SIZE) -> Evaluation:
    """Measure loss and accuracy of a network over a data set.

    Args:
        net, X, batch_size: as for `logits`.
        y: `[N]` integers, the classes.

    Example:
        >>> from ostinato_learn.models import ClassifierNet
        >>> net = ClassifierNet(n_features=2, n_classes=3, hidden_size=8)
        >>> found = evaluate(net, torch.randn(40, 9, 2).numpy(), torch.zeros(40).long().numpy())
        >>> 0 <= found.accuracy <= 1, found.loss > 0
        (True, True)
    """
    return measure(logits(net, X, batch_size), y)


def of_share(
    ranks: Ranks, net: torch.nn.Module, X: Any, y: Any, measure: Callable[[Tensor, Any], Evaluation]
) -> dict[str, Mean]:
    """`Task.validate` for labelled sequences; each process takes some of them.

    Args:
        measure: a function that gives loss and accuracy for logits `[n, C]` and labels `[n]` or
            `[n, C]`.
    """
    result = Evaluation(0.0, 0.0, 0)
    rows = slice(None) if ranks.alone else ranks.rows(len(y))
    if ranks.alone or rows.stop > rows.start:
        result = measure(logits(net, X, rows=rows), y[rows])
    return {
        "validation_loss": (result.loss, result.n),
        "validation_accuracy": (result.accuracy, result.n),
    }


def measure(logits: Tensor, y: Any) -> Evaluation:
    """Loss and accuracy of a network's logits `[N, C]` for the classes y, `[N]` integers.

    Raises:
        ValueError: y has another length, or something other than the classes 0…C−1.
    """
    answers = logits.double()
    labels = torch.from_numpy(class_indices(y, answers.shape[1]))
    if len(labels) != len(answers):
        raise ValueError(
            f"X has {len(answers)} examples and y has {len(labels)}; wanted a label for each"
        )
    return Evaluation(
        loss=F.cross_entropy(answers, labels).item(),
        accuracy=(answers.argmax(1) == labels).double().mean().item(),
        n=len(labels),
    )
