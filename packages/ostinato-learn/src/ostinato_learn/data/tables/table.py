"""`Table`: named columns of equal length."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ostinato_learn.data.tables.column import Column, Nested, Typed, Unusable
from ostinato_learn.data.tables.text_column import Text

__all__ = ["Column", "Nested", "Table", "Text", "Typed", "Unusable", "unnamed"]

_log = logging.getLogger(__name__)

_SHOWN = 20  # columns that a message lists


@dataclass(frozen=True)
class Table:
    """Columns of N rows.

    Attributes:
        source: the file's name, for messages.
        unit: the noun for a row in the file: "line" or "row".
        lines: the number of each row there, `[N]`, from 1.
        columns: by name, in the order of the file.
    """

    source: str
    unit: str
    lines: np.ndarray
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.columns)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def place(self, row: int) -> str:
        """The place of a row, for messages: the file and the line."""
        return f"{self.source}, {self.unit} {self.lines[row]}"

    def head(self, n: int) -> Table:
        """The first n rows."""
        columns = {name: column.head(n) for name, column in self.columns.items()}
        return replace(self, lines=self.lines[:n], columns=columns)

    def exact(self, name: str, role: str) -> str:
        """The name of a column as the table has it.

        Raises:
            ValueError: there is no such column; the message has the columns and the nearest name.
        """
        wanted = name.strip().strip("\ufeff")
        if wanted in self.columns:
            return wanted
        shown = ", ".join(map(repr, self.names[:_SHOWN]))
        if len(self.names) > _SHOWN:
            shown += f", … ({len(self.names)} columns)"
        near = {n.casefold(): n for n in self.names}
        found = difflib.get_close_matches(wanted.casefold(), near, n=1)
        hint = f"; did you mean {near[found[0]]!r}?" if found else ""
        raise ValueError(
            f"{self.source}: there is no column {wanted!r} (given as {role}); the columns are "
            f"{shown}{hint}"
        )


def unnamed(columns: Mapping[str, Column], source: str) -> Mapping[str, Column]:
    """The columns that have a name; one without is left out, and that is said."""
    if "" in columns:
        _log.warning(
            "%s: left out the column without a name (row numbers, as some programs write them?)",
            source,
        )
    return {name: column for name, column in columns.items() if name}
