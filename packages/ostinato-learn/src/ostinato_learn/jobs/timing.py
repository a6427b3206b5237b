"""How long a training takes on this machine, by some of its updates; and `--minutes`."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ostinato_learn import training
from ostinato_learn.jobs.inputs.config import Given
from ostinato_learn.jobs.runs import runs
from ostinato_learn.tasks.recipe import WARM_UP
from ostinato_learn.training import distributed
from ostinato_learn.training.callbacks import duration

if TYPE_CHECKING:
    from ostinato_learn.jobs.base import Job

_log = logging.getLogger(__name__)

UPDATES, SECONDS = 20, 3.0  # measured at most; the first two updates also record the network
SHARE = 0.9  # of --minutes, for the updates; the rest is for reports


class _Enough(Exception):  # noqa: N818  it ends a measurement
    pass


class _Clock(training.Callback):
    """Measures updates, and ends the training when it has seen enough of them."""

    everywhere = True

    def __init__(self) -> None:
        self.total = 0
        self.times: list[float] = []

    def on_start(self, run: training.Run) -> None:
        self.total = run.total

    def on_iteration(self, run: training.Run) -> None:
        self.times.append(time.perf_counter())
        n, elapsed = len(self.times), self.times[-1] - self.times[0]
        if n >= UPDATES or (n > 3 and elapsed > SECONDS):
            raise _Enough


def measured(job: Job) -> tuple[float, int]:
    """The seconds that an update takes, and the number of updates that the job will make."""
    clock, origin = _Clock(), job.settings.run.from_
    with contextlib.suppress(_Enough):
        job.fit([clock], None, None if origin is None else runs.find(Path(origin)).model)
    steps = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    return (median(steps[1:] or steps) if steps else 0.0), clock.total


def estimate(seconds: float, updates: int) -> str:
    """The time that a training takes, in words; its arguments are those of `measured`."""
    took = duration(seconds * updates)  # or "under 1 s"
    return f"{'about ' * took[0].isdigit()}{took} on this machine, for {updates:,} updates"


def within(job: Job, asked: Given, minutes: float) -> tuple[Job, tuple[float, int]]:
    """The job, with fewer updates where --minutes does not allow all; the schedule fits them.

    Returns:
        The job; the seconds of an update, and the number of updates.
    """
    with distributed.joined() as ranks:
        seconds, planned = measured(job)  # all processes of a training together
        seconds = ranks.from_first(lambda: seconds)
    updates = max(1, int(60 * minutes * SHARE / seconds)) if seconds else planned
    if updates >= planned:
        return job, (seconds, planned)
    _log.warning(
        "--minutes %g: %s updates of the %s planned, at %.3g s each",
        minutes,
        f"{updates:,}",
        f"{planned:,}",
        seconds,
    )
    settings = job.settings
    chosen: Given = {"training.iterations": updates, "training.epochs": None}
    if asked.get("training.eval_every") is None:
        chosen["training.eval_every"] = min(settings.training.eval_every, max(1, updates // 20))
    if settings.training.schedule == "cosine" and "training.warmup" not in asked:
        chosen["training.warmup"] = round(WARM_UP * updates)
    settings = settings.updated(chosen)
    return replace(job, settings=settings), (seconds, updates)  # type: ignore[type-var]  # all jobs are dataclasses
