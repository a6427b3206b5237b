"""Results on stdout or in a file: text, JSON and CSV. Notes on stderr."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostinato_learn import environment, files
from ostinato_learn.cli.failures import BadInput

if TYPE_CHECKING:
    import numpy as np

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No progress and no notes; results, errors and serious findings stay."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


SILENT_S = 3.0  # a command that works for longer says what it does

# Replacements for characters that a terminal cannot show.
PLAIN = str.maketrans({"…": "...", "±": "+-", "×": "x", "·": "*", "→": "->", "−": "-"})

# Types of times, from the shortest text to the type in which every time is exact.
_DATES = ("M8[D]", "M8[m]", "M8[s]", "M8[ms]", "M8[us]", "M8[ns]")
_NUMBERS = ("i8", "f8")


_LOGGERS = logging.getLogger("ostinato"), logging.getLogger("ostinato_learn")


class _Notes(logging.Handler):
    """Shows the logs of both packages as notes on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"ostinato: {record.getMessage()}", file=sys.stderr)


@contextmanager
def notes() -> Iterator[None]:
    """Show notes until the command ends."""
    handler = _Notes()
    for logger in _LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in _LOGGERS:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)


def hush(quiet: bool) -> None:
    """Hide notes until the command ends, if `quiet`, or in all processes but the first."""
    silent = quiet or environment.rank() > 0
    for logger in _LOGGERS:
        logger.setLevel(logging.ERROR if silent else logging.NOTSET)


@contextmanager
def working(what: str, quiet: bool) -> Iterator[None]:
    """Say on stderr what a command does, if it takes longer than `SILENT_S`."""
    if quiet or environment.rank() > 0:
        yield
        return
    told = threading.Timer(SILENT_S, print, (f"{what} …",), {"file": sys.stderr, "flush": True})
    told.daemon = True
    told.start()
    try:
        yield
    finally:
        told.cancel()


def check_alone(command: str) -> None:
    """Refuse a command that several processes of `torchrun` would each run for themselves.

    Raises:
        BadInput: there are several processes.
    """
    if environment.launched():
        raise BadInput(f"torchrun is for train alone; {command} has --jobs N for several processes")


def check_file(path: Path, overwrite: bool) -> None:
    """Raise BadInput if `path` cannot be written or, without `overwrite`, something would be lost.

    Raises:
        BadInput: it cannot be written; the attempt leaves nothing behind.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.is_file() and not overwrite:
            raise BadInput(f"{path} exists already; take another name, or --overwrite")
        if path.is_file() or not path.exists():
            folder = Path(os.path.realpath(path)).parent
            if not folder.exists():
                raise BadInput(f"{path}: there is no directory {folder}; make it first")
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None


def check_directory(path: Path) -> None:
    """Raise BadInput if no directory can be made at `path`, or an existing one is not writable.

    Raises:
        BadInput: it cannot be written; the attempt leaves nothing behind.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # which refuses a name that is too long
        place = path
        while not place.exists():
            place = place.parent
        tempfile.TemporaryDirectory(dir=place).cleanup()
    except OSError as error:
        raise BadInput(f"{path} cannot be made or written: {error.strerror}") from None


def write(path: Path | None, pieces: Iterable[str]) -> None:
    """Write a result to a file that `check_file` allows; for None to stdout, piece by piece."""
    if path is None:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    else:
        files.write_pieces(path, (piece.encode() for piece in pieces))


def percent(share: float) -> str:
    """A share of 1 as a percentage, such as "97.50 %"."""
    return f"{100 * share:.2f} %"


def say(text: str) -> None:
    """Print a result, in ASCII if stdout's encoding cannot hold it.

    If there are several processes, the first one prints.
    """
    if environment.rank() > 0:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
    print(text)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON; NaN and infinite numbers are a ValueError."""
    say(json.dumps(value, allow_nan=False))


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
        sure = np.maximum(proba, 1 - proba).min(axis=1)
        y = None if y is None else joined(y, classes)
    else:
        best = proba.argmax(axis=1)
        answers, sure = classes[best], proba[np.arange(len(proba)), best]
    header = ["index" if ids is None else "id", *(["label"] if y is not None else [])]
    header += ["prediction", "probability"]
    header += [f"probability_{label}" for label in classes] if all_classes else []
    rows = (
        [
            i if ids is None else ids[i],
            *([y[i]] if y is not None else []),
            answers[i],
            f"{sure[i]:.6f}",
            *((f"{value:.6f}" for value in p) if all_classes else ()),
        ]
        for i, p in enumerate(proba)
    )
    return csv_text(header if with_header else None, rows)
