"""The order of the rows of a long table: those of a sequence together, in the order of time."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ostinato_learn.data.tables.column import Nested, Unusable, as_strings
from ostinato_learn.data.tables.roles import Roles
from ostinato_learn.data.tables.table import Table


def rows_in_order(table: Table, roles: Roles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the rows of a table by sequence and time.

    Returns:
        Row numbers, sorted; for each of them the index of its sequence; the ids of the sequences.

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
    if not roles.sort:
        _check_together(codes, table, roles)
        return rows, codes, ids
    if roles.id:
        ids, ranks = np.unique(ids, return_inverse=True)
        codes = ranks.reshape(-1)[codes]
    times = table[roles.time].times(roles.time_format) if roles.time else rows
    rows = np.lexsort((times, codes))
    return rows, codes[rows], ids


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
    raise ValueError(f"{came}); wanted the rows of a sequence together, or sort=True (--sort)")


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
    taken = {roles.id, roles.time, roles.target, *roles.labels, *roles.features}
    names = [
        n for n in table.names if n not in taken and not isinstance(table[n], (Nested, Unusable))
    ]
    for name in [roles.group, *names] if roles.group else names:
        try:
            values = table[name].factor()[0]
        except ValueError:  # not usable as a key
            continue
        if values[row] != values[before] and not (np.diff(values)[~changes] != 0).any():
            return name
    return None


def check_times(
    times: np.ndarray, offsets: np.ndarray, place: Any, roles: Roles, apart: bool = True
) -> None:
    """Within each sequence the times increase.

    Args:
        roles: whether a time may be there twice: several at one step become one.
        apart: whether a column distinguishes sequences; else all rows are one.

    Raises:
        ValueError: they do not; the message names the row.
    """
    may_repeat = roles.repeated != "error" or roles.every is not None
    later = (times[1:] >= times[:-1]) if may_repeat else times[1:] > times[:-1]
    later[offsets[1:-1] - 1] = True  # from one sequence to the next
    if later.all():
        return
    row = int(np.argmin(later)) + 1
    came, before = (_shown(times[i]) for i in (row, row - 1))
    n = 0 if may_repeat else _n_repeated(times, offsets)
    once = f"; {n:,} rows repeat a time: repeated='last' or 'mean' (--repeated)" if n else ""
    inside = np.ones(len(later), bool)
    inside[offsets[1:-1] - 1] = False
    if inside.sum() > 1 and (times[1:] < times[:-1])[inside].all():
        raise ValueError(
            f"{place(row)}: the time {came} follows {before}: all rows run backwards in time, the "
            f"newest first; wanted the oldest first, or sort=True (--sort){once}"
        )
    falls = (times[1:] < times[:-1])[inside].any()
    if not falls:
        what = "in one sequence" if apart else "where all rows are one sequence"
        named = "" if apart else "the name of the column of sequences as id (--id), or "
        raise ValueError(
            f"{place(row)}: the time {came} comes twice {what}, as {n:,} rows of {len(times):,} "
            f"do; wanted {named}each once: repeated='last' or 'mean' (--repeated)"
        )
    if not apart:
        raise ValueError(
            f"{place(row)}: the time {came} follows {before}, and all rows are one sequence; "
            "wanted the name of the column of sequences as id (--id), or times "
            f"that increase: sort=True (--sort){once}"
        )
    raise ValueError(
        f"{place(row)}: the time {came} follows {before}; wanted times that "
        f"increase within a sequence, or sort=True (--sort){once}"
    )


def _n_repeated(times: np.ndarray, offsets: np.ndarray) -> int:
    """The rows whose time another row of their sequence has before them, in any order."""
    sequence = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((times, sequence))
    same = times[order][1:] == times[order][:-1]
    return int((same & (np.diff(sequence[order]) == 0)).sum())


def _shown(time: Any) -> str:
    """A time without zeros at its end."""
    return re.sub(r"\.?0+$", "", str(time)) if "." in str(time) else str(time)
