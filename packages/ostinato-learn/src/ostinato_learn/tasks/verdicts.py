"""A network beside simple methods: which of these is best, and whether the difference is chance.

The sign-flip test asks of mean differences how many of the ways to swap the two methods in some
units make a mean as far from 0: all ways up to 2¹⁴, else 10,000 drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ostinato_learn.baselines import SURE
from ostinato_learn.data.checks.finding import Finding
from ostinato_learn.tasks.base import TaskSpec

FEWEST = 6  # units: with five, even that one run wins all has a probability of 2 · 2⁻⁵ = 0.06
ALL_FLIPS, DRAWN = 14, 10_000
AT_ONCE = 1_000_000  # signs drawn together: 16 MB


def best_of(
    task: TaskSpec, measured: Mapping[str, Any], simple: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    """The best baseline by the first measure; and the same with the figures of both, in words.

    Args:
        measured: the measures of the network.
        simple: those of the baselines, by their names.
    """
    key = task.first_measure(measured)
    measure = task.measures[key]
    known = {name: each[key] for name, each in simple.items() if each.get(key) is not None}
    best = min(known, key=lambda name: known[name] if measure.lower else -known[name])
    shown = measure.shown(measured[key]), measure.shown(known[best])
    return best, f"{best} ({shown[0]} and {shown[1]} by {measure.words})"


def below_baseline(task: TaskSpec, evaluation: Mapping[str, Any]) -> Finding | None:
    """The finding that a network is worse than its best baseline; None: it is not.

    A difference that may be chance is none; one that could not be tested counts.
    """
    simple, verdict = evaluation.get("baselines"), evaluation.get("verdict", "")
    if not simple or verdict.startswith(("better", "no significant")):
        return None
    name, best_name = best_of(task, evaluation["test"], simple)
    key = task.first_measure(evaluation["test"])
    ours, theirs = evaluation["test"][key], simple[name][key]
    if ours <= theirs if task.measures[key].lower else ours >= theirs:
        return None
    return Finding(
        "serious",
        "below-baseline",
        f"the network is worse than {best_name}",
        1,
        remedy="train longer (--epochs), or with another --learning-rate; or use the simple method",
    )


def relative_differences(a: Any, b: Any, unit: Any) -> np.ndarray:
    """2 (b − a) / (a + b) of the sums of two losses in each unit, `[n]`.

    Units without a known loss are left out, and those where both are zero.

    Args:
        a, b: `[M]`, losses; NaN where they are unknown.
        unit: `[M]`, the number of the unit of each.
    """
    known = np.isfinite(a)
    sums = [np.bincount(unit[known], each[known]) for each in (a, b)]
    total = sums[0] + sums[1]
    usable = total > 0
    differences: np.ndarray = 2 * (sums[1] - sums[0])[usable] / total[usable]
    return differences


def flips(differences: Any, seed: int = 0) -> float:
    """The share of the ways to flip signs that leave the mean as far from 0 as it is, or farther.

    Args:
        differences: `[n]`.
        seed: the seed of the flips, if there are too many to try all.

    Example:
        >>> flips([1.0, 2.0, 3.0])  # only all three positive or all three negative: 2 of 8
        0.25
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    # Sums of the same numbers in another order differ by rounding.
    least = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if n <= ALL_FLIPS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ d) >= least).mean())
    generator, as_far, left = np.random.default_rng(seed), 0, DRAWN
    while left:
        rows = min(left, max(1, AT_ONCE // n))
        drawn = 1.0 - 2.0 * generator.integers(0, 2, (rows, n))
        as_far += int((np.abs(drawn @ d) >= least).sum())
        left -= rows
    return (as_far + 1) / (DRAWN + 1)  # the data themselves count as one way


def verdict(differences: Any, baseline: str, units: str) -> str:
    """The comparison of a network with a baseline in words, by the sign-flip test.

    Args:
        differences: `[n]`, the network's loss minus the baseline's in each unit, or relative ones.
        baseline: its name, and the measures of both.
        units: the noun for the units, in the plural.

    Example:
        >>> verdict([-1.0] * 6, "it", "texts"), verdict([-1.0, 1.0] * 3, "it", "texts")
        ('better than it', 'no significant difference from it')
    """
    d = np.asarray(differences)
    if len(d) < FEWEST:
        return f"not tested against {baseline}: too few {units}, {len(d)}"
    if flips(d) >= SURE:
        return f"no significant difference from {baseline}"
    return f"{'better' if d.mean() < 0 else 'WORSE'} than {baseline}"
