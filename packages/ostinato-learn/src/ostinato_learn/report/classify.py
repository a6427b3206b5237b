"""The report of a classifier: what is computed of it, and the panels that show it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.anatomy import Anatomy
from ostinato_learn.data import LabelEncoder
from ostinato_learn.data.sequences.step_labels import lengths_of
from ostinato_learn.data.text.words import CodedWords
from ostinato_learn.report import common, labels, measures
from ostinato_learn.report.figures import Curve, Line, limits
from ostinato_learn.report.markup import Html, count, counted, percent, plain, tag
from ostinato_learn.report.page import PageData, RunFacts
from ostinato_learn.report.panels import Card, Grid, Key, PageSection, PageTable, Tile
from ostinato_learn.report.parts import MOST, edges, means
from ostinato_learn.report.sequences import Beliefs, HiddenStates, is_image
from ostinato_learn.saved.card import n_parameters
from ostinato_learn.tasks.classify import TASK
from ostinato_learn.tasks.classify.by_step import (
    cut_short,
    logits_and_states,
    n_right_by_step,
    reads_both_ways,
    softmax,
)

if TYPE_CHECKING:
    from ostinato_learn.models import ClassifierEnsemble, ClassifierNet
    from ostinato_learn.models.inputs import Inputs
    from ostinato_learn.tasks.classify.model import Classifier


@dataclass(frozen=True)
class StepView:
    """One example, seen step by step.

    Args:
        x: `[T, F]` the sequence as the network read it.
        label: the true class, as shown.
        prediction: the class the network chose after the last step, as shown.
        beliefs: `[T, C]` class probabilities after each step, or None for a bidirectional network,
            which has none.
        states: `[T, H]` hidden states of the top layer, or None.
        words: T of them, if the steps are words; x is then their numbers, `[T, 1]`.
    """

    x: np.ndarray
    label: str
    prediction: str
    beliefs: np.ndarray | None
    states: np.ndarray | None
    words: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or len(self.x) == 0:
            raise ValueError(f"StepView: x has shape {list(self.x.shape)}; wanted [T, F], T ≥ 1")
        for name, steps in (("beliefs", self.beliefs), ("states", self.states)):
            if steps is not None and (steps.ndim != 2 or len(steps) != len(self.x)):
                raise ValueError(
                    f"StepView: {name} has shape {list(steps.shape)}; wanted one row for each of "
                    f"the {len(self.x)} steps of x"
                )


@dataclass(frozen=True, kw_only=True)
class ReportData(PageData):
    """The contents of a classifier's report.

    Every field with a default may be empty; the page then lacks what is drawn from it.

    Args:
        title, …, environment, parameters: see `RunFacts` and `PageData`. Of the evaluation,
            "test" has accuracy, loss and n.
        classes: the C class labels, as shown.
        y_true: `[N]` integers, indices into `classes`: the true class of each test example.
        proba: `[N, C]` the class probabilities that the network gave.
        hardest: the test examples to show step by step, the hardest first.
        accuracy_by_step: `[T]` test accuracy when only the first t + 1 steps are read, or None.
        n_cut: the number of sequences, if they were cut after each step and read anew; 0 if the
            network answered after every step.
        network: the sizes of the network, or None.
        lengths: `[N]`, steps of each test sequence, or None.
        features: the names of the F features, if they have any.

    Raises:
        ValueError: y_true and proba do not fit each other, or y_true names no class.

    Example:
        >>> import numpy as np
        >>> data = ReportData(
        ...     title="coin", classes=["heads", "tails"], y_true=np.array([0, 1, 1]),
        ...     proba=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
        >>> data.y_pred.tolist()
        [0, 1, 0]
    """

    classes: list[str]
    y_true: np.ndarray
    proba: np.ndarray
    hardest: list[StepView] = field(default_factory=list)
    accuracy_by_step: np.ndarray | None = None
    n_cut: int = 0
    network: Anatomy | None = None
    lengths: np.ndarray | None = None
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        y, n_classes = self.y_true, len(self.classes)
        if y.ndim != 1 or len(y) == 0 or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(
                f"ReportData: y_true is {y.dtype} of shape {list(y.shape)}; wanted integers [N], "
                "N ≥ 1, indices into classes"
            )
        if y.min() < 0 or y.max() >= n_classes:
            raise ValueError(
                f"ReportData: y_true runs from {y.min()} to {y.max()}; wanted 0 to "
                f"{n_classes - 1}, indices into classes"
            )
        if self.proba.shape != (len(y), n_classes):
            raise ValueError(
                f"ReportData: proba has shape {list(self.proba.shape)}; wanted [{len(y)}, "
                f"{n_classes}], a row for each of y_true and a column for each of classes"
            )

    @property
    def y_pred(self) -> np.ndarray:
        """`[N]` the most probable class of each example."""
        return self.proba.argmax(axis=1)

    @property
    def right(self) -> np.ndarray:
        """`[N]`, whether each answer is right."""
        return self.y_pred == self.y_true

    @property
    def chance(self) -> float:
        """The accuracy of always answering the most frequent class."""
        return float(np.bincount(self.y_true).max() / len(self.y_true))

    @property
    def unit(self) -> str:
        """What a step is."""
        if any(view.words is not None for view in self.hardest):
            return "word"
        images = bool(self.hardest) and all(is_image(view.x) for view in self.hardest)
        return "row" if images else "step"

    def sizes(self) -> str:
        if self.network is None or self.lengths is None:
            return ""
        words = self.unit == "word"
        read = common.sequences(self, self.lengths, "word" if words else "step")
        of = "" if words else f" of {counted(self.network.n_features, 'number')}"
        return f"{read}{of}, {count(len(self.classes))} classes"

    def tiles(self) -> list[Tile]:
        n = int(self.test.get("n", len(self.y_true)))
        accuracy = self.test.get("accuracy", float(self.right.mean()))
        low, high = map(percent, labels.interval(accuracy, n))
        wording = f"95\u202f% interval {low} to {high}; "
        wording += f"always the most frequent class: {percent(self.chance)}"
        tiles = [Tile(percent(accuracy), f"accuracy on all {count(n)} test examples", wording)]
        true = self.proba[np.arange(len(self.y_true)), self.y_true]
        nats = float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())
        loss = f"{self.test.get('loss', nats):.4f}"
        return [*tiles, Tile(loss, "test loss", "mean cross-entropy in nats")]

    def sections(self) -> list[PageSection | None]:
        answers = self.y_true, self.y_pred, self.classes
        found = None
        if self.lengths is not None:
            right = self.right.astype(np.int64)
            found = labels.by_length(self.lengths, np.ones_like(right), right)
        step = f"length in {self.unit}s" if self.unit == "word" else "length of the sequence"
        wording = "Loss (mean cross-entropy, nats) and accuracy of a batch, before its update."
        return [
            measures.section(self, TASK.measures) if self.evaluation.get("baselines") else None,
            common.network(self.network),
            common.training(self, wording, accuracy=True),
            self._by_step(),
            labels.confusion(*answers),
            labels.scores(*answers, "class", "examples"),
            labels.where([("by-length", step, found, "")], "Accuracy by length") if found else None,
            labels.calibration(self.proba.max(axis=1), self.right, "examples"),
            self._hardest(),
            self._states(),
            *common.surroundings(self),
        ]

    def _by_step(self) -> PageSection:
        """The accuracy after each step, as a curve and as a table."""
        unit, accuracy = self.unit, self.accuracy_by_step
        heading = f"Accuracy by {unit}s read"
        if accuracy is None:
            return PageSection("steps", "By step", heading=heading, why=self._no_steps())
        wording = (
            f"{rise(accuracy, self.n_cut or len(self.y_true), unit)} "
            f"Dotted: always the most frequent class, {percent(self.chance)}."
        )
        drawn = Curve(
            id="accuracy-by-step",
            label=heading,
            caption=wording,
            lines=[
                Line(edges(len(accuracy))[1:], means(accuracy)),
                Line(np.array([len(accuracy)]), accuracy[-1:], style={"marker": "o", "ms": 5}),
            ],
            x=f"{unit}s read",
            shares="y",
            x_limits=(0, None),
            y_limits=limits(np.append(accuracy, self.chance)),
            level=self.chance,
        )
        marks = np.unique(np.ceil(np.linspace(0, len(accuracy), 9)[1:]).astype(int))
        rows = [[mark, percent(accuracy[mark - 1])] for mark in marks.tolist()]
        table = PageTable(heading, [f"{unit}s read", "accuracy"], rows)
        return PageSection("steps", "By step", [Grid([drawn, table])], heading, self._how_by_step())

    def _how_by_step(self) -> str:
        if self.n_cut:
            few = self.n_cut < len(self.y_true)
            which = f"{count(self.n_cut)} of the test sequences" if few else "The test sequences"
            return (
                f"{which}, cut after every {self.unit} and read anew, as if they ended there. The "
                "network was trained on whole ones, so early answers may be worse than chance."
            )
        return (
            f"The readout, applied to the state after every {self.unit}. It was trained on the "
            "last state alone, so its early answers may be worse than chance. A sequence that has "
            "ended keeps its last answer."
        )

    def _no_steps(self) -> str:
        groups = (self.config, *self.config.values())
        if any(group.get("bidirectional") for group in groups if isinstance(group, dict)):
            return "No beliefs by step: a bidirectional network reads from both ends at once."
        return "No beliefs by step: they were not computed for this run."

    def _hardest(self) -> PageSection:
        """The examples with the worst answers, each with its beliefs over the steps."""
        wording = "The test examples that the network got most wrong"
        if any(view.label == view.prediction for view in self.hardest):
            wording += ", then those that it got right most narrowly"
        if all(view.beliefs is None for view in self.hardest):
            wording += f". {self._no_steps()}"
        else:
            wording += (
                f", and its belief after every {self.unit}: how the probabilities of the classes "
                "move as it reads."
            )
        if any(len(view.x) > MOST for view in self.hardest):
            wording += (
                f" What is longer than {MOST} steps is drawn in {MOST} parts: beliefs as their "
                "means, lines through the lowest and highest values."
            )
        others = [("", "others")] * any(view.beliefs is not None for view in self.hardest)
        key = Key([("true", "the true class"), ("predicted", "the class chosen"), *others])
        cards = Grid([self._card(rank, view) for rank, view in enumerate(self.hardest, start=1)])
        return PageSection(
            "hardest",
            "Hardest",
            [key, cards] if self.hardest else [],
            "The hardest examples",
            wording,
            "None: no test example was kept for a look.",
        )

    def _card(self, rank: int, view: StepView) -> Card:
        story = self._story(view)
        found = Html(tag("strong", view.label, "true") + ", found")
        taken = tag("strong", view.prediction, "predicted")
        if view.label != view.prediction:
            found = Html(tag("strong", view.label, "true") + " taken for " + taken)
        read = [] if view.words is None else [common.words_read(view.words)]
        if view.words is not None and view.beliefs is None:
            return Card(found, read)
        drawn = Beliefs(
            id=f"hardest-{rank}",
            label=f"Example {rank}: true class {plain(view.label)}, chosen "
            f"{plain(view.prediction)}",
            caption=story,
            x=view.x if view.words is None else None,
            names=self.features,
            unit=self.unit,
            beliefs=view.beliefs,
            classes=self.classes,
            true=self.classes.index(view.label),
            chosen=self.classes.index(view.prediction),
        )
        lanes = 0.24 * len(drawn.lanes)
        height = 2.45 if is_image(view.x) else (0.7 if read else 1.9) + lanes
        return Card(found, [*read, replace(drawn, height=height)])

    def _story(self, view: StepView) -> str:
        """The course of the beliefs, in two sentences."""
        if view.beliefs is None:
            return ""
        last = view.beliefs[-1]
        true, chosen = self.classes.index(view.label), self.classes.index(view.prediction)
        shares = f"In the end {_share(last[chosen])} for {plain(view.prediction)}"
        if true != chosen:
            shares += f", {_share(last[true])} for {plain(view.label)}"
        top = view.beliefs.argmax(axis=1)
        changes = np.flatnonzero(top[1:] != top[:-1])
        if len(changes) == 0:
            return f"{shares}. The same class led from the first {self.unit} on."
        left = plain(self.classes[top[changes[-1]]])
        when = f"{self.unit} {changes[-1] + 2}"
        return f"{shares}. The last change of mind, away from {left}, came with {when}."

    def _states(self) -> PageSection | None:
        """A heat map of the hidden states of one example; None if none was kept."""
        heading = "Hidden states"
        view = next((view for view in self.hardest if view.states is not None), None)
        if view is None or view.states is None:
            return None
        n_steps, n_units = view.states.shape
        bound, of = float(np.abs(view.states).max()), f"an example of class {plain(view.label)}"
        drawn = HiddenStates(
            id="hidden-states",
            label=f"Heat map of {n_units} hidden units over {n_steps} steps of {of}; values "
            f"between {view.states.min():.2f} and {view.states.max():.2f}",
            below=f'<p class="scale"><span>\u2212{bound:.2f}</span><i></i>'
            f"<span>{bound:.2f}</span></p>",
            height=2.9 if is_image(view.x) else 4.4,
            x=view.x if view.words is None else None,
            names=self.features,
            unit=self.unit,
            states=view.states,
        )
        note = (
            f"The top layer's state after every step of {of}, its units ordered by their value "
            "after the last step."
        )
        return PageSection("states", heading, [drawn], note=note)


def rise(accuracy: np.ndarray, n: int, unit: str) -> str:
    """From the first answer to the last in a sentence, which names a step only if there is a rise.

    Args:
        accuracy: `[T]`, by step.
        n: of how many examples.
        unit: what a step is.
    """
    first, last = float(accuracy[0]), float(accuracy[-1])
    wording = (
        f"{percent(first)} after the first {unit}, {percent(last)} after all {count(len(accuracy))}"
    )
    if not labels.apart(first, last, n):
        return f"{wording}: no significant difference with {counted(n, 'example')}."
    if last < first:
        return f"{wording}."
    below = np.flatnonzero(accuracy < first + 0.9 * (last - first))
    return f"{wording}; nine tenths of the rise are kept after {count(int(below[-1]) + 2)}."


def _share(belief: float) -> str:
    return percent(belief, 1) if belief >= 0.0005 else f"under {percent(0.001, 1)}"


def collect(
    classifier: Any,
    X: Any,
    y: Any,
    facts: RunFacts,
    *,
    n_hardest: int = 6,
    proba: np.ndarray | None = None,
    n_right: np.ndarray | None = None,
) -> ReportData:
    """Compute the contents of a classifier's report from test data, for `write_report`.

    The hardest examples are the misclassified ones, by falling loss; if they are too few, the right
    ones with the smallest margin follow. Memory stays bounded: states and beliefs of all steps are
    kept only for the hardest examples. A bidirectional network has no belief before the end of a
    sequence, so that its examples have none, and its accuracy by step is that of sequences cut
    short.

    Args:
        classifier: a fitted estimator, or its model.
        X: `[N, T, F]` test sequences, or whatever else `predict` takes, of different lengths too.
        y: `[N]` their labels, each one of the classes of the classifier.
        facts: the facts of the run.
        n_hardest: how many examples to show step by step.
        proba: `[N, C]`, the result of `predict_proba` for X, if it is already known.
        n_right: the result of `right_by_step`, if it is already known.

    Raises:
        ValueError: y has another length than X, or a label that the classifier does not know.
    """
    fitted: Classifier = common.fitted_of(classifier)
    net, sequences = fitted.net, fitted.prepared(X)
    proba = fitted.predict_proba(X) if proba is None else proba
    given, lengths = np.asarray(y), lengths_of(sequences)
    if given.shape != (len(sequences),):
        raise ValueError(
            f"collect: y has shape {list(given.shape)}; wanted [{len(sequences)}], a label for "
            "each of X"
        )
    y_true = LabelEncoder(fitted.classes).encode(given, name="collect: y")
    if reads_both_ways(net):
        by_step, n_cut = cut_short(net, sequences, y_true)
    else:
        n_right = n_right_by_step(net, sequences, y_true) if n_right is None else n_right
        by_step, n_cut = n_right / len(y_true), 0
    return ReportData(
        **vars(facts),
        classes=[str(label) for label in fitted.classes],
        y_true=y_true,
        proba=proba,
        hardest=_views(fitted, X, y_true, proba, _hardest(proba, y_true, n_hardest)),
        accuracy_by_step=by_step,
        n_cut=n_cut,
        network=anatomy(net, lengths),
        parameters=n_parameters(net.state_dict()),
        lengths=lengths,
        features=common.feature_names(fitted),
    )


def anatomy(net: ClassifierNet | ClassifierEnsemble, lengths: np.ndarray) -> Anatomy | None:
    """The sizes of a network that reads sequences of these lengths; None for a user's own cell."""
    config = net.config
    if not isinstance(config["cell"], str):  # a user's own cell, whose equations are unknown
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
    """Positions: the misclassified examples by falling loss, then the others by rising margin."""
    rows = np.arange(len(y_true))
    true = proba[rows, y_true]
    others = proba.copy()
    others[rows, y_true] = -1
    margin = true - others.max(axis=1)
    right = proba.argmax(axis=1) == y_true
    # The loss is −log of the true class's probability: one falls as the other rises.
    return np.lexsort((margin, np.where(right, margin, true), right))[:n]


def _views(
    fitted: Classifier, X: Any, y_true: np.ndarray, proba: np.ndarray, chosen: np.ndarray
) -> list[StepView]:
    net, sequences = fitted.net, fitted.prepared(X)
    words = None if fitted.vocabulary is None else fitted.words(X)
    steps: list[tuple[Any, Any]] = [(None, None)] * len(chosen)
    if not reads_both_ways(net):
        steps = [
            (softmax(logits[i, :length]), states[i, :length])
            for logits, states, lengths in logits_and_states(net, sequences[chosen])
            for i, length in enumerate(lengths)
        ]
    return [
        StepView(
            x=_steps(sequences, n),
            label=str(fitted.classes[y_true[n]]),
            prediction=str(fitted.classes[int(proba[n].argmax())]),
            beliefs=beliefs,
            states=states,
            words=None if words is None else tuple(words.different[i] for i in words.places[n]),
        )
        for n, (beliefs, states) in zip(chosen.tolist(), steps, strict=True)
    ]


def _steps(sequences: Inputs, n: int) -> np.ndarray:
    """`[T, F]`, sequence n; for words their numbers, `[T, 1]`."""
    if not isinstance(sequences, CodedWords):
        return sequences[n]
    return sequences.words[sequences.places[n]][:, None]
