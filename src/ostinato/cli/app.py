"""The Typer application, and the exit code of every exception."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

import ostinato
from ostinato._extras import install
from ostinato.cli import (
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
from ostinato.cli.failures import AlreadyReported, Failure
from ostinato.cli.flags import Command
from ostinato.cli.output import notes
from ostinato.interrupt import Terminated, sigterm_unwinds

OK, FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

# The packages of the torch extra, by the names under which they are imported.
TORCH_EXTRA = {"torch", "sklearn", "tqdm", "matplotlib"}

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


def explained(error: Exception) -> tuple[int, str | None]:
    """Exit code and message; no message for a bug: its traceback is shown instead."""
    if isinstance(error, AlreadyReported):
        return error.exit_code, ""
    if isinstance(error, Failure):
        return error.exit_code, f"ostinato: {error}"
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's usage errors
        command = getattr(getattr(error, "ctx", None), "command_path", "ostinato")
        message = error.format_message().replace(": Value error, ", ": ", 1)  # Typer's prefix
        return error.exit_code, f"{command}: {message}\n(see {command} --help)"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in TORCH_EXTRA:
        return BAD_INPUT, (
            f"ostinato: this needs {error.name}, which is not installed; "
            f"get it with: {install('torch')}"
        )
    if isinstance(error, ModuleNotFoundError) and isinstance(error.__cause__, ImportError):
        return BAD_INPUT, f"ostinato: {error}"  # from `_extras.needs`, which names the extra
    if isinstance(error, OSError) and error.strerror:
        files = " -> ".join(str(f) for f in (error.filename, error.filename2) if f is not None)
        bad_name = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
        code = BAD_INPUT if isinstance(error, bad_name) else FAILED
        return code, f"ostinato: {files + ': ' if files else ''}{error.strerror}"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # PyTorch's
        return FAILED, "ostinato: the memory is full; a smaller network or batch takes less"
    if isinstance(error, ValueError) and _raised_by_ostinato(error):
        return BAD_INPUT, f"ostinato: {error}"
    return FAILED, None


def _raised_by_ostinato(error: Exception) -> bool:
    """Whether one of our own checks raised it: a ValueError from another package is a bug."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return frames[-1][0].f_globals.get("__name__", "").startswith("ostinato.")
