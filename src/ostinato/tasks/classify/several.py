"""The parts of a classifier's job that differ if a sequence may have several labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.cli.failures import BadInput

if TYPE_CHECKING:
    from ostinato.cli.run.config import Config
    from ostinato.cli.run.partition import Parts
    from ostinato.data.sequences.examples import Examples
    from ostinato.tasks.classify.model import Classifier


def names(part: Examples) -> np.ndarray | None:
    """The labels `[C]`, if a sequence may have several; None: each has one."""
    if part.roles is None or not part.roles.labels:
        return None
    return np.array(part.roles.labels)


def check(settings: Config, parts: Parts) -> None:
    """Raise BadInput if there is nothing to learn, or --class-weight is given."""
    y, labels = parts.train.y, parts.train.roles.labels if parts.train.roles else ()
    if (y == y[0]).all():
        raise BadInput(
            f"{settings.data.source}: all sequences to learn from have the same labels "
            f"({', '.join(map(repr, np.array(labels)[y[0] > 0].tolist())) or 'none'}); wanted "
            "labels that differ between sequences"
        )
    if settings.training.class_weight is not None:
        raise BadInput(
            "--class-weight is for one label a sequence, and these may have several; leave it out"
        )


def measure(
    model: Classifier, part: Examples, proba: np.ndarray | None = None
) -> dict[str, Any]:
    """See `metrics.label_sets.measure`; "accuracy" is the share of sequences with all labels right.

    Args:
        proba: `[N, C]`, the answers, if they are known.
    """
    from ostinato.metrics import label_sets as label_metrics

    proba = model.predict_proba(part) if proba is None else proba
    predicted = model.likeliest(proba)
    return {**model.measured(proba, part.y), **label_metrics.measure(part.y, predicted)}


def baselines(
    model: Classifier, train: Examples, test: Examples, seed: int, proba: np.ndarray
) -> dict[str, Any]:
    """The results of the baselines, and a comparison of the network with the best in words.

    Args:
        proba: `[N, C]`, the network's answers to the test part.
    """
    from ostinato import baselines
    from ostinato.metrics import label_sets as label_metrics

    if model.vocabulary is not None:
        words = model.words(train), train.y, model.words(test), test.y
        found = baselines.several_words(*words)
    else:
        X, X_test = model.prepared(train), model.prepared(test)
        found = baselines.several(X, train.y, X_test, test.y, seed)
    right = (model.likeliest(proba) == test.y).mean(axis=1)
    simple = {
        each.name: label_metrics.measure(test.y, each.answers)
        for each in found
        if each.answers is not None
    }
    return {"baselines": simple, "verdict": baselines.verdict(right, found)}
