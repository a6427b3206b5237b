"""`Classifier`: a model that names the class of a whole sequence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.labels import LabelEncoder
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.words import CodedWords
from ostinato_learn.runtime.measures import nats
from ostinato_learn.runtime.values import Array, fail
from ostinato_learn.saved import checks
from ostinato_learn.saved.read import Saved
from ostinato_learn.tasks.reading import HOW_TO_READ, SequenceReader


@dataclass(frozen=True)
class Early:
    """The probability from which on an answer is sure, and its measures on validation data.

    Attributes:
        threshold: the probability.
        error: the share of wrong answers among the first sure ones.
        share: the share of sequences with a sure answer before or at their end.
        read: the mean share of its steps after which such a sequence has its sure answer.
        n: the number of sequences.
    """

    threshold: float
    error: float
    share: float
    read: float
    n: int

    def __str__(self) -> str:
        return (
            f"sure from {self.threshold:.6g} on: {100 * self.share:.0f} % of {self.n:,} sequences, "
            f"after {100 * self.read:.0f} % of their steps, {100 * self.error:.1f} % of them wrong"
        )


@dataclass(eq=False, repr=False, kw_only=True)
class Classifier(SequenceReader):
    """A model that names the class of a whole sequence.

    Attributes:
        classes: `[C]`, the labels by class number.
        multilabel: whether a sequence may have several labels; each then has its own probability.
        vocabulary: the vocabulary; None if the steps are vectors.
        early: the probability from which on an answer is sure; None: not configured.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/gru/model")
        >>> X = np.ones((2, 9, 3), np.float32)
        >>> model.predict(X).dtype, model.predict_proba(X).dtype
        (dtype('<U4'), dtype('float32'))
        >>> bool((model.predict_so_far(X, 9)[0][-1] == model.predict_proba(X)[0]).all())
        True
        >>> measures = model.evaluate(X, ["up", "down"])
        >>> measures["n"], measures["accuracy"]
        (2, 0.5)
    """

    task = "classify"
    estimator = "SequenceClassifier"

    classes: Array
    multilabel: bool = False
    early: Early | None = None

    @classmethod
    def values(cls, saved: Saved, where: str) -> dict[str, Any]:
        fitted, graph = saved.fitted, saved.graph
        checks.names(fitted, {"classes", "multilabel", "early", *HOW_TO_READ}, where)
        if type(fitted["multilabel"]) is not bool:
            fail(f"{where}: 'multilabel' is neither true nor false")
        early = checks.threshold(fitted["early"], where)
        return {
            "classes": checks.labels(fitted["classes"], graph, where).classes,
            **cls.how_to_read(saved, where),
            "multilabel": fitted["multilabel"],
            "early": None if early is None else Early(**fitted["early"]),
        }

    def fitted(self) -> dict[str, Any]:
        return {
            "classes": LabelEncoder(self.classes).as_json(),
            **self.read_as(),
            "multilabel": self.multilabel,
            "early": self.early and asdict(self.early),
        }

    @property
    def labels(self) -> Array:
        return self.classes

    @property
    def several(self) -> bool:
        """Whether a sequence may have several labels."""
        return self.multilabel

    @property
    def sure_from(self) -> float | None:
        return None if self.early is None else self.early.threshold

    @cached_property
    def encoder(self) -> LabelEncoder:
        """From labels to class numbers, and back."""
        return LabelEncoder(self.classes)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each label, `[N, C]` float32 in the order of `labels`.

        Args:
            X: `[N, T, F]`, `[N, T]` for one feature, or a list of arrays `[T_i, F]`; of a model
                that reads words, texts or lists of words.

        Raises:
            ValueError: X cannot be used: the message says why.
        """
        return self.outputs(self.prepared(X), np.float32)

    def predict_so_far(self, X: Any, most: int) -> list[Array]:
        """The probabilities after each step: for N sequences of numbers N arrays `[T_i, C]`.

        Row t is what `predict_proba` gives for the first t + 1 steps, also of a network that reads
        in two directions; the time grows with the square of T.

        Args:
            X: as of `predict_proba`.
            most: steps of each sequence, at most.
        """
        sequences = self.prepared(X)
        assert not isinstance(sequences, CodedWords)
        found = []
        for i in range(len(sequences)):
            x = np.asarray(sequences[i])[:most]
            begins = Ragged.from_list([x[: t + 1] for t in range(len(x))])
            found.append(self.outputs(begins, np.float32))
        return found

    def predict(self, X: Any) -> Array:
        """The likeliest label of each sequence, `[N]`; with several, `[N, C]` zeros and ones."""
        return self.likeliest(self.predict_proba(X))

    def likeliest(self, proba: Array) -> Array:
        """The labels of `predict` by probabilities `[N, C]`."""
        if self.multilabel:
            return (proba > 0.5).astype(np.int64)
        return self.encoder.decode(proba.argmax(1))

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of each probability, `[N, C]` float64.

        A probability that was rounded to 0 counts as the smallest number above it, 2⁻¹⁴⁹.
        """
        return -nats(self.predict_proba(X))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy, loss (mean cross-entropy in nats) and n over sequences with labels y `[N]`.

        With several labels, y `[N, C]`, the accuracy counts sequences of which all are right, and
        the loss is that of a label.

        Raises:
            ValueError: X cannot be used, or y has not a known label for each sequence.
        """
        return self.measured(self.predict_proba(X), y)

    def measured(self, proba: Array, y: Any) -> dict[str, Any]:
        """The measures of `evaluate` by probabilities `[N, C]`."""
        if self.multilabel:
            there = self.check_several(y) > 0
        else:
            numbers = self.encoder.encode(y)
        n = len(there if self.multilabel else numbers)
        if n != len(proba):
            raise ValueError(f"X has {len(proba)} examples and y has {n}; wanted a label for each")
        if self.multilabel:
            loss = nats(np.where(there, proba, 1 - proba)).mean()
            right = ((proba > 0.5) == there).all(1)
        else:
            loss = nats(proba[np.arange(n), numbers]).mean()
            right = proba.argmax(1) == numbers
        return {"accuracy": float(right.mean()), "loss": float(loss), "n": n}

    def check_several(self, y: Any) -> Array:
        """Labels `[N, C]`, each checked to be 0 or 1."""
        labels, C = np.asarray(y), len(self.classes)
        if labels.ndim != 2 or labels.shape[1] != C or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"y has shape {list(labels.shape)}; wanted [N, {C}] zeros and ones, a column for "
                "each label, as in the training"
            )
        return labels

    def stream_parts(self) -> dict[str, Any]:
        return self._reading() | {"several": self.multilabel}


MODEL = Classifier
