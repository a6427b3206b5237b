"""The report of a tagger: what is computed of it, and the panels that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data import LabelEncoder
from ostinato_learn.data.sequences.step_labels import as_labels, lengths_of
from ostinato_learn.data.text.words import Words
from ostinato_learn.metrics.spans import SpanScores, scheme_of, span_errors, span_scores
from ostinato_learn.report import common, labels, measures
from ostinato_learn.report.markup import Html, count, percent, plain, short, tag
from ostinato_learn.report.page import PageData, RunFacts
from ostinato_learn.report.panels import (
    Card,
    Grid,
    Key,
    PageSection,
    PageTable,
    PageText,
    Tile,
    Word,
)
from ostinato_learn.report.sequences import Colours, Lanes, css_class
from ostinato_learn.report.svg import LABELS
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks.base import MeasureSpec
from ostinato_learn.tasks.tag import TASK

if TYPE_CHECKING:
    from ostinato_learn.tasks.tag.model import Tagger

MOST_STEPS, MOST_WORDS = 160, 60  # drawn of a sequence, where it has most errors
MEASURES = {
    **TASK.measures,
    "precision": MeasureSpec("precision of spans", "%"),
    "recall": MeasureSpec("recall of spans", "%"),
    "unknown": MeasureSpec("unknown words", "%", sided=False),
}
ERRORS = {  # of spans, see `metrics.spans.span_errors`
    "right": "found exactly",
    "wrong type": "found with another type",
    "wrong extent": "found with another beginning or end",
    "wrong both": "overlapped by one of another type and extent",
    "missed": "missed",
    "spurious": "predicted where there is none",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class TagView:
    """A part of a sequence, step by step.

    Attributes:
        name: the name of the sequence.
        start, length: the first step of the part, and the number of steps of the sequence.
        n_wrong: wrong labels in the whole sequence.
        true, predicted: `[t]`, class numbers of the part.
        x: `[t, F]`, the input of the network; None for words.
        words: t words; None for vectors.
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
class TaggingData(PageData):
    """The contents of a tagger's report.

    Args:
        title, …, environment, parameters: see `RunFacts` and `PageData`.
        classes: the C labels, as shown.
        lengths: `[N]`, steps of the test sequences.
        y_true, y_pred: `[ΣT]` integers, the labels of all steps, indices into `classes`.
        confidence: `[ΣT]`, the probability that the network gave to its answer.
        hardest: the sequences with most errors.
        scheme: how the labels write spans; None if they do not.
        spans, span_errors: of the spans, if there are any; see `metrics.spans`.
        read: what a step is, as "3 numbers" or "a word".
        features: the names of the F features, if they have any.

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
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = int(self.lengths.sum())
        for name in ("y_true", "y_pred", "confidence"):
            shape = getattr(self, name).shape
            if shape != (n,) or n == 0:
                raise ValueError(
                    f"TaggingData: {name} has shape {list(shape)}; wanted [{n}], a value for each "
                    "step of lengths, and one at least"
                )

    @property
    def right(self) -> np.ndarray:
        """`[ΣT]`, whether each label is right."""
        return self.y_true == self.y_pred

    def sizes(self) -> str:
        words = self.read == "a word"
        read = common.sequences(self, self.lengths, "word" if words else "step")
        of = f" of {self.read}" if self.read and not words else ""
        return f"{read}{of}, {count(len(self.classes))} labels"

    def tiles(self) -> list[Tile]:
        n = len(self.y_true)
        accuracy = self.test.get("accuracy", float(self.right.mean()))
        low, high = map(percent, labels.interval(accuracy, n))
        sentence = f"95\u202f% interval of independent steps {low} to {high}"
        if "baselines" not in self.evaluation:
            chance = float(np.bincount(self.y_true).max() / n)
            sentence += f"; the most frequent of them alone: {percent(chance)}"
        tiles = [Tile(percent(accuracy), f"of {count(n)} test labels are right", sentence)]
        if self.spans is not None:
            f1 = percent(self.test.get("f1", self.spans.f1))
            tiles.append(Tile(f1, "F1 of spans", f"{count(self.spans.n_true)} spans"))
        if "loss" in self.test:
            tiles.append(Tile(f"{self.test['loss']:.4f}", "test loss", "nats a step"))
        return tiles

    def sections(self) -> list[PageSection | None]:
        sentence = "Loss (\u2212log P of the labels, nats a step) and accuracy of a batch's steps."
        accuracy = bool(self.metrics) and "train_accuracy" in self.metrics[0]
        names = ("precision", "recall", "f1") if self.spans is not None else ()
        answers = self.y_true, self.y_pred, self.classes
        starts = np.cumsum(self.lengths) - self.lengths
        each = np.add.reduceat(self.right.astype(np.int64), starts)
        same = f"No accuracy by length: all sequences have {count(int(self.lengths[0]))} steps."
        lengths = labels.by_length(self.lengths, self.lengths, each)
        positions = labels.by_position(self.lengths, self.right)
        where = [
            ("by-position", "position of the step", positions, ""),
            ("by-length", "length of the sequence", lengths, same),
        ]
        return [
            measures.section(self, MEASURES, {name: getattr(self.spans, name) for name in names}),
            common.training(self, sentence, accuracy=accuracy),
            self._spans(),
            labels.confusion(*answers),
            labels.scores(*answers, "label", "steps"),
            labels.where(where, "Where labels are right"),
            labels.calibration(self.confidence, self.right, "labels"),
            self._hardest(),
            *common.surroundings(self),
        ]

    def _spans(self) -> PageSection | None:
        """None where labels write no spans."""
        if self.spans is None or self.span_errors is None:
            return None
        rows = [
            [
                kind or "(no type)",
                *map(percent, (each.precision, each.recall, each.f1)),
                count(each.n_true),
                count(each.n_predicted),
            ]
            for kind, each in self.spans.by_type.items()
        ]
        errors = [[ERRORS[kind], count(n)] for kind, n in self.span_errors.items()]
        scores = PageTable(
            "Spans of each type", ["type", "precision", "recall", "F1", "true", "predicted"], rows
        )
        became = PageTable("What became of the spans", ["spans", "how many"], errors)
        note = "A span is right if its type, its first and its last step are."
        return PageSection("spans", "Spans", [Grid([scores, became], tall=True)], note=note)

    def _hardest(self) -> PageSection:
        """The sequences with most errors, with true labels and those that the network gave."""
        if not self.hardest:
            heading = "The sequences with most errors"
            return PageSection(
                "hardest", "Most errors", (), heading, why="None: no label is wrong."
            )
        families = _families(self)
        colours = _colours(self, families)
        sentence = "For a long sequence the part with most errors is shown."
        if self.hardest[0].words is not None:
            sentence = (
                "Under each word its true label, and in a frame the network's where it is "
                f"another. {sentence}"
            )
        cards = [self._card(rank, view, colours) for rank, view in enumerate(self.hardest, start=1)]
        return PageSection(
            "hardest",
            "Most errors",
            [_key(colours, families), Grid(cards, tall=True)],
            "The sequences with most errors",
            sentence,
        )

    def _card(self, rank: int, view: TagView, colours: Colours) -> Card:
        end, part = view.start + len(view.true), ""
        if len(view.true) < view.length:
            part = f", steps {count(view.start + 1)} to {count(end)}"
        sentence = f"{count(view.n_wrong)} of {count(view.length)} labels wrong{part}"
        heading = Html(f"{tag('strong', view.name)}: {sentence}")
        if view.words is not None:
            triples = zip(view.words, view.true.tolist(), view.predicted.tolist(), strict=True)
            words = [self._word(*each, colours) for each in triples]
            return Card(heading, [PageText(words, "tagged", " ")])
        drawn = Lanes(
            id=f"sequence-{rank}",
            label=f"Sequence {plain(view.name)}: {sentence}. {_taken(view, self.classes)}",
            height=2.7,
            x=view.x,
            names=self.features,
            first=view.start,
            true=view.true,
            predicted=view.predicted,
            classes=self.classes,
            colours=colours,
        )
        return Card(heading, [drawn])

    def _word(self, word: str, true: int, predicted: int, colours: Colours) -> Word:
        """A word with its true label, and the predicted one where that is wrong."""
        below = [(css_class(colours[true]), self.classes[true])]
        if true != predicted:
            below.append((f"taken {css_class(colours[predicted])}", self.classes[predicted]))
            return Word(word, "word wrong", below)
        return Word(word, "word", below if colours[true] is not None else [])


def _taken(view: TagView, classes: list[str]) -> str:
    """The most frequent mistake of a part, in words."""
    wrong = np.flatnonzero(view.true != view.predicted)
    pairs, counts = np.unique(
        np.stack([view.true[wrong], view.predicted[wrong]]), axis=1, return_counts=True
    )
    true, predicted = pairs[:, counts.argmax()]
    return f"Most often {plain(classes[true])} taken for {plain(classes[predicted])}."


def _families(data: TaggingData) -> list[str]:
    """The name of each label; if labels encode spans, the type of its span, "" outside."""
    if data.scheme is None:
        return list(data.classes)
    return [name.partition("-")[2] if name != "O" else "" for name in data.classes]


def _colours(data: TaggingData, families: list[str]) -> Colours:
    """A colour for each of the most frequent families of labels; the others share one."""
    shown = np.concatenate([[*view.true, *view.predicted] for view in data.hardest])
    counts = np.bincount(shown.astype(np.int64), minlength=len(families))
    total: dict[str, int] = {}
    for family, n in zip(families, counts.tolist(), strict=True):
        total[family] = total.get(family, 0) + n
    outside = "" if data.scheme is not None else None
    ranked = sorted((f for f in total if f != outside and total[f]), key=lambda f: -total[f])
    # Colours follow the order of the labels, so that reports of the same data have the same
    # colours.
    coloured = sorted(ranked[: len(LABELS)], key=families.index)
    place = {family: i for i, family in enumerate(coloured)}
    return [
        None if family == outside or not total[family] else place.get(family, -1)
        for family in families
    ]


def _key(colours: Colours, families: Sequence[str]) -> Key:
    """The legend of colours and labels; labels of one family share a colour and a name."""
    shown: dict[int, str] = {}
    for family, colour in zip(families, colours, strict=True):
        if colour is not None:
            shown.setdefault(colour, "others" if colour < 0 else family)
    items = sorted(shown.items(), key=lambda item: item[0] % 100)
    return Key([(f"swatch {css_class(colour)}", short(name, 30)) for colour, name in items])


def collect_tagging(
    tagger: Any,
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
        tagger: a fitted estimator, or its model.
        X: the test sequences, as `predict` takes them.
        y: the labels of each.
        facts: the facts of the run.
        ids: `[N]`, the names of the sequences; by default their numbers from 1.
        words: the words of each sequence, to be shown if X has numbers computed from them.
        n_hardest: the number of sequences with errors to show.
        answers: the likeliest labels of each sequence as class numbers, and their probabilities,
            `[T_i]` each, if they are known.

    Raises:
        ValueError: X or y cannot be used, or a label is not known to the tagger.
    """
    fitted: Tagger = common.fitted_of(tagger)
    sequences, is_one = fitted.steps(X)
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
        features=common.feature_names(fitted),
    )


def _hardest(wrong: np.ndarray, lengths: np.ndarray, n: int) -> list[int]:
    """The numbers of the sequences with most errors; sequences without errors are left out."""
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
    """The first step of the part of `most` steps with most errors."""
    if len(wrong) <= most:
        return 0
    before = np.concatenate([[0], np.cumsum(wrong)])
    return int(np.argmax(before[most:] - before[:-most]))
