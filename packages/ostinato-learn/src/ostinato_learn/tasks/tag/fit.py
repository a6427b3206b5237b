"""From labelled steps to a trained `Tagger`. No scikit-learn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato_learn.data import LabelEncoder
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.step_labels import (
    Steps,
    as_steps,
    encoded,
    label_counts,
    lengths_of,
    values_of,
    width_of,
)
from ostinato_learn.data.series.windows import Columns
from ostinato_learn.data.tables.feature_names import check_columns, column_names
from ostinato_learn.data.text.words import Words, WordVocabulary
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.metrics.spans import scheme_of, to_iob2, written_in
from ostinato_learn.models.build import built
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.fitting import ToLearn, check_several_classes, check_start, planned
from ostinato_learn.tasks.tag.loss import TaggerSettings, Tagging
from ostinato_learn.tasks.tag.model import Tagger
from ostinato_learn.tasks.tag.net import TaggerNet
from ostinato_learn.tasks.tag.windows import TaggingWindows
from ostinato_learn.training import loop
from ostinato_learn.training.callbacks import Callback
from ostinato_learn.training.history import History
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.start import check_classes, check_network, check_same_columns

_log = logging.getLogger(__name__)

NETWORK = TaggerNet
ARGUMENTS = set(signature(TaggerNet).parameters)


@dataclass(frozen=True)
class Tagged(ToLearn):
    """Sequences with a label for each step.

    Attributes:
        y: the labels of each as class numbers, `Integers`.
        encoder: the encoder of the labels.
    """

    encoder: LabelEncoder

    @staticmethod
    def of(
        X: Any, y: Any, scheme: str | None = None, encoder: LabelEncoder | None = None
    ) -> Tagged:
        """Check sequences, as `as_steps` takes them, and the labels of their steps.

        Args:
            X: N sequences, or one.
            y: N sequences of labels, or the labels of the one sequence.
            scheme: how the labels write spans; they become those of iob2.
            encoder: the encoder of the labels; by default that of the labels that occur.

        Raises:
            ValueError: X or y cannot be used, there is not a label for each step, there are fewer
                than two different labels, or a label that the encoder does not know.
            TypeError: X has words and other things.
        """
        sequences, is_one = as_steps(X)
        lengths = lengths_of(sequences)
        encoder, numbers = encoded([y] if is_one else y, lengths, scheme, encoder)
        check_several_classes(encoder)
        return Tagged(sequences, numbers, encoder, feature_names=column_names(X))

    def validated_by(self, X: Any, y: Any, scheme: str | None = None) -> Tagged:
        """The data with further sequences, of the same features and labels, for validation."""
        check_columns(X, self.feature_names, "SequenceTagger")
        sequences, is_one = as_steps(X)
        _check_features(sequences, width_of(self.X))
        lengths = lengths_of(sequences)
        _, numbers = encoded([y] if is_one else y, lengths, scheme, self.encoder)
        return replace(self, validation=(sequences, numbers))

    @staticmethod
    def of_parts(
        train: Examples,
        validation: Examples | None,
        inputs: Callable[[Examples], Steps],
        scheme: str | None,
        start: Tagger | None = None,
    ) -> Tagged:
        """The parts of a table.

        Args:
            inputs: prepares a part.
            scheme: how the labels write spans.
            start: the model whose labels are kept.
        """
        encoder = None if start is None else LabelEncoder(start.classes)
        found = Tagged.of(inputs(train), train.y, scheme, encoder)
        if validation is None:
            return found
        return found.validated_by(inputs(validation), validation.y, scheme)

    def split(self, fraction: float, seed: int, *_: Any) -> Tagged:
        remedy = ": give more sequences, or cut a long one into parts"
        return super().split(fraction, seed, "sequences", remedy)


def recognised(train: Examples) -> Any:
    """The scheme in which the labels write spans; None if they do not.

    The first label that keeps the others from being read as spans is logged.
    """
    scheme = scheme_of(label_counts(train.y)[0].tolist())
    if scheme is None or written_in(train.y) is not None:
        return scheme
    for name, labels in zip(train.ids, train.y, strict=True):
        try:
            to_iob2([str(label) for label in labels], scheme)
        except ValueError as problem:
            _log.warning(
                "%s, sequence %s: %s. Labels are learnt as written, and spans are not measured",
                train.source,
                name,
                problem,
            )
            break
    return None


@torch.inference_mode(False)  # the caller's mode would make tensors without gradients
def fit(
    given: Tagged,
    model: Architecture,
    settings: TaggerSettings,
    plan: Plan,
    *,
    start: Tagger | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> tuple[Tagger, History]:
    """Train a network; see `tasks/fitting.py`."""
    check_start(model)
    windows = None if plan.window is None else -(-int(given.y.lengths.sum()) // plan.window)
    plan = planned(plan, windows or len(given.y))
    if windows and settings.crf:
        raise ValueError(
            f"window={plan.window} is not for a CRF, which reads whole sequences; wanted "
            "crf=False, or window=None"
        )
    X, vocabulary, scale = given.X, None, None
    if start is not None:
        _check_features(X, start.net.config["n_features"])
        vocabulary, scale = start.vocabulary, start.scale
    elif isinstance(X, Words):
        vocabulary = WordVocabulary.fit(X, settings.vocabulary_size)
    elif settings.standardize:
        scale = Columns.of(values_of(X).astype(np.float64))
    net = built(_net, len(given.encoder), X, vocabulary, model, settings, seed=plan.seed)
    if start is not None:
        check_classes(start.classes, given.encoder.classes)
        check_same_columns(start.feature_names, given.feature_names)
        check_network(
            {**start.net.config, "spans": start.scheme is not None},
            {**net.config, "spans": settings.scheme is not None},
        )
        net.load_state_dict(start.net.state_dict())
    trained = Tagger(
        network=ModuleNetwork(net),
        classes=given.encoder.classes,
        scale=scale,
        vocabulary=vocabulary,
        scheme=settings.scheme,
        feature_names=given.feature_names,
    )
    validation = given.validation
    held_out = validation and (trained.inputs(validation[0]), validation[1])
    inputs, allowed = trained.inputs(X), trained.labelling.allowed
    task: Tagging
    if plan.window is not None:
        task = TaggingWindows(
            inputs,
            given.y,
            plan.batch_size,
            plan.window,
            plan.seed,
            allowed=allowed,
            validation=held_out,
        )
    else:
        task = Tagging(
            inputs,
            given.y,
            plan.batch_size,
            plan.seed,
            similar_lengths=plan.similar_lengths,
            once=_once(X, vocabulary),
            allowed=allowed,
            validation=held_out,
        )
    history = loop.learn(net, task, plan, callbacks=callbacks, resume=resume)
    return trained, history


def _check_features(X: Steps, wanted: int | None) -> None:
    came = width_of(X)
    if (came is None) != (wanted is None):
        has, wants = ("words", "numbers") if came is None else ("numbers", "words")
        raise ValueError(f"X has {has}, but the tagger was trained with {wants}")
    if came != wanted:
        raise ValueError(
            f"X has {came} features, but SequenceTagger is expecting {wanted} features as input, "
            "those it was trained with"
        )


def _net(
    n_classes: int,
    X: Steps,
    vocabulary: WordVocabulary | None,
    model: Architecture,
    settings: TaggerSettings,
) -> TaggerNet:
    arguments = {name: value for name, value in asdict(model).items() if name != "init"}
    arguments |= {"crf": settings.crf}
    if vocabulary is None:
        return TaggerNet(n_classes, width_of(X), **arguments)
    return TaggerNet(
        n_classes,
        n_words=vocabulary.n_words,
        n_characters=vocabulary.n_characters,
        embedding_size=settings.embedding_size,
        character_size=settings.character_size,
        **arguments,
    )


def _once(X: Steps, vocabulary: WordVocabulary | None) -> np.ndarray | None:
    """`[V]`, which words of the vocabulary occur once; only for words."""
    if not isinstance(X, Words) or vocabulary is None:
        return None
    once = np.zeros(vocabulary.n_words, dtype=bool)
    once[vocabulary.code(X).words[X.counts == 1]] = True
    once[0] = False
    return once
