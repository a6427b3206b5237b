"""The Typer application."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

import ostinato
from ostinato_learn.cli import (
    check,
    compare,
    complete,
    cv,
    doctor,
    evaluate,
    export,
    generate,
    predict,
    serve,
    stream,
    train,
    tune,
    verify,
)
from ostinato_learn.cli.flags import Command
from ostinato_learn.cli.output import notes
from ostinato_learn.interrupt import Terminated, sigterm_unwinds
from ostinato_learn.jobs.failures import BAD_INPUT, BROKEN_PIPE, INTERRUPTED, OK, explained

app = typer.Typer(
    name="ostinato",
    help="Train, run and ship recurrent sequence models on ordinary CPUs.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    train.train,
    evaluate.evaluate,
    compare.compare,
    predict.predict,
    complete.complete,
    generate.generate,
    stream.stream,
    serve.serve,
    export.export,
    check.check,
    cv.cv,
    tune.tune,
    verify.verify,
    doctor.doctor,
):
    app.command(cls=Command)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ostinato {ostinato.__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(BAD_INPUT)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done · 1 the run failed · 2 usage or bad input · 130 interrupted · 141 nobody reads the output
    · 143 ended by SIGTERM
    """
    try:
        with notes(), sigterm_unwinds():
            result = app(args=argv, prog_name="ostinato", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except Terminated as end:
        print("ended by SIGTERM", file=sys.stderr)
        return end.exit_code
    except SystemExit as end:  # from Typer: completion is done, or the reader of its help has gone
        return BROKEN_PIPE if end.code else OK
    except BrokenPipeError:
        # The interpreter flushes both streams again when it ends, and would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        code, message = explained(error)
        if message is None:
            traceback.print_exc()
        elif message:
            print(message, file=sys.stderr)
        return code
