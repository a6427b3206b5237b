"""Rows of a stream: bytes as they come → whole lines → keys and features.

    Lines       cuts bytes into whole lines, and counts lines and bytes
    Csv, Json   parse lines, many at once; an invalid line is refused with a reason

A line is a row: a quoted field cannot continue in the next line.
"""

from __future__ import annotations

import csv
import json
import operator
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ostinato_learn.cli.streams.columns import StreamColumns, json_row
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.formats.numbers import number, only_python_reads
from ostinato_learn.data.tables.names import UNKNOWN, Names, as_name
from ostinato_learn.jobs.failures import BadInput

BOM = "\ufeff"
MAX_LINE = 1 << 20  # bytes; a longer line is not a row of features

Keys = Sequence[Any] | None


class Lines:
    """Whole lines of an input that comes in pieces.

    Attributes:
        position: bytes of the lines that `done` was called for, from the beginning of the input.
        number: the number of the next line, from 1.
    """

    def __init__(self, position: int = 0, number: int = 1):
        self.position, self.number = position, number
        self._rest = b""

    def add(self, piece: bytes) -> list[bytes]:
        """The lines that are complete now, with their ends."""
        whole, newline, rest = (self._rest + piece).rpartition(b"\n")
        self._rest = rest
        if len(rest) > MAX_LINE:
            raise BadInput(f"line {self.number} is longer than {MAX_LINE} bytes; wanted a row")
        return whole.split(b"\n") if newline else []

    def rest(self) -> bytes:
        """The last line, which has no end."""
        return self._rest

    def done(self, lines: Sequence[bytes], ended: bool = True) -> None:
        """Count these lines as answered."""
        self.position += sum(map(len, lines)) + (len(lines) if ended else 0)
        self.number += len(lines)


def decoded(lines: Sequence[bytes], encoding: str) -> list[str]:
    """Lines without their ends and a byte order mark."""
    try:
        text = b"\n".join(lines).decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"it is not text in {encoding.upper()}") from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").removesuffix("\r")
    if text.startswith(BOM):
        text = text[1:]
    return text.split("\n")


class RowParser:
    """Parses lines.

    Args:
        columns: the columns of a row.
        allow_missing: whether the model accepts missing values.
        names: of each feature, None where it is a number; () if all are.
        reads_words: whether the only feature is a word of a vocabulary.

    Attributes:
        n_unknown: the number of names unknown from the training, by feature.
    """

    def __init__(
        self,
        columns: StreamColumns,
        allow_missing: bool = False,
        names: Sequence[Names | None] = (),
        reads_words: bool = False,
    ):
        self.reads_words = reads_words
        self.columns, self.allow_missing = columns, allow_missing
        self.names = list(names) or [None] * len(columns.features)
        self.n_unknown: Counter[str] = Counter()

    def parse(self, lines: Sequence[str]) -> tuple[Keys, Any]:
        """Keys `[n]`, or None, and features `[n, F]` float32, or words `[n]`.

        Raises:
            ValueError: a line is invalid; for a single line the message says how.
        """
        raise NotImplementedError

    def _checked(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        wrong = np.isinf(single) if self.allow_missing else ~np.isfinite(single)
        if wrong.any():
            _, place = np.argwhere(wrong)[0]
            name = self._name(int(place))
            wanted = "a finite number" if self.names[int(place)] is None else "a name"
            raise ValueError(f"{name} is missing or infinite; wanted {wanted}")
        for i, known in enumerate(self.names):
            if known is not None:
                self.n_unknown[known.feature] += int((single[:, i] == UNKNOWN).sum())
        return single

    def _words(self, texts: Sequence[str]) -> list[str]:
        words = [as_name(text.strip()) for text in texts]
        if "" in words:
            raise ValueError(f"{self._name(0)} is missing; wanted a word")
        return words

    def _name(self, feature: int) -> str:
        place = self.columns.features[feature]
        return self.columns.names[place] if self.columns.names else f"value {place + 1}"


class Csv(RowParser):
    """Fields between separators.

    Args:
        columns, allow_missing, names, reads_words: see `RowParser`.
        dialect: how fields are written.
    """

    def __init__(
        self,
        columns: StreamColumns,
        allow_missing: bool,
        names: Sequence[Names | None],
        reads_words: bool,
        dialect: Dialect,
    ):
        super().__init__(columns, allow_missing, names, reads_words)
        self._dialect = dialect
        self.separator = dialect.between(".csv")
        self.width = len(columns.names)
        every = [i for i in range(self.width) if i != columns.key_at]
        # Then all fields are read as one list of numbers.
        self._in_order = list(columns.features) == every and not any(self.names)

    def parse(self, lines: Sequence[str]) -> tuple[Keys, Any]:
        """Fields of all lines in one list, of which columns are every `width`-th entry."""
        fields = self._fields(lines)
        key_at = self.columns.key_at
        keys = None
        if key_at is not None:
            keys = fields[key_at :: self.width]
        if self.reads_words:
            return keys, self._words(fields[self.columns.features[0] :: self.width])
        if self._in_order:
            if key_at is not None:
                del fields[key_at :: self.width]
            values = self._numbers(fields).reshape(len(lines), -1)
        else:
            taken = [
                self._numbers(fields[i :: self.width])
                if names is None
                else np.array([names.place(self._there(f)) for f in fields[i :: self.width]])
                for i, names in zip(self.columns.features, self.names, strict=True)
            ]
            values = np.stack(taken, axis=1)
        return keys, self._checked(values)

    def _fields(self, lines: Sequence[str]) -> list[str]:
        separator, apart = self.separator, self.width - 1
        text = separator.join(lines)
        if '"' in text:
            rows = list(csv.reader(lines, delimiter=separator, strict=True))
            counts = set(map(len, rows))
            fields = [field for row in rows for field in row]
        else:
            counts = {n + 1 for n in map(operator.methodcaller("count", separator), lines)}
            fields = text.split(separator)
        if counts != {apart + 1}:
            raise ValueError(f"there are {max(counts - {self.width})} fields; wanted {self.width}")
        return fields

    def _numbers(self, fields: list[str]) -> np.ndarray:
        if self._dialect.decimal == "." and not only_python_reads("".join(fields)):
            with suppress(ValueError):
                return np.array(list(map(float, fields)))
        return np.array([number(field, self._dialect) for field in fields])

    def _there(self, field: str) -> str:
        """A field of names; "" for a field that means a missing value."""
        return "" if field.strip() in self._dialect.na else field


class Json(RowParser):
    """Objects, features and key by name; or arrays of features, in order, without a key."""

    def parse(self, lines: Sequence[str]) -> tuple[Keys, Any]:
        keys: list[Any] = []
        values: list[Any] = []
        key, names = self.columns.key, self.columns.names
        for line in lines:
            row = _json(line)
            if isinstance(row, dict) and names:
                at = [names[i] for i in self.columns.features]
                values.append(self._values(row, at))
                if key is not None:
                    keys.append(_json_key(row, key))
            elif isinstance(row, list) and key is None:
                if len(row) != len(self.columns.features):
                    raise ValueError(
                        f"there are {len(row)} values; wanted {len(self.columns.features)}"
                    )
                values.append(self._values(row, range(len(row))))
            else:
                raise ValueError("it is not a JSON object with the names of the columns")
        of_all = self._words(values) if self.reads_words else self._checked(np.array(values))
        return (None if key is None else keys), of_all

    def _values(self, row: Any, at: Sequence[Any]) -> Any:
        """The values at these places of a row; for a model of words the text at the first."""
        if self.reads_words:
            return _json_text(row, at[0])
        return [_json_value(row, *of) for of in zip(at, self.names, strict=True)]


def _json(line: str) -> Any:
    try:
        return json_row(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None


def _json_at(row: Any, name: Any) -> Any:
    try:
        return row[name]
    except KeyError:
        raise ValueError(f"{name!r} is missing") from None


def _json_text(row: Any, name: Any) -> str:
    value = _json_at(row, name)
    if isinstance(value, (list, dict)):
        raise ValueError(f"{name!r} is {str(value)[:40]!r}; wanted a name")
    return "" if value is None or value != value else str(value)


def _json_value(row: Any, name: Any, known: Names | None) -> float:
    if known is not None:
        return known.place(_json_text(row, name))
    value = _json_at(row, name)
    if value is None or value != value:
        return float("nan")
    if not isinstance(value, (int, float)):  # true and false are numbers, as in a training
        raise ValueError(f"{name!r} is {str(value)[:40]!r}; wanted a number")
    return float(value) if abs(value) < 1e300 else float("inf")


def _json_key(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None or isinstance(value, (list, dict)):
        raise ValueError(f"{name!r} is missing, or neither a text nor a number")
    return value if isinstance(value, str) else json.dumps(value)
