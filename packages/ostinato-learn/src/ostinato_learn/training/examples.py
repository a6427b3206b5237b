"""Examples as tensors, their weights, and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato_learn.data import as_sequences
from ostinato_learn.data.text.words import CodedWords
from ostinato_learn.models.inputs import Inputs, tensors
from ostinato_learn.training.task import digest


def as_inputs(X: Any) -> Inputs:
    """Sequences as `data.as_sequences` gives them; coded words stay as they are."""
    return X if isinstance(X, CodedWords) else as_sequences(X)


def fingerprint(X: Inputs, chosen: np.ndarray, *labels: Any) -> str:
    """`Task.fingerprint` of the chosen examples and their labels."""
    x, lengths = tensors(X, chosen)
    return digest(*([x] if isinstance(x, Tensor) else x), lengths, *labels)


def cross_entropy(logits: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of −log softmax(logits)[y] over a batch, weighted: Σ wᵢ lossᵢ / Σ wᵢ.

    A batch whose weights are all zero has the loss zero.
    """
    if weights is None:
        return F.cross_entropy(logits, y)
    losses = F.cross_entropy(logits, y, reduction="none")
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def class_indices(y: Any, n_classes: int) -> np.ndarray:
    """Labels as `[N]` int64, each checked to be a class 0…C−1.

    Raises:
        ValueError: a label is not a class; or they are not integers, or not one axis.
    """
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"y is {labels.dtype}{list(labels.shape)}; wanted class numbers, integers of shape [N]"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        raise ValueError(
            f"y[{wrong[0]}] is {labels[wrong[0]]}; wanted 0 to {n_classes - 1}, "
            "the classes of the network"
        )
    return labels.astype(np.int64)


def example_weights(
    y: np.ndarray, class_weight: Mapping[int, float] | str | None, sample_weight: Any
) -> np.ndarray | None:
    """The weight of each example, class weight times sample weight, `[N]` float32.

    "balanced" weighs a class by N / (number of classes · its number of examples), so that all
    classes weigh the same; classes that a mapping does not name weigh 1.

    Raises:
        ValueError: a weight is negative, infinite or NaN; or fewer than two classes have a weight
            above 0.
    """
    if class_weight is None and sample_weight is None:
        return None
    weights = np.ones(len(y))
    if sample_weight is not None:
        weights *= check_sample_weight(sample_weight, len(y))
    if isinstance(class_weight, str):
        is_known = class_weight == "balanced"
    else:
        is_known = class_weight is None or isinstance(class_weight, Mapping)
    if not is_known:
        raise ValueError(
            f"class_weight={class_weight!r}: wanted 'balanced', a dict class -> weight, or None"
        )
    if isinstance(class_weight, str):
        _, where, counts = np.unique(y, return_inverse=True, return_counts=True)
        weights *= (len(y) / (len(counts) * counts))[where]
    elif class_weight is not None:
        for label, weight in class_weight.items():
            if not (isinstance(weight, Real) and np.isfinite(weight) and weight >= 0):
                raise ValueError(f"class_weight[{label!r}] is {weight}; wanted a number, 0 or more")
            weights[y == label] *= weight
        weighed = [label for label in np.unique(y).tolist() if class_weight.get(label, 1) > 0]
        if len(weighed) < 2:
            raise ValueError(
                f"class_weight leaves {len(weighed)} of the classes a weight above zero; "
                "wanted two or more"
            )
    return weights.astype(np.float32)


def check_sample_weight(sample_weight: Any, n: int) -> np.ndarray:
    """Sample weights as `[N]` float64, each checked to be 0 or more, and at least one above 0.

    Raises:
        ValueError: a weight is below 0, or all are 0; or there is not one for each example.
    """
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {list(weights.shape)}; wanted [{n}], one for each example"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise ValueError(
            f"sample_weight[{wrong[0]}] is {weights[wrong[0]]}; wanted a number, 0 or more"
        )
    if not weights.any():
        raise ValueError("sample_weight is zero for all examples; wanted at least one above zero")
    return weights
