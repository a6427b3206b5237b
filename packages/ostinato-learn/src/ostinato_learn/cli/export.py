"""ostinato export RUN --to onnx|c"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from ostinato_learn.cli.flags import Run
from ostinato_learn.cli.output import Overwrite, Quiet, check_file, hush, say
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.runs import runs

if TYPE_CHECKING:
    from ostinato_learn.runtime.model import Model


def export(
    run: Run,
    to: Annotated[Literal["onnx", "c"], typer.Option("--to", help="What to write.")],
    form: Annotated[
        Optional[Literal["sequence", "step"]],  # noqa: UP045  typer of Python 3.10
        typer.Option("--form", help="ONNX only: whole sequences (the default), or one step."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="The .onnx or .c file; by default named after RUN."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="C only: 8-bit weights.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a model as ONNX or C, to run without ostinato."""
    hush(quiet)
    _check_flags(to, form, int8)
    trained = runs.find(run)
    file = _named_after(run, to) if output is None else output
    if file.suffix != f".{to}":
        raise BadInput(f"--output {file} with --to {to}; wanted a name that ends in .{to}")
    beside = [file.with_suffix(".h"), file.with_name(f"{file.stem}_test.c")] if to == "c" else []
    for each in (file, *beside):
        check_file(each, overwrite)

    from ostinato.internal import Unsupported
    from ostinato_learn import runtime

    model = runtime.load(trained.model)
    try:
        report = _onnx(model, file, form) if to == "onnx" else _c(model, file, int8)
    except Unsupported as problem:
        raise BadInput(f"{run} cannot be written as {to}: {problem}") from None
    say(str(report))


def _check_flags(to: str, form: str | None, int8: bool) -> None:
    if to == "c" and form == "sequence":
        raise BadInput("--form sequence is for --to onnx; C code computes one step in each call")
    if to == "onnx" and int8:
        raise BadInput("--int8 is for C code; leave it out, or export --to c")


def _named_after(run: Path, to: str) -> Path:
    """A file in the working directory; its name is also the prefix of the C functions."""
    whole = run.resolve()
    name = whole.parent.name if whole.name == "model" else whole.name
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "model"
    return Path((plain if plain[0].isalpha() else f"model_{plain}") + f".{to}")


def _onnx(model: Model, file: Path, form: str | None) -> Any:
    from ostinato_learn.export.onnx import export_onnx

    return export_onnx(model, file, form or "sequence")


def _c(model: Model, file: Path, int8: bool) -> Any:
    from ostinato_learn.export.c import export_c

    return export_c(model, file, name=file.stem, int8=int8)
