"""Long series reduced to few points: a page cannot show more points than it has pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

MOST = 200  # points of a series; a longer one is divided into equal parts


def edges(n: int, most: int = MOST) -> np.ndarray:
    """The bounds of the parts of n values: 0, …, n. At most `most` parts, as equal as possible."""
    return np.linspace(0, n, min(n, most) + 1).round().astype(int)


def means(values: np.ndarray, most: int = MOST) -> np.ndarray:
    """`[n, …]` → `[parts, …]`, the mean of each part; short series are unchanged."""
    bounds = edges(len(values), most)
    sums = np.add.reduceat(values, bounds[:-1], axis=0, dtype=np.float64)
    return sums / np.diff(bounds).reshape(-1, *[1] * (values.ndim - 1))


def extremes(values: np.ndarray, most: int = MOST) -> np.ndarray:
    """Indices into `[n]` values: the lowest and the highest of each part, and both ends.

    A line through them keeps every peak where it is.
    """
    if len(values) <= most:
        return np.arange(len(values))
    bounds = edges(len(values), most // 2)
    kept = [0, len(values) - 1]
    for start, end in pairwise(bounds):
        part = values[start:end]
        kept += [start + int(part.argmin()), start + int(part.argmax())]
    return np.unique(kept)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """`[n]`: the mean of the `window` values around each value; at both ends there are fewer."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(len(values))
    start = np.maximum(middle - (window - 1) // 2, 0)
    end = np.minimum(middle + window // 2 + 1, len(values))
    return (total[end] - total[start]) / (end - start)
