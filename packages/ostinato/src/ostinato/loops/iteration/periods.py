"""Loops whose branches repeat with a period, as by `t % 2 == 0`: one step is one period."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ostinato.loops.iteration.items import ItemParts, Items, NumberTable


class Grouped(Items):
    """The items of a loop from item `first` on, in groups of `period`."""

    def __init__(self, items: Items, first: int, period: int):
        self.items, self.first, self.period = items, first, period

    @property
    def n(self) -> int:  # type: ignore[override]
        return max(self.items.n - self.first, 0) // self.period

    def begin(self, j: int) -> Iterator[Any]:
        """The single items from group j on, and those after the last whole group."""
        return self.items.begin(self.first + j * self.period)

    def held(self) -> list[Any]:
        return self.items.held()

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        of, by = self.first, self.period
        whole = self.items.tensors(of + begin * by, of + end * by)
        return [t[i::by] for i in range(by) for t in whole]

    def tables(self) -> list[Sequence[Any]]:
        tables = self.items.tables()
        return [NumberTable(table, self.at(i)) for i in range(self.period) for table in tables]

    def at(self, i: int) -> Callable[[int], int]:
        """The function from a group to its iteration number i."""
        return lambda j: self.first + j * self.period + i

    def symbolic(self, elements: ItemParts) -> tuple[Any, ...]:
        found = []
        for i in range(self.period):
            elements.every, elements.first = self.period, self.first + i
            found.append(self.items.symbolic(elements))
        return tuple(found)

    def kind(self) -> Any:
        return "grouped", self.period, self.items.kind()

    def starts(self) -> tuple[int, ...]:
        return self.first, *self.items.starts()
