"""ostinato tune FILE … --minutes 10"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ostinato_learn.cli.flags import ConfigFile, Sets, source_argument, with_flags
from ostinato_learn.cli.many import trials, workers
from ostinato_learn.cli.output import AsJson, Quiet, check_alone, hush, say, say_json
from ostinato_learn.cli.train import asked_for
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs import findings, registry
from ostinato_learn.jobs.failures import BadInput, Failure, Interrupted
from ostinato_learn.jobs.inputs import config as configuration
from ostinato_learn.jobs.inputs import limits, sources
from ostinato_learn.jobs.inputs.config import OPTIONS, Config, Given
from ostinato_learn.jobs.inputs.task import unused
from ostinato_learn.jobs.runs import summaries

if TYPE_CHECKING:
    import optuna

    from ostinato_learn.jobs.base import Job

VALIDATION = 0.2  # of the training part, by default
SHOWN = 10  # trials in the table
DRAWS = 5  # draws of a small validation part; their mean loss counts


@with_flags("data", "task", "model", "training", "run.threads")
def tune(
    given: Given,
    source: Annotated[
        Optional[str],  # noqa: UP045  typer of Python 3.10
        source_argument("As for train. The test part is not used."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="After this time, begin no trial and stop the running ones.")
    ] = 10.0,
    n_trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--trials", metavar="N", help="End after N finished trials.", min=1),
    ] = None,
    n_jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", help="Trials at a time, in N processes.", min=1)
    ] = 1,
    backend: workers.Backend = "loky",
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="STUDY", help="Directory; the same command resumes it."
        ),
    ] = None,
    config: ConfigFile = None,
    set_: Sets = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search for better parameters by the loss on a validation part.

    The first trial is the recipe of train. Parameters that you give are not searched. The result is
    a configuration for train --config.
    """
    hush(quiet)
    check_alone("tune")
    if not minutes > 0:
        raise BadInput(f"--minutes is {minutes:g}; wanted a number above 0")
    if output is not None:
        trials.check(output)
    asked = _with_validation(asked_for(source, config, set_, given))
    job = registry.read(configuration.resolve(asked), asked)

    from ostinato_learn.jobs import experiment  # noqa: F401  before anything is made: torch may be missing

    found = findings.tell(job)
    until = time.time() + 60 * minutes  # a clock that other machines share
    decided = {key: value for key, value in asked.items() if value is not None}
    seed = job.settings.training.seed
    shared = n_jobs > 1
    with trials.opened(
        output, job.settings, decided, job.description(), seed, found, shared
    ) as study:
        try:
            _search(study, job, asked, until, n_trials, n_jobs, backend, quiet)
        except (ValueError, BadInput):
            study.discard()
            raise
        except (KeyboardInterrupt, Terminated) as error:
            raise Interrupted(_how_to_go_on(study), error) from None
        best = study.best()
        if best is None:
            raise Failure(
                f"no trial was finished in {minutes:g} minutes; wanted more --minutes, or fewer "
                "--epochs or --iterations"
            )
        result = _result(study, best)
        if as_json:
            say_json(result)
        else:
            say("\n".join(_lines(study, best, result)))


def _with_validation(asked: Given) -> Given:
    """The given parameters, with a validation part to choose by.

    Raises:
        BadInput: the validation part is disabled, or --from is given, whose weights fit one size.
    """
    if asked.get("run.from") is not None:
        raise BadInput("--from is not for tune: its weights fit one size of network only")
    sources.known(asked.get("data.source"))
    key = "training.validation_fraction"
    settings = configuration.resolve(asked)
    if key in unused(settings):  # a forecaster keeps the end of each series
        return asked
    if asked.get(key) == 0:
        raise BadInput("--validation-fraction is 0; wanted a part to choose by, such as 0.2")
    return {key: VALIDATION} | asked


def _search(
    study: trials.Study,
    job: Job,
    asked: Given,
    until: float,
    n_trials: int | None,
    n_jobs: int,
    backend: str,
    quiet: bool,
) -> None:
    """Run trials, n_jobs at a time, until the time or their number is reached."""
    left = math.inf if n_trials is None else n_trials - len(study.finished())
    with closing(_results(study, job, asked, _times(until, left), n_jobs, backend)) as results:
        for number, said, seconds in results:
            study.keep()
            if not quiet:
                line = f"trial {number}: {said}, {seconds:.1f} s"
                print(line, file=sys.stderr, flush=True)


def _times(until: float, n: float) -> Iterator[float]:
    """The time, by `time.time()`, at which a trial ends: for each of at most n trials."""
    while n > 0 and time.time() < until:
        n -= 1
        yield until


def _results(
    study: trials.Study,
    job: Job,
    asked: Given,
    times: Iterator[float],
    n_jobs: int,
    backend: str,
) -> Generator[tuple[int, str, float], None, None]:
    """The trials as they end: number, outcome in words, seconds."""
    if n_jobs == 1:
        yield from workers.alone(_work, (study, job), times)
        return
    with workers.team(n_jobs, job.settings.run.threads, backend) as team:
        given = asked | {"run.threads": team.threads}
        arguments = (study, given, sources.digest(job.settings.data))
        yield from team.do(_worker, arguments, times)


def _worker(study: trials.Study, asked: Given, digests: dict[str, str]) -> workers.Work:
    """`_work` in a process of its own, on the study in the file of the command."""
    from ostinato_learn.jobs import experiment  # noqa: F401  or the first trial would wait for it

    study.check_seen()
    job = registry.read(configuration.resolve(asked), asked)
    workers.check_same(sources.digest(job.settings.data), digests)
    return _work(study, job)


def _work(study: trials.Study, job: Job) -> workers.Work:
    """Trains one trial after the other, and tells the study; see `_results`."""
    draws = [job, *_more_draws(job)]

    def work(until: float) -> tuple[int, str, float]:
        began = time.perf_counter()
        trial, used = study.ask()
        said = study.tell(trial, _trained(draws, used, trial, until))
        return trial.number, said, time.perf_counter() - began

    return work


def _more_draws(job: Job) -> list[Job]:
    """The jobs with other draws of a small validation part: a loss on few sequences is partly luck.

    Without them the best of many trials would be the luckiest one.
    """
    found = (job.redrawn(draw) for draw in range(1, DRAWS))
    return [each for each in found if each is not None]


def _with(job: Job, settings: Config) -> Job:
    return replace(job, settings=settings)  # type: ignore[type-var]  # all jobs are dataclasses


def _trained(
    draws: Sequence[Job], changed: Given, trial: optuna.Trial, until: float
) -> trials.Outcome:
    """Train once on each draw, until this time.

    A trial is pruned only in the first training. A trial that ran out of time is left to the next
    command.
    """
    from ostinato_learn.jobs import experiment
    from ostinato_learn.training import Diverged

    settings = experiment.with_threads(draws[0].settings.updated(changed))
    first, found = _with(draws[0], settings), []
    try:
        limits.check_memory(settings, first.least_memory())
    except BadInput as problem:
        return trials.Outcome(str(problem), pruned=True)
    try:
        for number, each in enumerate(draws):
            watch = _watch(until, trial if number == 0 else None)
            _, history = _with(each, settings).fit([watch], None)
            found.append(min(history.reports, key=lambda report: report["validation_loss"]))
    except _Ended as end:
        return end.outcome
    except Diverged as error:
        return trials.Outcome(f"diverged at iteration {error.iteration}", pruned=True)
    return trials.Outcome(reports=tuple(found))


class _Ended(Exception):  # noqa: N818  it ends a trial, it is no error
    def __init__(self, said: str, pruned: bool = False):
        super().__init__()
        self.outcome = trials.Outcome(said, pruned)


def _watch(until: float, trial: optuna.Trial | None) -> Any:
    """A callback that ends a training when the time is up, or when its trial, if it is given, is
    worse than others at the same step."""
    from ostinato_learn import training

    class Watch(training.Callback):
        step = -1

        def on_iteration(self, run: training.Run) -> None:
            if run.iteration < run.total and time.time() > until:
                raise _Ended("the time is up")

        def on_report(self, run: training.Run, report: dict[str, Any]) -> None:
            step = trials.STEPS * run.iteration // run.total
            if trial is None or step <= self.step or run.iteration == run.total:
                return
            self.step, loss = step, report["validation_loss"]
            trial.report(loss, step)
            if trial.should_prune():
                share = f"{100 * run.iteration / run.total:.0f} % of its schedule"
                raise _Ended(f"pruned at {share}, validation loss {loss:.4g}", pruned=True)

    return Watch()


def _how_to_go_on(study: trials.Study) -> str:
    if study.path is None:
        return "interrupted; nothing was written (-o STUDY keeps a study)"
    n = len(study.finished())
    return (
        f"interrupted; {n} finished trial{'' if n == 1 else 's'} in {study.path}.\n"
        "The same command resumes the study."
    )


def _result(study: trials.Study, best: optuna.trial.FrozenTrial) -> dict[str, Any]:
    finished = study.finished()
    rows = [_row(trial) for trial in finished]
    n_complete = sum(row["state"] == "complete" for row in rows)
    return {
        "study": None if study.path is None else str(study.path),
        "config": None if study.best_file is None else str(study.best_file),
        "trials": len(rows),
        "pruned": len(rows) - n_complete,
        "best": _row(best),
        "recipe": next((row for row in rows if row["trial"] == 0), None),
        "table": rows,
        **findings.kept(study.findings),
    }


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """A trial as JSON values."""
    names = ("validation_", "draws_")
    measures = {n: v for n, v in trial.user_attrs.items() if n.startswith(names)}
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        **measures,
        "validation_loss": trial.value,
        "parameters": trial.user_attrs["used"],
        "seconds": trial.duration.total_seconds() if trial.duration else None,
    }


def _lines(
    study: trials.Study, best: optuna.trial.FrozenTrial, result: dict[str, Any]
) -> list[str]:
    complete = [row for row in result["table"] if row["state"] == "complete"]
    lines = [
        f"{result['trials']} {'trial' if result['trials'] == 1 else 'trials'}, "
        f"{result['pruned']} of them pruned; the best by validation loss:",
        "",
        *_table(study, complete[:SHOWN]),
        *summaries.aligned(summaries.findings(result)),
        "",
    ]
    if best.number == 0:
        lines.append("The recipe (trial 0) is the best so far: nothing better was found.")
    if study.best_file is None:
        lines += [
            "Nothing was written; --output STUDY keeps the trials. The best configuration:",
            "",
            study.config_of(best).rstrip("\n"),
        ]
    else:
        lines += [
            f"Train and test it:      ostinato train --config {study.best_file} --output DIR",
            f"Was it luck? See folds: ostinato cv --config {study.best_file}",
        ]
    return lines


def _table(study: trials.Study, rows: list[dict[str, Any]]) -> list[str]:
    """Trials as lines of aligned columns."""
    keys = [axis.key for axis in study.axes]
    accuracy = any("validation_accuracy" in row for row in rows)
    head = ["trial", "loss", *(["accuracy"] if accuracy else []), "seconds"]
    cells = [[*head, *(OPTIONS[key].cli_name for key in keys)]]
    for row in rows:
        measures = [f"{row['validation_loss']:.4g}"]
        measures += [f"{100 * row['validation_accuracy']:.2f} %"] if accuracy else []
        values = [_plain(row["parameters"].get(key)) for key in keys]
        cells.append([str(row["trial"]), *measures, f"{row['seconds']:.1f}", *values])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
