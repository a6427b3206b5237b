"""The job of a configuration or of a saved model, by its task."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from ostinato_learn.jobs.base import Job
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.inputs.task import task_of, with_defaults
from ostinato_learn.jobs.runs.runs import Trained, find
from ostinato_learn.tasks import TaskSpec

# Imported when a job is read: the help of a command imports no NumPy.
_JOBS = {
    "classify": "ostinato_learn.jobs.classify.ClassifyJob",
    "tag": "ostinato_learn.jobs.tag.TagJob",
    "regress": "ostinato_learn.jobs.regress.RegressJob",
    "forecast": "ostinato_learn.jobs.forecast.ForecastJob",
    "language": "ostinato_learn.jobs.language.LanguageJob",
}


def job_of(task: str) -> type[Job]:
    """The class of the jobs of a task."""
    module, name = _JOBS[task].rsplit(".", 1)
    job: type[Job] = getattr(importlib.import_module(module), name)
    return job


def read(settings: Config, given: Given) -> Job:
    """The job of a configuration, its data read and checked; torch is not imported.

    Args:
        settings, given: as for `with_defaults`; further defaults follow from the data.

    Raises:
        BadInput, ValueError: the data or a parameter cannot be used.
    """
    settings = with_defaults(settings, given)
    return job_of(task_of(settings)).read(settings, given)


def folds(settings: Config, given: Given, k: int) -> Iterator[Job]:
    """The jobs of a cross-validation, one for each of k folds, in which everything is checked.

    Sequences are dealt out by class, and each --group whole; so are documents. A text is cut into k
    stretches. For series, fold j learns from all steps before the j-th stretch of their ends, and
    is tested on that stretch. A source with its own test part keeps it out of all folds.

    Raises:
        BadInput, ValueError: the data or a parameter cannot be used, or there are too few data.
    """
    settings = with_defaults(settings, given)
    return job_of(task_of(settings)).folds(settings, given, k)


def again(settings: Config) -> Job:
    """`read` for complete settings, such as those of a resumed run."""
    return job_of(task_of(settings)).read(settings, dict(settings.items()))


def of_model(trained: Trained) -> tuple[TaskSpec, type[Job]]:
    """The task of a saved model, and the class of its jobs.

    Raises:
        BadInput: this version does not know its kind.
    """
    task = trained.task()
    return task, job_of(task.name)


def check_origin(settings: Config) -> None:
    """Raise BadInput if the weights to start from belong to a model with another task."""
    origin = settings.run.from_
    if origin is None:
        return
    task, own = task_of(settings), find(Path(origin)).task().name
    if own != task:
        raise BadInput(f"--from {origin} has the task {own}; this is {task}: wanted the same")
