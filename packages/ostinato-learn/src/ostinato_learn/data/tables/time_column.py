"""The column that holds the times of steps, found by its values where nothing names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ostinato_learn.data.formats.dates import Order
from ostinato_learn.data.tables.column import Column, Nested, Unusable

if TYPE_CHECKING:
    from ostinato_learn.data.tables.table import Table

_LOOKED_AT = 1000  # rows, or sequences in lists
_MOSTLY = 2 / 3  # of the steps: a birthday, or the day of an order, changes less often
_EPOCHS = (1e9, 1e12, 1e15)  # 2001 in s, ms and µs since 1970; twice as much is 2033


def found(table: Table, names: Sequence[str], id: str | None, is_series: bool) -> str | None:
    """The column whose dates are those of the steps; None if that is unclear.

    The dates of the first rows are read. They are times if they change at most steps of a sequence;
    dates that only grow, but occur twice, say nothing that the order of the rows does not. Dates in
    any order are times of a series (`is_series`), and so are dates that only fall, as those of
    several series mixed with the newest rows first; for other sequences they may be the dates at
    which the rows were written. Numbers that can only be times are, if they fall from row to row.

    Raises:
        ValueError: months or quarters fall from row to row.
    """
    first = _first_rows(table, id)
    dates = {name: _steps(dates_in(table[name], _LOOKED_AT), table[name], first) for name in names}
    changing = {
        name: steps
        for name, steps in dates.items()
        if steps is not None and len(steps) and (steps != 0).sum() > _MOSTLY * len(steps)
    }
    few = 0 if is_series else _MOSTLY
    backwards = [n for n, steps in changing.items() if (steps < 0).sum() > few * len(steps)]
    if changing and len(backwards) == len(changing):
        return backwards[0]  # by which rows are sorted
    if len(changing) == 1:
        ((name, steps),) = changing.items()
        return name if (steps > 0).all() else None
    if changing:
        return None
    falling = [n for n, steps in dates.items() if _fall(steps, is_series)]
    if is_series and falling:
        return falling[0]
    return _numbers_backwards(table, names, first, is_series)


def _fall(steps: np.ndarray | None, may_repeat: bool) -> bool:
    """Whether values fall at two steps or more, and never rise; nor repeat, unless they may."""
    if steps is None or (steps < 0).sum() < 2:
        return False
    return bool(((steps < 0) | (may_repeat & (steps == 0))).all())


def dates_in(column: Column, n: int = 100) -> np.ndarray | None:
    """The first values, if they are dates."""
    if isinstance(column, Unusable):
        return None
    if isinstance(column, Nested):
        n = min(n, len(column.offsets) - 1)
        n, column = int(column.offsets[n]), column.inner
    orders: tuple[Order, ...] = ("day-first", "month-first")
    for order in orders:
        try:
            times = column.head(n).times(order)
        except ValueError:
            continue
        return times if times.dtype.kind == "M" else None
    return None


def _first_rows(table: Table, id: str | None) -> np.ndarray:
    """The number of the sequence of each of the first rows."""
    if id is None:
        return np.zeros(min(_LOOKED_AT, len(table)), np.int64)
    codes: np.ndarray = table[id].head(_LOOKED_AT).factor()[0]
    return codes


def _steps(values: np.ndarray | None, column: Column, sequences: np.ndarray) -> np.ndarray | None:
    """The differences from step to step within the first sequences."""
    if values is None:
        return None
    if isinstance(column, Nested):
        sequences = np.repeat(np.arange(len(column.offsets) - 1), np.diff(column.offsets))
    inside = np.diff(sequences[: len(values)]) == 0
    ticks = values.astype("M8[ns]").astype(np.int64) if values.dtype.kind == "M" else values
    return np.diff(ticks)[inside]


def _numbers_backwards(
    table: Table, names: Sequence[str], sequences: np.ndarray, is_series: bool
) -> str | None:
    for name in names:
        column = table[name]
        if isinstance(column, (Nested, Unusable)):
            continue
        first = column.head(_LOOKED_AT)
        months = None if first.is_numbers() else _months(first)
        if months is None and not first.is_numbers():
            continue
        values = first.numbers() if months is None else months
        steps = _steps(values, column, sequences)
        if steps is None or not _fall(steps, is_series):
            continue
        row = int(np.argmax(steps < 0)) + 1
        if months is not None:
            raise ValueError(
                f"{column.place(row)}: the rows seem to run backwards in time, the newest first; "
                "wanted the oldest first: reverse the rows of the table"
            )
        if _are_times(values):
            return name
    return None


def _months(column: Column) -> np.ndarray | None:
    """Months, quarters or weeks, as 2024-01, 01/2024 or 2024Q1, as numbers that grow with time."""
    try:
        found = [_MONTH.fullmatch(text) for text in column.texts()]
    except ValueError:  # one is missing, or they are not texts
        return None
    parts = [match.groups() for match in found if match is not None]
    if len(parts) < len(found):
        return None
    return np.array([100.0 * int(y or z) + int(m or n) for y, m, n, z in parts])


_MONTH = re.compile(r"((?:19|20)\d\d)\D{1,2}(\d{1,2})|\D?(\d{1,2})\D((?:19|20)\d\d)")


def _are_times(values: np.ndarray) -> bool:
    """Whether numbers that fall from row to row count years, months, days, or since 1970."""
    if not (values == np.round(values)).all():
        return False
    low, high = values.min(), values.max()
    if any(low >= unit and high < 2 * unit for unit in _EPOCHS):
        return True
    if low >= 1900 and high <= 2200:  # years
        return bool((np.abs(np.diff(values)) <= 1).mean() > _MOSTLY)
    days = np.ones(len(values))
    if low >= 19000101 and high <= 22001231:  # as 20240131
        values, days = np.divmod(values, 100)
    elif low < 190001 or high > 220012:  # as 202401
        return False
    months = values % 100
    return bool(((months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)).all())
