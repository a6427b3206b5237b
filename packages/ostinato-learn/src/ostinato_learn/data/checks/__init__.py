"""`check`: what in a user's data would make results misleading, before anything is trained.

repeats     the same sequence twice, on both sides, with different labels; groups on both sides
windows     stretches of steps that sequences share
shortcuts   labels that follow from the length, the first step, …
contents    labels, columns, lengths and times
texts       documents: copies, boilerplate, broken characters
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ostinato_learn.data.checks import contents, repeats, shortcuts, windows
from ostinato_learn.data.checks.finding import SEVERITIES, Finding
from ostinato_learn.data.checks.side import Side
from ostinato_learn.data.checks.texts import check_texts
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.ragged import Ragged

__all__ = ["Finding", "check", "check_texts"]

MOST_LABELS = 16  # whose shortcuts are searched, if a sequence may have several: a pass each


def check(train: Any, test: Any = None) -> list[Finding]:
    """Look for errors in sequences and their labels.

    Args:
        train: `Examples`, or any object with the attributes X and, if there are labels, y. Values
            may be missing (NaN).
        test: the test part, likewise. Without it, `train` is one file that is to be split.

    Returns:
        The findings, the serious ones first. The same data give the same findings.

    Raises:
        ValueError: there are no sequences, or the parts differ in features.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data.checks import check
        >>> from ostinato_learn.data.sequences.examples import Examples
        >>> X = np.random.default_rng(0).normal(size=(100, 20, 2)).astype(np.float32)
        >>> y = np.arange(100) % 2
        >>> [finding.code for finding in check(Examples(X, y))]
        []
        >>> [f.message for f in check(Examples(X[:80], y[:80]), Examples(X[70:], y[70:]))]
        ['10 of 30 (33 %) test sequences are training sequences too; results on them say nothing \
about new data']
    """
    side = Side.of(_examples(train), "" if test is None else "training")
    other = None if test is None else Side.of(_examples(test), "test")
    if other is not None and other.n_features != side.n_features:
        raise ValueError(
            f"the test part has {other.n_features} features a step, the training part "
            f"{side.n_features}; wanted as many"
        )
    found = [*contents.labels(side, other), *contents.lengths(side), *contents.columns(side)]
    found += contents.times(side)
    first = repeats.first_equal(side, side)
    copies = first != np.arange(len(side))
    found += repeats.within(side, first, test_is_apart=other is not None)
    if other is None:
        found += windows.within(side, copies)
    else:
        found += contents.lengths(other)
        found += contents.columns(other)
        found += contents.times(other)
        found += repeats.groups(side, other)
        found += repeats.names(side, other)
        in_train = repeats.first_equal(side, other)
        found += repeats.across(side, other, in_train)
        found += windows.across(side, other, in_train >= 0)
    if side.of_each is None:
        found += shortcuts.shortcuts(side)
    for name, has in list((side.of_each or {}).items())[:MOST_LABELS]:
        one = Side.of(replace(side.examples, y=has), side.name)
        found += shortcuts.shortcuts(one, f"whether a sequence has the label {name!r}")
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _examples(part: Any) -> Examples:
    examples = part if isinstance(part, Examples) else Examples(part.X, getattr(part, "y", None))
    examples = examples.loaded()
    if getattr(examples.y, "ndim", 1) == 2 and examples.y.dtype.kind == "f":
        examples = replace(examples, y=None)  # numbers to learn, which are no labels
    if isinstance(examples.y, list) and len(examples) and examples.y[0].dtype.kind == "f":
        examples = _with_series(examples)
    if len(examples) == 0 or examples.values.shape[1] == 0:
        raise ValueError("there are no sequences, or no features; wanted at least one of each")
    return examples


def _with_series(examples: Examples) -> Examples:
    """To forecast, the series is an input too: the first feature, unless it is there already."""
    name = examples.roles.target if examples.roles is not None else None
    if name in examples.features:
        return examples
    X = examples.sequences
    n_others = X.n_features if isinstance(X, Ragged) else X.shape[2]
    others = examples.features or tuple(f"feature {i}" for i in range(n_others))
    values = np.concatenate(examples.y)[:, None].astype(np.float32)
    if others:
        values = np.concatenate([values, examples.values], axis=1)
    offsets = np.concatenate([[0], np.cumsum(examples.lengths)])
    return replace(examples, X=Ragged(values, offsets), features=(name or "series", *others))
