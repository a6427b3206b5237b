"""The order of the rows of a long table: those of a sequence together, in the order of time."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato_learn.data.questions import OpenQuestion
from ostinato_learn.data.tables.column import Factor, Nested, Unusable, as_strings
from ostinato_learn.data.tables.roles import Roles
from ostinato_learn.data.tables.table import Table


@dataclass(frozen=True)
class OrderedRows:
    """The rows of a long table in the order of its sequences.

    Attributes:
        rows: row numbers, sorted.
        codes: for each of them the index of its sequence.
        ids: the ids of the sequences.
        times: of these rows, or None.
        is_sorted: whether the rows are in another order than in the table.
    """

    rows: np.ndarray
    codes: np.ndarray
    ids: np.ndarray
    times: np.ndarray | None
    is_sorted: bool


def rows_in_order(table: Table, roles: Roles) -> OrderedRows:
    """Sort the rows of a table by sequence and time, where `roles.sort` or the times ask for it.

    Raises:
        ValueError: an id is missing; or rows stay as they are, and those of a sequence lie apart.
    """
    rows = np.arange(len(table))
    codes, ids = np.zeros(len(table), np.int64), np.array([1])
    if roles.id:
        codes, names = table[roles.id].factor()
        if (codes < 0).any():
            raise ValueError(
                f"{table[roles.id].place(int(np.argmax(codes < 0)))}: the id is missing; wanted "
                "one in each row"
            )
        ids = as_strings(names)
    times = table[roles.time].times(roles.time_format) if roles.time else None
    is_sorted = _times_say_the_order(table, roles, codes, times)
    if not (is_sorted if roles.sort is None else roles.sort):
        _check_together(codes, table, roles)
        return OrderedRows(rows, codes, ids, times, False)
    if roles.id:
        ids, ranks = np.unique(ids, return_inverse=True)
        codes = ranks.reshape(-1)[codes]
    rows = np.lexsort((rows if times is None else times, codes))
    return OrderedRows(rows, codes[rows], ids, None if times is None else times[rows], is_sorted)


def _times_say_the_order(
    table: Table, roles: Roles, codes: np.ndarray, times: np.ndarray | None
) -> bool:
    """Whether rows are out of order, and their times leave one order only.

    Numbers that fall may begin anew, as in the next recording, and so may the dates of a table
    without ids, if another column changes there.
    """
    if times is None:
        return False
    back = np.flatnonzero(np.diff(codes) < 0)
    if len(back):
        row = int(back[0]) + 1
        before = int(np.flatnonzero(codes[:row] == codes[row])[-1])
        if _told_apart_by(table, roles, codes, row, before) is not None:
            return False
    falls, rises = _falls(times, np.argsort(codes, kind="stable"), codes)
    if not falls.any():  # sequences take turns
        return bool(len(back))
    newest_first = not rises.any() and len(falls) > 1
    return newest_first or (times.dtype.kind == "M" and likely_id(table, roles) is None)


def times_in_order(times: np.ndarray, offsets: np.ndarray, roles: Roles) -> np.ndarray | None:
    """The order of the steps of sequences in lists, by time; None: they stay as they are."""
    codes = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    falls, rises = _falls(times, np.arange(len(times)), codes)
    by_times = times.dtype.kind == "M" or (not rises.any() and len(falls) > 1)
    wanted = roles.sort if roles.sort is not None else by_times
    return np.lexsort((times, codes)) if wanted and falls.any() else None


def _falls(
    times: np.ndarray, order: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """At which steps of sequences a time falls, and at which it rises."""
    inside = np.diff(codes[order]) == 0
    earlier, later = times[order][:-1][inside], times[order][1:][inside]
    return later < earlier, later > earlier


def likely_id(table: Table, roles: Roles) -> str | None:
    """A column that seems to be the id of a table with times, but without an id.

    It changes where times fall, and only there; or each time of one of its values comes once.
    """
    if roles.id or not roles.time:
        return None
    times = table[roles.time].times(roles.time_format)
    falls = times[1:] < times[:-1]
    twice = len(np.unique(times)) < len(times)
    begins_anew = 0 < 2 * (int(falls.sum()) + 1) <= len(times)
    for name in _untaken(table, roles):
        codes, values = _keys(table, name)
        if not 1 < len(values) <= len(times) // 2:
            continue
        if begins_anew and falls.any() and not (np.diff(codes) != 0)[~falls].any():
            return name
        if twice and not _n_repeated(times, codes):
            return name
    return None


def _check_together(codes: np.ndarray, table: Table, roles: Roles) -> None:
    """Raise ValueError unless the rows of each sequence follow each other."""
    back = np.flatnonzero(np.diff(codes) < 0)
    if not len(back):
        return
    row = int(back[0]) + 1
    column = table[roles.id or ""]
    before = int(np.flatnonzero(codes[:row] == codes[row])[-1])
    came = (
        f"{column.place(row)}: {as_strings(column.factor()[1])[codes[row]].item()!r} comes back "
        f"after other ids (first at {table.unit} {table.lines[before]}"
    )
    other = _told_apart_by(table, roles, codes, row, before)
    if other is not None:
        raise ValueError(
            f"{came}, with another {other!r}); wanted one column that distinguishes all sequences, "
            f"as {column.name!r} and {other!r} do together"
        )
    raise OpenQuestion(
        f"{came}); wanted the rows of a sequence together, or sort=True (--sort)", sort=True
    )


def _told_apart_by(
    table: Table, roles: Roles, codes: np.ndarray, row: int, before: int
) -> str | None:
    """A column such as `person`, whose values make the ids unique again.

    Trial ids restart at 1 for each person, for instance: person and trial together are unique.

    It has one value in each run of rows with one id, differs between the two runs, and repeats.
    """
    changes = np.diff(codes) != 0
    runs = int(changes.sum()) + 1
    if 2 * runs > len(codes):  # rows in any order: differences are chance
        return None
    names = _untaken(table, roles)
    for name in [roles.group, *names] if roles.group else names:
        values, once = _keys(table, name)
        if not len(once):
            continue
        if values[row] != values[before] and not (np.diff(values)[~changes] != 0).any():
            return name
    return None


def _untaken(table: Table, roles: Roles) -> list[str]:
    """The columns of single values without a role."""
    taken = {roles.id, roles.time, roles.target, *roles.labels, *roles.features}
    return [
        n for n in table.names if n not in taken and not isinstance(table[n], (Nested, Unusable))
    ]


def _keys(table: Table, name: str) -> Factor:
    """`Column.factor`; without values, if the column cannot be a key."""
    try:
        return table[name].factor()
    except ValueError:
        return np.full(len(table), -1), np.zeros(0)


def check_times(
    times: np.ndarray,
    offsets: np.ndarray,
    place: Callable[[int], str],
    roles: Roles,
    find_id: Callable[[], str | None] = lambda: None,
) -> None:
    """Within each sequence the times increase.

    Args:
        place: gives the place of a row, in words.
        roles: whether a time may be there twice: several at one step become one; and whether a
            column distinguishes sequences: else all rows of a long table are one.
        find_id: gives `likely_id`.

    Raises:
        OpenQuestion: they do not; the message names the row.
    """
    sequences = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    may_repeat = roles.repeated != "error" or roles.every is not None
    later = (times[1:] >= times[:-1]) if may_repeat else times[1:] > times[:-1]
    later[offsets[1:-1] - 1] = True  # from one sequence to the next
    if later.all():
        return
    row = int(np.argmin(later)) + 1
    came, before = (_shown(times[i]) for i in (row, row - 1))
    apart = roles.id is not None or roles.shape == "nested"
    n = 0 if may_repeat else _n_repeated(times, sequences)
    inside = np.ones(len(later), bool)
    inside[offsets[1:-1] - 1] = False
    falls = (times[1:] < times[:-1])[inside]
    one = "" if apart else ", and all rows are one sequence"
    column = find_id()
    if column is not None:
        raise OpenQuestion(
            f"{place(row)}: the time {came} follows {before}{one}; wanted the column of sequences "
            f"as id (--id {shlex.quote(column)})",
            id=column,
        )
    named = "" if apart else "the name of the column of sequences as id (--id), or "
    if not falls.any():
        what = "in one sequence" if apart else "where all rows are one"
        raise OpenQuestion(
            f"{place(row)}: the time {came} comes twice {what}, as {n:,} rows of {len(times):,} "
            f"do; wanted {named}each once: repeated='last' or 'mean' (--repeated last)",
            repeated="last",
        )
    answer: dict[str, Any] = {"sort": True}
    how = "sort=True (--sort)"
    if n:
        answer["repeated"] = "last"
        rows = "a row repeats" if n == 1 else f"{n:,} rows repeat"
        how = f"sort=True, and as {rows} a time repeated='last' or 'mean' (--sort --repeated last)"
    if len(falls) > 1 and falls.all():
        raise OpenQuestion(
            f"{place(row)}: the time {came} follows {before}: all rows run backwards in time, the "
            f"newest first; wanted the oldest first, or {how}",
            **answer,
        )
    raise OpenQuestion(
        f"{place(row)}: the time {came} follows {before}{one}; wanted {named}times that increase "
        f"within a sequence, or {how}",
        **answer,
    )


def _n_repeated(times: np.ndarray, sequences: np.ndarray) -> int:
    """The rows whose time another row of their sequence has before them, in any order."""
    order = np.lexsort((times, sequences))
    same = times[order][1:] == times[order][:-1]
    return int((same & (np.diff(sequences[order]) == 0)).sum())


def _shown(time: Any) -> str:
    """A time without zeros at its end."""
    return re.sub(r"\.?0+$", "", str(time)) if "." in str(time) else str(time)
