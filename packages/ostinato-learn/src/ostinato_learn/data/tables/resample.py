"""`resampled`: sequences at times of equal distance, which a forecast counts as steps.

The new times begin with the first time of a sequence. Each row moves to the nearest new time. If
several rows have one time, numbers become their mean, and the last name is used. At a time without
rows the values are missing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.ragged import Ragged, offsets_of

UNITS = {"ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_EVERY = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)")
# Bounds: a gap of years between rows of seconds would fill the memory with empty steps.
MOST, MOST_RATIO = 1 << 24, 100


def distance(every: str) -> int:
    """The nanoseconds in a duration such as "5min" or "1.5h".

    Raises:
        ValueError: the text is not a duration.

    Example:
        >>> distance("1.5h") == distance("90 min")
        True
    """
    match = _EVERY.fullmatch(every.strip().lower())
    n = round(float(match[1]) * UNITS.get(match[2], 0)) if match else 0
    if n < 1:
        raise ValueError(
            f"every is {every!r}; wanted a number and a unit of {', '.join(UNITS)}, as 5min or 1h"
        )
    return n


def resampled(examples: Examples) -> Examples:
    """The sequences with each time once (`Roles.repeated`), at the distance `Roles.every`.

    A step without a row has missing values, and the label of the step before it.

    Raises:
        ValueError: the steps have no dates; or there would be far more steps than rows.
    """
    examples = _each_time_once(examples)
    roles, times = examples.roles, examples.times
    if roles is None or roles.every is None:
        return examples
    if times is None or (len(times) and times[0].dtype.kind != "M"):
        raise ValueError(
            f"{examples.source}: every={roles.every!r} (--every) needs the dates of the steps; "
            "wanted a column of dates as the time, or of numbers with a time_format"
        )
    step, lengths = distance(roles.every), examples.lengths
    clock = np.concatenate([np.asarray(each, "M8[ns]") for each in times]).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    slots = (clock - np.repeat(clock[starts], lengths) + step // 2) // step
    found = slots[starts + lengths - 1] + 1  # times increase
    n = int(found.sum())
    if n > max(MOST, MOST_RATIO * len(clock)):
        raise ValueError(
            f"{examples.source}: every={roles.every!r} (--every) makes {n:,} steps of "
            f"{len(clock):,} rows; wanted a distance nearer to that of the rows"
        )
    at = np.repeat(offsets_of(found)[:-1], lengths) + slots  # the new place of each row
    values = np.empty((n, len(examples.features)), np.float32)
    for i, name in enumerate(examples.features):
        column = examples.values[:, i]
        values[:, i] = _last(column, at, n) if name in examples.categories else _mean(column, at, n)
    ends = offsets_of(found)
    within = np.arange(n) - np.repeat(ends[:-1], found)
    new = (np.repeat(clock[starts], found) + within * step).astype("M8[ns]")
    y = examples.y
    last = np.full(n, -1)
    last[at] = np.arange(len(clock))
    last = np.maximum.accumulate(last)  # the last row until each step
    if isinstance(y, list) and roles.task == "tag":
        y = _of_rows(y, last, ends)
    elif isinstance(y, list):
        y = np.split(_mean(np.concatenate(y), at, n), ends[1:-1])
    places: Any = examples.places
    if places is not None and len(places.numbers) == len(clock):
        rows = np.full(n, -1)
        rows[at[::-1]] = np.arange(len(clock))[::-1]
        places = replace(places, numbers=places.numbers[np.maximum.accumulate(rows)])
    times = np.split(new, ends[1:-1])
    found = replace(examples, X=Ragged(values, ends), y=y, times=times, places=places)
    return _with_written(found, last, ends)


def _with_written(examples: Examples, rows: np.ndarray, offsets: np.ndarray) -> Examples:
    """With the labels as text of the steps that these rows became."""
    written = examples.written
    if not isinstance(written, list):
        return examples
    return replace(examples, written=_of_rows(written, rows, offsets))


def _of_rows(values: Any, rows: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """The values of these rows, divided into sequences."""
    return np.split(np.concatenate(values)[rows], offsets[1:-1])


def _each_time_once(examples: Examples) -> Examples:
    """With one step for the rows of a sequence that have the same time."""
    roles, times = examples.roles, examples.times
    if roles is None or roles.repeated == "error" or times is None:
        return examples
    lengths = examples.lengths
    clock, ends = np.concatenate(list(times)), np.cumsum(lengths) - 1
    kept = np.append(clock[1:] != clock[:-1], True)
    kept[ends] = True
    if kept.all():
        return examples
    step, n = np.append(0, np.cumsum(kept[:-1])), int(kept.sum())
    values = examples.values[kept]
    y = examples.y
    if roles.repeated == "mean":
        for i, name in enumerate(examples.features):
            if name not in examples.categories:
                values[:, i] = _mean(examples.values[:, i], step, n)
    offsets = offsets_of(np.add.reduceat(kept, ends - lengths + 1, dtype=np.int64))
    if isinstance(y, list) and roles.repeated == "mean" and roles.task == "forecast":
        y = np.split(_mean(np.concatenate(y), step, n), offsets[1:-1])
    elif isinstance(y, list):
        y = _of_rows(y, np.flatnonzero(kept), offsets)
    places: Any = examples.places
    if places is not None and len(places.numbers) == len(kept):
        places = replace(places, numbers=places.numbers[kept])
    times = np.split(clock[kept], offsets[1:-1])
    found = replace(examples, X=Ragged(values, offsets), y=y, times=times, places=places)
    return _with_written(found, np.flatnonzero(kept), offsets)


def _mean(column: np.ndarray, at: np.ndarray, n: int) -> np.ndarray:
    """The mean of the values at each place 0…n−1; NaN without values."""
    there = ~np.isnan(column)
    counts = np.bincount(at[there], minlength=n)
    with np.errstate(invalid="ignore"):
        return np.bincount(at[there], column[there].astype(np.float64), minlength=n) / counts


def _last(column: np.ndarray, at: np.ndarray, n: int) -> np.ndarray:
    """The last value at each place 0…n−1; NaN without values."""
    there = ~np.isnan(column)
    found = np.full(n, np.nan)
    found[at[there]] = column[there]
    return found
