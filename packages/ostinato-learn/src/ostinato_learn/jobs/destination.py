"""`--for stream|c`: a network that can go there, and a trial of it before the training."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ostinato_learn import tasks
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.inputs.task import task_of
from ostinato_learn.jobs.runs import runs

if TYPE_CHECKING:
    from ostinato_learn.jobs.base import Job


def chosen(settings: Config, asked: Given) -> Given:
    """What a user asks for, and one direction where --for needs it and no direction is given."""
    one_way = {"model.bidirectional": False}
    uses = tasks.named(task_of(settings)).uses
    return one_way | asked if settings.run.for_ and one_way.keys() <= uses else asked


def check(job: Job) -> None:
    """Raise BadInput if the model of a job could not go where --for says.

    A model of the same kind is made by one update and tried, so that whatever would refuse the
    trained model refuses this one.
    """
    where = job.settings.run.for_
    if where is None:
        return
    one = {"training.iterations": 1, "training.epochs": None, "training.patience": None}
    settings = job.settings.updated({**one, "training.warmup": 0})
    trial = replace(job, settings=settings)  # type: ignore[type-var]  # all jobs are dataclasses
    from ostinato.internal import Unsupported
    from ostinato_learn import runtime
    from ostinato_learn.models import saved_model

    with tempfile.TemporaryDirectory() as folder:
        origin = None if settings.run.from_ is None else runs.find(Path(settings.run.from_)).model
        model, _ = trial.fit([], None, origin)
        saved_model.save(model, Path(folder) / "model", trial.parameters(model), 1)
        saved = runtime.load(Path(folder) / "model")
        try:
            if where == "stream":
                saved.stream()
            else:
                from ostinato_learn.export.c import export_c

                export_c(saved, Path(folder) / "model.c", name="model")
        except (ValueError, Unsupported) as refused:
            raise BadInput(f"--for {where}: {refused}") from None
