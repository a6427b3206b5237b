"""Dates as people write them, rewritten as ISO 8601, in which pyarrow reads them.

    2024-01-31  2024/1/31  2024.01.31    year first
    31.01.2024                           day first, as wherever points are written
    31/01/2024  01/31/2024  1-31-2024    day or month first: the column says which, or a user

A time may follow a date: 9:05 or 09:05:30.5; and an offset from UTC: Z, +02:00.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Order = Literal["day-first", "month-first"]  # in dates that begin with two numbers and slashes
Epoch = Literal["seconds", "milliseconds", "microseconds"]  # since 1970-01-01 in UTC
TimeFormat = Literal[Order, Epoch]
PER_SECOND = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}

_TIME = (
    r"(?:(?:[T ]|, ) *(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})"
    r"(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?$"
)
_EITHER = r"^(?P<a>\d{1,2})[/-](?P<b>\d{1,2})[/-](?P<year>\d{4})"  # a or b is the day
_SPELLED = (
    r"^(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
    r"^(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})",
)

SHORT_YEAR = re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2}(?!\d)")  # 31.1.24


def order_of(texts: pa.Array) -> Order | None:
    """Whether the day comes first in dates such as 01/02/2024; None: there are no such dates.

    Raises:
        AmbiguousError: no date decides it; or two dates contradict each other.
    """
    import pyarrow.compute as pc

    found = pc.extract_regex(texts, _EITHER)
    rows = np.flatnonzero(np.asarray(found.is_valid()))
    if not len(rows):
        return None
    first, second = (
        pc.cast(pc.struct_field(found, name), "int64").fill_null(0).to_numpy(zero_copy_only=False)
        for name in "ab"
    )
    days_first = np.flatnonzero((first > 12) & (second <= 12))
    months_first = np.flatnonzero((second > 12) & (first <= 12))
    if len(days_first) and len(months_first):
        row, other = sorted((int(days_first[0]), int(months_first[0])))[::-1]
        raise AmbiguousError(
            row,
            True,
            f"has day and month in another order than {texts[other].as_py()!r}; wanted one order "
            "in the whole column",
        )
    if len(days_first) == len(months_first):
        raise AmbiguousError(
            int(rows[0]),
            False,
            "can be read in two ways, and no other date shows whether the day or the month comes "
            "first; wanted time_format='day-first' (--time-format day-first) or 'month-first' "
            "(--time-format month-first)",
        )
    return "day-first" if len(days_first) else "month-first"


class AmbiguousError(ValueError):
    """A date whose day and month cannot be distinguished.

    Attributes:
        row: of the date.
        contradicts: whether another date has another order, so that no answer helps.
        why: what it does, and what was wanted.
    """

    def __init__(self, row: int, contradicts: bool, why: str):
        super().__init__(why)
        self.row, self.contradicts, self.why = row, contradicts, why


def as_iso(texts: pa.Array, order: Order | None) -> pa.Array:
    """Each date in the spelling of ISO 8601; other texts are unchanged.

    Args:
        texts: without blanks around them.
        order: of day and month where both come before the year.

    Example:
        >>> import pyarrow as pa
        >>> texts = pa.array(["31.1.2024 9:05", "2024/1/31 0:00:30.5 +0200"])
        >>> as_iso(texts, None).to_pylist()
        ['2024-01-31T09:05:00', '2024-01-31T00:00:30.5+02:00']
    """
    import pyarrow.compute as pc

    spelled = list(_SPELLED)
    if order is not None:
        a, b = ("day", "month") if order == "day-first" else ("month", "day")
        spelled.append(_EITHER.replace("<a>", f"<{a}>").replace("<b>", f"<{b}>"))
    result = texts
    for pattern in spelled:
        found = pc.extract_regex(texts, pattern + _TIME)
        if found.null_count < len(found):
            result = pc.coalesce(_spelled(found), result)
    return result


def _spelled(found: pa.StructArray) -> pa.Array:
    """The parts of dates as ISO 8601, null where there is no date, or a zone but no hour."""
    import pyarrow.compute as pc

    parts = {field.name: pc.struct_field(found, field.name) for field in found.type}
    date = _joined("-", parts["year"], _two(parts["month"]), _two(parts["day"]))
    hour = pc.if_else(pc.equal(parts["hour"], ""), None, _two(parts["hour"]))
    second = pc.if_else(pc.equal(parts["second"], ""), "00", parts["second"])
    with_fraction = _joined(".", second, parts["fraction"])
    second = pc.if_else(pc.equal(parts["fraction"], ""), second, with_fraction)
    time = _joined("", _joined(":", hour, parts["minute"], second), _zone(parts["zone"]))
    nothing = _joined("", parts["hour"], parts["zone"])
    return pc.if_else(pc.equal(nothing, ""), date, _joined("T", date, time))


def _zone(zone: pa.Array) -> pa.Array:
    """A distance to UTC as Z or +02:00; pyarrow does not read it with seconds otherwise."""
    import pyarrow.compute as pc

    zone = pc.replace_substring_regex(zone, "^(UTC|GMT)$", "Z")
    return pc.replace_substring_regex(zone, r"^([+-]\d{2}):?(\d{2})$", r"\1:\2")


def _two(digits: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.utf8_lpad(digits, 2, padding="0")


def _joined(between: str, *parts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(*parts, pa.scalar(between, parts[0].type))


def of_epoch(numbers: np.ndarray, unit: Epoch) -> np.ndarray:
    """Instants from the time since 1970 in UTC, `[N]` datetime64[ns].

    Args:
        numbers: `[N]`, none missing, within the years 1678 to 2261.
        unit: the unit of the numbers.

    Example:
        >>> import numpy as np
        >>> of_epoch(np.array([1706695530.25]), "seconds")
        array(['2024-01-31T10:05:30.250000000'], dtype='datetime64[ns]')
    """
    whole = np.floor(numbers)
    each = 1_000_000_000 // PER_SECOND[unit]
    rest = np.round((numbers - whole) * each).astype(np.int64)
    return (whole.astype(np.int64) * each + rest).view("datetime64[ns]")


def beyond(numbers: np.ndarray, unit: Epoch) -> np.ndarray:
    """Which of the numbers are before 1678 or after 2261, `[N]` bool: 2⁶³ ns are 9.22e9 s."""
    return np.abs(numbers) / PER_SECOND[unit] > 9.2e9


def following(times: np.ndarray, n: int) -> np.ndarray:
    """The n times after the last one: on by whole months, or by the usual distance of two steps.

    Steps are months if all times are at the same place in a month (its first day, the
    15th at noon), or all are a month's last day: a quarter has 90 to 92 days.

    Args:
        times: `[T]` datetime64[ns], or numbers; at least two.
        n: how many.

    Example:
        >>> import numpy as np
        >>> following(np.array(["2024-01-31", "2024-02-29"], "M8[ns]"), 2).astype("M8[D]")
        array(['2024-03-31', '2024-04-30'], dtype='datetime64[D]')
    """
    ahead = np.arange(1, n + 1)
    if times.dtype.kind != "M":
        return times[-1] + np.median(np.diff(times)) * ahead
    day = np.timedelta64(1, "D")
    for shift in (np.timedelta64(0, "D"), day):  # a month's last day is one before the next month
        months = (times + shift).astype("M8[M]")
        places = times + shift - months.astype(times.dtype)
        steps = np.diff(months.astype(np.int64))
        if (places == places[0]).all() and (steps > 0).all() and places[0] < 28 * day:
            on = months[-1] + int(np.median(steps)) * ahead
            return on.astype(times.dtype) + places[0] - shift
    return times[-1] + np.timedelta64(int(np.median(np.diff(times).astype(np.int64))), "ns") * ahead
