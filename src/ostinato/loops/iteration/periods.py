"""Loops whose branches repeat with a period, as by `t % 2 == 0`: one step is one period."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ostinato.loops.iteration.items import ItemParts, Items, NumberTable


class Grouped(Items):
    """The items of a loop from item `begin` on, in groups of `period`."""

    def __init__(self, items: Items, begin: int, period: int):
        self.items, self.begin, self.period = items, begin, period
        self.n = max(items.n - begin, 0) // period

    def item(self, j: int) -> tuple[Any, ...]:
        first = self.begin + j * self.period
        return tuple([self.items.item(i) for i in range(first, first + self.period)])

    def rest(self) -> list[Any]:
        """The items after the last whole group."""
        return [self.items.item(j) for j in range(self.begin + self.n * self.period, self.items.n)]

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        of, by = self.begin, self.period
        whole = self.items.tensors(of + begin * by, of + end * by)
        return [t[i::by] for i in range(by) for t in whole]

    def tables(self) -> list[Sequence[Any]]:
        tables = self.items.tables()
        return [NumberTable(table, self.at(i)) for i in range(self.period) for table in tables]

    def at(self, i: int) -> Callable[[int], int]:
        """The function from a group to its iteration number i."""
        return lambda j: self.begin + j * self.period + i

    def symbolic(self, elements: ItemParts) -> tuple[Any, ...]:
        found = []
        for i in range(self.period):
            elements.every, elements.first = self.period, self.begin + i
            found.append(self.items.symbolic(elements))
        return tuple(found)

    def kind(self) -> Any:
        return "grouped", self.period, self.items.kind()

    def starts(self) -> tuple[int, ...]:
        return self.begin, *self.items.starts()
