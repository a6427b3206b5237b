"""`FittedClassifier`: a trained network with its labels. It answers without scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.data import LabelEncoder, Ragged, as_sequences
from ostinato.data.columns import check_columns
from ostinato.models import ClassifierNet
from ostinato.training import evaluation, saved_model
from ostinato.training.saved_model import SavedModel
from ostinato.training.tensor_file import fill

KIND = "sequence_classifier"


@dataclass(frozen=True)
class FittedClassifier:
    """A trained network and what it needs to answer in a person's labels.

    Sequences `X` are whatever `data.as_sequences` takes.

    Attributes:
        net: the network.
        classes: `[C]`, the labels by class number.
        feature_names: `[T]`, the columns of the data frame it was trained on; None if it was none.
    """

    net: ClassifierNet
    classes: np.ndarray
    feature_names: np.ndarray | None = None

    @staticmethod
    def of(saved: SavedModel, path: Path) -> FittedClassifier:
        """The classifier that a saved model describes; `path` is its origin, for errors.

        Raises:
            ValueError: the configuration, the labels and the weights do not belong together.
        """
        with torch.random.fork_rng(devices=[]):
            net = ClassifierNet(**saved.net)
        if net.config["n_classes"] != len(saved.classes):
            raise ValueError(
                f"{path} has {len(saved.classes)} labels for a network of "
                f"{net.config['n_classes']} classes; it is damaged"
            )
        fill(net, saved.weights, str(path))
        names = saved.feature_names
        columns = None if names is None else np.array(names, dtype=object)
        return FittedClassifier(net.eval(), saved.classes, columns)

    def logits(self, X: Any) -> Tensor:
        """`[N, C]` float32.

        Raises:
            ValueError: X cannot be used, or has other features or columns than the training data;
                or an answer is NaN or infinite.
        """
        X = check_like_trained(X, self.net.config["n_features"], self.feature_names)
        answers = evaluation.logits(self.net, X)
        _check_answers(answers)
        return answers

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each sequence, `[N]`."""
        return LabelEncoder(self.classes).decode(self.logits(X).argmax(1).numpy())

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each label, `[N, C]` in the order of `classes`."""
        return torch.softmax(self.logits(X).double(), dim=1).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of each probability, `[N, C]`; finite also where a probability is 0."""
        return torch.log_softmax(self.logits(X).double(), dim=1).numpy()

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy, loss (mean cross-entropy in nats) and n over sequences with labels y `[N]`."""
        numbers = LabelEncoder(self.classes).encode(y)
        result = evaluation.measure(self.logits(X), numbers)
        return {"accuracy": result.accuracy, "loss": result.loss, "n": result.n}


def load(path: str | Path) -> FittedClassifier:
    """The classifier in the directory of a saved model.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign.
    """
    return FittedClassifier.of(read(Path(path)), Path(path))


def read(path: Path) -> SavedModel:
    """The saved classifier in a directory, as values."""
    return saved_model.read(path, KIND, set(signature(ClassifierNet).parameters))


def check_like_trained(
    X: Any, wanted: int, feature_names: np.ndarray | None
) -> np.ndarray | Ragged:
    """X as `as_sequences` gives it, with the features and columns of the training data.

    Raises:
        ValueError: they differ, or X cannot be used.
    """
    check_columns(X, feature_names)
    sequences = as_sequences(X)
    if n_features(sequences) != wanted:
        raise ValueError(
            f"X has {n_features(sequences)} features, but SequenceClassifier is expecting {wanted} "
            "features as input, those it was trained with"
        )
    return sequences


def n_features(X: np.ndarray | Ragged) -> int:
    return X.n_features if isinstance(X, Ragged) else X.shape[2]


def _check_answers(logits: Tensor) -> None:
    wrong = torch.nonzero(~torch.isfinite(logits))
    if len(wrong):
        example, number = wrong[0].tolist()
        raise ValueError(
            f"the network answers example {example} with {logits[example, number].item()}; wanted "
            "finite numbers: its weights or the values of X are too large for float32; scale X as "
            "for the training, or train again with a lower learning_rate"
        )
