"""`Remembered`: the attributes that fitted classifiers and taggers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.data import LabelEncoder
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.text.words import WordVocabulary
from ostinato.training import saved_model


@dataclass(frozen=True)
class Remembered:
    """Labels, columns, preparation and words of a training.

    Attributes:
        classes: `[C]`, the labels by class number.
        feature_names: the columns of the data frame that was trained on; None if it was none.
        preparation: the preparation of a user's table; None: sequences are used as given.
        vocabulary: of the words; None if the steps are vectors.
    """

    classes: np.ndarray
    feature_names: np.ndarray | None
    preparation: Preparation | None
    vocabulary: WordVocabulary | None

    def as_json(self) -> dict[str, Any]:
        """The entries of a saved model's "fitted"."""
        names = self.feature_names
        return {
            "classes": LabelEncoder(self.classes).as_json(),
            "feature_names": None if names is None else names.tolist(),
            "preparation": self.preparation and self.preparation.as_json(),
            "vocabulary": self.vocabulary and self.vocabulary.as_json(),
        }

    @staticmethod
    def from_json(kept: Mapping[str, Any], net: Mapping[str, Any], path: Path) -> Remembered:
        """The reverse of `as_json`, for a network of this configuration.

        Args:
            kept: "fitted" of a saved model.
            net: the configuration of its network.
            path: its directory, for errors.

        Raises:
            ValueError: the labels or the words do not fit the network.
        """
        where = f"{path / saved_model.CONFIG}: "
        classes = LabelEncoder.from_json(kept["classes"], f"{where}'classes'").classes
        if net["n_classes"] != len(classes):
            raise ValueError(
                f"{path} has {len(classes)} labels for a network of {net['n_classes']} classes; "
                "it is damaged"
            )
        vocabulary = None
        if kept["vocabulary"] is not None:
            vocabulary = WordVocabulary.from_json(kept["vocabulary"], f"{where}'vocabulary'")
        n_words = vocabulary and vocabulary.n_words
        if n_words != net["n_words"]:
            raise ValueError(
                f"{path} has a vocabulary of {n_words} for a network of {net['n_words']} words; "
                "it is damaged"
            )
        names = kept["feature_names"]
        return Remembered(
            classes,
            None if names is None else np.array(names, dtype=object),
            kept["preparation"] and Preparation.from_json(kept["preparation"]),
            vocabulary,
        )
