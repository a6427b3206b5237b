"""`SequenceReader`: a model that reads whole sequences of numbers or words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ostinato_learn.data.sequences.as_sequences import as_sequences, shape_sequences
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.step_labels import as_texts_or_sequences
from ostinato_learn.data.tables.feature_names import as_trained
from ostinato_learn.data.text.words import Words, WordVocabulary
from ostinato_learn.runtime.model import Inputs, Model
from ostinato_learn.runtime.values import Array
from ostinato_learn.saved import checks
from ostinato_learn.saved.read import Saved

HOW_TO_READ = ("feature_names", "preparation", "vocabulary")  # entries of a saved model's "fitted"


@dataclass(eq=False, repr=False, kw_only=True)
class SequenceReader(Model):
    """A model that reads whole sequences.

    Attributes:
        vocabulary: of the words; None if the steps are vectors.
    """

    estimator: ClassVar[str]  # its name in errors

    vocabulary: WordVocabulary | None = None

    @staticmethod
    def how_to_read(saved: Saved, where: str) -> dict[str, Any]:
        """The fields that say how sequences are read, checked."""
        fitted, graph = saved.fitted, saved.graph
        return {
            "feature_names": checks.columns(fitted["feature_names"], where),
            "preparation": checks.preparation(fitted["preparation"], graph, where),
            "vocabulary": checks.words(fitted["vocabulary"], graph, where),
        }

    def read_as(self) -> dict[str, Any]:
        """The entries of a saved model's "fitted" that `how_to_read` reads."""
        names = self.feature_names
        return {
            "feature_names": None if names is None else list(names),
            "preparation": self.preparation and self.preparation.as_json(),
            "vocabulary": self.vocabulary and self.vocabulary.as_json(),
        }

    def prepared(self, X: Any) -> Any:
        """The sequences that the network reads, made of a user's.

        Raises:
            ValueError: X has other features than the training data, or a value is missing or
                infinite where that is an error.
        """
        X = self.read(X)
        if self.vocabulary is not None:
            return self.vocabulary.code(self.words(X))
        if self.preparation is None:
            X = as_trained(X, self.feature_names, None, self.estimator)
            sequences = as_texts_or_sequences(X)
            self.check_kind(sequences)
            assert not isinstance(sequences, Words)
            checks.n_features(sequences, self.n_features, self.estimator)
            return sequences
        if self.preparation.knows(X):
            return as_sequences(self.preparation.apply(X))
        if isinstance(_first(_first(X)), str):
            raise ValueError("X has words, but the model was trained with numbers")
        X = shape_sequences(self.in_order(X))
        checks.n_features(X, self.n_features, self.estimator)
        if self.preparation.missing == "error" and not np.isfinite(getattr(X, "values", X)).all():
            as_sequences(X)  # raises, and says where a value is NaN or infinite
        return as_sequences(self.preparation.apply_in_order(X))

    def coded(self, X: Any) -> Inputs:
        """Checked sequences, their words as numbers; errors as of `check_kind`."""
        self.check_kind(X)
        return X if self.vocabulary is None else self.vocabulary.code(X)

    def check_kind(self, X: Any) -> None:
        """Raise ValueError if X has words and the model reads numbers, or the other way round."""
        has = isinstance(X, Words)
        if has != (self.vocabulary is not None):
            came, wanted = ("words", "numbers") if has else ("numbers", "words")
            raise ValueError(f"X has {came}, but the model was trained with {wanted}")

    def in_order(self, X: Any) -> Any:
        """X with the columns of its data frames in the order of the training; see `as_trained`."""
        return as_trained(X, self.feature_names, self.preparation, self.estimator)

    def outputs(self, sequences: Inputs, dtype: Any) -> Array:
        """The network's outputs for sequences as it reads them, `[N, K]`."""
        found = np.empty((len(sequences), len(self.labels)), dtype)
        for batch in self.answered(sequences):
            found[batch.indices] = batch.answers
        return found

    def words(self, X: Any) -> Words:
        """The words of X: texts, lists of words, or `Examples` of them.

        Raises:
            ValueError: X holds something else.
        """
        X = self.read(X)
        if isinstance(X, Examples) and self.preparation is not None:
            X = self.preparation.apply(X)
        X = as_texts_or_sequences(X.X if isinstance(X, Examples) else X)
        self.check_kind(X)
        assert isinstance(X, Words)
        return X

    def _reading(self) -> dict[str, Any]:
        """How a stream reads rows, or words."""
        from ostinato_learn.runtime.stream_source import rows_of_words

        if self.vocabulary is None:
            return self._scaling()
        roles = self.preparation.roles if self.preparation else None
        texts = roles is None or roles.shape == "wide"  # as for `predict`, one string is a text
        return {"reader": partial(rows_of_words, self.network, self.vocabulary, texts)}


def _first(values: Any) -> Any:
    """The first value of a list; anything else unchanged."""
    return values[0] if isinstance(values, (list, tuple)) and values else values
