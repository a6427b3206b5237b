"""One training from data to results, with its run directory.

This module imports torch; commands import it when they train.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from ostinato_learn import environment, files, tasks, training
from ostinato_learn.interrupt import Terminated
from ostinato_learn.jobs.failures import AlreadyReported, BadInput, Failure, Interrupted
from ostinato_learn.jobs.inputs import limits
from ostinato_learn.jobs.inputs.config import Config
from ostinato_learn.jobs.inputs.task import task_of, unused
from ostinato_learn.jobs.output import working
from ostinato_learn.jobs.runs import card, runs
from ostinato_learn.jobs.runs.rundir import RunDir
from ostinato_learn.jobs.runs.runs import Trained
from ostinato_learn.tasks.verdicts import below_baseline
from ostinato_learn.training import distributed
from ostinato_learn.training.history import History
from ostinato_learn.training.optimizers import without_dynamo

if TYPE_CHECKING:
    from ostinato_learn.jobs.base import Job

_log = logging.getLogger(__name__)

without_dynamo()  # no command compiles anything


@dataclass(frozen=True)
class Result:
    """The results of a training: its evaluation, and its directory if it has one."""

    evaluation: dict[str, Any]  # the content of evaluation.json
    run: RunDir | None


class RunRecorder(training.Callback):
    """Opens the run directory when the training begins, and keeps metrics and checkpoints there.

    By then all arguments have been checked, so that a wrong flag leaves no directory. If there are
    several processes, the others take part in the checkpoints, and write nothing.
    """

    everywhere = True

    def __init__(
        self,
        open_run: Callable[[], RunDir],
        settings: Config,
        surroundings: dict[str, Any],
        origin: Path | None,
    ):
        self.run: RunDir | None = None
        self._open_run = open_run
        self._settings = settings
        self._environment = surroundings
        self._origin = origin
        self._parts: list[training.Callback] = []

    def on_start(self, run: training.Run) -> None:
        every = self._settings.run.checkpoint_every
        if run.ranks.first:
            self._begin(run, every)
        else:
            self._parts = [training.Checkpoint(os.devnull, every)]
        for part in self._parts:
            part.on_start(run)

    def _begin(self, run: training.Run, every: int) -> None:
        # Read before the directory is opened: a run that is overwritten may be its own origin.
        start = None
        if self._origin is not None:
            start = {p.name: p.read_bytes() for p in files.current(self._origin).iterdir()}
        self.run = self._open_run()
        toml = self._settings.toml(without=unused(self._settings))
        if run.resumed:
            self.run.go_on(toml)
        else:
            self.run.begin(toml, self._environment, start)
        self._parts = [
            training.MetricsFile(self.run.metrics),
            training.LossFile(self.run.losses),
            training.Checkpoint(self.run.checkpoint, every),
        ]

    def on_iteration(self, run: training.Run) -> None:
        for part in self._parts:
            part.on_iteration(run)

    def on_report(self, run: training.Run, report: dict[str, Any]) -> None:
        for part in self._parts:
            part.on_report(run, report)

    def on_end(self, run: training.Run) -> None:
        for part in self._parts:
            part.on_end(run)


def run(
    job: Job,
    open_run: Callable[[], RunDir] | None = None,
    resumed: RunDir | None = None,
    quiet: bool = False,
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> Result | None:
    """Train and measure, in all processes of `torchrun`; the first one writes.

    Args:
        job: the task and its data.
        open_run: returns the directory of the run when it is needed; None: nothing is written.
        resumed: the run to continue.
        quiet: no progress on stderr.
        beside: further entries of the results, such as the findings of the data.

    Returns:
        The results; None in all processes but the first.

    Raises:
        BadInput, ValueError: the data or the settings cannot be used.
        Failure: the training diverged, or another process of it has ended.
        Interrupted: Ctrl-C or SIGTERM.
        AlreadyReported: in the other processes, if the first one raises one of these.
    """
    with distributed.joined() as ranks:
        return _run(job, open_run, resumed, quiet, beside, ranks)


def _run(
    job: Job,
    open_run: Callable[[], RunDir] | None,
    resumed: RunDir | None,
    quiet: bool,
    beside: Mapping[str, Any],
    ranks: distributed.Ranks,
) -> Result | None:
    settings = with_threads(job.settings, ranks)
    job = replace(job, settings=settings)  # type: ignore[type-var]  # all jobs are dataclasses
    # Processes of one machine read the same files: it is enough if one computes the digests.
    described = ranks.from_first_here(job.description)
    surroundings = environment.environment() | {"data": described}
    if not ranks.alone:
        surroundings["processes"] = ranks.size
    ranks.check_same(settings=settings.tables(), data=surroundings["data"])
    if resumed is not None:
        _check_same_data(resumed, surroundings["data"])
    limits.check_memory(settings, job.least_memory())
    checkpoint = ranks.from_first(lambda: _checkpoint(resumed))
    began_from = _origin(settings, resumed)
    recorder = RunRecorder(open_run, settings, surroundings, began_from) if open_run else None
    callbacks: list[training.Callback] = [recorder] if recorder else []
    if not quiet:
        callbacks.append(training.Progress())
    with _told(recorder, ranks):
        model, history = job.fit(callbacks, checkpoint, began_from)
        began = time.perf_counter()
        with working("evaluating", quiet):
            answers = job.answers(model, ranks, report=recorder is not None)
            if not ranks.first:
                return None
            evaluation = _measured(job, model, history, answers, beside)
        run = recorder.run if recorder else None
        with working("writing the report", quiet or run is None):
            _keep(run, job, model, history, evaluation, answers, began)
        if not quiet:
            name = "evaluation and report" if recorder else "evaluation"
            print(f"{name}: {evaluation['evaluation_s']:.1f} s", file=sys.stderr)
    return Result(evaluation, run)


@contextmanager
def _told(recorder: RunRecorder | None, ranks: distributed.Ranks) -> Iterator[None]:
    """Raise the reason why a training ends, and how it can go on: only in the first process.

    Raises:
        Failure: it diverged, or another process has ended.
        Interrupted: Ctrl-C or SIGTERM.
        AlreadyReported: in the other processes, if the first one raises one of these.
    """
    try:
        yield
    except training.PeerLost as error:
        kept = f"; {_how_to_go_on(recorder.run if recorder else None)}" if ranks.first else ""
        raise Failure(f"{error}{kept}") from None
    except training.Diverged as error:
        if not ranks.first:
            raise AlreadyReported from None
        begun = recorder.run if recorder else None
        where = f"; the last good checkpoint is in {begun.checkpoint}" if begun else ""
        raise Failure(f"{error}{where}") from None
    except (KeyboardInterrupt, Terminated) as error:
        kept = _how_to_go_on(recorder.run if recorder else None) if ranks.first else ""
        interrupted = Interrupted(f"interrupted; {kept}", error)
        raise interrupted if ranks.first else AlreadyReported(interrupted.exit_code) from None


def _origin(settings: Config, resumed: RunDir | None) -> Path | None:
    """The directory of the model whose weights a training starts from; a run has its own copy."""
    if resumed is not None and resumed.start.is_dir():
        return resumed.start
    return None if settings.run.from_ is None else runs.find(Path(settings.run.from_)).model


def with_threads(settings: Config, ranks: distributed.Ranks = distributed.ALONE) -> Config:
    """Set the number of threads, and keep it in the configuration: some bits depend on it.

    PyTorch's own choice ignores the CPU quota of a container. If several processes share a machine
    the number depends on theirs, and is not kept: a run may be resumed with more.
    """
    if not ranks.alone:
        distributed.set_threads(settings.run.threads)
        return settings
    threads = settings.run.threads or min(torch.get_num_threads(), environment.cores())
    torch.set_num_threads(threads)
    return settings.updated({"run.threads": threads})


def _check_same_data(run: RunDir, data: dict[str, Any]) -> None:
    began = run.surroundings().get("data", data)
    if began != data:
        files = ", ".join(data["sha256"]) or "the data set"
        raise BadInput(f"{files} has changed since the run in {run.path} began; begin a new run")


def _checkpoint(run: RunDir | None) -> str | None:
    """The checkpoint to resume from; None if the run was stopped before its first one."""
    if run is None or not (files.current(run.checkpoint) / "checkpoint.json").is_file():
        return None
    return str(run.checkpoint)


def _how_to_go_on(run: RunDir | None) -> str:
    checkpoint = _checkpoint(run)
    if run is None or checkpoint is None:
        return "nothing was written"
    state = files.parse_json((files.current(run.checkpoint) / "checkpoint.json").read_text("utf-8"))
    return (
        f"a checkpoint of iteration {state['iteration']} is kept.\n"
        f"Go on with: ostinato train --resume --output {run.path}"
    )


def _measured(
    job: Job, model: Any, history: History, answers: Any, beside: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of evaluation.json, without its time; `beside` are further entries."""
    evaluation = job.evaluate(model, answers)
    below = below_baseline(tasks.named(task_of(job.settings)), evaluation)
    if below is not None:
        source = job.settings.data.source
        _log.error("%s: %s: %s", source, below.message, below.remedy)
        found = [*beside.get("findings", []), below.as_json()]
        beside = {**beside, "findings": found}
    return evaluation | {
        "elapsed_s": history.reports[-1]["elapsed_s"],
        "iterations": history.iterations,
        "outcome": history.outcome,
        "best_iteration": history.best_iteration,
        **beside,
    }


def _keep(
    run: RunDir | None,
    job: Job,
    model: Any,
    history: History,
    evaluation: dict[str, Any],
    answers: Any,
    began: float,
) -> None:
    """Write the results of a run; evaluation.json last, as it says that the run is finished.

    Args:
        run, job, model, history: the training.
        evaluation: the results; its time, since `began` by `time.perf_counter`, is added.
        answers: see `Job.answers`.
    """
    if run is not None:
        job.keep(run, model, history, evaluation, answers)
        card.keep(Trained(run.model, job.settings, run), evaluation)
    evaluation["evaluation_s"] = time.perf_counter() - began
    if run is not None:
        files.write_json(run.evaluation, evaluation)
