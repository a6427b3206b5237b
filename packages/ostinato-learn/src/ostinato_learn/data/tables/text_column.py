"""`Text`: a column of strings, which in a CSV file may mean anything.

Their use decides their meaning: "7" is the number 7.0 as a feature, the integer 7 as a label, and
"007" is a name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.formats import dates
from ostinato_learn.data.formats.dates import Order, TimeFormat
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.formats.numbers import parsed, plain, unsigned
from ostinato_learn.data.questions import OpenQuestion
from ostinato_learn.data.tables.column import (
    MAX_NAME,
    Column,
    Factor,
    Place,
    as_strings,
    finite,
    merged,
    named,
    no_missing,
    shortened,
    such,
)
from ostinato_learn.data.tables.names import spelled

if TYPE_CHECKING:
    import pyarrow as pa

# A number as text: without zeros before it, so that "007" is a name.
_NUMBER = r"^[+-]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?$"
# A text meant as a number, also with a decimal comma, which is refused.
_MEANT = r"^[+-]?[0-9]+([.,][0-9]*)?([eE][+-]?[0-9]+)?$"

_DIGITS = r"^[+-]?[.,]*[0-9][0-9.,]*$"  # a number in some dialect; read in linear time
_DATES = ("date", "utc")  # without and with a distance to UTC


class Text(Column):
    """A column of strings.

    Args:
        values: pyarrow's strings.
        untyped: whether they may mean numbers, as in CSV.
        dialect: how such numbers are written.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        values: pa.ChunkedArray,
        untyped: bool,
        dialect: Dialect | None = None,
    ):
        super().__init__(name, place)
        self._dialect = dialect or Dialect()
        self._values = values
        self._untyped = untyped
        self._parsed: np.ndarray | None = None

    def head(self, n: int) -> Text:
        return Text(self.name, self.place, self._values.slice(0, n), self._untyped, self._dialect)

    def is_numbers(self) -> bool:
        return self._untyped and self._parse() is not None

    def numbers(self) -> np.ndarray:
        values = self._parse() if self._untyped else None
        if values is None:
            raise self._no_number()
        return finite(values, self)

    def share_of_numbers(self) -> float:
        """How many of the values that are there are meant as numbers, 0 to 1."""
        import pyarrow.compute as pc

        present = pc.drop_null(plain(self._values, self._dialect))
        if not self._untyped or len(present) == 0:
            return 0.0
        return float(pc.mean(pc.match_substring_regex(present, _MEANT)).as_py())

    def factor(self) -> Factor:
        codes, values = self._texts()
        return merged(codes, _typed(values)) if self._untyped else (codes, values)

    def names(self) -> Factor:
        return named(*self._texts())

    def _texts(self) -> Factor:
        """`factor` of the texts as they are written, without blanks around them."""
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
        return codes, encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)

    def written(self) -> np.ndarray | None:
        if not self._untyped:
            return None
        return Text(self.name, self.place, self._values, untyped=False).labels()

    def trimmed(self) -> list[str]:
        """`texts`, of which some may be empty."""
        return [(text or "").strip() for text in self._values.to_pylist()]

    def texts(self) -> list[str]:
        texts = self.trimmed()
        if "" in texts:
            raise ValueError(
                f"{self.place(texts.index(''))}: the text is missing"
                f"{such(texts.count(''), len(texts))}; wanted one in each row: remove the rows "
                "without a text"
            )
        return texts

    def times(self, written: TimeFormat | None = None) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.is_numbers():
            return self._of_numbers(written)
        if written is not None and written != "day-first" and written != "month-first":
            text = self._values[0].as_py()
            raise ValueError(
                f"{self.place(0)}: {shortened(text)}; wanted numbers, {written} since 1970, as "
                "time_format (--time-format) says"
            )
        texts, order = self._trimmed(), written or self.time_format()
        iso = partial(dates.as_iso, texts, order)
        for written_as in (lambda: texts, iso):
            for kind in _DATES:
                try:
                    return no_missing(_datetimes(pc.cast(written_as(), _type(kind))), self)
                except pa.ArrowInvalid:
                    continue
        raise self._no_time(iso(), order)

    def time_format(self) -> Order | None:
        if self.is_numbers():
            return None
        try:
            return dates.order_of(self._trimmed())
        except dates.AmbiguousError as problem:
            text = self._values[problem.row].as_py()
            where = self.place(problem.row)
            message = f"{where}: the date {shortened(text)} {problem.why}"
            if problem.contradicts:
                raise ValueError(message) from None
            raise OpenQuestion(message, time_format="day-first") from None

    def _trimmed(self) -> pa.Array:
        import pyarrow.compute as pc

        return pc.utf8_trim_whitespace(self._values.combine_chunks())

    def _parse(self) -> np.ndarray | None:
        """The texts as float64, NaN where missing; None if one is not a number."""
        if self._parsed is None:
            self._parsed = parsed(self._values, self._dialect)
        return self._parsed

    def _no_number(self) -> ValueError:
        import pyarrow.compute as pc

        if not self._untyped:
            row = max(pc.index(pc.is_valid(self._values), True).as_py(), 0)
            text = self._values[row].as_py()
            return ValueError(f"{self.place(row)}: {shortened(text)} is text; wanted a number")
        texts = unsigned(plain(self._values, self._dialect))
        doubtful = pc.fill_null(pc.invert(pc.match_substring_regex(texts, _NUMBER)), False)
        rows = np.flatnonzero(doubtful.to_numpy())
        row = next(int(i) for i in rows if not _casts(texts[int(i)], "float64"))
        text = self._values[row].as_py()
        came = f"{self.place(row)}: {shortened(text)} is not a number"
        marker, decimal = text.strip(), self._dialect.decimal
        if re.match(_DIGITS, marker):
            return self._otherwise_written(came)
        if decimal == "," and re.search(r"\d", marker):
            came += "; wanted a comma before its decimals, and nothing before thousands"
        elif len(marker) <= 40 and self.share_of_numbers() >= 0.5:
            flag = f"--na {shlex.quote(marker)}"
            return OpenQuestion(
                f"{came}; if it means a missing value: na=({marker!r},) ({flag})", na=(marker,)
            )
        return ValueError(came)

    def _otherwise_written(self, came: str) -> ValueError:
        """The error for a number with points or commas that the dialect does not allow."""
        dialect = self._dialect
        came += f"; wanted a {'comma' if dialect.decimal == ',' else 'point'} before its decimals"
        if dialect.separator is None:  # no flag says how numbers are written
            return ValueError(came)
        thousands: dict[str, Any] = {"thousands": "." if dialect.decimal == "," else ","}
        decimal: dict[str, Any] = {"decimal": "." if dialect.decimal == "," else ","}
        both = decimal | {"thousands": dialect.decimal}
        several = [thousands, decimal, both]
        if dialect.separator != ",":  # in countries with a decimal comma something else separates
            several = [decimal, both, thousands]
        ways = [way for way in several if self._reads_with(way)]
        if not ways:
            return ValueError(f"{came}, and nothing before thousands")
        shown = [
            f"{', '.join(f'{name}={value!r}' for name, value in way.items())} "
            f"({' '.join(f'--{name} {value}' for name, value in way.items())})"
            for way in ways
        ]
        return OpenQuestion("; or say ".join([came, *shown]), **ways[0])

    def _reads_with(self, way: dict[str, Any]) -> bool:
        """Whether all values that consist of digits, points and commas are numbers then."""
        import pyarrow.compute as pc

        dialect = replace(self._dialect, **{"thousands": None, **way})
        texts = plain(self._values, dialect)
        meant = pc.match_substring_regex(pc.utf8_trim_whitespace(self._values), _DIGITS)
        reads = pc.match_substring_regex(texts, r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)$")
        return bool(pc.all(pc.or_kleene(reads, pc.invert(meant))).as_py())

    def _no_time(self, iso: pa.Array, order: Order | None) -> ValueError:
        """The error for the first text that is not a date, or not of the first one's kind.

        Among numbers it is the first that is not a number.

        Args:
            iso: the texts, dates rewritten.
            order: the order of day and month in dates with slashes.
        """
        import pyarrow.compute as pc

        if self.share_of_numbers() >= 0.5:
            meant = pc.match_substring_regex(pc.utf8_trim_whitespace(self._values), _MEANT)
            row = int(np.argmin(pc.fill_null(meant, False).to_numpy()))
            text = self._values[row].as_py()
            return ValueError(
                f"{self.place(row)}: {shortened(text)} is not a time; wanted a number, as in the "
                "other rows"
            )
        kind = next((kind for kind in _DATES if _casts(iso[0], kind)), _DATES[0])
        row = next(i for i in range(len(iso)) if not _casts(iso[i], kind))
        text = self._values[row].as_py()
        if not text or not text.strip():
            return ValueError(f"{self.place(row)}: the time is missing; wanted one in each row")
        other = _DATES[1 - _DATES.index(kind)]
        if _casts(iso[row], other):
            one, its = ("a", "none") if other == "utc" else ("no", "one")
            return ValueError(
                f"{self.place(row)}: {shortened(text)} has {one} distance to UTC, and "
                f"{self._values[0].as_py()!r} in the first row has {its}; wanted it in all rows, "
                "or in none"
            )
        if dates.SHORT_YEAR.match(text.strip()):
            return ValueError(
                f"{self.place(row)}: {shortened(text)} is not a time; wanted a year of four "
                "digits, such as 31.01.2024 or 2024-01-31"
            )
        also = "" if row == 0 else f", like {self._values[0].as_py()!r} in the first row"
        read = "" if order is None else f" with the {order.replace('-', ' ')}"
        return ValueError(
            f"{self.place(row)}: {shortened(text)} is not a time{read}; wanted a number, or a date "
            f"such as 2024-01-31 or 2024-01-31 23:59:00{also}"
        )


def typed(written: np.ndarray) -> np.ndarray:
    """The labels of a whole column from what `Text.written` gives of its parts, `[N]`."""
    once, numbers = np.unique(written, return_inverse=True)
    return as_strings(_typed(once.astype(object)))[numbers]


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


def _datetimes(values: pa.ChunkedArray) -> np.ndarray:
    return values.to_numpy().astype("datetime64[ns]")


def _typed(texts: np.ndarray) -> np.ndarray:
    """Names written as text: integers, numbers, truth values if all of them are such.

    If numbers would not distinguish them they stay names: 1.10 besides 1.1, integers of twenty
    digits, 5e3.
    """
    if {text.lower() for text in texts} <= {"true", "false"}:
        return np.array([text.lower() == "true" for text in texts])
    names = [spelled(text) for text in texts]
    if not _all_numbers(texts):
        return np.array(names, object)
    try:
        return np.array([int(name) for name in names], np.int64)
    except (ValueError, OverflowError):  # with decimals, or more digits than int64 has
        numbers = np.array([float(name) for name in names])
    values = numbers.tolist()
    exact = all(spelled(x) == n for x, n in zip(values, names, strict=True) if "." not in n)
    return numbers if exact and len({*values}) == len({*names}) else np.array(names, object)


def _all_numbers(texts: Iterable[str]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(pa.array(texts), _NUMBER)).as_py())
