"""The columns of a stream's rows: the key and the features of the model.

They are found once, from the names in the first line, from given names, or, if the model was
trained on arrays, by their order.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ostinato_learn.cli.streams.source import InputFormat
from ostinato_learn.data.formats.dialect import MISSING
from ostinato_learn.data.formats.numbers import is_number
from ostinato_learn.data.tables.names import named_twice
from ostinato_learn.files import parse_json
from ostinato_learn.jobs.failures import BadInput


@dataclass(frozen=True)
class StreamColumns:
    """The places of the key and the features in a row.

    Attributes:
        names: the names of all columns; empty if rows are arrays without names.
        key: the name of the key's column, or None.
        features: the places of the features among the columns, in the order of the model.
    """

    names: tuple[str, ...]
    key: str | None
    features: tuple[int, ...]

    @property
    def key_at(self) -> int | None:
        return None if self.key is None else self.names.index(self.key)

    @staticmethod
    def named(
        names: Sequence[str], key: str | None, features: Sequence[str] | None, n: int
    ) -> StreamColumns:
        """The columns of a header, or of given names.

        Args:
            names: the names of the columns.
            features: the model's names of its features; None: it knows only their order, and every
                column but the key is a feature.
            n: the number of its features.

        Raises:
            BadInput: a column is missing, or named twice.
        """
        twice, at = named_twice(names), {name: i for i, name in enumerate(names)}
        if twice:
            raise BadInput(f"the columns {', '.join(twice)} are named twice")
        wanted = list(features) if features is not None else [c for c in names if c != key]
        missing = [c for c in [*([key] if key is not None else []), *wanted] if c not in at]
        if missing:
            raise BadInput(
                f"there is no column {', '.join(map(repr, missing))}; the columns are "
                f"{', '.join(names)} (name them with --columns if the first line does not"
                f"{_hint(names)})"
            )
        if len(wanted) != n:
            raise BadInput(f"there are {len(wanted)} features in a row; the model reads {n}")
        return StreamColumns(tuple(names), key, tuple([at[c] for c in wanted]))


def _hint(names: Sequence[str]) -> str:
    """A hint at another separator, if the first line is one column."""
    other = next((each for each in ";\t|" if len(names) == 1 and each in names[0]), None)
    return f"; name what is between them with --separator {other!r}" if other else ""


def begins_with_header(fields: Sequence[str]) -> bool:
    """Whether a first line names columns: none of its fields is a number, or missing."""
    return not any(is_number(field) or field in MISSING for field in fields)


def columns_of(names: Sequence[str], source: InputFormat, model: Any) -> StreamColumns:
    """The columns of rows with these names; without names, all columns of arrays in order.

    Raises:
        BadInput: see `StreamColumns.named`.
    """
    if names:
        return StreamColumns.named(names, source.key, model.columns, model.n_features)
    if source.key is not None:
        raise BadInput("the rows are arrays, which have no column for --key")
    return StreamColumns((), None, tuple(range(model.n_features)))


def columns_in(first: str, source: InputFormat, model: Any) -> tuple[StreamColumns, bool]:
    """The columns by the first line of CSV; and whether it names them.

    Raises:
        BadInput: there are no names, neither there nor given; or see `StreamColumns.named`.
    """
    fields = next(csv.reader([first], delimiter=source.dialect.between(".csv")))
    fields = [field.strip() for field in fields]
    if source.names is not None:
        return columns_of(source.names, source, model), fields == source.names
    known = model.columns
    if begins_with_header(fields) or (known and set(known) <= set(fields)):
        return columns_of(fields, source, model), True
    if source.key is not None or known is not None:
        raise BadInput(
            f"{source.shown}: the first line names no columns ({first[:60]}); name them with "
            "--columns"
        )
    return columns_of([str(i + 1) for i in range(len(fields))], source, model), False


def columns_of_object(first: str, source: InputFormat, model: Any) -> StreamColumns:
    """The columns from the first line of JSON: those of the model, or those of the line.

    Raises:
        BadInput: it is not JSON; or see `columns_of`.
    """
    try:
        row = json_row(first)
    except ValueError as problem:
        raise BadInput(f"{source.shown}, the first line: {problem}") from None
    names = source.names
    if names is None:
        known = model.columns
        key = [] if source.key is None else [source.key]
        there = list(row) if isinstance(row, dict) else []
        names = [*key, *known] if there and known is not None else there
    return columns_of(names, source, model)


def json_row(line: str) -> Any:
    """The value of a line; what lies within objects is named as in files, "site.name".

    Raises:
        ValueError: it is not JSON.
    """
    row = parse_json(line)
    if isinstance(row, dict) and any(isinstance(value, dict) for value in row.values()):
        from ostinato_learn.data.formats.json_lines import flat

        return flat(row, "the line")
    return row
