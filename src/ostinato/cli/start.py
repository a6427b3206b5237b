"""`--from RUN`: the model with whose weights a training begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ostinato.cli import runs, sources
from ostinato.cli.failures import BadInput
from ostinato.cli.jobs import several
from ostinato.data.examples import Examples
from ostinato.training.fitted import FittedClassifier, load


def classifier(origin: str, train: Examples) -> FittedClassifier:
    """A model that reads the same features and tells the same classes apart."""
    model = load(runs.find(Path(origin)).model)
    came, wanted = sources.n_features(train.X), model.n_features
    if came != wanted:
        raise BadInput(
            f"--from {origin} was trained on {wanted} features a step, and the data have {came}; "
            "wanted the same"
        )
    names = several.names(train)
    known = model.classes.tolist()
    labels = (np.unique(train.y) if names is None else names).tolist()
    if model.multilabel != (names is not None):
        one, other = ("several", "one") if model.multilabel else ("one", "several")
        raise BadInput(
            f"--from {origin} tells {one} of its labels for each sequence, and the data have "
            f"{other}; wanted the same"
        )
    if known != labels:
        raise BadInput(
            f"--from {origin} tells the classes {_some(known)} apart, and the data have "
            f"{_some(labels)}; wanted the same"
        )
    return model


def _some(labels: list[Any], most: int = 10) -> str:
    shown = ", ".join(map(repr, labels[:most]))
    return shown if len(labels) <= most else f"{shown}, … ({len(labels)})"
