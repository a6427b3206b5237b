"""The report of a classifier with several labels a sequence: what is computed, and its panels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.anatomy import Anatomy
from ostinato_learn.data.sequences.label_sets import joined
from ostinato_learn.data.sequences.step_labels import lengths_of
from ostinato_learn.metrics import label_sets as label_metrics
from ostinato_learn.report import common, labels, measures
from ostinato_learn.report.classify import anatomy
from ostinato_learn.report.markup import Html, count, percent, plain, tag
from ostinato_learn.report.page import PageData, RunFacts
from ostinato_learn.report.panels import (
    Card,
    Grid,
    Key,
    Markup,
    PagePanel,
    PageSection,
    PageTable,
    Tile,
)
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks.base import MeasureSpec
from ostinato_learn.tasks.classify import TASK

if TYPE_CHECKING:
    from ostinato_learn.tasks.classify.model import Classifier

SETS = 12  # of labels that are shown, the commonest
MEASURES = {**TASK.measures, "accuracy": MeasureSpec("all labels of an example right", "%")}


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
class SeveralData(PageData):
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

    def sizes(self) -> str:
        words = self.network is not None and self.network.n_words is not None
        read = common.sequences(self, self.each_length, "word" if words else "step")
        mean = self.y_true.sum(axis=1).mean()
        return f"{read}, {count(len(self.labels))} labels, {mean:.2f} of them a sequence"

    def tiles(self) -> list[Tile]:
        found = label_metrics.measure(self.y_true, self.y_pred)
        n = count(len(self.y_true))
        tiles = [
            Tile(percent(found["label_accuracy"]), f"labels right, of {n} test examples"),
            Tile(percent(found["f1"]), "F1 of labels", "over all labels of all examples"),
            Tile(percent(found["accuracy"]), "examples with all labels right"),
        ]
        if loss := self.test.get("loss"):
            tiles.append(Tile(f"{loss:.4f}", "test loss", "mean over labels, nats"))
        return tiles

    def sections(self) -> list[PageSection | None]:
        right, sure = self.y_true == self.y_pred, np.maximum(self.proba, 1 - self.proba)
        each = np.full(len(right), len(self.labels))
        found = labels.by_length(self.each_length, each, right.sum(axis=1))
        where = [("by-length", "length of the sequence", found, "")]
        sentence = (
            "Loss (mean cross-entropy of a label, nats) of a batch before its update, and the "
            "share of its examples with all labels right."
        )
        return [
            measures.section(self, MEASURES),
            common.network(self.network),
            common.training(self, sentence, accuracy=True),
            self._per_label(),
            self._sets(),
            labels.where(where, "Labels right by length") if found else None,
            labels.calibration(sure.ravel(), right.ravel(), "decisions"),
            self._hardest(),
            *common.surroundings(self),
        ]

    def _per_label(self) -> PageSection:
        """Precision, recall and F1 of each label, and their means."""
        scores = label_metrics.of_labels(self.y_true, self.y_pred)
        n = [each.sum(axis=0) for each in (self.y_true, self.y_pred)]
        rows: list[list[object]] = [
            [name, *(percent(float(s[c])) for s in scores), *(count(int(k[c])) for k in n)]
            for c, name in enumerate(self.labels)
        ]
        known = [each[~np.isnan(each)] for each in scores]
        means = [float(each.mean()) if len(each) else np.nan for each in known]
        total = (count(int(each.sum())) for each in n)
        rows.append(labels.mean_row("mean over labels", [*map(percent, means), *total]))
        header = ["label", "precision", "recall", "F1", "true", "given"]
        return PageSection(
            "classes",
            "Labels",
            [PageTable("Scores of each label on the test examples", header, rows)],
            note="A label is given if its probability is above one half. Precision: the share of "
            "those given it that have it. Recall: the share of those that have it to which it was "
            "given. A dash: never given, or never true.",
        )

    def _sets(self) -> PageSection:
        """The most frequent sets of labels, and how often the whole set was given."""
        right = (self.y_true == self.y_pred).all(axis=1)
        found, which, n = np.unique(
            joined(self.y_true, self.labels), return_inverse=True, return_counts=True
        )
        hits = np.bincount(which, weights=right, minlength=len(found))
        order = np.argsort(-n, kind="stable")[:SETS]
        rows = [
            [found[i] or "(no label)", count(int(n[i])), percent(hits[i] / n[i])] for i in order
        ]
        more = f" {count(len(found) - SETS)} further sets are rarer." if len(found) > SETS else ""
        return PageSection(
            "sets",
            "Sets",
            [PageTable("Sets of labels", ["labels", "examples", "all right"], rows)],
            "Sets of labels",
            "The commonest sets of labels, and how often the whole set was given." + more,
        )

    def _hardest(self) -> PageSection:
        """The examples with the least likely labels: labels missed, and labels given in error."""
        key = Key([("true", "labels that it has"), ("predicted", "given, but not there")])
        return PageSection(
            "hardest",
            "Hardest",
            [key, Grid(list(map(_card, self.hardest)))] if self.hardest else [],
            "The hardest examples",
            "The examples whose labels the network held for least likely.",
            "None: every label is right.",
        )


def _card(view: SetView) -> Card:
    panels: list[PagePanel] = [common.words_read(view.words)] if view.words else []
    for sentence, named, css in (
        ("Missed", view.missed, "true"),
        ("Given, but not there", view.invented, "predicted"),
        ("Right", view.right, "true"),
    ):
        if named:
            shown = ", ".join(tag("strong", label, css) for label in named)
            panels.append(Markup(tag("p", Html(f"{sentence}: {shown}."))))
    return Card(plain(view.name), panels)


def collect_several(
    classifier: Any,
    X: Any,
    y: np.ndarray,
    facts: RunFacts,
    *,
    n_hardest: int = 8,
    proba: np.ndarray | None = None,
) -> SeveralData:
    """Compute the contents of the report of a classifier with several labels, for `write_report`.

    Args:
        classifier: a fitted one, with several labels a sequence.
        X: N test sequences, or `Examples` of them.
        y: `[N, C]` zeros and ones.
        facts: the facts of the run.
        n_hardest: how many examples to show.
        proba: `[N, C]`, the result of `predict_proba` for X, if it is already known.

    Returns:
        The contents of the report, with the hardest examples, those of the largest loss, first.

    Raises:
        ValueError: the labels are not those of the classifier.

    Example:
        >>> from ostinato_learn import SequenceClassifier
        >>> from ostinato_learn.report import RunFacts
        >>> X = np.random.default_rng(0).normal(size=(40, 6, 2)).astype(np.float32)
        >>> y = (X.mean(1) > 0).astype(int)  # [N, 2]: two labels, each right or wrong
        >>> model = SequenceClassifier(hidden_size=4, iterations=5).fit(X, y)
        >>> data = collect_several(model, X, y, RunFacts(title="signs"), n_hardest=3)
        >>> len(data.hardest), data.proba.shape
        (3, (40, 2))
    """
    fitted: Classifier = common.fitted_of(classifier)
    y = fitted.check_several(y)
    if proba is None:
        proba = fitted.predict_proba(X)
    words = None if fitted.vocabulary is None else fitted.words(X)
    lengths = lengths_of(fitted.prepared(X))
    names = X.ids if hasattr(X, "ids") else np.arange(len(y))
    given = np.where(y > 0, proba, 1 - proba)
    loss = -np.log(np.maximum(given, np.finfo(np.float64).tiny)).sum(axis=1)
    wrong = (proba > 0.5) != (y > 0)
    order = np.argsort(-loss, kind="stable")

    def of(n: int, chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(str(fitted.classes[i]) for i in np.flatnonzero(chosen[n]))

    return SeveralData(
        **vars(facts),
        labels=[str(label) for label in fitted.classes],
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
            for n in [int(n) for n in order if wrong[n].any()][:n_hardest]
        ],
        network=anatomy(fitted.net, lengths),
        parameters=n_parameters(fitted.net.state_dict()),
    )
