"""Columns of tables, each giving numbers, names or times, as its role asks.

The same values give the same arrays from every format.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ostinato_learn.data.formats.dates import Order, TimeFormat, beyond, of_epoch
from ostinato_learn.data.tables.names import as_name

MAX_NAME = 256  # characters of a label or an id; more is a text in the wrong column

Place = Callable[[int], str]  # row → its place, in words
Factor = tuple[np.ndarray, np.ndarray]  # (codes [N] int64, −1 if missing; values, each once)


class Column:
    """One column.

    Attributes:
        name: the name of the column.
        place: gives the place of a row's value, in words.
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
            ValueError: a value is not a number, or infinite.
        """
        raise NotImplementedError

    def factor(self) -> Factor:
        """The values each once, in the order in which they first come, and the place of each row's.

        Integers are int64, also if they are written 1.0; other numbers float64, if these
        distinguish them; true and false bool; anything else, even an integer beyond int64, an
        object array of strings.

        Raises:
            ValueError: a value is not a name: a list, bytes, or longer than `MAX_NAME`.
        """
        raise NotImplementedError

    def names(self) -> Factor:
        """As `factor`, the values as names (`as_name`), an object array of strings."""
        return named(*self.factor())

    def times(self, written: TimeFormat | None = None) -> np.ndarray:
        """`[N]` datetime64[ns] in UTC, or the numbers in float64; none may be missing.

        Args:
            written: the format; numbers stay numbers unless it says what they count.

        Raises:
            ValueError: a value is missing, or neither a number nor a date (see `dates`), or a date
                that can be read in two ways.
        """
        raise NotImplementedError

    def time_format(self) -> Order | None:
        """How dates are written, where that is found out from all of them; None: it is plain.

        Raises:
            ValueError: a date can be read in two ways.
        """
        return None

    def _of_numbers(self, written: TimeFormat | None) -> np.ndarray:
        """`times` of a column of numbers."""
        numbers = no_missing(self.numbers(), self)
        if written is None or written == "day-first" or written == "month-first":
            return numbers
        wrong = beyond(numbers, written)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{self.place(row)}: {numbers[row]:.17g} {written} since 1970 are before 1678 or "
                "after 2261; wanted another unit as time_format (--time-format)"
            )
        return of_epoch(numbers, written)

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
        if n := int((codes < 0).sum()):
            raise ValueError(
                f"{self.place(int(np.argmax(codes < 0)))}: the value is missing"
                f"{such(n, len(codes))}; wanted one in each row: write a name there, such as "
                "none, or remove the rows without one"
            )
        return as_strings(values)[codes]

    def written(self) -> np.ndarray | None:
        """`[N]` strings, the labels before they have a type, which all rows of a file decide.

        None: they have one.
        """
        return None


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
        return finite(self._values.astype(np.float64), self)

    def factor(self) -> Factor:
        values = self._values
        kind = values.dtype.kind
        missing = np.isnat(values) if kind == "M" else np.isnan(values) if kind == "f" else None
        if kind == "M":
            values = values.astype(str).astype(object)
        codes, once = factored(values if missing is None else values[~missing])
        if missing is not None:
            spread = np.full(len(values), -1, np.int64)
            spread[~missing] = codes
            codes = spread
        return codes, integral(once)

    def times(self, written: TimeFormat | None = None) -> np.ndarray:
        if self._values.dtype.kind == "M":
            return no_missing(self._values, self)
        return self._of_numbers(written)


class Nested(Column):
    """A column whose rows are lists.

    Attributes:
        inner: the values of all lists, end to end.
        offsets: `[N + 1]`, the begin of each list.
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

    def times(self, written: TimeFormat | None = None) -> np.ndarray:
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

    def times(self, written: TimeFormat | None = None) -> np.ndarray:
        raise ValueError(self._problem())


def place_of(row: Place, name: str) -> Place:
    """The places of a column's values, from those of its rows."""
    return lambda i: f"{row(i)}, column {name!r}"


def named(codes: np.ndarray, values: np.ndarray) -> Factor:
    """The same rows by the names of the values, of which some may be equal ("1" and "1.0")."""
    return merged(codes, np.array([as_name(value) for value in values.tolist()], object))


def merged(codes: np.ndarray, values: np.ndarray) -> Factor:
    """Codes of values among which some are equal."""
    if not len(values):  # all are missing
        return codes, values
    ranks, once = factored(values)
    return np.where(codes < 0, -1, ranks[codes]), once


def exact(low: int, high: int, missing: bool) -> bool:
    """Whether integers in these bounds are exact as int64 or, if some are missing, float64."""
    most = 2**53 if missing else 2**63 - 1
    return -most <= low and high <= most


def as_strings(values: np.ndarray) -> np.ndarray:
    """Objects that are strings as NumPy's strings; anything else as it is."""
    return values.astype(str) if values.dtype == object else values


def shortened(text: object) -> str:
    """A value as a message shows it: quoted, 40 characters at most."""
    shown = str(text)
    return repr(shown if len(shown) <= 40 else shown[:39] + "…")


def such(n: int, of: int) -> str:
    """How many rows, of those that were read, are like the one that a message names."""
    return f" ({n:,} such rows of {of:,} read)" if n > 1 else ""


def finite(values: np.ndarray, column: Column) -> np.ndarray:
    """The values as they are.

    Raises:
        ValueError: one is infinite; the message names its place in the file.
    """
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise ValueError(
            f"{column.place(row)}: the value is infinite, or too large for float64; wanted a "
            "finite number"
        )
    return values


def no_missing(values: np.ndarray, column: Column) -> np.ndarray:
    """The times as they are, numbers or datetime64.

    Raises:
        ValueError: one is missing; the message names its place in the file.
    """
    missing = np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(f"{column.place(row)}: the time is missing; wanted one in each row")
    return values


def factored(values: np.ndarray) -> Factor:
    """`Column.factor` of an array in which nothing is missing."""
    once, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)], once[order]


def integral(values: np.ndarray) -> np.ndarray:
    """Floats that are all integers as int64."""
    if values.dtype.kind != "f" or not len(values):
        return values
    whole = (values == np.round(values)) & (np.abs(values) < 2.0**53)
    return values.astype(np.int64) if whole.all() else values
