"""What a classifier would answer after each step of a sequence: for its report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato._extras import needs
from ostinato.data import LabelEncoder, Ragged
from ostinato.data.text.words import CodedWords, Integers
from ostinato.saved.card import n_parameters

if TYPE_CHECKING:
    from ostinato.models.inputs import Inputs
    from ostinato.tasks.classify.ensemble import ClassifierEnsemble
    from ostinato.tasks.classify.model import Classifier
    from ostinato.tasks.classify.net import ClassifierNet

# Sequences cut after each step are read anew: a multiply and an add for each weight and step, half
# a second at 30 GFLOP a second. With fewer sequences the accuracy would say little.
CUT_WORK, LEAST_CUT = 2**34, 50
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
    from ostinato.training import evaluation

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
    with needs("torch", "torch"):
        import torch

        from ostinato.models.inputs import tensors
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


def lengths_of(sequences: Inputs) -> np.ndarray:
    """The steps of each sequence, `[N]`."""
    if isinstance(sequences, np.ndarray):
        return np.full(len(sequences), sequences.shape[1], dtype=np.int64)
    return sequences.lengths


def reads_both_ways(net: ClassifierNet | ClassifierEnsemble) -> bool:
    """Whether the network reads each sequence from both ends."""
    return bool(net.config["bidirectional"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
