"""ostinato evaluate RUN [FILE]"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ostinato.cli import runs, sources
from ostinato.cli.failures import BadInput
from ostinato.cli.output import Quiet, hush, percent, say, say_json
from ostinato.cli.sources import Part

if TYPE_CHECKING:
    from ostinato.training.fitted import FittedClassifier


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a saved model.")],
    file: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Argument(
            metavar="[FILE]",
            help=sources.FILE_HELP + " By default the test part the run was made with.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure a trained model again."""
    hush(quiet)
    trained = runs.find(run)
    if file is not None:
        part = sources.read_labelled(file, trained.reading_of(file))
    elif trained.config is not None:
        part = sources.load(trained.config.data, trained.config.training.seed)[1]
    else:
        raise BadInput(f"{run} is a model without a run; name the FILE to evaluate it on")

    from ostinato.training.fitted import load

    model = load(trained.model)
    sources.check_fits(file or str(run), part.X, part.y, model)
    result = measure(model, part)
    if as_json:
        say_json(result)
    else:
        say(
            f"accuracy {percent(result['accuracy'])}   always the most frequent class "
            f"{percent(result['most_frequent_class'])}   loss {result['loss']:.4f}   "
            f"n {result['n']:,}"
        )


def measure(model: FittedClassifier, part: Part) -> dict[str, Any]:
    """What the model's `evaluate` tells, and the share of the part's most frequent class.

    An answer that is always this class has that accuracy, without looking at a sequence.
    """
    import numpy as np

    counts = np.unique(part.y, return_counts=True)[1]
    most_frequent = float(counts.max() / len(part.y))
    return {**model.evaluate(part.X, part.y), "most_frequent_class": most_frequent}
