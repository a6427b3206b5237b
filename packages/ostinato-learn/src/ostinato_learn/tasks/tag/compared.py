"""A tagger beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.step_labels import label_counts
from ostinato_learn.data.text.words import Words
from ostinato_learn.tasks.tag import TASK
from ostinato_learn.tasks.tag.model import TagAnswers, Tagger
from ostinato_learn.tasks.verdicts import best_of, verdict

LEARNT = 1 << 22  # values of a training part in a file that the baseline of words reads


def compared(
    model: Tagger,
    train: Examples,
    test: Examples,
    answers: TagAnswers,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """The measures of the baselines, and a comparison of a network with the best of them in words.

    Args:
        model: the trained model.
        train, test: the examples that it learnt from, and those that it is measured on.
        answers: its answers to these.
        measured: the measures of the answers.
    """
    labels, counts = label_counts(train.y)
    frequent = labels[counts.argmax()]
    # For each baseline the right labels of each sequence, and which sequences these are.
    right = {
        "always the most frequent label": (
            np.array([(each == frequent).sum() for each in test.y]),
            np.arange(len(test)),
        )
    }
    if model.vocabulary is not None:
        from ostinato_learn.baselines import labels_of_words

        sides = [part.some(LEARNT) for part in (train, test)]
        words = [(_words(model, part), part.y) for part in sides]
        found = labels_of_words(*words[0], *words[1])
        starts = np.cumsum(sides[1].lengths) - sides[1].lengths
        each = np.add.reduceat(found.right.astype(np.int64), starts)
        right[found.name] = each, test.drawn(LEARNT)
    simple = {
        name: {"accuracy": float(each.sum() / test.lengths[rows].sum())}
        for name, (each, rows) in right.items()
    }
    best, best_name = best_of(TASK, measured, simple)
    theirs, rows = right[best]
    losses = theirs - answers.right[rows]
    return {"baselines": simple, "verdict": verdict(losses, best_name, "sequences")}


def _words(model: Tagger, part: Examples) -> Words:
    found = model.steps(part)[0]
    assert isinstance(found, Words)
    return found
