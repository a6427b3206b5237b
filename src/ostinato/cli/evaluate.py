"""ostinato evaluate RUN [FILE]"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ostinato.cli import runs, sources
from ostinato.cli.failures import BadInput
from ostinato.cli.output import say, say_json


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a saved model.")],
    file: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Argument(metavar="[FILE]", help="By default the test part the run was made with."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure a trained model again."""
    trained = runs.find(run)
    if file is not None:
        part = sources.read_labelled(file, trained.reading_of(file))
    elif trained.config is not None:
        part = sources.load(trained.config.data, trained.config.training.seed)[1]
    else:
        raise BadInput(f"{run} is a model without a run; name the FILE to evaluate it on")

    from ostinato.estimators import load

    result = load(trained.model).evaluate(part.X, part.y)
    if as_json:
        say_json(result)
    else:
        say(f"accuracy {result['accuracy']:.4f}  loss {result['loss']:.4f}  n {result['n']:,}")
