"""A classifier beside the baselines."""

from __future__ import annotations

from typing import Any

import numpy as np

from ostinato_learn import baselines
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.metrics import label_sets
from ostinato_learn.tasks.classify.model import Classifier


def compared(
    model: Classifier,
    train: Examples,
    test: Examples,
    proba: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """The measures of the baselines, and a comparison of a network with the best of them in words.

    Args:
        model: the trained model.
        train, test: the examples that it learnt from, and those that it is measured on.
        proba: its answers to these, `[M, C]`.
        seed: that of what the baselines draw.
    """
    words, y = model.vocabulary is not None, test.y
    read = model.words if words else model.prepared
    given: tuple[Any, ...] = (read(train), train.y, read(test), y)
    given += () if words else (seed,)
    right = model.likeliest(proba) == y
    if model.multilabel:
        found = (baselines.several_words if words else baselines.several)(*given)
        simple = {
            each.name: label_sets.measure(y, each.answers)
            for each in found
            if each.answers is not None
        }
        right = right.mean(axis=1)
    else:
        found = (baselines.words if words else baselines.classification)(*given)
        simple = {each.name: {"accuracy": each.accuracy} for each in found[1:]}
    return {"baselines": simple, "verdict": baselines.verdict(right, found)}
