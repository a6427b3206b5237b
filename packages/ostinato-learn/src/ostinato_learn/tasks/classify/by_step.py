"""The answers of a classifier after each step of a sequence: for its report, and to answer early.

A stream answers after every step. `Early` has the probability from which on its answer counts as
sure: the lowest threshold with which, on validation data, at most a given share of the first sure
answers is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data import LabelEncoder, Ragged
from ostinato_learn.data.sequences.step_labels import lengths_of
from ostinato_learn.data.text.words import CodedWords, Integers
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks.classify.model import Classifier, Early

if TYPE_CHECKING:
    from ostinato_learn.models.inputs import Inputs
    from ostinato_learn.tasks.classify.net import ClassifierEnsemble, ClassifierNet

# Sequences cut after each step are read anew: a multiply and an add for each weight and step, half
# a second at 30 GFLOP a second. With fewer sequences the accuracy would say little.
CUT_WORK, LEAST_CUT = 2**34, 50
# 0.5, 0.58, …, 1 − 10⁻⁵: each halves the distance to 1 in four steps.
CANDIDATES = [float(np.float32(1 - 0.5 * 2 ** (-j / 4))) for j in range(63)]
BATCH_FLOATS = 2**20  # states and logits of one batch, all steps: 4 MiB, which caches hold


def right_by_step(fitted: Classifier, X: Any, y: Any) -> np.ndarray:
    """The number of right answers after each step, `[T]`; an ended sequence keeps its last answer.

    Args:
        fitted: a classifier that reads in one direction.
        X, y: test sequences and their labels, as for `report.collect`.
    """
    encoded = LabelEncoder(fitted.classes).encode(np.asarray(y))
    return n_right_by_step(fitted.net, fitted.prepared(X), encoded)


def cut_short(
    net: ClassifierNet | ClassifierEnsemble, sequences: Inputs, y_true: np.ndarray
) -> tuple[np.ndarray | None, int]:
    """The accuracy `[T]` on sequences cut after each step and read anew, and their number.

    From many sequences some are drawn; None if even LEAST_CUT would take too long.
    """
    from ostinato_learn.training import evaluation

    lengths, weights = lengths_of(sequences), n_parameters(net.state_dict())
    longest = int(lengths.max())
    n = min(len(y_true), CUT_WORK // (weights * longest * (longest + 1)))
    if n < min(LEAST_CUT, len(y_true)):
        return None, 0
    chosen = np.sort(np.random.default_rng(0).permutation(len(y_true))[:n])
    some, true = sequences[chosen], y_true[chosen]
    answers = [
        evaluation.logits(net, _until(some, t)).argmax(1).numpy() for t in range(1, longest + 1)
    ]
    return np.array([(each == true).mean() for each in answers]), n


def _until(sequences: Inputs, step: int) -> Inputs:
    """The first steps of each sequence."""
    if isinstance(sequences, np.ndarray):
        return sequences[:, :step]
    lengths = sequences.lengths
    if isinstance(sequences, CodedWords):
        first = [sequences.places[i][:step] for i in range(len(sequences))]
        return replace(sequences, places=Integers.of(first))
    place = np.arange(len(sequences.values)) - np.repeat(sequences.offsets[:-1], lengths)
    ends = np.concatenate([[0], np.cumsum(np.minimum(lengths, step))])
    return Ragged(sequences.values[place < step], ends)


def n_right_by_step(
    net: ClassifierNet | ClassifierEnsemble, sequences: Inputs, y_true: np.ndarray
) -> np.ndarray:
    """`right_by_step` of sequences as the network reads them, and of class numbers `[N]`."""
    longest = lengths_of(sequences).max()
    n_right, start = np.zeros(longest, dtype=np.int64), 0
    for logits, _, lengths in logits_and_states(net, sequences):
        right = logits.argmax(axis=2) == y_true[start : start + len(logits), None]
        last_read = np.minimum(np.arange(longest), lengths[:, None] - 1)
        n_right += np.take_along_axis(right, last_read, axis=1).sum(axis=0)
        start += len(logits)
    return n_right


def logits_and_states(
    net: ClassifierNet | ClassifierEnsemble, sequences: Inputs
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of (logits `[B, T, C]`, states `[B, T, H]`, lengths `[B]`), in the order given."""
    with needs("ostinato-learn[torch]", "torch"):
        import torch

        from ostinato_learn.models.inputs import tensors
    net.eval()  # no dropout
    all_lengths = lengths_of(sequences)
    per_step = net.config["hidden_size"] * net.config["num_layers"] + net.config["n_classes"]
    size = max(1, BATCH_FLOATS // int(all_lengths.max() * per_step))
    for start in range(0, len(sequences), size):
        part = np.arange(start, min(start + size, len(sequences)))
        x, lengths = tensors(sequences, part)
        with torch.no_grad():
            logits, states = net.forward_steps(x, lengths)
        yield logits.numpy(), states.numpy(), all_lengths[part]


def reads_both_ways(net: ClassifierNet | ClassifierEnsemble) -> bool:
    """Whether the network reads each sequence from both ends."""
    return bool(net.config["bidirectional"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


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


def _sure_answers(
    net: ClassifierNet | ClassifierEnsemble, X: Inputs, y: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The largest probability of each sequence after each step, and whether its label is right."""
    start = 0
    for logits, _, lengths in logits_and_states(net, X):
        sure, best = softmax(logits).max(axis=2), logits.argmax(axis=2)
        for i, end in enumerate(lengths.tolist()):
            yield sure[i, :end], best[i, :end] == y[start + i]
        start += len(logits)
