"""`Early`: when a classifier may answer before a sequence has ended.

A stream answers after every step. `Early` has the probability from which on its answer counts as
sure: the lowest threshold with which, on validation data, at most a given share of the first sure
answers is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ostinato.models.inputs import Inputs, tensors
from ostinato.tasks.classify.ensemble import ClassifierEnsemble
from ostinato.tasks.classify.model import Early
from ostinato.tasks.classify.net import ClassifierNet

AT_ONCE = 256  # sequences
# 0.5, 0.58, …, 1 − 10⁻⁵: each halves the distance to 1 in four steps.
CANDIDATES = [float(np.float32(1 - 0.5 * 2 ** (-j / 4))) for j in range(63)]


def calibrated(
    net: ClassifierNet | ClassifierEnsemble, X: Inputs, y: np.ndarray, allowed: float
) -> Early:
    """The lowest threshold of the candidates with few enough wrong answers.

    Args:
        net: a network that reads in one direction.
        X, y: validation data: N sequences as the network reads them, and their class numbers.
        allowed: the share of wrong answers among the sure ones. It is compared with
            (wrong + 1) / (sure + 2), so that a few answers that happen to be right are not enough
            (Laplace's rule of succession).

    Raises:
        ValueError: `allowed` is not a share; the network reads in both directions; or no threshold
            has so few errors.
    """
    if not 0 < allowed < 1:
        raise ValueError(f"early_error={allowed!r}: wanted a share of wrong answers, such as 0.05")
    found = list(_sure_answers(net, X, y))
    lengths = np.array([len(sure) for sure, _ in found])
    least = 1.0
    for threshold in CANDIDATES:
        first = np.array([_first(sure >= threshold) for sure, _ in found])
        reached = first >= 0
        n = int(reached.sum())
        right = [hits[t] for (_, hits), t in zip(found, first.tolist(), strict=True) if t >= 0]
        wrong = n - int(np.sum(right))
        least = min(least, (wrong + 1) / (n + 2))
        if (wrong + 1) / (n + 2) <= allowed:
            read = (first[reached] + 1) / lengths[reached]
            return Early(threshold, wrong / n, n / len(found), float(read.mean()), len(found))
    raise ValueError(
        f"early_error={allowed}: no threshold has so few wrong answers; the smallest share "
        f"is {least:.3f} on {len(found):,} validation sequences: allow more, give more "
        "sequences, or train longer"
    )


def _first(reached: np.ndarray) -> int:
    """The first step that reaches the threshold; −1 if no step does."""
    return int(reached.argmax()) if reached.any() else -1


@torch.no_grad()
def _sure_answers(
    net: ClassifierNet | ClassifierEnsemble, X: Inputs, y: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The largest probability of each sequence after each step, and whether its label is right."""
    was_training = net.training
    net.eval()
    for start in range(0, len(y), AT_ONCE):
        chosen = np.arange(start, min(start + AT_ONCE, len(y)))
        x, lengths = tensors(X, chosen)
        logits, _ = net.forward_steps(x, lengths)
        sure, best = torch.softmax(logits, 2).max(2)
        ends = [logits.shape[1]] * len(chosen) if lengths is None else lengths.tolist()
        for i, end in enumerate(ends):
            yield sure[i, :end].numpy(), best[i, :end].numpy() == y[start + i]
    net.train(was_training)
