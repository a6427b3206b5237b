"""ostinato complete RUN [TEXT]"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ostinato.cli import answering
from ostinato.cli.failures import BadInput
from ostinato.cli.generate import find
from ostinato.cli.output import Quiet, hush, say, say_json

if TYPE_CHECKING:
    from ostinato.runtime.language import LanguageModel
    from ostinato.training.fitted_language import FittedLanguageModel

    Suggesting = LanguageModel | FittedLanguageModel

ENTER, ERASE, ABORT, TAKE = "\r\n", "\x7f\b", "\x03\x04\x1b", "\t"


def complete(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of a language model.")],
    text: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        typer.Argument(
            metavar="[TEXT]", help="What was typed so far. Without it, type: suggestions follow."
        ),
    ] = None,
    n: Annotated[int, typer.Option("--suggestions", "-n", help="How many.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Suggest what comes next, as a phone's keyboard does.

    Without a TEXT, on a terminal, suggestions change with each key; Tab takes the first, Enter
    begins anew, Esc ends. Elsewhere each line of standard input is a text.
    """
    hush(quiet)
    model = answering.to_predict(find(run))
    if text is not None:
        _tell(model, text, n, as_json)
    elif sys.stdin is None:
        raise BadInput("standard input is closed; wanted a TEXT")
    elif sys.stdin.isatty() and sys.stdout.isatty():
        _type(model, n)
    else:
        for line in sys.stdin:
            _tell(model, line.rstrip("\n"), n, as_json)


def _tell(model: Suggesting, text: str, n: int, as_json: bool) -> None:
    found = model.suggest(text, n)
    if as_json:
        suggestions = [{"text": s.text, "probability": s.probability} for s in found]
        say_json({"typed": text, "suggestions": suggestions})
    else:
        say("\n".join(f"{s.probability:7.4f}   {_visible(s.text)}" for s in found))


def _type(model: Suggesting, n: int) -> None:
    """Read keys from the terminal until Esc, Ctrl-C or Ctrl-D."""
    typed = ""
    with _keys() as keys:
        _draw(model, typed, n)
        for key in keys:
            if key in ABORT:
                break
            if key in ENTER:
                sys.stdout.write("\n")
                typed = ""
            elif key in ERASE:
                typed = typed[:-1]
            elif key == TAKE:
                typed = _taken(model, typed)
            elif key.isprintable():
                typed += key
            _draw(model, typed, n)
        sys.stdout.write("\n")


def _taken(model: Suggesting, typed: str) -> str:
    """The text with the first suggestion in it, in the place of the word that was begun."""
    found = model.suggest(typed, 1)
    if not found:
        return typed
    _, beginning = model.vocabulary.typed(typed)
    blank = " " if model.vocabulary.level == "word" else ""
    return typed[: len(typed) - len(beginning)] + found[0].text + blank


def _draw(model: Suggesting, typed: str, n: int) -> None:
    """Write the line anew: what is typed, then the suggestions; its end if it is too long."""
    shown = " | ".join(_visible(s.text) for s in model.suggest(typed, n))
    room = max(10, shutil.get_terminal_size().columns - len(shown) - 6)
    begun = typed.replace("\n", "↵")[-room:]
    sys.stdout.write(f"\r\x1b[2K{begun}   [{shown}]\x1b[{len(shown) + 5}D")
    sys.stdout.flush()


def _visible(text: str) -> str:
    return text.replace("\n", "↵").replace(" ", "␣") if text.isspace() else text


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """The keys of the terminal, one by one and unseen."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        raise BadInput(
            "keys cannot be read one by one here; give the TEXT as an argument"
        ) from None

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield iter(lambda: sys.stdin.read(1) or "\x04", None)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
