"""Answers as text and CSV, and a note on what takes long."""

from __future__ import annotations

import csv
import io
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ostinato_learn import environment
from ostinato_learn.jobs.answer_columns import label_columns, least_certain, share

if TYPE_CHECKING:
    import numpy as np

SILENT_S = 3.0  # a command that works for longer says what it does

# Types of times, from the shortest text to the type in which every time is exact.
_DATES = ("M8[D]", "M8[m]", "M8[s]", "M8[ms]", "M8[us]", "M8[ns]")
_NUMBERS = ("i8", "f8")


@contextmanager
def working(what: str, quiet: bool) -> Iterator[None]:
    """Say on stderr what a command does, if it takes longer than `SILENT_S`."""
    if quiet or environment.rank() > 0:
        yield
        return
    timer = threading.Timer(SILENT_S, print, (f"{what} …",), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def percent(share: float) -> str:
    """A share of 1 as a percentage, such as "97.50 %"."""
    return f"{100 * share:.2f} %"


def csv_text(header: list[str] | None, rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV; without a header, they go on with others."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header is not None:
        writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def time_type(times: Iterable[np.ndarray]) -> str:
    """The type in which all times are exact, and shortest as text.

    Args:
        times: those of several sequences, each `[T]`, float64 or datetime64[ns].
    """
    import numpy as np

    types: tuple[str, ...] = ()
    for each in times:
        types = types or (_DATES if each.dtype.kind == "M" else _NUMBERS)
        with np.errstate(invalid="ignore"):  # a number that is too large for an integer
            types = tuple(t for t in types if (each.astype(t) == each).all())
    return types[0] if types else _NUMBERS[0]


def times_as_text(times: Sequence[np.ndarray], dtype: str | None = None) -> list[list[Any]]:
    """Times of several sequences, each `[T]`, all in one type: by default their `time_type`."""
    dtype = time_type(times) if dtype is None else dtype
    found = [each.astype(dtype) for each in times]
    return [(each.astype(str) if each.dtype.kind == "M" else each).tolist() for each in found]


def predictions_csv(
    classes: np.ndarray,
    proba: np.ndarray,
    y: np.ndarray | None,
    all_classes: bool = False,
    ids: np.ndarray | None = None,
    with_header: bool = True,
    several: bool = False,
) -> str:
    """One line per example: index or id, label (if known), prediction and its probability.

    If an example may have several labels, those with a probability above one half are joined by
    semicolons, and the probability is that of the least certain decision about a label.

    Args:
        classes: `[C]` labels.
        proba: `[N, C]` probabilities.
        y: `[N]` true labels, or None; `[N, C]` zeros and ones if there may be several.
        all_classes: also a column for the probability of every class.
        ids: `[N]` names of the examples.
        with_header: whether it is the first piece of the file.
        several: whether an example may have several labels.
    """
    import numpy as np

    if several:
        from ostinato_learn.data.sequences.label_sets import joined

        answers = joined(proba > 0.5, classes)
        sure = least_certain(proba)
        y = None if y is None else joined(y, classes)
    else:
        best = proba.argmax(axis=1)
        answers, sure = classes[best], proba[np.arange(len(proba)), best]
    columns = label_columns(known=y is not None, classes=classes if all_classes else ())
    header = ["index" if ids is None else "id", *columns]
    rows = (
        [
            i if ids is None else ids[i],
            *([y[i]] if y is not None else []),
            answers[i],
            share(sure[i]),
            *(map(share, p) if all_classes else ()),
        ]
        for i, p in enumerate(proba)
    )
    return csv_text(header if with_header else None, rows)
