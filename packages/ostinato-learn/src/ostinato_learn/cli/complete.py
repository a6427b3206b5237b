"""ostinato complete RUN [TEXT]"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ostinato_learn.cli.flags import TextRun
from ostinato_learn.cli.generate import find
from ostinato_learn.cli.output import Quiet, hush, say, say_json
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.runs import answering

if TYPE_CHECKING:
    from ostinato_learn.tasks.language.model import LanguageModel


def complete(
    run: TextRun,
    text: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Argument(
            metavar="[TEXT]", help="The text typed so far; by default each line of standard input."
        ),
    ] = None,
    n: Annotated[int, typer.Option("--suggestions", "-n", help="How many.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Suggest the next words or characters of a text."""
    hush(quiet)
    model = answering.model_of(find(run))
    if text is not None:
        _tell(model, text, n, as_json)
    elif sys.stdin is None:
        raise BadInput("standard input is closed; wanted a TEXT")
    else:
        for line in sys.stdin:
            _tell(model, line.rstrip("\n"), n, as_json)


def _tell(model: LanguageModel, text: str, n: int, as_json: bool) -> None:
    found = model.suggest(text, n)
    if as_json:
        suggestions = [{"text": s.text, "probability": s.probability} for s in found]
        say_json({"typed": text, "suggestions": suggestions})
    else:
        say("\n".join(f"{s.probability:7.4f}   {_visible(s.text)}" for s in found))


def _visible(text: str) -> str:
    return text.replace("\n", "↵").replace(" ", "␣") if text.isspace() else text
