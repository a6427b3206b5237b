"""`Moments`: mean and standard deviation of more numbers than fit into the memory."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np


class Moments:
    """Mean and standard deviation of numbers that come in parts.

    The bits do not depend on the parts: sums are taken over stretches of a fixed length, in
    float64, and the sums of all stretches are added without rounding.

    Example:
        >>> moments = Moments()
        >>> for part in ([1.0, 2.0], [np.nan, 6.0]):
        ...     moments.add(np.array(part))
        >>> for part in ([1.0, 2.0], [np.nan, 6.0]):
        ...     moments.add_deviations(np.array(part))
        >>> moments.n, moments.mean, round(moments.deviation, 4)
        (3, 3.0, 2.1602)
    """

    STRETCH = 1 << 12

    def __init__(self) -> None:
        self.n = 0
        self.least, self.largest = math.inf, -math.inf
        self._sums: list[list[float]] = [[], []]
        self._rest = np.zeros(0)

    def add(self, values: np.ndarray) -> None:
        """Numbers, NaN where missing."""
        present = _present(values)
        self.n += len(present)
        self.least = min(self.least, present.min(initial=math.inf))
        self.largest = max(self.largest, present.max(initial=-math.inf))
        self._add(present, 0)

    def add_deviations(self, values: np.ndarray) -> None:
        """The same numbers once more, after all have been added."""
        if self.n:
            self._add((_present(values) - self.mean) ** 2, 1)

    @cached_property
    def mean(self) -> float:
        return self._total(0) / self.n

    @property
    def deviation(self) -> float:
        """0 if all numbers are the same."""
        return 0.0 if self.least == self.largest else math.sqrt(self._total(1) / self.n)

    def _add(self, values: np.ndarray, which: int) -> None:
        values = np.concatenate([self._rest, values])
        whole = len(values) - len(values) % self.STRETCH
        stretches = values[:whole].reshape(-1, self.STRETCH)
        self._sums[which] += stretches.sum(axis=1).tolist()
        self._rest = values[whole:]

    def _total(self, which: int) -> float:
        total = math.fsum([*self._sums[which], float(self._rest.sum())])
        if which == 0:
            self._rest = np.zeros(0)  # deviations of an incomplete stretch
        return total


def _present(values: np.ndarray) -> np.ndarray:
    absent = np.isnan(values)
    return (values[~absent] if absent.any() else values).astype(np.float64)
