"""Results on stdout or in a file: text, JSON and CSV. Notes on stderr."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostinato_learn import environment, files
from ostinato_learn.jobs.failures import BadInput

if TYPE_CHECKING:
    pass

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No progress and no notes; results, errors and serious findings stay."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


# Replacements for characters that a terminal cannot show.
PLAIN = str.maketrans({"…": "...", "±": "+-", "×": "x", "·": "*", "→": "->", "−": "-"})

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
