"""`Classifier`: a model that names the class of a whole sequence."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ostinato.data.sequences.as_sequences import as_sequences, shape_sequences
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.ragged import Ragged
from ostinato.data.sequences.steps import as_texts_or_sequences
from ostinato.data.tables.feature_names import as_trained
from ostinato.data.text.words import Words
from ostinato.runtime import checks
from ostinato.runtime.model import Inputs, Model
from ostinato.runtime.tensors import Array
from ostinato.runtime.values import fail


class Classifier(Model):
    """A model that names the class of a whole sequence.

    Attributes:
        several: whether a sequence may have several labels; each then has its own probability.

    Example:
        >>> model = ostinato.runtime.load("runs/gru/model")
        >>> X = np.ones((2, 9, 3), np.float32)
        >>> model.predict(X).dtype, model.predict_proba(X).dtype
        (dtype('<U4'), dtype('float32'))
        >>> bool((model.predict_so_far(X, 9)[0][-1] == model.predict_proba(X)[0]).all())
        True
        >>> measures = model.evaluate(X, ["up", "down"])
        >>> measures["n"], measures["accuracy"]
        (2, 0.5)
    """

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        wanted = {"classes", "feature_names", "preparation", "multilabel", "vocabulary", "early"}
        checks.names(fitted, wanted, where)
        self.encoder = checks.labels(fitted["classes"], self.graph.n_outputs, where)
        self.labels = self.encoder.classes
        self._columns = checks.columns(fitted["feature_names"], where)
        self.preparation = checks.preparation(fitted["preparation"], self.graph, where)
        self.vocabulary = checks.words(fitted["vocabulary"], self.graph, where)
        self.sure_from = checks.threshold(fitted["early"], where)
        if type(fitted["multilabel"]) is not bool:
            fail(f"{where}: 'multilabel' is neither true nor false")
        self.several = fitted["multilabel"]

    @property
    def multilabel(self) -> bool:
        """`several`, by the name that it has in torch."""
        return self.several

    def prepared(self, X: Any) -> Inputs:
        """The sequences that the network reads, made of a user's.

        Raises:
            ValueError: X has other features than the training data, or a value is missing or
                infinite where that is an error.
        """
        if self.vocabulary is not None:
            return self.vocabulary.code(self._words(X))
        if self.preparation is None:
            X = as_trained(X, self._columns, None, "SequenceClassifier")
            sequences = as_texts_or_sequences(X)
            if isinstance(sequences, Words):
                raise ValueError("X has words, but the model was trained with numbers")
            return self._with_features(sequences)
        if self.preparation.knows(X):
            return as_sequences(self.preparation.apply(X))
        X = as_trained(X, self._columns, self.preparation, "SequenceClassifier")
        sequences = self._with_features(shape_sequences(X))
        return as_sequences(self.preparation.apply_in_order(sequences))

    def _words(self, X: Any) -> Words:
        if isinstance(X, Examples) and self.preparation is not None:
            X = self.preparation.apply(X)
        X = as_texts_or_sequences(X.X if isinstance(X, Examples) else X)
        if not isinstance(X, Words):
            raise ValueError("X has numbers, but the model was trained with words")
        return X

    def _with_features(self, sequences: Any) -> Any:
        checks.n_features(sequences, self.n_features)
        return sequences

    def predict_proba(self, X: Any) -> Array:
        """The probability of each label, `[N, C]` float32 in the order of `labels`.

        Args:
            X: `[N, T, F]`, `[N, T]` for one feature, or a list of arrays `[T_i, F]`; of a model
                that reads words, texts or lists of words.

        Raises:
            ValueError: X cannot be used: the message says why.
        """
        sequences = self.prepared(X)
        found = np.empty((len(sequences), len(self.labels)), np.float32)
        for batch in self.answered(sequences):
            found[batch.indices] = batch.answers
        return found

    def predict_so_far(self, X: Any, most: int) -> list[Array]:
        """The probabilities after each step: for N sequences of numbers N arrays `[T_i, C]`.

        Row t is what `predict_proba` gives for the first t + 1 steps, also of a network that reads
        in two directions; the time grows with the square of T.

        Args:
            X: as of `predict_proba`.
            most: steps of each sequence, at most.
        """
        sequences = self.prepared(X)
        found = []
        for i in range(len(sequences)):
            x = np.asarray(sequences[i])[:most]
            begins = Ragged.from_list([x[: t + 1] for t in range(len(x))])
            answers = np.empty((len(x), len(self.labels)), np.float32)
            for batch in self.answered(begins):
                answers[batch.indices] = batch.answers
            found.append(answers)
        return found

    def predict(self, X: Any) -> Array:
        """The likeliest label of each sequence, `[N]`; with several, `[N, C]` zeros and ones."""
        probabilities = self.predict_proba(X)
        if self.several:
            return (probabilities > 0.5).astype(np.int64)
        return self.encoder.decode(probabilities.argmax(1))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy, loss (mean cross-entropy in nats) and n over sequences with labels y `[N]`.

        With several labels, y `[N, C]`, the accuracy counts sequences whose labels are all right.

        Raises:
            ValueError: X cannot be used, or y has not a known label for each sequence.
        """
        from ostinato.runtime import measures

        return measures.of_classifier(self, X, y)

    def stream_parts(self) -> dict[str, Any]:
        from ostinato.runtime.stream_source import rows_of_words

        if self.vocabulary is None:
            return self._scaling() | {"several": self.several}
        roles = self.preparation.roles if self.preparation else None
        texts = roles is None or roles.shape == "wide"  # as for `predict`, one string is a text
        return {"reader": partial(rows_of_words, self, self.vocabulary, texts),
                "several": self.several}  # fmt: skip


MODEL = Classifier
