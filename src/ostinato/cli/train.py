"""ostinato train mnist|vowels|FILE"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ostinato.cli import config as configuration
from ostinato.cli import limits, rundir, runs, sources
from ostinato.cli.config import SECTIONS, Config, Given
from ostinato.cli.failures import BadInput
from ostinato.cli.flags import with_flags
from ostinato.cli.output import Quiet, check_directory, hush, percent, say, say_json
from ostinato.cli.rundir import RunDir

# `Optional[X]`, not `X | None`: Typer's last release for Python 3.10 knows only the former.


@with_flags(*SECTIONS)
def train(
    given: Given,
    source: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="mnist|vowels|FILE", help="FILE: your own, .npz or .ts."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", help="Directory for the run; NAME-N takes the next free number."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin the run in --output again.")
    ] = False,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="TOML file with [data], [model], [training], [run]."),
    ] = None,
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One parameter; repeatable."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved configuration and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object with the results on stdout.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier. The defaults are the notebook's experiment: rnn, 5000 iterations.

    Parameters come from flags, then --set, then --config, then the defaults.
    """
    hush(quiet)
    from_file = configuration.read_file(config) if config else {}
    from_source = {"data.source": source} if source else {}
    from_sets = configuration.read_sets(set_ or [])
    asked = _resolved(configuration.merge(from_file, from_sets, given | from_source))
    run = _reopened(output, resume, overwrite)
    settings = _unchanged(run, asked) if run else configuration.resolve(asked)
    if print_config:
        say(settings.toml().rstrip("\n"))
        return
    sources.known(settings.data.source)
    sources.check(settings.data)
    limits.check_threads(settings.run.threads)
    if run is None and output is not None:
        rundir.check(output, overwrite)
    if run is not None and run.is_finished():
        _tell_finished(run, as_json)
        return
    if output is not None:
        check_directory(output)
    _train(settings, output, run, overwrite, as_json, quiet)


def _train(
    settings: Config,
    output: Path | None,
    run: RunDir | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from ostinato.cli import experiment

    if run is not None:
        result = experiment.run(settings, lambda: run, resumed=run, quiet=quiet)
    elif output is not None:
        result = experiment.run(settings, lambda: rundir.create(output, overwrite), quiet=quiet)
    else:
        result = experiment.run(settings, quiet=quiet)
    if as_json:
        say_json({**result.evaluation, "run": str(result.run.path) if result.run else None})
    else:
        say(_summary(result.evaluation, result.run))


def _reopened(output: Path | None, resume: bool, overwrite: bool) -> RunDir | None:
    if resume and overwrite:
        raise BadInput("--resume goes on with a run, --overwrite begins it again; wanted one")
    if (resume or overwrite) and output is None:
        raise BadInput(f"{'--resume' if resume else '--overwrite'} needs --output DIR, the run")
    return rundir.reopen(output) if resume and output else None


def _resolved(asked: Given) -> Given:
    """With absolute paths, which hold in every working directory."""
    paths = {k: asked[k] for k in ("data.source", "data.test") if asked.get(k) is not None}
    return asked | {key: sources.known(path) for key, path in paths.items()}


def _unchanged(run: RunDir, asked: Given) -> Config:
    """The configuration that a run began with; it is an error to ask for another one now."""
    settings = runs.read_config(run)
    for key, value in asked.items():
        began = settings.get(key)
        if value != began:
            raise BadInput(
                f"{key} is now {value}, but the run in {run.path} began with {began}; a run is "
                "resumed as it began: leave that out, or begin another run"
            )
    return settings


def _tell_finished(run: RunDir, as_json: bool) -> None:
    evaluation: dict[str, Any] = json.loads(run.evaluation.read_text("utf-8"))
    if as_json:
        say_json({**evaluation, "run": str(run.path)})
    else:
        say(f"{run.path} is finished; nothing is left to do.\n{_summary(evaluation, run)}")


def _summary(evaluation: dict[str, Any], run: RunDir | None) -> str:
    test = evaluation["test"]
    rows = []
    if "notebook_128" in evaluation:
        rows += _accuracy("the notebook's 128 images", evaluation["notebook_128"])
    rows += [
        *_accuracy(f"all {test['n']:,} test examples", test),
        ("loss on them", f"{test['loss']:.4f}"),
        ("elapsed time", f"{evaluation['elapsed_s']:.1f} s"),
    ]
    if run is not None:
        rows.append(("report", str(run.report)))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}   {value}" for name, value in rows]
    if run is None:
        lines.append("Nothing was written; --output DIR keeps the model, the metrics and a report.")
    return "\n".join(lines)


def _accuracy(on: str, measured: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(f"accuracy on {on}", percent(measured["accuracy"]))]
    if "most_frequent_class" in measured:  # runs of older versions lack it
        share = percent(measured["most_frequent_class"])
        rows.append(("  always the most frequent class", share))
    return rows
