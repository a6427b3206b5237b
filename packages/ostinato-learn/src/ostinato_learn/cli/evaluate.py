"""ostinato evaluate RUN [FILE]"""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from ostinato_learn.cli.flags import Run, with_flags
from ostinato_learn.cli.output import AsJson, Quiet, hush, say, say_json
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import OPTIONS, Given
from ostinato_learn.jobs.output import percent, working
from ostinato_learn.jobs.runs import runs, summaries


@with_flags(*runs.READING)
def evaluate(
    given: Given,
    run: Run,
    file: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Argument(
            metavar="[FILE]",
            help=sources.FILE_HELP + " By default the test part the run was made with.",
        ),
    ] = None,
    windows: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Forecasts of each series to measure; the last one ends where the series ends. By "
            "default the number in the test of the run.",
            min=1,
        ),
    ] = None,
    stride: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Steps from one forecast to the next. By default the horizon.", min=1),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a trained model on its test part or on a file."""
    hush(quiet)
    trained = runs.find(run).reading(given)
    if given and file is None:
        flag = OPTIONS[next(iter(given))].flag
        raise BadInput(f"{flag} is for a FILE; the run's own data are read as in the training")
    task, job = registry.of_model(trained)
    if task.name != "forecast" and (windows or stride):
        flag = "--windows" if windows else "--stride"
        raise BadInput(f"{flag} is for forecasts; {run} was trained to {task.name}")
    with working("evaluating", quiet):
        more = (windows, stride) if task.name == "forecast" else ()
        result = job.evaluated(trained, file, *more)
    results = trained.run.results() if file is None and trained.run else None
    found = {"findings": (results or {}).get("findings", [])}
    if as_json:
        say_json(result | found if found["findings"] else result)
    elif task.name == "classify" and "most_frequent_class" in result:
        say(
            f"accuracy {percent(result['accuracy'])}   always the most frequent class "
            f"{percent(result['most_frequent_class'])}   loss {result['loss']:.4f}   "
            f"n {result['n']:,}"
        )
    else:
        say(summaries.measured(task.name, result))
    if not as_json and found["findings"]:
        say("\n".join(summaries.aligned(summaries.findings(found))))
