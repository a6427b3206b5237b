"""ostinato stream RUN"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ostinato.cli import runs
from ostinato.cli.failures import BadInput
from ostinato.cli.output import Quiet, check_file, hush
from ostinato.cli.sources import TAB

if TYPE_CHECKING:
    from ostinato.cli.runs import Trained
    from ostinato.runtime.model import Model


def stream(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a saved model.")],
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
            help="Answer once: when the label's probability reaches P, or that from which on a "
            "model trained with early_error is sure.",
        ),
    ] = None,
    lookahead: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--lookahead",
            metavar="K",
            help="Of a model of two directions: answer a row when K further ones have come.",
            min=0,
        ),
    ] = None,
    state: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--state", metavar="FILE", help="Keep the streams here, and go on from it."),
    ] = None,
    every: Annotated[
        float, typer.Option("--state-every", metavar="SECONDS", help="How often.", min=0)
    ] = 5.0,
    columns: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--columns", metavar="A,B,…", help="Names, where the first line has none."),
    ] = None,
    separator: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--separator",
            metavar="CHARACTER",
            help="Between fields of CSV. Default: that of the file the run was trained on.",
        ),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out lines that are wrong, and count them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answers as JSON lines.")] = False,
    quiet: Quiet = False,
) -> None:
    """Answer row by row, as the rows come.

    A row is one step. Answers come as CSV or JSON lines, as the rows do: the step, the label and
    its probability.
    """
    hush(quiet)
    if on_change and until_confidence is not None:
        raise BadInput("--on-change and --until-confidence are two things; give one of them")
    if state is not None:
        check_file(state, overwrite=True)
    from ostinato import runtime
    from ostinato.cli.stream_input import Input, InputFormat
    from ostinato.cli.stream_play import Rule, StreamPlayer

    trained = runs.find(run)
    between = _separator(separator, trained, file)
    model = runtime.load(trained.model)
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    rule = Rule(on_change, _confidence(until_confidence, model), skip)
    source = InputFormat(file, key, names, between)
    with opened(file) as handle:
        StreamPlayer(model, source, Input(handle), rule, as_json, state, every, lookahead).run()


def _separator(given: str | None, trained: Trained, file: str) -> str:
    """What stands between the fields of a CSV row."""
    from ostinato.data.content import ending

    if given is None and trained.config is not None:
        given = trained.config.data.separator
    if given is None:
        source = "" if trained.config is None else str(trained.config.data.source)
        endings = [ending(Path(name)) for name in (file, source)]
        given = "\t" if next((e for e in endings if e in (".csv", ".tsv")), "") == ".tsv" else ","
    found = "\t" if given == TAB else given
    if len(found) != 1 or found in '"\n\r':
        raise BadInput(f"--separator is {given!r}; wanted one character, such as ; or \\t")
    return found


def _confidence(given: str | None, model: Model) -> float | None:
    """The probability that an answer waits for."""
    if given is None:
        return None
    if given == "sure":
        if model.sure_from is None:
            raise BadInput(
                "--until-confidence sure is for a model trained with early_error, which this one "
                "was not; wanted a probability, as 0.95"
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
        yield handle
    finally:
        os.close(handle)
