"""A small decision tree on numbers: what a few questions about a sequence tell of its label.

Values are sorted into bins once; at each level all nodes are split at the same time, each at the
feature and the border that leave the least Gini impurity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 32  # the last one holds missing values
SMALLEST_LEAF = 5


@dataclass(frozen=True)
class Bins:
    """Borders between bins, for each feature `[BINS - 2]` or fewer, increasing."""

    borders: tuple[np.ndarray, ...]

    @staticmethod
    def of(values: np.ndarray) -> Bins:
        """Borders that leave equally many of the values `[N, D]` in each bin."""
        shares = np.linspace(0, 1, BINS)[1:-1]
        borders = []
        for column in values.T:
            known = column[np.isfinite(column)]
            different = np.unique(known)
            if len(different) < BINS:  # each its own bin
                borders.append((different[1:] + different[:-1]) / 2)
            else:
                borders.append(np.unique(np.quantile(known, shares)))
        return Bins(tuple(borders))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value, `[N, D]`."""
        bins = np.stack(
            [np.searchsorted(b, column, side="right")
             for b, column in zip(self.borders, values.T, strict=True)], axis=1
        )  # fmt: skip
        return np.where(np.isnan(values), BINS - 1, bins)


@dataclass(frozen=True)
class Tree:
    """A tree of `depth` levels.

    Attributes:
        feature, last: `[2^depth]`, of each inner node in the order of a heap that starts at 1: a
            sequence goes left if its bin of the feature is at most `last`.
        label: `[2^depth]`, of each leaf.
    """

    feature: np.ndarray
    last: np.ndarray
    label: np.ndarray

    @staticmethod
    def fit(bins: np.ndarray, labels: np.ndarray, n_classes: int, depth: int) -> Tree:
        """Grow a tree on bins `[N, D]` and class numbers `[N]`."""
        feature, last = np.zeros((2, 2**depth), np.int64)
        last[:] = BINS  # all go left
        node = np.ones(len(bins), np.int64)
        for level in range(depth):
            first = 2**level
            feature[first : 2 * first], last[first : 2 * first] = _best_splits(
                bins, labels, node - first, first, n_classes
            )
            node = _down(bins, node, feature, last)
        leaf = node - 2**depth
        counts = np.bincount(leaf * n_classes + labels, minlength=2**depth * n_classes)
        counts = counts.reshape(-1, n_classes)
        # A leaf that nothing came to answers as most of the sequences.
        counts[counts.sum(axis=1) == 0] = np.bincount(labels, minlength=n_classes)
        return Tree(feature, last, counts.argmax(axis=1))

    def predict(self, bins: np.ndarray) -> np.ndarray:
        """The class of each sequence by its number, `[N]`.

        Args:
            bins: `[N, features]`, the bin that each value falls into.
        """
        node = np.ones(len(bins), np.int64)
        while node[0] < len(self.label):
            node = _down(bins, node, self.feature, self.last)
        return self.label[node - len(self.label)]


def _down(bins: np.ndarray, node: np.ndarray, feature: np.ndarray, last: np.ndarray) -> np.ndarray:
    return 2 * node + (bins[np.arange(len(bins)), feature[node]] > last[node])


def _best_splits(
    bins: np.ndarray, labels: np.ndarray, node: np.ndarray, n_nodes: int, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best feature and last bin on the left of each node, `[n_nodes]` each.

    Gini impurity is least where Σ over both sides of Σ_c count_c² / count is largest.
    """
    best = np.full(n_nodes, -np.inf)
    feature, last = np.zeros((2, n_nodes), np.int64)
    for d in range(bins.shape[1]):
        index = (node * BINS + bins[:, d]) * n_classes + labels
        counts = np.bincount(index, minlength=n_nodes * BINS * n_classes)
        left = counts.reshape(n_nodes, BINS, n_classes).cumsum(axis=1)
        right = left[:, -1:] - left
        n_left, n_right = left.sum(axis=2), right.sum(axis=2)
        purity = (left**2).sum(axis=2) / np.maximum(n_left, 1)
        purity += (right**2).sum(axis=2) / np.maximum(n_right, 1)
        purity[np.minimum(n_left, n_right) < SMALLEST_LEAF] = -np.inf
        at = purity.argmax(axis=1)
        gain = purity[np.arange(n_nodes), at]
        better = gain > best
        best[better], feature[better], last[better] = gain[better], d, at[better]
    last[np.isneginf(best)] = BINS
    return feature, last
