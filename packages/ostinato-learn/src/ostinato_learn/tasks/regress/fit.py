"""From sequences and their numbers to a trained `Regressor`. No scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import torch

from ostinato_learn.data import Batches
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.step_labels import Steps
from ostinato_learn.hyperparameters import Classifying, WordSettings
from ostinato_learn.models.build import built
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.classify.net import ClassifierNet
from ostinato_learn.tasks.fitting import ToLearn, planned, reading
from ostinato_learn.tasks.forecast.net import NINE
from ostinato_learn.tasks.regress.loss import Regression
from ostinato_learn.tasks.regress.model import Regressor, as_targets
from ostinato_learn.tasks.regress.net import RegressorNet
from ostinato_learn.training import loop
from ostinato_learn.training.callbacks import Callback
from ostinato_learn.training.history import History
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.start import check_network, check_same_columns

NETWORK = RegressorNet
ARGUMENTS = {*signature(ClassifierNet).parameters} - {"n_classes"}
ARGUMENTS |= {"n_targets", "levels", "centre", "scale"}


@dataclass(frozen=True)
class Targeted(ToLearn):
    """Sequences with their numbers.

    Attributes:
        y: the numbers, `[N, K]` float64.
        targets: the names of the K targets.
        is_one: whether y was `[N]`.
    """

    targets: tuple[str, ...]
    is_one: bool = True

    @staticmethod
    def of_parts(
        train: Examples, validation: Examples | None, inputs: Callable[[Examples], Steps]
    ) -> Targeted:
        """The parts of a table; `inputs` prepares one."""
        y = as_targets(train.y, len(train))
        held_out = None
        if validation is not None:
            held_out = inputs(validation), as_targets(validation.y, len(validation), y.shape[1])
        names = target_names(train)
        return Targeted(inputs(train), y, names, y.shape[1] == 1, validation=held_out)


def target_names(train: Examples) -> tuple[str, ...]:
    """The names of the targets; "y", or y0, y1, …, if they came as arrays."""
    roles = train.roles
    if roles is not None and (roles.target or roles.labels):
        return (roles.target,) if roles.target else roles.labels
    k = as_targets(train.y, len(train)).shape[1]
    return ("y",) if k == 1 else tuple(f"y{i}" for i in range(k))


@torch.inference_mode(False)  # the caller's mode would make tensors without gradients
def fit(
    given: Targeted,
    model: Classifying,
    plan: Plan,
    *,
    loss: str = "squared",
    quantiles: Sequence[float] = NINE,
    words: WordSettings | None = None,
    start: Regressor | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> tuple[Regressor, History]:
    """Train a network; see `tasks/fitting.py`.

    Args:
        loss: one of `LOSSES`.
        quantiles: levels with 0.5 among them, for the loss "quantiles".
        words: how words are read, if the steps are words.
    """
    plan = planned(plan, len(given.X))
    trained = _untrained(given, model, words or WordSettings(), loss, quantiles, start, plan.seed)
    net: RegressorNet = trained.net
    centre, scale = net.centre.double().numpy(), net.scale.double().numpy()

    X = trained.coded(given.X)
    lengths = None if isinstance(X, np.ndarray) or not plan.similar_lengths else X.lengths
    scaled = (given.y - centre) / scale
    batches = Batches(X, scaled, plan.batch_size, seed=plan.seed, lengths=lengths)
    held_out = given.validation
    validation = held_out and (trained.coded(held_out[0]), (held_out[1] - centre) / scale)
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
    vocabulary, arguments = reading(given.X, model, words, start)
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
