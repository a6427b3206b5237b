"""ostinato train mnist|vowels|FILE"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from ostinato_learn import environment, tasks
from ostinato_learn.cli.flags import ConfigFile, Sets, source_argument, with_flags
from ostinato_learn.cli.output import Quiet, check_directory, hush, say, say_json
from ostinato_learn.jobs import destination, findings, registry
from ostinato_learn.jobs.base import Job
from ostinato_learn.jobs.failures import BadInput, Failure
from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs import limits, sources
from ostinato_learn.jobs.inputs.built_in import known_of
from ostinato_learn.jobs.inputs.config import SECTIONS, Config, Given
from ostinato_learn.jobs.inputs.task import task_of, unused, with_defaults
from ostinato_learn.jobs.runs import rundir, runs, summaries
from ostinato_learn.jobs.runs.rundir import RunDir

_log = logging.getLogger(__name__)


@with_flags(*SECTIONS)
def train(
    given: Given,
    source: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        source_argument("FILE: your own, a table (.csv, .jsonl, .parquet, …), .npz, .ts or .txt."),
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
            help="Continue the run in --output. A finished run continues to more --iterations or "
            "--epochs; the schedule cosine then follows the new end.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --output by a new one.")
    ] = False,
    config: ConfigFile = None,
    set_: Sets = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show how the data are understood, the recipe and its time; write nothing.",
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved configuration and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object with the results on stdout.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train to classify, tag, regress, forecast or predict text.

    The flag that names the target in a table names the task: --classify, --tag, --regress,
    --forecast or --language. On mnist and arrays (.npz, .ts, IDX) the defaults are the notebook's
    network; for tables and texts they fit the task. The length fits the size of the data.
    --print-config shows them.

    Parameters come from flags, then --set, then --config, then the defaults.

    In several processes: torchrun --nproc-per-node N -m ostinato_learn train ...
    """
    hush(quiet)
    asked = asked_for(source, config, set_, given)
    run = _reopened(output, resume, overwrite)
    looks_only = print_config or dry_run
    if run is None and output is not None and not looks_only:
        rundir.check(output, overwrite)
        check_directory(output)
    with _together(alone=looks_only):
        settings, job, measured = (runs.continued(run, asked), None, None) if run else _begun(asked)
        if print_config:
            without = unused(settings) if settings.data.source else frozenset()
            say(settings.toml(without=without).rstrip("\n"))
        elif dry_run:
            from ostinato_learn.jobs import dry_run as preview

            sources.known(settings.data.source)
            job = job or registry.again(settings)
            findings.tell(job)
            say(preview.shown(job, measured))
        elif run is not None and runs.is_done(run, settings):
            _tell_finished(run, as_json)
        else:
            if run is not None:
                check_directory(run.path)
            elif refused := _closed_by_default(settings, asked):
                _log.warning("%s", refused)
            open_run = None if output is None else lambda: run or rundir.create(output, overwrite)
            _train(job, settings, open_run, run, as_json, quiet)


@contextmanager
def _together(alone: bool) -> Iterator[None]:
    """The processes of `torchrun` as a group, from before the data are read."""
    if alone or not environment.launched():
        yield
        return
    from ostinato_learn.training import PeerLost, distributed

    with distributed.joined():
        try:
            yield
        except PeerLost as error:
            raise Failure(str(error)) from None


def asked_for(
    source: str | None, config: Path | None, sets: list[str] | None, given: Given
) -> Given:
    """The given parameters: flags override --set, and --set overrides --config."""
    from_file = configuration.read_file(config) if config else {}
    if config:
        from_file = configuration.relative_to(config.parent, from_file)
    from_source = {"data.source": source} if source else {}
    from_sets = configuration.read_sets(sets or [])
    asked = _resolved(configuration.merge(from_file, from_sets, given | from_source))
    limits.check_threads(asked.get("run.threads"))
    return asked | sources.recognised(asked)


def _train(
    job: Job | None,
    settings: Config,
    open_run: Callable[[], RunDir] | None,
    resumed: RunDir | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from ostinato_learn.jobs import experiment

    job = job or registry.again(settings)
    found = findings.tell(job) if environment.rank() == 0 else []
    result = experiment.run(job, open_run, resumed, quiet, findings.kept(found))
    if result is None:
        return
    if as_json:
        say_json({**result.evaluation, "run": str(result.run.path) if result.run else None})
    else:
        say(summaries.summary(result.evaluation, result.run))


def _begun(asked: Given) -> tuple[Config, Job | None, tuple[float, int] | None]:
    """The configuration of a new run; its data, and its speed, if they were needed to find it."""
    asked = runs.with_origin(asked)
    settings = configuration.resolve(asked)
    if settings.data.source is None:
        return settings, None, None
    registry.check_origin(settings)
    asked = destination.chosen(settings, asked)
    settings = configuration.resolve(asked)
    chosen = settings.run.for_ is not None or settings.run.minutes is not None
    if known_of(settings.data.source).studied and not chosen:
        return with_defaults(settings, asked), None, None
    job = registry.read(settings, asked)
    destination.check(job)
    if settings.run.minutes is None:
        return job.settings, job, None
    from ostinato_learn.jobs import timing

    job, measured = timing.within(job, asked, settings.run.minutes)
    return job.settings, job, measured


def _closed_by_default(settings: Config, asked: Given) -> str | None:
    """`TaskSpec.rules_out`; None if the user or the first model has chosen the direction."""
    chosen = "model.bidirectional" in asked or settings.run.from_ is not None
    refused = tasks.named(task_of(settings)).rules_out(settings)
    return None if settings.model.bidirectional and chosen else refused


def _reopened(output: Path | None, resume: bool, overwrite: bool) -> RunDir | None:
    if resume and overwrite:
        raise BadInput("--resume goes on with a run, --overwrite begins it again; wanted one")
    if (resume or overwrite) and output is None:
        raise BadInput(f"{'--resume' if resume else '--overwrite'} needs --output DIR, the run")
    return rundir.reopen(output) if resume and output else None


def _resolved(asked: Given) -> Given:
    """The parameters with absolute paths, which are valid in every working directory."""
    files = {k: asked[k] for k in ("data.source", "data.test") if asked.get(k) is not None}
    asked = asked | {key: sources.known(path) for key, path in files.items()}
    origin = asked.get("run.from")
    return asked if origin is None else asked | {"run.from": str(Path(origin).resolve())}


def _tell_finished(run: RunDir, as_json: bool) -> None:
    evaluation = run.results() or {}
    if as_json:
        say_json({**evaluation, "run": str(run.path)})
    else:
        say(f"{run.path} is finished; nothing is left to do.\n{summaries.summary(evaluation, run)}")
