"""From labelled sequences to a trained `Classifier`. No scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato_learn.data import Batches, LabelEncoder, Ragged
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.step_labels import Steps, as_texts_or_sequences
from ostinato_learn.data.tables.feature_names import as_trained
from ostinato_learn.data.text.words import Words
from ostinato_learn.hyperparameters import Classifying, WordSettings
from ostinato_learn.models.build import built
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.saved import checks
from ostinato_learn.tasks.classify import by_step
from ostinato_learn.tasks.classify.loss import MultiLabels
from ostinato_learn.tasks.classify.model import Classifier
from ostinato_learn.tasks.classify.net import ClassifierEnsemble, ClassifierNet, network
from ostinato_learn.tasks.fitting import ToLearn, check_several_classes, planned, reading
from ostinato_learn.training import loop
from ostinato_learn.training.callbacks import Callback
from ostinato_learn.training.history import History
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.start import check_classes, check_network, check_same_columns

NETWORK = network
ARGUMENTS = {*signature(ClassifierNet).parameters, "ensemble"}


@dataclass(frozen=True)
class Labelled(ToLearn):
    """Sequences with a label each, or with several.

    Attributes:
        y: the class numbers `[N]`; or `[N, C]` zeros and ones, if a sequence may have several
            labels.
        encoder: the encoder of the labels.
    """

    encoder: LabelEncoder

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
        check_several_classes(encoder)
        return Labelled(X, numbers, encoder, **more)

    @staticmethod
    def of_parts(
        train: Examples,
        validation: Examples | None,
        inputs: Callable[[Examples], Steps],
        start: Classifier | None = None,
    ) -> Labelled:
        """The parts of a table, checked.

        Args:
            inputs: prepares a part.
            start: the model whose labels are kept.

        Raises:
            ValueError: there are fewer than two classes, or labels that are not learnt.
        """
        X, several = inputs(train), several_labels(train)
        if several is not None:
            found = Labelled(X, train.y, LabelEncoder(several))
        elif start is not None:
            encoder = LabelEncoder(start.classes)
            found = Labelled(X, encoder.encode(train.y, f"{train.source}: y"), encoder)
        else:
            found = Labelled.of(X, train.y)
        if validation is None:
            return found
        y = validation.y
        if several is None:
            y = found.encoder.encode(y, name="validation: y")
        return replace(found, validation=(inputs(validation), y))

    def split(self, fraction: float, seed: int, *_: Any) -> Labelled:
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
        return self.apart(*parts)


def several_labels(part: Examples) -> np.ndarray | None:
    """The labels `[C]`, if a sequence may have several; None: each has one."""
    return None if part.roles is None or not part.roles.labels else np.array(part.roles.labels)


@torch.inference_mode(False)  # the caller's mode would make tensors without gradients
def fit(
    given: Labelled,
    model: Classifying,
    plan: Plan,
    *,
    words: WordSettings | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
    start: Classifier | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> tuple[Classifier, History]:
    """Train a network; see `tasks/fitting.py`.

    Args:
        words: how words are read, if the steps are words.
        class_weight: label -> weight, or "balanced".
    """
    plan = planned(plan, len(given.X))
    trained = _untrained(given, model, words or WordSettings(), start, plan.seed)
    (net,) = members(trained)
    X = trained.coded(given.X)
    # Batches of similar lengths, where there are several.
    lengths = X.lengths if plan.similar_lengths and not isinstance(X, np.ndarray) else None
    batches = Batches(X, given.y, plan.batch_size, seed=plan.seed, lengths=lengths)
    held_out = given.validation
    validation = held_out and (trained.coded(held_out[0]), held_out[1])
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


def together(classifiers: Sequence[Classifier]) -> Classifier:
    """Classifiers that were trained on the same data, as one classifier with averaged
    answers."""
    if len(classifiers) == 1:
        return classifiers[0]
    nets = [net for each in classifiers for net in members(each)]
    module = ClassifierEnsemble(nets).eval()
    return replace(classifiers[0], network=ModuleNetwork(module))


def members(classifier: Classifier) -> list[ClassifierNet]:
    """The networks whose answers are averaged; mostly one."""
    net = classifier.net
    if isinstance(net, ClassifierEnsemble):
        return list(net.members)  # type: ignore[arg-type]
    return [net]


def calibrated(classifier: Classifier, X: Steps, y: np.ndarray, allowed: float) -> Classifier:
    """With a threshold from which on its answers are sure; see `by_step.calibrated`.

    Args:
        X, y: prepared validation sequences, and their class numbers.
        allowed: the share of sure answers that may be wrong.

    Raises:
        ValueError: no threshold has so few wrong answers, or the network cannot answer early.
    """
    if classifier.multilabel:
        raise ValueError(f"early_error={allowed} is for one label a sequence; these have several")
    early = by_step.calibrated(classifier.net, classifier.coded(X), y, allowed)
    return replace(classifier, early=early)


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
    checks.n_features(sequences, wanted, "SequenceClassifier")
    return sequences


def _untrained(
    given: Labelled,
    model: Classifying,
    words: WordSettings,
    start: Classifier | None,
    seed: int,
) -> Classifier:
    """A classifier of these examples before its training, or with the weights of `start`."""
    vocabulary, arguments = reading(given.X, model, words, start)
    net = built(ClassifierNet, n_classes=len(given.encoder), seed=seed, **arguments)
    several = given.y.ndim == 2
    if start is not None:
        if start.multilabel != several:
            has, came = ("several", "one") if start.multilabel else ("one", "several")
            raise ValueError(
                f"warm_start goes on from a model with {has} of its labels a sequence, and y has "
                f"{came}; wanted the same, or warm_start=False"
            )
        check_classes(start.classes, given.encoder.classes)
        check_same_columns(start.feature_names, given.feature_names)
        check_network(start.net.config, net.config)
        net.load_state_dict(members(start)[0].state_dict())
    return Classifier(
        network=ModuleNetwork(net, several=several),
        classes=given.encoder.classes,
        feature_names=given.feature_names,
        multilabel=several,
        vocabulary=vocabulary,
    )


def _by_number(class_weight: Any, encoder: LabelEncoder) -> dict[int, float] | str | None:
    if not hasattr(class_weight, "items"):
        return class_weight
    class_weight = dict(class_weight.items())  # also of a pandas Series
    numbers = encoder.encode(class_weight, name="class_weight")
    return dict(zip(numbers.tolist(), class_weight.values(), strict=True))


def check_lengths(X: Steps, labels: np.ndarray) -> None:
    """Raise ValueError unless there are as many labels as examples."""
    if len(labels) != len(X):
        raise ValueError(
            f"X has {len(X)} examples and y has {len(labels)}; wanted a label for each"
        )
