"""From sequences and their numbers to a trained `Regressor`. No scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato.data import Batches
from ostinato.data.sequences.step_labels import Steps, width_of
from ostinato.data.text.words import Words, WordVocabulary
from ostinato.hyperparameters import Classifying, WordSettings
from ostinato.models.build import built
from ostinato.models.module_network import ModuleNetwork
from ostinato.tasks.classify.net import ClassifierNet
from ostinato.tasks.forecast.net import NINE
from ostinato.tasks.regress.loss import Regression
from ostinato.tasks.regress.model import Regressor
from ostinato.tasks.regress.net import RegressorNet
from ostinato.training import loop
from ostinato.training.callbacks import Callback
from ostinato.training.history import History
from ostinato.training.plan import Plan
from ostinato.training.start import check_network, check_same_columns

NETWORK = RegressorNet
ARGUMENTS = {*signature(ClassifierNet).parameters} - {"n_classes"}
ARGUMENTS |= {"n_targets", "levels", "centre", "scale"}


@dataclass(frozen=True)
class Targeted:
    """Sequences with their numbers, checked.

    Attributes:
        X: the N sequences.
        y: their numbers, `[N, K]` float64.
        targets: the names of the K targets.
        is_one: whether y was `[N]`.
        feature_names: the names of the columns, if X was a data frame.
        sample_weight: the weight of each example, `[N]` float64.
        validation: (X, y) for validation.
    """

    X: Steps
    y: np.ndarray
    targets: tuple[str, ...]
    is_one: bool = True
    feature_names: np.ndarray | None = None
    sample_weight: np.ndarray | None = None
    validation: tuple[Steps, np.ndarray] | None = None


@torch.inference_mode(False)  # the caller's mode would make tensors without gradients
def fit(
    given: Targeted,
    model: Classifying,
    plan: Plan,
    *,
    loss: str = "squared",
    quantiles: Sequence[float] = NINE,
    words: WordSettings | None = None,
    warm_up: float | None = None,
    start: Regressor | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> tuple[Regressor, History]:
    """Train a network.

    Args:
        given: the examples. A batch has at most all of them.
        model, plan: the network, and how to train it.
        loss: one of `LOSSES`.
        quantiles: levels with 0.5 among them, for the loss "quantiles".
        words: how words are read, if the steps are words.
        warm_up: the share of the updates over which the learning rate rises, instead of
            `plan.warmup` of them.
        start: a regressor of the same sizes, whose weights, words and scales the training starts
            from.
        callbacks, resume: see `train`.

    Raises:
        ValueError: the arguments contradict each other; the message names them.
        Diverged: the loss became NaN or infinite.
    """
    plan = replace(plan, batch_size=min(plan.batch_size, len(given.X)))
    if warm_up is not None:
        plan = replace(plan, warmup=int(warm_up * plan.total_iterations(len(given.y))))
    trained = _untrained(given, model, words or WordSettings(), loss, quantiles, start, plan.seed)
    net: RegressorNet = trained.net
    centre, scale = net.centre.double().numpy(), net.scale.double().numpy()

    def coded(X: Steps) -> Any:
        if isinstance(X, Words) and trained.vocabulary is not None:
            return trained.vocabulary.code(X)
        if isinstance(X, Words) or trained.vocabulary is not None:
            raise ValueError("some of X has words, and some numbers; wanted one of them")
        return X

    X = coded(given.X)
    lengths = None if isinstance(X, np.ndarray) or not plan.similar_lengths else X.lengths
    scaled = (given.y - centre) / scale
    batches = Batches(X, scaled, plan.batch_size, seed=plan.seed, lengths=lengths)
    held_out = given.validation
    validation = held_out and (coded(held_out[0]), (held_out[1] - centre) / scale)
    task = Regression(batches, loss, trained.levels, given.sample_weight, validation)
    return trained, loop.learn(net, task, plan, callbacks=callbacks, resume=resume)


def _untrained(
    given: Targeted,
    model: Classifying,
    words: WordSettings,
    loss: str,
    quantiles: Sequence[float],
    start: Regressor | None,
    seed: int,
) -> Regressor:
    """A regressor of these examples before its training, or with the weights of `start`."""
    vocabulary = None
    arguments: dict[str, Any] = {"n_features": width_of(given.X), **asdict(model)}
    if isinstance(given.X, Words):
        known = None if start is None else start.vocabulary
        vocabulary = known or WordVocabulary.fit(given.X, words.vocabulary_size)
        arguments |= {"n_words": vocabulary.n_words, "embedding_size": words.embedding_size}
    levels = tuple(quantiles) if loss == "quantiles" else ()
    deviation = given.y.std(axis=0)
    scales = given.y.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
    arguments |= {name: s.tolist() for name, s in zip(("centre", "scale"), scales, strict=True)}
    if start is not None and len(start.targets) == len(given.targets):
        arguments |= {name: start.net.config[name] for name in ("centre", "scale")}
    net = built(RegressorNet, n_targets=len(given.targets), levels=levels, seed=seed, **arguments)
    if start is not None:
        check_same_columns(start.feature_names, given.feature_names)
        check_network({**start.net.config, "loss": start.loss}, {**net.config, "loss": loss})
        net.load_state_dict(start.net.state_dict())
    return Regressor(
        network=ModuleNetwork(net),
        targets=given.targets,
        loss=loss,
        levels=tuple(net.config["levels"]),
        is_one=given.is_one,
        feature_names=given.feature_names,
        vocabulary=vocabulary,
    )
