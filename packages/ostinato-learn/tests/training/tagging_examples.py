"""Small labelled sequences of vectors and of words."""

from __future__ import annotations

import numpy as np

from ostinato_learn.tasks.tag.fit import Tagged


def above_or_below(n: int = 40, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sequences of 1 to 6 steps; the label says whether their sum so far is above zero."""
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(rng.integers(1, 7), 2)) for _ in range(n)]
    return X, [np.where(x[:, 0].cumsum() > 0, "above", "below") for x in X]


def sentences(n: int = 60, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    """Words of random letters in iob2: two that end in "a" are a span, and one in "b" is one."""
    rng = np.random.default_rng(seed)
    X: list[list[str]] = []
    y: list[list[str]] = []
    for _ in range(n):
        tags: list[str] = []
        for _ in range(rng.integers(1, 4)):
            tags += [["O"], ["B-two", "I-two"], ["B-one"]][rng.integers(3)]
        ends = {"O": "c", "B-two": "a", "I-two": "a", "B-one": "b"}
        X.append(["".join(rng.choice(list("abc"), 3)) + ends[tag] for tag in tags])
        y.append(tags)
    return X, y


def tagged(n: int = 23, seed: int = 0, **more) -> Tagged:
    return Tagged.of(*above_or_below(n, seed), **more)
