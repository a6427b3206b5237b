"""ostinato generate RUN"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ostinato_learn.cli.flags import TextRun
from ostinato_learn.cli.output import AsJson, Quiet, hush, say, say_json
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.runs import answering, runs

if TYPE_CHECKING:
    from ostinato_learn.data.text.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


def generate(
    run: TextRun,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="How the text begins.")] = "",
    n: Annotated[int, typer.Option("--tokens", "-n", help="Tokens at most.", min=1)] = 400,
    temperature: Annotated[
        float, typer.Option(help="Below 1 likelier text, above 1 less likely; 0: the likeliest.")
    ] = 1.0,
    top_k: Annotated[
        Optional[int],  # noqa: UP045  typer of Python 3.10
        typer.Option(help="Draw only among this many of the likeliest tokens.", min=1),
    ] = None,
    top_p: Annotated[
        float, typer.Option(help="Draw only among the likeliest tokens of this total probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.", min=0)] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write text with a language model."""
    hush(quiet)
    if not 0 <= temperature < math.inf:
        raise BadInput(f"--temperature is {temperature}; wanted 0 or more, and finite")
    if not 0 < top_p <= 1:
        raise BadInput(f"--top-p is {top_p}; wanted a share above 0, 1 at most")
    model = answering.model_of(find(run))
    _tell_unknown(model.vocabulary, prompt)
    made = model.generate(prompt, n, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if as_json:
        say_json({"text": prompt + made.text, "n_tokens": made.n_tokens})
    else:
        say(prompt + made.text)


def _tell_unknown(vocabulary: Vocabulary, prompt: str) -> None:
    """A note if the prompt has characters that the training texts do not have."""
    unknown = [c for c in dict.fromkeys(prompt) if vocabulary.decode(vocabulary.encode(c)) != c]
    if vocabulary.level == "character" and unknown:
        shown = ", ".join(map(repr, unknown[:5])) + ("…" if len(unknown) > 5 else "")
        _log.warning("the training texts do not have the characters %s of the prompt", shown)


def find(run: Path) -> runs.Trained:
    """The run of a language model.

    Raises:
        BadInput: the model has another task.
    """
    trained = runs.find(run)
    task = trained.task().name
    if task != "language":
        raise BadInput(f"{run} was trained to {task}; wanted a language model")
    return trained
