"""What the report shows of a fitted tagger, and how it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.data import LabelEncoder
from ostinato.data.sequences.steps import as_labels, lengths_of
from ostinato.data.text.words import Words
from ostinato.metrics.spans import SpanScores, scheme_of, span_errors, span_scores
from ostinato.report.contents import RunFacts
from ostinato.runtime.card import n_parameters

if TYPE_CHECKING:
    from ostinato.estimators import SequenceTagger
    from ostinato.tasks.tag.fit import FittedTagger

MOST_STEPS, MOST_WORDS = 160, 60  # drawn of a sequence: the stretch with most errors


@dataclass(frozen=True, eq=False, kw_only=True)
class TagView:
    """A part of a sequence, step by step.

    Attributes:
        name: of the sequence.
        start, length: the first step of the part, and how many the sequence has.
        n_wrong: wrong labels in the whole sequence.
        true, predicted: `[t]`, class numbers of the part.
        x: `[t, F]`, what the network read; None of words.
        words: t of them; None of vectors.
    """

    name: str
    start: int
    length: int
    n_wrong: int
    true: np.ndarray
    predicted: np.ndarray
    x: np.ndarray | None = None
    words: list[str] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class TaggingData(RunFacts):
    """The contents of a tagger's report.

    Args:
        title, metrics, losses, evaluation, config, environment: see `RunFacts`.
        classes: the C labels, as shown.
        lengths: `[N]`, steps of the test sequences.
        y_true, y_pred: `[ΣT]` integers, the labels of all steps, indices into `classes`.
        confidence: `[ΣT]`, the probability that the network gave to its answer.
        hardest: the sequences with most errors.
        scheme: how the labels write spans; None if they do not.
        spans, span_errors: of the spans, if there are any; see `span_metrics`.
        read: what a step is, as "3 numbers" or "a word".
        parameters: of the network.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    classes: list[str]
    lengths: np.ndarray
    y_true: np.ndarray
    y_pred: np.ndarray
    confidence: np.ndarray
    hardest: list[TagView]
    scheme: str | None = None
    spans: SpanScores | None = None
    span_errors: dict[str, int] | None = None
    read: str = ""
    parameters: int | None = None

    def __post_init__(self) -> None:
        n = int(self.lengths.sum())
        for name in ("y_true", "y_pred", "confidence"):
            shape = getattr(self, name).shape
            if shape != (n,) or n == 0:
                raise ValueError(
                    f"TaggingData: {name} has shape {list(shape)}; wanted [{n}], a value for each "
                    "step of lengths, and one at least"
                )


def collect_tagging(
    tagger: FittedTagger | SequenceTagger,
    X: Any,
    y: Any,
    facts: RunFacts,
    *,
    ids: Sequence[Any] | np.ndarray | None = None,
    words: Sequence[Sequence[str]] | None = None,
    n_hardest: int = 6,
    answers: tuple[Sequence[np.ndarray], Sequence[np.ndarray]] | None = None,
) -> TaggingData:
    """Compute the contents of a tagger's report from test data, for `write_report`.

    Args:
        tagger: fitted.
        X: the test sequences, as `predict` takes them.
        y: the labels of each.
        facts: of the run.
        ids: `[N]`, the names of the sequences; by default their numbers from 1.
        words: the words of each sequence where X has numbers made of them; they are shown.
        n_hardest: how many sequences to show, of those with errors.
        answers: the likeliest labels of each sequence as class numbers, and their probabilities,
            `[T_i]` each, if they are known.

    Raises:
        ValueError: X or y cannot be used, or a label is not known to the tagger.
    """
    fitted: FittedTagger = tagger.fitted_ if hasattr(tagger, "fitted_") else tagger
    sequences, is_one = fitted.prepared(X)
    lengths, y = lengths_of(sequences), [y] if is_one else y
    labels = as_labels(y, lengths, fitted.scheme)
    encoder = LabelEncoder(fitted.classes)
    y_true = encoder.encode(np.concatenate(labels), name="collect_tagging: y")
    if answers is None:
        answers = fitted.answers(sequences, y).of(np.arange(len(lengths)))
    best, sure = answers
    y_pred = np.concatenate(best).astype(np.int64)
    scheme = "iob2" if fitted.scheme else scheme_of(fitted.classes.tolist())
    tags = [each.tolist() for each in labels], [encoder.decode(each).tolist() for each in best]
    if words is None and isinstance(sequences, Words):
        words = [[sequences.different[i] for i in sequences.places[n]] for n in range(len(lengths))]
    chosen = _hardest(y_true != y_pred, lengths, n_hardest)
    names = np.arange(1, len(lengths) + 1) if ids is None else ids
    n_features = fitted.net.config["n_features"]
    number = "a number" if n_features == 1 else f"{n_features} numbers"
    return TaggingData(
        **vars(facts),
        classes=[str(label) for label in fitted.classes],
        lengths=lengths,
        y_true=y_true,
        y_pred=y_pred,
        confidence=np.concatenate(sure),
        hardest=[
            _view(str(names[i]), i, y_true, y_pred, lengths, sequences, words) for i in chosen
        ],
        scheme=scheme,
        spans=span_scores(*tags, scheme) if scheme else None,
        span_errors=span_errors(*tags, scheme) if scheme else None,
        read=number if words is None else "a word",
        parameters=n_parameters(fitted.net.state_dict()),
    )


def _hardest(wrong: np.ndarray, lengths: np.ndarray, n: int) -> list[int]:
    """The sequences with most errors, but none without: their numbers."""
    counts = np.add.reduceat(wrong.astype(np.int64), np.cumsum(lengths) - lengths)
    order = np.argsort(-counts, kind="stable")[:n]
    return [int(i) for i in order if counts[i]]


def _view(
    name: str,
    i: int,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    lengths: np.ndarray,
    sequences: Any,
    words: Sequence[Sequence[str]] | None,
) -> TagView:
    first, length = int(lengths[:i].sum()), int(lengths[i])
    true, predicted = y_true[first : first + length], y_pred[first : first + length]
    most = MOST_STEPS if words is None else MOST_WORDS
    start = _densest(true != predicted, most)
    part = slice(start, start + most)
    return TagView(
        name=name,
        start=start,
        length=length,
        n_wrong=int((true != predicted).sum()),
        true=true[part],
        predicted=predicted[part],
        x=None if words is not None else np.asarray(sequences[i])[part],
        words=None if words is None else [str(word) for word in words[i][part]],
    )


def _densest(wrong: np.ndarray, most: int) -> int:
    """Where the part of `most` steps begins that has most errors."""
    if len(wrong) <= most:
        return 0
    before = np.concatenate([[0], np.cumsum(wrong)])
    return int(np.argmax(before[most:] - before[:-most]))
