"""`StoredPanel`: series in a file, some of which are in memory at a time, as panels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ostinato.data.series.panel import Panel, check_longer

# Stored numbers of the series that are in memory together: 16 MB, and as much as ten times that
# when they are prepared, in float64, with a place for each window.
BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class StoredPanel:
    """N series in a file.

    Attributes:
        read: gives the series at positions `[M]`, as a panel.
        lengths: T of each series, `[N]` int64.
        sizes: how many numbers each has in the file, `[N]`.

    Example:
        >>> series = [np.arange(3.0), np.arange(5.0)]
        >>> panel = StoredPanel(
        ...     lambda chosen: Panel.of([series[i] for i in chosen]), np.array([3, 5]), np.ones(2)
        ... )
        >>> [(chosen.tolist(), part.target.tolist()) for chosen, part in panel.before(2).parts()]
        [([0, 1], [0.0, 0.0, 1.0, 2.0])]
    """

    read: Callable[[np.ndarray], Panel]
    lengths: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def before(self, steps: int) -> StoredPanel:
        """`Panel.before` of all series."""
        check_longer(self.lengths, steps)
        return StoredPanel(
            lambda chosen: self.read(chosen).before(steps), self.lengths - steps, self.sizes
        )

    def rows(self, rows: slice) -> StoredPanel:
        """Series that follow each other; rows has a start."""
        return StoredPanel(
            lambda chosen: self.read(chosen + rows.start), self.lengths[rows], self.sizes[rows]
        )

    def parts(self) -> Iterator[tuple[np.ndarray, Panel]]:
        """All series in their order, some at a time: their positions, and their panel."""
        for chosen in in_blocks(np.arange(len(self)), self.sizes):
            yield chosen, self.read(chosen)


def in_parts(panel: Panel | StoredPanel) -> Iterator[tuple[np.ndarray, Panel]]:
    """The series of a panel in their order: those in memory at once, those in a file in parts."""
    if isinstance(panel, StoredPanel):
        yield from panel.parts()
    else:
        yield np.arange(len(panel)), panel


def in_blocks(order: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Series in some order, cut into blocks of about `BLOCK` numbers."""
    number = np.cumsum(sizes[order]) // BLOCK
    return np.split(order, np.flatnonzero(np.diff(number)) + 1) if len(order) else []
