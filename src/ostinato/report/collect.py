"""What the report shows of a fitted classifier: computed here, the only place that needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato._extras import needs
from ostinato.anatomy import Anatomy
from ostinato.data import LabelEncoder, Ragged
from ostinato.data.text.words import CodedWords, Integers
from ostinato.report.contents import ReportData, RunFacts, StepView
from ostinato.runtime.card import n_parameters

if TYPE_CHECKING:
    from ostinato.data.text.words import Words
    from ostinato.estimators import SequenceClassifier
    from ostinato.models import ClassifierEnsemble, ClassifierNet
    from ostinato.tasks.classify.fit import FittedClassifier
    from ostinato.training.examples import Inputs

# Sequences cut after each step are read anew: a multiply and an add for each weight and step, half
# a second at 30 GFLOP a second; of fewer sequences the accuracy would say little.
CUT_WORK, LEAST_CUT = 2**34, 50
BATCH_FLOATS = 2**20  # states and logits of one batch, all steps: 4 MiB, which caches hold


def collect(
    classifier: SequenceClassifier | FittedClassifier,
    X: Any,
    y: Any,
    facts: RunFacts,
    *,
    n_hardest: int = 6,
    proba: np.ndarray | None = None,
    n_right: np.ndarray | None = None,
) -> ReportData:
    """Compute the contents of a classifier's report from test data, for `write_report`.

    The hardest examples are the misclassified ones, by falling loss; if they are too few, those
    right by the smallest margin follow. Memory stays bounded: states and beliefs of all steps are
    kept for the hardest alone. A bidirectional network has no belief before the end of a sequence,
    so its examples come without, and its accuracy by step is that of sequences cut short.

    Args:
        classifier: fitted.
        X: `[N, T, F]` test sequences, or whatever else `predict` takes, of different lengths too.
        y: `[N]` their labels, each one of the classes of the classifier.
        facts: of the run.
        n_hardest: how many examples to show step by step.
        proba: `[N, C]`, what `predict_proba` tells of X, if it is known.
        n_right: what `right_by_step` tells, if it is known.

    Raises:
        ValueError: y has another length than X, or a label that the classifier does not know.
    """
    fitted = fitted_of(classifier)
    net, known = fitted.net, fitted.classes
    sequences = fitted.prepared(X)
    words = None if fitted.vocabulary is None else fitted.words(X)
    if proba is None:
        proba = fitted.predict_proba(X)
    labels = np.asarray(y)
    if labels.shape != (len(sequences),):
        raise ValueError(
            f"collect: y has shape {list(labels.shape)}; wanted [{len(sequences)}], a label for "
            "each of X"
        )
    y_true = LabelEncoder(known).encode(labels, name="collect: y")
    classes = [str(label) for label in known]
    lengths = lengths_of(sequences)
    chosen = _hardest(proba, y_true, n_hardest)
    if reads_both_ways(net):
        by_step, n_cut = _cut_short(net, sequences, y_true)
    else:
        if n_right is None:
            n_right = _right_by_step(net, sequences, y_true)
        by_step, n_cut = n_right / len(y_true), 0
    return ReportData(
        **vars(facts),
        classes=classes,
        y_true=y_true,
        proba=proba,
        hardest=_views(net, sequences, words, classes, y_true, proba, chosen),
        accuracy_by_step=by_step,
        n_cut=n_cut,
        network=anatomy(net, lengths),
        lengths=(int(lengths.min()), int(lengths.max())),
        each_length=lengths,
    )


def right_by_step(fitted: FittedClassifier, X: Any, y: Any) -> np.ndarray:
    """How many answers are right after each step, `[T]`; a sequence that has ended keeps its last.

    Args:
        fitted: reads in one direction.
        X, y: as for `collect`.
    """
    labels = LabelEncoder(fitted.classes).encode(np.asarray(y))
    return _right_by_step(fitted.net, fitted.prepared(X), labels)


def fitted_of(classifier: SequenceClassifier | FittedClassifier) -> FittedClassifier:
    """The fitted classifier within an estimator; NotFittedError if there is none."""

    from ostinato.tasks.classify.fit import FittedClassifier

    return classifier if isinstance(classifier, FittedClassifier) else classifier._fitted()


def anatomy(net: ClassifierNet | ClassifierEnsemble, lengths: np.ndarray) -> Anatomy | None:
    """The sizes of a network that reads sequences of these lengths; None of an own cell."""
    config = net.config
    if not isinstance(config["cell"], str):  # a cell of one's own, whose equations are not known
        return None
    return Anatomy(
        config["cell"],
        int(lengths[0]) if (lengths == lengths[0]).all() else None,
        config["n_features"] or config["embedding_size"],
        config["hidden_size"],
        config["n_classes"],
        config["num_layers"],
        config["bidirectional"],
        n_words=config["n_words"],
        readout=config["readout"],
    )


def _hardest(proba: np.ndarray, y_true: np.ndarray, n: int) -> np.ndarray:
    """Indices: the misclassified by falling loss, then the others by rising margin."""
    rows = np.arange(len(y_true))
    true = proba[rows, y_true]
    others = proba.copy()
    others[rows, y_true] = -1
    margin = true - others.max(axis=1)
    right = proba.argmax(axis=1) == y_true
    # The loss is −log of the true class's probability: it falls as that rises.
    return np.lexsort((margin, np.where(right, margin, true), right))[:n]


def _views(
    net: ClassifierNet | ClassifierEnsemble,
    sequences: Inputs,
    words: Words | None,
    classes: list[str],
    y_true: np.ndarray,
    proba: np.ndarray,
    chosen: np.ndarray,
) -> list[StepView]:
    steps: list[tuple[Any, Any]] = [(None, None)] * len(chosen)
    if not reads_both_ways(net):
        played = _logits_and_states(net, sequences[chosen])
        steps = [
            (_softmax(logits[i, :length]), states[i, :length])
            for logits, states, lengths in played
            for i, length in enumerate(lengths)
        ]
    return [
        StepView(
            x=_steps(sequences, int(n)),
            label=classes[y_true[n]],
            prediction=classes[int(proba[n].argmax())],
            beliefs=beliefs,
            states=states,
            words=None
            if words is None
            else tuple(words.different[i] for i in words.places[int(n)]),
        )
        for n, (beliefs, states) in zip(chosen, steps, strict=True)
    ]


def _steps(sequences: Inputs, n: int) -> np.ndarray:
    """`[T, F]`, sequence n; of words their numbers, `[T, 1]`."""
    if not isinstance(sequences, CodedWords):
        return sequences[n]
    return sequences.words[sequences.places[n]][:, None]


def _cut_short(
    net: ClassifierNet | ClassifierEnsemble, sequences: Inputs, y_true: np.ndarray
) -> tuple[np.ndarray | None, int]:
    """The accuracy `[T]` on sequences cut after each step and read anew, and of how many.

    Of many sequences some are drawn; None if fewer than LEAST_CUT would take too long.
    """
    from ostinato.training import evaluation

    lengths, weights = lengths_of(sequences), n_parameters(net.state_dict())
    longest = int(lengths.max())
    n = min(len(y_true), CUT_WORK // (weights * longest * (longest + 1)))
    if n < min(LEAST_CUT, len(y_true)):
        return None, 0
    chosen = np.sort(np.random.default_rng(0).permutation(len(y_true))[:n])
    some, labels = sequences[chosen], y_true[chosen]
    answers = [
        evaluation.logits(net, _until(some, t)).argmax(1).numpy() for t in range(1, longest + 1)
    ]
    return np.array([(each == labels).mean() for each in answers]), n


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


def _right_by_step(
    net: ClassifierNet | ClassifierEnsemble, sequences: Inputs, y_true: np.ndarray
) -> np.ndarray:
    """See `right_by_step`."""
    longest = lengths_of(sequences).max()
    n_right = np.zeros(longest, dtype=np.int64)
    start = 0
    for logits, _, lengths in _logits_and_states(net, sequences):
        labels = y_true[start : start + len(logits)]
        right = logits.argmax(axis=2) == labels[:, None]
        last_read = np.minimum(np.arange(longest), lengths[:, None] - 1)
        n_right += np.take_along_axis(right, last_read, axis=1).sum(axis=0)
        start += len(logits)
    return n_right


def _logits_and_states(
    net: ClassifierNet | ClassifierEnsemble, sequences: Inputs
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of (logits `[B, T, C]`, states `[B, T, H]`, lengths `[B]`), in the order given."""
    with needs("torch", "torch"):
        import torch

        from ostinato.training.examples import tensors
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


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
