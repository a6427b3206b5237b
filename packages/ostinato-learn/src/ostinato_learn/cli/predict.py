"""ostinato predict RUN FILE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ostinato_learn.cli.flags import Run, with_flags
from ostinato_learn.cli.output import Overwrite, Quiet, check_file, hush, write
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import Given
from ostinato_learn.jobs.runs import runs


@with_flags(*runs.READING)
def predict(
    given: Given,
    run: Run,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help=sources.FILE_HELP + " It needs no labels.")
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045  typer of Python 3.10
        typer.Option("--output", "-o", help="Write the CSV here instead of to stdout."),
    ] = None,
    overwrite: Overwrite = False,
    proba: Annotated[bool, typer.Option("--proba", help="The probability of every class.")] = False,
    quiet: Quiet = False,
) -> None:
    """Predict each sequence of a file; CSV on stdout."""
    hush(quiet)
    if output == Path("-"):
        output = None
    if output is not None:
        check_file(output, overwrite)
    trained = runs.find(run).reading(given)
    _, job = registry.of_model(trained)
    write(output, job.predicted(trained, file, proba))
