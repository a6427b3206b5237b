"""`Tagger`: a model that gives a label to every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.as_sequences import as_sequences, shape_sequences
from ostinato_learn.data.sequences.labels import LabelEncoder
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.sequences.step_labels import as_labels, as_steps, encoded, lengths_of
from ostinato_learn.data.series.windows import Columns
from ostinato_learn.data.tables.feature_names import as_trained
from ostinato_learn.data.text.words import CodedWords, Integers, Words
from ostinato_learn.metrics.spans import SpanScores, span_scores
from ostinato_learn.runtime.model import Inputs
from ostinato_learn.runtime.values import Array
from ostinato_learn.saved import checks
from ostinato_learn.saved.read import Saved
from ostinato_learn.tasks.reading import HOW_TO_READ, SequenceReader
from ostinato_learn.tasks.tag.labelling import Labelling

SPANS_AT_ONCE = 1 << 18  # steps whose spans are compared at a time: a tag as an object has 60 bytes


@dataclass(frozen=True, eq=False)
class TagAnswers:
    """A model's answers to N labelled sequences, of T_i steps.

    Attributes:
        lengths: `[N]`, T_i.
        best: `[ΣT]` int32, the likeliest labels as class numbers.
        sure: `[ΣT]` float64, the probability of each; `[0]` if it was not requested.
        loss: the sum of −log P of the labels, in nats.
        right: `[N]`, the number of right labels of each sequence.
    """

    lengths: Array
    best: Array
    sure: Array
    loss: float
    right: Array

    def of(self, chosen: Array) -> tuple[list[Array], list[Array]]:
        """The best labels and their probabilities, `[T_i]` each, of sequences at positions."""
        spans = [slice(self._ends[i] - self.lengths[i], self._ends[i]) for i in chosen]
        return [self.best[span] for span in spans], [self.sure[span] for span in spans]

    @cached_property
    def _ends(self) -> Array:
        return np.cumsum(self.lengths)


@dataclass(eq=False, repr=False, kw_only=True)
class Tagger(SequenceReader):
    """A model that gives a label to every step.

    Attributes:
        classes: `[C]`, the labels by class number.
        scale: the scale of the features; None if they are not scaled, or words.
        scheme: how the labels of the training wrote spans; `classes` and predictions are then tags
            of iob2. None: labels are no tags.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/tags/model")
        >>> x = np.ones((9, 3), np.float32)                     # one sequence, or a list of them
        >>> model.predict(x).shape, model.predict_proba([x, x[:4]])[1].shape
        ((9,), (4, 2))
        >>> labels, shares = model.predict_with_proba(x)
        >>> labels.shape, shares.shape
        ((9,), (9, 2))
        >>> model.evaluate([x], [model.predict(x)])["accuracy"]
        1.0
    """

    task = "tag"
    estimator = "SequenceTagger"

    classes: Array
    scale: Columns | None = None
    scheme: str | None = None

    @classmethod
    def values(cls, saved: Saved, where: str) -> dict[str, Any]:
        fitted, graph = saved.fitted, saved.graph
        checks.names(fitted, {"classes", "scale", "scheme", *HOW_TO_READ}, where)
        labels = checks.labels(fitted["classes"], graph, where).classes
        Labelling.of(saved.tensors, labels, fitted["scheme"], where)
        return {
            "classes": labels,
            "scale": checks.scale(fitted["scale"], graph, where),
            **cls.how_to_read(saved, where),
            "scheme": fitted["scheme"],
        }

    def fitted(self) -> dict[str, Any]:
        return {
            "classes": LabelEncoder(self.classes).as_json(),
            **self.read_as(),
            "scale": self.scale and self.scale.as_json(),
            "scheme": self.scheme,
        }

    @property
    def labels(self) -> Array:
        return self.classes

    @property
    def scaling(self) -> tuple[Array, Array] | None:
        if self.scale is None:
            return None
        return np.array(self.scale.mean), np.array(self.scale.deviation)

    @cached_property
    def encoder(self) -> LabelEncoder:
        """From labels to class numbers, and back."""
        return LabelEncoder(self.classes)

    @property
    def labelling(self) -> Labelling:
        """How scores become labels, by the weights of the network as they are."""
        return Labelling.of(self.tensors, self.classes, self.scheme, "the model")

    @property
    def needs_whole(self) -> str | None:
        if self.labelling.crf is None:
            return None
        return (
            "this tagger has a CRF, which labels a sequence as a whole, and C code answers after "
            "every step; wanted a tagger that was trained with crf=False"
        )

    def described_answer(self) -> dict[str, Any]:
        crf = self.labelling.crf
        if crf is None:
            return {"answer": "probabilities"}
        parts = zip(("transitions", "start", "end"), crf, strict=True)
        return {"answer": "scores", "crf": {name: values.tolist() for name, values in parts}}

    def steps(self, X: Any) -> tuple[Any, bool]:
        """A user's sequences, or `Examples`, prepared but for `inputs`; and whether X is only one.

        Raises:
            ValueError: X has other features than the training data, or cannot be used.
        """
        prepare = None if self.vocabulary is not None else self.preparation
        table = self.read(X)
        if self.preparation is not None and self.preparation.knows(table):
            sequences = as_steps(self.preparation.apply(table))[0]
            self.check_kind(sequences)
            roles = self.preparation.roles
            return sequences, table is not X and roles is not None and roles.id is None
        X = self.in_order(table)
        sequences, is_one = as_steps(X, shape_sequences if prepare else as_sequences)
        self.check_kind(sequences)
        if isinstance(sequences, Words):
            return sequences, is_one
        if prepare is not None:  # features by their order
            checks.n_features(sequences, self.n_features, self.estimator)
            sequences = as_sequences(prepare.apply_in_order(sequences))
        checks.n_features(sequences, self.network.n_inputs, self.estimator)
        return sequences, is_one

    def in_order(self, X: Any) -> Any:
        prepare = None if self.vocabulary is not None else self.preparation
        return as_trained(X, self.feature_names, prepare, self.estimator)

    def inputs(self, X: Any) -> Inputs:
        """Sequences as the network reads them: standardised, or words as numbers."""
        if self.scale is None or isinstance(X, Words):
            return self.coded(X)
        values = X.values if isinstance(X, Ragged) else X
        with np.errstate(over="ignore"):
            values = self.scale.standard(values).astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(
                "X has a value too far from those of the training to be scaled in float32; wanted "
                "values of a similar size"
            )
        return Ragged(values, X.offsets) if isinstance(X, Ragged) else values

    def prepared(self, X: Any) -> tuple[Inputs, bool]:
        """The sequences that the network reads; and whether X is only one."""
        sequences, is_one = self.steps(X)
        return self.inputs(sequences), is_one

    def predict(self, X: Any) -> list[Array] | Array:
        """The likeliest labels of each sequence: N arrays `[T_i]`, or `[T]` for one sequence."""
        return self._of_each(X, lambda scores, best: self.encoder.decode(best))

    def predict_proba(self, X: Any) -> list[Array] | Array:
        """The probability of each label at each step: N arrays `[T_i, C]`, or `[T, C]` for one.

        With a CRF the whole sequence is taken into account.
        """
        of = self.labelling
        return self._of_each(X, lambda scores, best: of.probabilities(scores))

    def predict_with_proba(self, X: Any) -> Any:
        """Both for each sequence, as a pair; the network runs once."""
        of, decode = self.labelling, self.encoder.decode
        return self._of_each(X, lambda scores, best: (decode(best), of.probabilities(scores)))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Measure the model on labelled sequences.

        Returns:
            accuracy (share of the steps whose label is right), loss (−log P of the labels in nats,
            a step) and n (steps). With a scheme also precision, recall and f1 of the spans; with
            words also unknown, the share of them that the training did not have.

        Raises:
            ValueError: X cannot be used, or y has not a known label for each step.
        """
        sequences, is_one = self.steps(X)
        labels = [y] if is_one else y
        return self.measured(sequences, labels, self.answers(sequences, labels, sure=False))

    def answers(self, X: Any, y: Any, sure: bool = True) -> TagAnswers:
        """The answers to labelled sequences, for `measured`.

        Args:
            X: N sequences, as `steps` gives them.
            y: the labels of each.
            sure: whether to give the probabilities, too.
        """
        lengths = np.asarray(lengths_of(X))
        _, numbers = encoded(y, lengths, self.scheme, self.encoder)
        return self._answers(self.inputs(X), numbers, lengths, sure)

    def _answers(self, X: Inputs, y: Integers, lengths: Array, sure: bool) -> TagAnswers:
        of, ends = self.labelling, np.cumsum(lengths)
        best = np.empty(int(lengths.sum()), np.int32)
        shares, loss = np.empty(len(best) if sure else 0), 0.0
        right = np.zeros(len(lengths), np.int64)
        for i, scores, found in self._each(X):
            n, labels = len(found), y[i]
            steps = slice(ends[i] - n, ends[i])
            loss += of.nats(scores, labels)
            best[steps] = found
            right[i] = (found == labels).sum()
            if sure:
                shares[steps] = of.probabilities(scores)[np.arange(n), found]
        return TagAnswers(lengths, best, shares, loss, right)

    def measured(self, X: Any, y: Any, answers: TagAnswers) -> dict[str, Any]:
        """The measures of `evaluate` by the answers to X, as `steps` gives it, and y."""
        n = len(answers.best)
        measures = {"loss": answers.loss / n, "accuracy": int(answers.right.sum()) / n, "n": n}
        if self.scheme is not None:
            scores = self._span_scores(y, answers)
            measures |= {name: getattr(scores, name) for name in ("precision", "recall", "f1")}
        if isinstance(X, Words):
            coded = self.inputs(X)
            assert isinstance(coded, CodedWords)
            measures["unknown"] = coded.n_unknown / n
        return measures

    def _span_scores(self, y: Iterable[Sequence[Any]], answers: TagAnswers) -> SpanScores:
        """The scores of the predicted spans, computed for some sequences at a time."""
        scores, labels = SpanScores(0, 0, 0), iter(y)
        lengths, ends = answers.lengths, np.cumsum(answers.lengths)
        for rows in np.split(
            np.arange(len(ends)), np.flatnonzero(np.diff(ends // SPANS_AT_ONCE)) + 1
        ):
            true = as_labels(list(islice(labels, len(rows))), lengths[rows], self.scheme)
            steps = slice(ends[rows[0]] - lengths[rows[0]], ends[rows[-1]])
            found = np.split(
                self.encoder.decode(answers.best[steps]), np.cumsum(lengths[rows])[:-1]
            )
            scores += span_scores([a.tolist() for a in true], [a.tolist() for a in found])
        return scores

    def _of_each(self, X: Any, f: Any) -> Any:
        sequences, is_one = self.prepared(X)
        found: list[Any] = [np.empty(0)] * len(sequences)
        for i, scores, best in self._each(sequences):
            found[i] = f(scores, best)
        return found[0] if is_one else found

    def _each(self, X: Inputs) -> Iterator[tuple[int, Array, Array]]:
        """Of each sequence its number, its scores, and its likeliest labels as class numbers."""
        of = self.labelling
        for batch in self.answered(X):
            best = of.best(batch.answers, batch.lengths)
            for row, (i, scores, n) in enumerate(zip(*batch, strict=True)):
                yield i, scores[:n], best[row, :n]

    def stream_parts(self) -> dict[str, Any]:
        from ostinato_learn.runtime.stream_source import rows_of_words

        if self.labelling.crf is not None:
            raise ValueError(
                "this tagger's labels depend on the whole sequence: it has a CRF; a stream is not "
                "possible. Train it without, crf=False"
            )
        if self.vocabulary is not None:
            return {"reader": partial(rows_of_words, self.network, self.vocabulary, False)}
        return self._scaling()


MODEL = Tagger
