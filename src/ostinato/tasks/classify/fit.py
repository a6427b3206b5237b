"""From labelled sequences to a trained `Classifier`. No scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato.data import Batches, LabelEncoder, Ragged
from ostinato.data.sequences.step_labels import Steps, as_texts_or_sequences, width_of
from ostinato.data.tables.feature_names import as_trained
from ostinato.data.text.words import Words, WordVocabulary
from ostinato.hyperparameters import Classifying, WordSettings
from ostinato.models.build import built
from ostinato.models.inputs import Inputs
from ostinato.models.module_network import ModuleNetwork
from ostinato.saved import checks
from ostinato.tasks.classify import early
from ostinato.tasks.classify.ensemble import ClassifierEnsemble, network
from ostinato.tasks.classify.labelled import Labelled
from ostinato.tasks.classify.model import Classifier
from ostinato.tasks.classify.multilabel import MultiLabels
from ostinato.tasks.classify.net import ClassifierNet
from ostinato.training import loop
from ostinato.training.callbacks import Callback
from ostinato.training.history import History
from ostinato.training.plan import Plan
from ostinato.training.start import check_classes, check_network, check_same_columns

NETWORK = network
ARGUMENTS = {*signature(ClassifierNet).parameters, "ensemble"}


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
    (net,) = members(trained)
    X = coded(trained, given.X)
    lengths = None
    if plan.similar_lengths and not isinstance(X, np.ndarray):  # of many lengths
        lengths = X.lengths
    batches = Batches(X, given.y, plan.batch_size, seed=plan.seed, lengths=lengths)
    validation = given.validation
    if validation is not None:
        validation = (coded(trained, validation[0]), validation[1])  # type: ignore[assignment]
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


def coded(classifier: Classifier, X: Steps) -> Inputs:
    """Words as numbers; anything else unchanged."""
    if not isinstance(X, Words):
        return X
    if classifier.vocabulary is None:
        raise ValueError("X has words, but the classifier was trained with numbers")
    return classifier.vocabulary.code(X)


def calibrated(classifier: Classifier, X: Steps, y: np.ndarray, allowed: float) -> Classifier:
    """With a threshold from which on its answers are sure; see `early`.

    Args:
        X, y: prepared validation sequences, and their class numbers.
        allowed: the share of sure answers that may be wrong.

    Raises:
        ValueError: no threshold has so few wrong answers, or the network cannot answer early.
    """
    if classifier.multilabel:
        raise ValueError(f"early_error={allowed} is for one label a sequence; these have several")
    inputs = coded(classifier, X)
    return replace(classifier, early=early.calibrated(classifier.net, inputs, y, allowed))


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
        net.load_state_dict(members(start)[0].state_dict())
    several = given.y.ndim == 2
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
