"""The quick suite, `-m "not slow"`: which of many parameters, and how many examples it draws.

The whole suite plays and draws all, but for what an older PyTorch cannot do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import settings

QUICK = False  # whether this is the quick suite: tests/conftest.py knows
TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def since(version: tuple[int, int], what: str) -> Any:
    """Skip a test with an older PyTorch; what: that it lacks."""
    return pytest.mark.skipif(version > TORCH, reason=f"PyTorch before {version}: {what}")


def draws(n: int = 100) -> settings:
    """A property test draws n examples in the whole suite, a third of them in the quick one."""
    return settings(max_examples=-(-n // 3) if QUICK else n)


def sample(n: int, parameters: Iterable[Any]) -> list[Any]:
    """n of the parameters, evenly spaced, for what tests the recorder and not the operation.

    Every case has its test of values and gradients, `test_zoo.test_double_is_the_loop`.
    """
    every = list(parameters)
    return [every[i * len(every) // n] for i in range(n)]


def in_pairs(first: Iterable[Any], second: Iterable[Any], third: Iterable[Any]) -> list[Any]:
    """Triples with every pair of values of two arguments, where a product has every triple.

    The third is the shortest.
    """
    last = list(third)
    return [
        (a, b, last[(i + j) % len(last)]) for i, a in enumerate(first) for j, b in enumerate(second)
    ]


def one_in(n: int, parameters: Iterable[Any], of_several: bool = False) -> list[Any]:
    """One in n of the parameters, from the first on, is quick; the others are slow.

    Args:
        of_several: each is a tuple of the values of several arguments of the test.
    """
    return [
        p if i % n == 0 else pytest.param(*(p if of_several else [p]), marks=pytest.mark.slow)
        for i, p in enumerate(parameters)
    ]
