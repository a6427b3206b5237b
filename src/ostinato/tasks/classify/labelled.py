"""`Labelled`: sequences with a label each, checked, to learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ostinato.data import LabelEncoder, Ragged, as_sequences
from ostinato.data.sequences.preparation import Preparation
from ostinato.data.sequences.step_labels import Steps


@dataclass(frozen=True)
class Labelled:
    """Examples to learn from, checked.

    Attributes:
        X, y: the sequences, N of them, and their class numbers `[N]`; or `[N, C]` zeros and ones,
            if a sequence may have several labels.
        encoder: the encoder of the labels.
        feature_names: the names of the columns, if X was a data frame.
        sample_weight: `[N]` float64.
        validation: further sequences and labels, (X, y).
    """

    X: Steps
    y: np.ndarray
    encoder: LabelEncoder
    feature_names: np.ndarray | None = None
    sample_weight: np.ndarray | None = None
    validation: tuple[Steps, np.ndarray] | None = None

    @staticmethod
    def of(X: Steps, labels: np.ndarray, **more: Any) -> Labelled:
        """Check sequences and a user's labels `[N]`; `more` are further attributes.

        Raises:
            ValueError: there are fewer than two classes, or not a label for each example.
        """
        check_lengths(X, labels)
        if labels.ndim == 2:
            return Labelled(X, labels, LabelEncoder(np.arange(labels.shape[1])), **more)
        encoder, numbers = LabelEncoder.fit(labels)
        if len(encoder) < 2:
            raise ValueError(
                f"y has one class only, {encoder.classes.tolist()[0]!r}; wanted two or more to "
                "tell apart"
            )
        return Labelled(X, numbers, encoder, **more)

    def prepared_by(self, preparation: Preparation) -> Labelled:
        """The data, prepared by a model's preparation of features in this order."""

        def of(X: Any) -> np.ndarray | Ragged:
            return as_sequences(preparation.apply_in_order(X))

        held_out = self.validation and (of(self.validation[0]), self.validation[1])
        return replace(self, X=of(self.X), validation=held_out)

    def split(self, fraction: float, seed: int) -> Labelled:
        """Keep a share of the examples, of each class, for validation; both in their order."""
        from sklearn.model_selection import train_test_split  # takes half a second

        stratify = self.y if self.y.ndim == 1 else None
        try:
            parts = train_test_split(
                np.arange(len(self.y)), test_size=fraction, stratify=stratify, random_state=seed
            )
        except ValueError as error:
            raise ValueError(
                f"validation_fraction={fraction} cannot be taken from these classes: {error}"
            ) from None
        rest, held_out = map(np.sort, parts)
        weights = self.sample_weight
        return replace(
            self,
            X=self.X[rest],
            y=self.y[rest],
            sample_weight=None if weights is None else weights[rest],
            validation=(self.X[held_out], self.y[held_out]),
        )


def check_lengths(X: Steps, labels: np.ndarray) -> None:
    """Raise ValueError unless there are as many labels as examples.

    Raises:
        ValueError: they differ.
    """
    if len(labels) != len(X):
        raise ValueError(
            f"X has {len(X)} examples and y has {len(labels)}; wanted a label for each"
        )
