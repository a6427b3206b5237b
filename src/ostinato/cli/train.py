"""ostinato train mnist|vowels|FILE"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ostinato.cli import config as configuration
from ostinato.cli import defaults, limits, rundir, runs, sources
from ostinato.cli.config import SECTIONS, Config, Given
from ostinato.cli.failures import BadInput
from ostinato.cli.flags import completion, with_flags
from ostinato.cli.output import Quiet, check_directory, hush, percent, say, say_json
from ostinato.cli.rundir import RunDir
from ostinato.cli.sources import Part

Parts = tuple[Part, Part]  # to train on, to test with

# `Optional[X]`, not `X | None`: Typer's last release for Python 3.10 knows only the former.


@with_flags(*SECTIONS)
def train(
    given: Given,
    source: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="mnist|vowels|FILE",
            help="FILE: your own, .npz or .ts.",
            autocompletion=completion(sources.BUILT_IN),
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", help="Directory for the run; NAME-N takes the next free number."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --output. A finished one goes on to more --iterations or "
            "--epochs; the schedule cosine then follows the new end.",
        ),
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

    A FILE of your own is read 30 times, in batches that fit its size.

    Parameters come from flags, then --set, then --config, then the defaults.
    """
    hush(quiet)
    from_file = configuration.read_file(config) if config else {}
    from_source = {"data.source": source} if source else {}
    from_sets = configuration.read_sets(set_ or [])
    asked = _resolved(configuration.merge(from_file, from_sets, given | from_source))
    limits.check_threads(asked.get("run.threads"))
    run = _reopened(output, resume, overwrite)
    if run is None and output is not None and not print_config:
        rundir.check(output, overwrite)
        check_directory(output)
    settings, parts = (runs.continued(run, asked), None) if run else _begun(asked)
    if print_config:
        say(settings.toml().rstrip("\n"))
    elif run is not None and runs.is_done(run, settings):
        _tell_finished(run, as_json)
    else:
        if run is not None:
            check_directory(run.path)
        open_run = None if output is None else lambda: run or rundir.create(output, overwrite)
        _train(settings, parts, open_run, run, as_json, quiet)


def _train(
    settings: Config,
    parts: Parts | None,
    open_run: Callable[[], RunDir] | None,
    resumed: RunDir | None,
    as_json: bool,
    quiet: bool,
) -> None:
    train, test = parts or sources.load(settings.data, settings.training.seed)

    from ostinato.cli import experiment

    result = experiment.run(settings, train, test, open_run, resumed, quiet)
    if as_json:
        say_json({**result.evaluation, "run": str(result.run.path) if result.run else None})
    else:
        say(_summary(result.evaluation, result.run))


def _begun(asked: Given) -> tuple[Config, Parts | None]:
    """The configuration of a new run, and its data if they were read to find it."""
    asked = runs.with_origin(asked)
    settings = configuration.resolve(asked)
    if settings.data.source in (None, *sources.BUILT_IN):
        return settings, None
    train, test = sources.load(settings.data, settings.training.seed)
    return defaults.for_file(settings, asked, len(train.X)), (train, test)


def _reopened(output: Path | None, resume: bool, overwrite: bool) -> RunDir | None:
    if resume and overwrite:
        raise BadInput("--resume goes on with a run, --overwrite begins it again; wanted one")
    if (resume or overwrite) and output is None:
        raise BadInput(f"{'--resume' if resume else '--overwrite'} needs --output DIR, the run")
    return rundir.reopen(output) if resume and output else None


def _resolved(asked: Given) -> Given:
    """With absolute paths, which hold in every working directory."""
    files = {k: asked[k] for k in ("data.source", "data.test") if asked.get(k) is not None}
    asked = asked | {key: sources.known(path) for key, path in files.items()}
    origin = asked.get("run.from")
    return asked if origin is None else asked | {"run.from": str(Path(origin).resolve())}


def _tell_finished(run: RunDir, as_json: bool) -> None:
    evaluation = run.results() or {}
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
    if "evaluation_s" in evaluation:  # runs of older versions lack it
        name = "evaluation" if run is None else "evaluation and report"
        rows.append((name, f"{evaluation['evaluation_s']:.1f} s"))
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
