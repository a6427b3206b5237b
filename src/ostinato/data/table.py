"""`Table`: named columns of equal length, each giving numbers, names or times, as its role asks.

The same values give the same arrays from every format. A column of a CSV file is text, and what
it means is decided where it is used: "7" is the number 7.0 as a feature, the integer 7 as a label,
and "007" is a name of its own.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

# How text says that a number is missing. A word is missing only if it is empty: "NA" is a name.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None", "?", ".", "-")
MAX_NAME = 256  # characters of a label or an id: more is a text that came into the wrong column
# A number as text: without zeros before it, so that "007" is a name.
_NUMBER = r"^[+-]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
_SHOWN = 20  # columns that a message lists

_DATES = ("date", "utc")  # without and with a distance to UTC

Place = Callable[[int], str]  # row → where it stands, in words
Factor = tuple[np.ndarray, np.ndarray]  # (codes [N] int64, −1 if missing; values, each once)


@dataclass(frozen=True)
class Table:
    """Columns of N rows.

    Attributes:
        source: the file's name, for messages.
        unit: what a row is in the file: "line" or "row".
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
        """Of the columns."""
        return tuple(self.columns)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def place(self, row: int) -> str:
        """A row in words."""
        return f"{self.source}, {self.unit} {self.lines[row]}"

    def head(self, n: int) -> Table:
        """The first n rows."""
        columns = {name: column.head(n) for name, column in self.columns.items()}
        return replace(self, lines=self.lines[:n], columns=columns)

    def exact(self, name: str, role: str) -> str:
        """The name of a column as the table has it.

        Raises:
            ValueError: there is no such column; the columns there are, and the nearest name.
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
            f"{self.source}: there is no column {wanted!r} (asked for as {role}); the columns are "
            f"{shown}{hint}"
        )


class Column:
    """One column.

    Attributes:
        name: of the column.
        place: says where the value of a row stands, in words.
    """

    def __init__(self, name: str, place: Place):
        self.name = name
        self.place = place

    def head(self, n: int) -> Column:
        """The first n rows."""
        raise NotImplementedError

    def is_numbers(self) -> bool:
        """Whether `numbers` will succeed."""
        raise NotImplementedError

    def numbers(self) -> np.ndarray:
        """`[N]` float64, finite or NaN where a value is missing.

        Raises:
            ValueError: a value is no number, or infinite.
        """
        raise NotImplementedError

    def factor(self) -> Factor:
        """The values each once, in the order in which they first come, and the place of each row's.

        Integers are int64, also if they are written 1.0; other numbers float64; true and false
        bool; anything else an object array of strings.

        Raises:
            ValueError: a value is no name: a list, bytes, or longer than `MAX_NAME`.
        """
        raise NotImplementedError

    def times(self) -> np.ndarray:
        """`[N]` datetime64[ns] in UTC, or the numbers in float64; none may be missing.

        Raises:
            ValueError: a value is missing, or neither a number nor a date in ISO 8601.
        """
        raise NotImplementedError

    def texts(self) -> list[str]:
        """The strings, without blanks at their ends.

        Raises:
            ValueError: the column holds no text, or a text is missing.
        """
        raise ValueError(f"{self.place(0)}: the column holds no text; wanted one in each row")

    def labels(self) -> np.ndarray:
        """`[N]`: the values of `factor`, strings as fixed-width NumPy strings.

        Raises:
            ValueError: one is missing.
        """
        codes, values = self.factor()
        if (codes < 0).any():
            raise ValueError(
                f"{self.place(int(np.argmax(codes < 0)))}: the value is missing; wanted one in "
                "each row"
            )
        return as_strings(values)[codes]


class Text(Column):
    """A column of strings.

    Args:
        values: pyarrow's strings.
        untyped: whether they may stand for numbers, as those of CSV do.
    """

    def __init__(self, name: str, place: Place, values: pa.ChunkedArray, untyped: bool):
        super().__init__(name, place)
        self._values = values
        self._untyped = untyped
        self._parsed: np.ndarray | None = None

    def head(self, n: int) -> Text:
        return Text(self.name, self.place, self._values.slice(0, n), self._untyped)

    def is_numbers(self) -> bool:
        return self._untyped and self._parse() is not None

    def numbers(self) -> np.ndarray:
        parsed = self._parse() if self._untyped else None
        if parsed is None:
            raise self._no_number()
        return _finite(parsed, self)

    def share_of_numbers(self) -> float:
        """How many of the values that are there are numbers, 0 to 1."""
        import pyarrow.compute as pc

        present = pc.drop_null(self._present())
        if not self._untyped or len(present) == 0:
            return 0.0
        return float(pc.mean(pc.match_substring_regex(present, _NUMBER)).as_py())

    def factor(self) -> Factor:
        import pyarrow.compute as pc

        trimmed = pc.utf8_trim_whitespace(self._values)
        encoded = pc.if_else(pc.equal(trimmed, ""), None, trimmed).combine_chunks()
        encoded = encoded.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        longest = pc.max(pc.utf8_length(encoded.dictionary)).as_py() or 0
        if longest > MAX_NAME:
            lengths = pc.utf8_length(encoded.dictionary).to_numpy(zero_copy_only=False)
            row = int(np.argmax(codes == int(np.argmax(lengths))))
            raise ValueError(
                f"{self.place(row)}: a text of {longest:,} characters; wanted a name of at most "
                f"{MAX_NAME}"
            )
        values = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
        if not self._untyped or not len(values):
            return codes, values
        return _merged(codes, _typed(values))

    def texts(self) -> list[str]:
        texts = [(text or "").strip() for text in self._values.to_pylist()]
        if "" in texts:
            raise ValueError(f"{self.place(texts.index(''))}: the text is missing; wanted one")
        return texts

    def times(self) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.is_numbers():
            return _no_missing(self.numbers(), self)
        texts = pc.utf8_trim_whitespace(self._values)
        for spelled in (lambda: texts, lambda: _as_iso(texts)):
            for kind in _DATES:
                try:
                    return _no_missing(_datetimes(pc.cast(spelled(), _type(kind))), self)
                except pa.ArrowInvalid:
                    continue
        raise self._no_time(_as_iso(texts))

    def _present(self) -> pa.ChunkedArray:
        """Without blanks around; null where a number is missing."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pc.utf8_trim_whitespace(self._values)
        missing = pc.is_in(texts, value_set=pa.array(MISSING, self._values.type))
        return pc.if_else(missing, pa.scalar(None, self._values.type), texts)

    def _parse(self) -> np.ndarray | None:
        """The texts as float64, NaN where missing; None if one is no number."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._parsed is not None:
            return self._parsed
        for texts in (lambda: self._values, self._present, self._true_false, self._unsigned):
            try:
                parsed = pc.cast(texts(), pa.float64())
            except pa.ArrowInvalid:
                continue
            self._parsed = parsed.to_numpy().astype(np.float64)
            return self._parsed
        return None

    def _true_false(self) -> pa.ChunkedArray:
        """true and false as 1 and 0; an error if there is anything else."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = self._present()
        truth = pc.is_in(texts, value_set=pa.array(["true", "True", "TRUE"], texts.type))
        falsehood = pc.is_in(texts, value_set=pa.array(["false", "False", "FALSE"], texts.type))
        if not pc.all(pc.or_(pc.or_(truth, falsehood), pc.is_null(texts))).as_py():
            raise pa.ArrowInvalid("no truth values")
        return pc.if_else(pc.is_null(texts), None, pc.cast(truth, pa.int8()))

    def _unsigned(self) -> pa.ChunkedArray:
        """Without a plus before the number, which pyarrow does not read."""
        import pyarrow.compute as pc

        return pc.replace_substring_regex(self._present(), r"^\+([0-9.])", r"\1")

    def _no_number(self) -> ValueError:
        import pyarrow.compute as pc

        if not self._untyped:
            row = max(pc.index(pc.is_valid(self._values), True).as_py(), 0)
            text = self._values[row].as_py()
            return ValueError(f"{self.place(row)}: {shortened(text)} is a text; wanted a number")
        texts = self._unsigned()
        doubtful = pc.fill_null(pc.invert(pc.match_substring_regex(texts, _NUMBER)), False)
        rows = np.flatnonzero(doubtful.to_numpy())
        row = next(int(i) for i in rows if not _casts(texts[int(i)], "float64"))
        text = texts[row].as_py()
        hint = ""
        if text.replace(",", "", 1).lstrip("+-").isdecimal():
            hint = " with a point, not a comma, before its decimals"
        return ValueError(f"{self.place(row)}: {shortened(text)} is no number; wanted one{hint}")

    def _no_time(self, texts: pa.ChunkedArray) -> ValueError:
        """The error for the first text that is no date, or none of the kind of the first one."""
        kind = next((kind for kind in _DATES if _casts(texts[0], kind)), _DATES[0])
        row = next(i for i in range(len(texts)) if not _casts(texts[i], kind))
        text = texts[row].as_py()
        if not text:
            return ValueError(f"{self.place(row)}: the time is missing; wanted one in each row")
        also = "" if row == 0 else f", like {texts[0].as_py()!r} in the first row"
        return ValueError(
            f"{self.place(row)}: {shortened(text)} is no time; wanted a number, or a date such as "
            f"2024-01-31 or 2024-01-31 23:59:00{also}"
        )


class Typed(Column):
    """A column of numbers, truth values or dates.

    Args:
        values: `[N]` float64 (NaN if missing), int64, bool or datetime64[ns] (NaT if missing).
    """

    def __init__(self, name: str, place: Place, values: np.ndarray):
        super().__init__(name, place)
        self._values = values

    def head(self, n: int) -> Typed:
        return Typed(self.name, self.place, self._values[:n])

    def is_numbers(self) -> bool:
        return self._values.dtype.kind != "M"

    def numbers(self) -> np.ndarray:
        if not self.is_numbers():
            raise ValueError(
                f"{self.place(0)}: {self._values[0]} is a date; wanted a number; name the column "
                "as the time"
            )
        return _finite(self._values.astype(np.float64), self)

    def factor(self) -> Factor:
        values = self._values
        kind = values.dtype.kind
        missing = np.isnat(values) if kind == "M" else np.isnan(values) if kind == "f" else None
        if kind == "M":
            values = values.astype(str).astype(object)
        codes, once = _factor(values if missing is None else values[~missing])
        if missing is not None:
            spread = np.full(len(values), -1, np.int64)
            spread[~missing] = codes
            codes = spread
        return codes, _integral(once)

    def times(self) -> np.ndarray:
        values = self._values
        return _no_missing(values if values.dtype.kind == "M" else self.numbers(), self)


class Nested(Column):
    """A column whose rows are lists.

    Attributes:
        inner: the values of all lists, end to end.
        offsets: `[N + 1]`, where each list begins.
    """

    def __init__(self, name: str, place: Place, inner: Column, offsets: np.ndarray):
        super().__init__(name, place)
        self.inner = inner
        self.offsets = offsets

    def head(self, n: int) -> Nested:
        inner = self.inner.head(int(self.offsets[n]))
        return Nested(self.name, self.place, inner, self.offsets[: n + 1])

    def is_numbers(self) -> bool:
        return False

    def numbers(self) -> np.ndarray:
        raise self._is_list()

    def factor(self) -> Factor:
        raise self._is_list()

    def times(self) -> np.ndarray:
        raise self._is_list()

    def _is_list(self) -> ValueError:
        return ValueError(f"{self.place(0)}: a list; wanted a single value in each row")


class Unusable(Column):
    """A column of something that no role takes; it does no harm as long as none asks for it."""

    def __init__(self, name: str, place: Place, problem: Callable[[], str]):
        super().__init__(name, place)
        self._problem = problem

    def head(self, n: int) -> Unusable:
        return self

    def is_numbers(self) -> bool:
        return False

    def numbers(self) -> np.ndarray:
        raise ValueError(self._problem())

    def factor(self) -> Factor:
        raise ValueError(self._problem())

    def times(self) -> np.ndarray:
        raise ValueError(self._problem())


def unnamed(columns: Mapping[str, Column], source: str) -> Mapping[str, Column]:
    """The columns that have a name; one without is left out, and that is said."""
    if "" in columns:
        _log.warning(
            "%s: left out the column without a name (row numbers, as some programs write them?)",
            source,
        )
    return {name: column for name, column in columns.items() if name}


def place_of(row: Place, name: str) -> Place:
    """The places of a column's values, from those of its rows."""
    return lambda i: f"{row(i)}, column {name!r}"


def as_strings(values: np.ndarray) -> np.ndarray:
    """Objects that are strings as NumPy's strings; anything else as it is."""
    return values.astype(str) if values.dtype == object else values


def shortened(text: object) -> str:
    """A value for a message."""
    shown = str(text)
    return repr(shown if len(shown) <= 40 else shown[:39] + "…")


def _finite(values: np.ndarray, column: Column) -> np.ndarray:
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise ValueError(
            f"{column.place(row)}: the value is infinite, or too large for float64; wanted a "
            "finite number"
        )
    return values


def _no_missing(values: np.ndarray, column: Column) -> np.ndarray:
    missing = np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(f"{column.place(row)}: the time is missing; wanted one in each row")
    return values


def _type(name: str) -> pa.DataType:
    """A type of pyarrow's; "utc" is a date with its distance to UTC."""
    import pyarrow as pa

    kinds = {"float64": pa.float64(), "date": pa.timestamp("ns"), "utc": pa.timestamp("ns", "UTC")}
    return kinds[name]


def _casts(text: Any, kind: str) -> bool:
    """Whether pyarrow reads a single text as a value of this type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.cast(text, _type(kind))
    except pa.ArrowInvalid:
        return False
    return text.is_valid


def _as_iso(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates that can be read in one way only, as ISO 8601 spells them: 2024/01/31, … UTC."""
    import pyarrow.compute as pc

    texts = pc.replace_substring_regex(texts, r"^(\d{4})/(\d{2})/(\d{2})", r"\1-\2-\3")
    texts = pc.replace_substring_regex(texts, r" ?(UTC|GMT)$", "Z")
    return pc.replace_substring_regex(texts, r"(:\d{2}(\.\d+)?) ([+-]\d{2}:?\d{2})$", r"\1\3")


def _datetimes(values: pa.ChunkedArray) -> np.ndarray:
    return values.to_numpy().astype("datetime64[ns]")


def _factor(values: np.ndarray) -> Factor:
    """`Column.factor` of an array in which nothing is missing."""
    once, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)], once[order]


def _merged(codes: np.ndarray, values: np.ndarray) -> Factor:
    """Codes of values among which some are equal ("1" and "1.0")."""
    ranks, once = _factor(values)
    return np.where(codes < 0, -1, ranks[codes]), once


def _typed(texts: np.ndarray) -> np.ndarray:
    """Names written as text: integers, numbers, truth values if all of them are such."""
    if {text.lower() for text in texts} <= {"true", "false"}:
        return np.array([text.lower() == "true" for text in texts])
    if not _all_numbers(texts):
        return texts
    try:
        return np.array([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):  # with decimals, or more digits than int64 has
        return _integral(np.array([float(text) for text in texts]))


def _all_numbers(texts: Iterable[str]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(pa.array(texts), _NUMBER)).as_py())


def _integral(values: np.ndarray) -> np.ndarray:
    """Floats that are all integers as int64."""
    if values.dtype.kind != "f" or not len(values):
        return values
    whole = (values == np.round(values)) & (np.abs(values) < 2.0**53)
    return values.astype(np.int64) if whole.all() else values
