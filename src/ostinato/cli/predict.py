"""ostinato predict RUN FILE"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ostinato import files
from ostinato.cli import runs, sources
from ostinato.cli.output import predictions_csv


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a saved model.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help=".npz or .ts; needs no labels.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045  typer of Python 3.10
        typer.Option(help="Write the CSV here instead of to stdout."),
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="The probability of every class.")] = False,
) -> None:
    """Predict the class of each sequence, as CSV."""
    trained = runs.find(run)
    X, y = sources.read(file, trained.reading_of(file))

    from ostinato.estimators import load

    model = load(trained.model)
    text = predictions_csv(model.classes_, model.predict_proba(X), y, all_classes=proba)
    if output is None:
        sys.stdout.write(text)
    else:
        files.write_text(output, text)
