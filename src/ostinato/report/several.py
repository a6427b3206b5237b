"""What the report shows of a classifier whose sequences may have several labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.anatomy import Anatomy
from ostinato.data.sequences.label_sets import joined
from ostinato.report.collect import anatomy, fitted_of, lengths_of
from ostinato.report.contents import RunFacts

if TYPE_CHECKING:
    from ostinato.estimators import SequenceClassifier
    from ostinato.tasks.classify.fit import FittedClassifier


@dataclass(frozen=True)
class SetView:
    """One example and its labels.

    Attributes:
        name: the name of the sequence in its file.
        missed: labels that it has and that the network did not give.
        invented: labels that it has not and that the network gave.
        right: labels that it has and that the network gave.
        words: those of the sequence, if its steps are words; else empty.
    """

    name: str
    missed: tuple[str, ...]
    invented: tuple[str, ...]
    right: tuple[str, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SeveralData(RunFacts):
    """The contents of the report of a classifier that gives several labels to a sequence.

    Attributes:
        labels: the C labels, as shown.
        y_true: `[N, C]` zeros and ones, which labels each test example has.
        proba: `[N, C]`, the probability that the network gave to each.
        each_length: `[N]`, steps of each test sequence.
        hardest: the examples with the greatest loss.
        network: the sizes of the network, or None.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    labels: list[str]
    y_true: np.ndarray
    proba: np.ndarray
    each_length: np.ndarray
    hardest: list[SetView] = field(default_factory=list)
    network: Anatomy | None = None

    def __post_init__(self) -> None:
        wanted = (len(self.each_length), len(self.labels))
        if self.y_true.shape != wanted or self.proba.shape != wanted or not wanted[0]:
            raise ValueError(
                f"SeveralData: y_true has shape {list(self.y_true.shape)} and proba "
                f"{list(self.proba.shape)}; wanted {list(wanted)}, a row for each of the examples "
                "(at least one) and a column for each label"
            )

    @property
    def y_pred(self) -> np.ndarray:
        """`[N, C]` zeros and ones: labels that are likelier than not."""
        return (self.proba > 0.5).astype(np.int64)


def collect_several(
    classifier: SequenceClassifier | FittedClassifier,
    X: Any,
    y: np.ndarray,
    facts: RunFacts,
    *,
    n_hardest: int = 8,
    proba: np.ndarray | None = None,
) -> SeveralData:
    """Compute the contents of the report of a classifier with several labels, for `write_report`.

    Args:
        classifier: fitted, with several labels a sequence.
        X: N test sequences, or `Examples` of them.
        y: `[N, C]` zeros and ones.
        facts: of the run.
        n_hardest: how many examples to show.
        proba: `[N, C]`, the result of `predict_proba` for X, if it is already known.

    Raises:
        ValueError: the labels are not those of the classifier.
    """
    fitted = fitted_of(classifier)
    y = fitted.check_several(y)
    if proba is None:
        proba = fitted.predict_proba(X)
    words = None if fitted.vocabulary is None else fitted.words(X)
    lengths = lengths_of(fitted.prepared(X))
    labels = [str(label) for label in fitted.classes]
    names = X.ids if hasattr(X, "ids") else np.arange(len(y))
    given = np.where(y > 0, proba, 1 - proba)
    loss = -np.log(np.maximum(given, np.finfo(np.float64).tiny)).sum(axis=1)
    wrong = (proba > 0.5) != (y > 0)
    order = np.argsort(-loss, kind="stable")
    hardest = [int(n) for n in order if wrong[n].any()][:n_hardest]

    def of(n: int, chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(labels[i] for i in np.flatnonzero(chosen[n]))

    return SeveralData(
        **vars(facts),
        labels=labels,
        y_true=y,
        proba=proba,
        each_length=lengths,
        hardest=[
            SetView(
                str(names[n]),
                missed=of(n, wrong & (y > 0)),
                invented=of(n, wrong & (y == 0)),
                right=of(n, ~wrong & (y > 0)),
                words=() if words is None else tuple(words.different[i] for i in words.places[n]),
            )
            for n in hardest
        ],
        network=anatomy(fitted.net, lengths),
    )


def commonest_sets(data: SeveralData, most: int = 12) -> list[tuple[str, int, int]]:
    """The commonest sets of labels: in words, how many have it, how many of them are right."""
    sets = joined(data.y_true, data.labels)
    right = (data.y_true == data.y_pred).all(axis=1)
    found, where, counts = np.unique(sets, return_inverse=True, return_counts=True)
    hits = np.bincount(where, weights=right, minlength=len(found)).astype(np.int64)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(str(found[i]), int(counts[i]), int(hits[i])) for i in order]
