"""ostinato stream RUN"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ostinato_learn.cli.flags import Run, with_flags
from ostinato_learn.cli.output import Quiet, check_file, hush
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import Given
from ostinato_learn.jobs.runs import runs

if TYPE_CHECKING:
    from ostinato_learn.data.formats.dialect import Dialect
    from ostinato_learn.jobs.runs.runs import Trained
    from ostinato_learn.runtime.model import Model


@with_flags("data.separator", "data.decimal", "data.encoding", "data.na", "data.thousands")
def stream(
    given: Given,
    run: Run,
    file: Annotated[
        str,
        typer.Argument(metavar="[FILE]", help="CSV, or JSON lines; - reads standard input."),
    ] = "-",
    key: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Option("--key", metavar="COLUMN", help="One stream for each value of this column."),
    ] = None,
    on_change: Annotated[
        bool, typer.Option("--on-change", help="Answer only when the label changes.")
    ] = False,
    until_confidence: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--until-confidence",
            metavar="P|sure",
            help="Answer once for each key: when the label's probability reaches P; or, with sure, "
            "the threshold that a model trained with early_error has.",
        ),
    ] = None,
    state: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--state", metavar="FILE", help="Save the streams here, and resume from it."),
    ] = None,
    every: Annotated[
        float,
        typer.Option(
            "--state-every",
            metavar="SECONDS",
            help="Seconds between two snapshots of --state.",
            min=0,
        ),
    ] = 5.0,
    columns: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--columns", metavar="A,B,…", help="Column names, if the first line has none."
        ),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out invalid lines, and count them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answers as JSON lines.")] = False,
    quiet: Quiet = False,
) -> None:
    """Predict row by row, as rows arrive.

    A row is one step. Answers come as CSV or JSON lines, as the rows do: the step, the label and
    its probability. CSV is read like the training file, but for what the flags of [data] say.
    """
    hush(quiet)
    if on_change and until_confidence is not None:
        raise BadInput("--on-change and --until-confidence exclude each other; give one of them")
    if state is not None:
        check_file(state, overwrite=True)
    from ostinato_learn import runtime
    from ostinato_learn.cli.streams.play import Rule, StreamPlayer
    from ostinato_learn.cli.streams.source import Input, InputFormat

    trained = runs.find(run).reading(given)
    written = _dialect(trained, file)
    model = runtime.load(trained.model)
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    rule = Rule(on_change, _confidence(until_confidence, model), skip)
    source = InputFormat(file, key, names, written)
    with opened(file) as handle:
        StreamPlayer(model, source, Input(handle), rule, as_json, state, every).run()


def _dialect(trained: Trained, file: str) -> Dialect:
    """The dialect of CSV: as given, or else that of the run's training file.

    Raises:
        BadInput: it is invalid; or lines in this encoding do not end with a single byte.
    """
    from ostinato_learn.data.formats.content import ending

    data = trained.settings().data
    written = sources.dialect(data)
    endings = [ending(Path(name)) for name in (file, str(data.source))]
    kind = next((e for e in endings if e in (".csv", ".tsv")), ".csv")
    written = replace(written, separator=written.between(kind))
    try:
        written.check(kind, file)
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    if "a\n".encode(written.encoding) != b"a\n":
        raise BadInput(
            f"--encoding {written.encoding}: a line does not end with one byte; wanted rows in "
            "another encoding, as iconv -t UTF-8 makes"
        )
    return written


def _confidence(given: str | None, model: Model) -> float | None:
    """The probability that an answer waits for."""
    if given is None:
        return None
    if given == "sure":
        if model.sure_from is None:
            raise BadInput(
                "--until-confidence sure is for a model trained with early_error, which this one "
                "was not; wanted a probability, such as 0.95"
            )
        return model.sure_from
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise BadInput(
            f"--until-confidence is {given!r}; wanted a probability from 0 to 1, or sure"
        )
    return found


@contextmanager
def opened(file: str) -> Iterator[int]:
    """The handle of a file, or of standard input for "-"."""
    if file == "-":
        if sys.stdin is None:
            raise BadInput("standard input is closed; wanted rows, or a FILE")
        yield sys.stdin.fileno()
        return
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        if file.lower().endswith(".gz"):
            raise BadInput(
                f"{file} is packed; wanted rows as they come: gzip -dc {shlex.quote(file)} | "
                "ostinato stream …"
            )
        yield handle
    finally:
        os.close(handle)
