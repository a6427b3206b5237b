"""`Tagger`: a model that gives a label to every step."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ostinato.data.sequences.as_sequences import as_sequences, shape_sequences
from ostinato.data.sequences.ragged import Ragged
from ostinato.data.sequences.steps import as_steps
from ostinato.data.tables.feature_names import as_trained
from ostinato.data.text.words import Words
from ostinato.runtime import checks
from ostinato.runtime.model import Inputs, Model
from ostinato.runtime.tensors import Array
from ostinato.tasks.tag.labelling import Labelling


class Tagger(Model):
    """A model that gives a label to every step.

    Attributes:
        scheme: in which spans are written as tags, as "iob2"; None: labels are no tags.

    Example:
        >>> model = ostinato.runtime.load("runs/tags/model")
        >>> x = np.ones((9, 3), np.float32)                     # one sequence, or a list of them
        >>> model.predict(x).shape, model.predict_proba([x, x[:4]])[1].shape
        ((9,), (4, 2))
        >>> labels, shares = model.predict_with_proba(x)
        >>> labels.shape, shares.shape
        ((9,), (9, 2))
        >>> model.evaluate([x], [model.predict(x)])["accuracy"]
        1.0
    """

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        wanted = {"classes", "feature_names", "preparation", "scale", "scheme", "vocabulary"}
        checks.names(fitted, wanted, where)
        self.encoder = checks.labels(fitted["classes"], self.graph.n_outputs, where)
        self.labels = self.encoder.classes
        self._columns = checks.columns(fitted["feature_names"], where)
        self._scale = checks.scale(fitted["scale"], self.graph.n_inputs, where)
        self.preparation = checks.preparation(fitted["preparation"], self.graph, where)
        self.vocabulary = checks.words(fitted["vocabulary"], self.graph, where)
        self._labelling = Labelling.of(self.tensors, self.labels, fitted["scheme"], where)
        self.scheme: str | None = fitted["scheme"]

    def prepared(self, X: Any) -> tuple[Inputs, bool]:
        """The sequences that the network reads; and whether X is only one."""
        prepare = None if self.vocabulary is not None else self.preparation
        if self.preparation is not None and self.preparation.knows(X):
            X, prepare = self.preparation.apply(X), None
        X = as_trained(X, self._columns, prepare, "SequenceTagger")
        sequences, is_one = as_steps(X, shape_sequences if prepare else as_sequences)
        if isinstance(sequences, Words) != (self.vocabulary is not None):
            has, wants = ("words", "numbers") if self.vocabulary is None else ("numbers", "words")
            raise ValueError(f"X has {has}, but the model was trained with {wants}")
        if isinstance(sequences, Words):
            assert self.vocabulary is not None
            return self.vocabulary.code(sequences), is_one
        if prepare is not None:  # features by their order
            checks.n_features(sequences, self.n_features)
            sequences = as_sequences(prepare.apply_in_order(sequences))
        checks.n_features(sequences, self.graph.n_inputs)
        if self._scale is None:
            return sequences, is_one
        mean, deviation = self._scale
        values = sequences.values if isinstance(sequences, Ragged) else sequences
        with np.errstate(over="ignore"):
            values = ((values - mean) / deviation).astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(
                "X has a value too far from those of the training to be scaled in float32; wanted "
                "values of a similar size"
            )
        if isinstance(sequences, Ragged):
            return Ragged(values, sequences.offsets), is_one
        return values, is_one

    def predict(self, X: Any) -> list[Array] | Array:
        """The likeliest labels of each sequence: N arrays `[T_i]`, or `[T]` for one sequence."""
        return self._of_each(X, lambda scores: self.encoder.decode(self._labelling.best(scores)))

    def predict_proba(self, X: Any) -> list[Array] | Array:
        """The probability of each label at each step: N arrays `[T_i, C]`, or `[T, C]` for one.

        With a CRF the whole sequence is taken into account.
        """
        return self._of_each(X, self._labelling.probabilities)

    def predict_with_proba(self, X: Any) -> Any:
        """Both for each sequence, as a pair; the network runs once."""
        of, decode = self._labelling, self.encoder.decode
        return self._of_each(X, lambda scores: (decode(of.best(scores)), of.probabilities(scores)))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy and loss (−log P of the labels, in nats) of a step, and n, the steps.

        With a scheme also precision, recall and f1 of the spans; with words also unknown, the share
        of them that the training did not have.

        Raises:
            ValueError: X cannot be used, or y has not a known label for each step.
        """
        from ostinato.runtime import measures

        return measures.of_tagger(self, X, y)

    def _of_each(self, X: Any, f: Any) -> Any:
        sequences, is_one = self.prepared(X)
        found: list[Any] = [np.empty(0)] * len(sequences)
        for batch in self.answered(sequences):
            for i, answers, n in zip(*batch, strict=True):
                found[i] = f(answers[:n])
        return found[0] if is_one else found

    def stream_parts(self) -> dict[str, Any]:
        from ostinato.runtime.stream_source import RowScaling, rows_of_words

        if self._labelling.crf is not None:
            raise ValueError(
                "this tagger's labels depend on the whole sequence: it has a CRF; a stream is not "
                "possible. Train it without, crf=False"
            )
        if self.vocabulary is not None:
            return {"reader": partial(rows_of_words, self, self.vocabulary, False)}
        if self.preparation is None and self._scale is not None:
            mean, deviation = self._scale
            return {"scaling": RowScaling(mean, deviation, np.full(len(mean), np.nan))}
        return self._scaling()


MODEL = Tagger
