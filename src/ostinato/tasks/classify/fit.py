"""`FittedClassifier`: a trained network with its labels, and its training. No scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.data import Batches, LabelEncoder, Ragged
from ostinato.data.sequences.as_sequences import one_sequence, shape_sequences
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.sequences.steps import Steps, as_texts_or_sequences, n_features, width_of
from ostinato.data.tables.feature_names import as_trained
from ostinato.data.text.words import Words, WordVocabulary
from ostinato.hyperparameters import Classifying, WordSettings
from ostinato.models import ClassifierNet
from ostinato.tasks.classify import early, multilabel
from ostinato.tasks.classify.early import Early
from ostinato.tasks.classify.ensemble import ClassifierEnsemble, network
from ostinato.tasks.classify.labelled import Labelled
from ostinato.tasks.classify.multilabel import MultiLabels
from ostinato.training import evaluation, loop, saved_model
from ostinato.training.build import built
from ostinato.training.callbacks import Callback
from ostinato.training.examples import Inputs
from ostinato.training.history import History
from ostinato.training.plan import Plan
from ostinato.training.remembered import Remembered
from ostinato.training.saved_model import SavedModel
from ostinato.training.start import check_classes, check_network, check_same_columns
from ostinato.training.tensor_file import fill

KIND = "sequence_classifier"


@dataclass(frozen=True)
class FittedClassifier:
    """A trained network with all that turns its outputs into a user's labels.

    Sequences `X` are whatever `as_texts_or_sequences` takes.

    Attributes:
        net: the network.
        classes: `[C]`, the labels by class number.
        feature_names: `[T]`, the columns of the data frame it was trained on; None if it was none.
        preparation: the preparation of examples before the network reads them; None: nothing.
        multilabel: whether a sequence may have several labels; each then has its own probability.
        vocabulary: the vocabulary; None if the steps are vectors.
        early: the probability from which on an answer is sure; None: not configured.
    """

    net: ClassifierNet | ClassifierEnsemble
    classes: np.ndarray
    feature_names: np.ndarray | None = None
    preparation: Preparation | None = None
    multilabel: bool = False
    vocabulary: WordVocabulary | None = None
    early: Early | None = None

    @staticmethod
    @torch.inference_mode(False)  # the caller's mode would make tensors without gradients
    def fit(
        given: Labelled,
        model: Classifying,
        plan: Plan,
        *,
        words: WordSettings | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        start: FittedClassifier | None = None,
        callbacks: Sequence[Callback] = (),
        resume: str | Path | None = None,
    ) -> tuple[FittedClassifier, History]:
        """Train a network.

        Args:
            given: the examples. Batches are at most as large as their number.
            model, plan: the network, and how to train it.
            words: how words are read, if the steps are words.
            class_weight: label -> weight, or "balanced".
            start: a classifier of the same sizes and classes, whose weights are the start.
            callbacks, resume: see `train`.

        Raises:
            ValueError: something does not fit together.
            Diverged: the loss became NaN or infinite.
        """
        plan = replace(plan, batch_size=min(plan.batch_size, len(given.X)))
        trained = _untrained(given, model, words or WordSettings(), start, plan.seed)
        (net,) = trained.members
        X = trained.coded(given.X)
        lengths = None
        if plan.similar_lengths and not isinstance(X, np.ndarray):  # of many lengths
            lengths = X.lengths
        batches = Batches(X, given.y, plan.batch_size, seed=plan.seed, lengths=lengths)
        validation = given.validation
        if validation is not None:
            validation = (trained.coded(validation[0]), validation[1])  # type: ignore[assignment]
        if trained.multilabel:
            if class_weight is not None:
                raise ValueError(
                    "class_weight is for one label an example; y has several: use sample_weight"
                )
            task = MultiLabels(batches, given.sample_weight, validation)
            return trained, loop.learn(net, task, plan, callbacks=callbacks, resume=resume)
        history = loop.train(
            net,
            batches,
            plan,
            validation=validation,
            class_weight=_by_number(class_weight, given.encoder),
            sample_weight=given.sample_weight,
            callbacks=callbacks,
            resume=resume,
        )
        return trained, history

    def save(
        self,
        path: Path,
        params: dict[str, Any],
        iterations: int,
        *,
        examples: Any = None,
        measures: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Write the directory of a saved model: all or nothing.

        Args:
            path: the directory.
            params: the arguments of the constructor of `SequenceClassifier`.
            iterations: updates made.
            examples, measures: see `saved_model.write`.

        Raises:
            ValueError, OSError: see `saved_model.write`.
        """
        model = SavedModel.of(
            self.net,
            kind=KIND,
            params=params,
            fitted={
                **self._remembered.as_json(),
                "multilabel": self.multilabel,
                "early": self.early and self.early.as_json(),
            },
            iterations=iterations,
            several=self.multilabel,
        )
        saved_model.write(path, model, examples, measures)

    @staticmethod
    def together(members: Sequence[FittedClassifier]) -> FittedClassifier:
        """Classifiers that were trained on the same data, as one classifier with averaged
        answers."""
        if len(members) == 1:
            return members[0]
        nets = [net for each in members for net in each.members]
        return replace(members[0], net=ClassifierEnsemble(nets).eval())

    @property
    def members(self) -> list[ClassifierNet]:
        """The networks whose answers are averaged; mostly one."""
        if isinstance(self.net, ClassifierEnsemble):
            return list(self.net.members)  # type: ignore[arg-type]
        return [self.net]

    @staticmethod
    def of(saved: SavedModel, path: Path) -> FittedClassifier:
        """The classifier of a saved model; `path` is its origin, for errors.

        Raises:
            ValueError: the configuration, the labels and the weights do not belong together.
        """
        net = built(network, **saved.net)
        remembered = Remembered.from_json(saved.fitted, net.config, path)
        fill(net, saved.weights, str(path))
        return FittedClassifier(
            net.eval(),
            **vars(remembered),
            multilabel=bool(saved.fitted["multilabel"]),
            early=saved.fitted["early"] and Early(**saved.fitted["early"]),
        )

    @property
    def _remembered(self) -> Remembered:
        return Remembered(self.classes, self.feature_names, self.preparation, self.vocabulary)

    @property
    def n_features(self) -> int:
        """Features of a step, before they are prepared; a word is one."""
        if self.preparation is None:
            return int(self.net.config["n_features"] or 1)
        return len(self.preparation.features)

    def prepared(self, X: Any) -> Any:
        """X as the network reads it: sequences, or `Examples` whose features have names.

        Raises:
            ValueError: X has other features than the training data, or cannot be used.
        """
        if self.vocabulary is not None:
            return self.coded(self.words(X))
        if self.preparation is None:
            return check_like_trained(X, self.net.config["n_features"], self.feature_names)
        if self.preparation.knows(X):
            return self.preparation.apply(X)
        X = shape_sequences(self.in_order(X))
        _check_number(X, len(self.preparation.features))
        return self.preparation.apply_in_order(X)

    def in_order(self, X: Any) -> Any:
        """X with the columns of its data frames in the order of the training; see `as_trained`."""
        return as_trained(X, self.feature_names, self.preparation, "SequenceClassifier")

    def words(self, X: Any) -> Words:
        """The words of X: texts, lists of words, or `Examples` of them.

        Raises:
            ValueError: X holds something else.
        """
        if isinstance(X, Examples) and self.preparation is not None:
            X = self.preparation.apply(X)
        X = as_texts_or_sequences(X.X if isinstance(X, Examples) else X)
        if not isinstance(X, Words):
            raise ValueError("X has numbers, but the classifier was trained with words")
        return X

    def coded(self, X: Steps) -> Inputs:
        """Words as numbers; anything else unchanged."""
        if not isinstance(X, Words):
            return X
        if self.vocabulary is None:
            raise ValueError("X has words, but the classifier was trained with numbers")
        return self.vocabulary.code(X)

    def calibrated(self, X: Steps, y: np.ndarray, allowed: float) -> FittedClassifier:
        """The classifier with a threshold for sure answers; see `early.py`.

        Args:
            X, y: prepared validation sequences, and their class numbers.
            allowed: the share of sure answers that may be wrong.

        Raises:
            ValueError: no threshold has so few wrong answers, or the network cannot answer early.
        """
        if self.multilabel:
            raise ValueError(
                f"early_error={allowed} is for one label a sequence; these have several"
            )
        return replace(self, early=early.calibrated(self.net, self.coded(X), y, allowed))

    def logits(self, X: Any) -> Tensor:
        """`[N, C]` float32.

        Raises:
            ValueError: X cannot be used, or has other features or columns than the training data;
                or an answer is NaN or infinite.
        """
        answers = evaluation.logits(self.net, self.prepared(X))
        _check_answers(answers)
        return answers

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each sequence, `[N]`; with several, `[N, C]` zeros and ones."""
        return self.likeliest(self.logits(X))

    def likeliest(self, logits: Tensor) -> np.ndarray:
        """The labels of `predict` from logits `[N, C]`."""
        if self.multilabel:
            return (logits > 0).numpy().astype(np.int64)
        return LabelEncoder(self.classes).decode(logits.argmax(1).numpy())

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each label, `[N, C]` in the order of `classes`."""
        return self.probabilities(self.logits(X))

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """The probabilities of `predict_proba` from logits `[N, C]`."""
        exact = logits.double()
        return (torch.sigmoid(exact) if self.multilabel else torch.softmax(exact, 1)).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of each probability, `[N, C]`; finite also where a probability is 0."""
        logits = self.logits(X).double()
        found = F.logsigmoid(logits) if self.multilabel else torch.log_softmax(logits, 1)
        return found.numpy()

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy, loss (mean cross-entropy in nats) and n over sequences with labels y `[N]`.

        With several labels, y `[N, C]`, the accuracy counts sequences whose labels are all right.
        """
        return self.measured(self.logits(X), y)

    def measured(self, logits: Tensor, y: Any) -> dict[str, Any]:
        """The measures of `evaluate` from logits `[N, C]`."""
        if self.multilabel:
            result = multilabel.measure(logits, self.check_several(y))
        else:
            result = evaluation.measure(logits, LabelEncoder(self.classes).encode(y))
        return {"accuracy": result.accuracy, "loss": result.loss, "n": result.n}

    def check_several(self, y: Any) -> np.ndarray:
        """Labels `[N, C]`, each checked to be 0 or 1."""
        labels, C = np.asarray(y), len(self.classes)
        if labels.ndim != 2 or labels.shape[1] != C or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"y has shape {list(labels.shape)}; wanted [N, {C}] zeros and ones, a column for "
                "each label, as in the training"
            )
        return labels


def load(path: str | Path) -> FittedClassifier:
    """The classifier in the directory of a saved model.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign.
    """
    return FittedClassifier.of(read(Path(path)), Path(path))


def read(path: Path) -> SavedModel:
    """The saved classifier in a directory, as values."""
    known = signature(ClassifierNet).parameters
    kept = {"classes", "feature_names", "preparation", "multilabel", "vocabulary", "early"}
    return saved_model.read(path, KIND, {*known, "ensemble"}, kept, {"ensemble": 1})


def check_like_trained(
    X: Any, wanted: int, feature_names: np.ndarray | None
) -> np.ndarray | Ragged:
    """X as `as_sequences` gives it, with the features and columns of the training data.

    Raises:
        ValueError: they differ, or X cannot be used.
    """
    sequences = as_texts_or_sequences(as_trained(X, feature_names, None, "SequenceClassifier"))
    if isinstance(sequences, Words):
        raise ValueError("X has words, but the classifier was trained with numbers")
    _check_number(sequences, wanted)
    return sequences


def _untrained(
    given: Labelled,
    model: Classifying,
    words: WordSettings,
    start: FittedClassifier | None,
    seed: int,
) -> FittedClassifier:
    """A classifier of these examples before its training, or with the weights of `start`."""
    vocabulary = None
    arguments: dict[str, Any] = {"n_features": width_of(given.X), **asdict(model)}
    if isinstance(given.X, Words):
        known = None if start is None else start.vocabulary
        vocabulary = known or WordVocabulary.fit(given.X, words.vocabulary_size)
        arguments |= {"n_words": vocabulary.n_words, "embedding_size": words.embedding_size}
    net = built(ClassifierNet, n_classes=len(given.encoder), seed=seed, **arguments)
    if start is not None:
        if start.multilabel != (given.y.ndim == 2):
            has, came = ("several", "one") if start.multilabel else ("one", "several")
            raise ValueError(
                f"warm_start goes on from a model with {has} of its labels a sequence, and y has "
                f"{came}; wanted the same, or warm_start=False"
            )
        check_classes(start.classes, given.encoder.classes)
        check_same_columns(start.feature_names, given.feature_names)
        check_network(start.net.config, net.config)
        net.load_state_dict(start.members[0].state_dict())
    return FittedClassifier(
        net,
        given.encoder.classes,
        given.feature_names,
        multilabel=given.y.ndim == 2,
        vocabulary=vocabulary,
    )


def _check_number(sequences: np.ndarray | Ragged, wanted: int) -> None:
    if n_features(sequences) != wanted:
        raise ValueError(
            f"X has {n_features(sequences)} features, but SequenceClassifier is expecting {wanted} "
            "features as input, those it was trained with" + one_sequence(sequences)
        )


def _check_answers(logits: Tensor) -> None:
    wrong = torch.nonzero(~torch.isfinite(logits))
    if len(wrong):
        example, number = wrong[0].tolist()
        raise ValueError(
            f"the network answers example {example} with {logits[example, number].item()}; wanted "
            "finite numbers: its weights or the values of X are too large for float32; scale X as "
            "for the training, or train again with a lower learning_rate"
        )


def _by_number(class_weight: Any, encoder: LabelEncoder) -> dict[int, float] | str | None:
    if not hasattr(class_weight, "items"):
        return class_weight
    class_weight = dict(class_weight.items())  # also of a pandas Series
    numbers = encoder.encode(class_weight, name="class_weight")
    return dict(zip(numbers.tolist(), class_weight.values(), strict=True))
