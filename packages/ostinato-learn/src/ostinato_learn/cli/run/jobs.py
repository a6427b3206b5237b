"""The tasks of the command line: which one a configuration asks for, and its job.

The flag that names the target names the task. Files with X and y (.npz, .ts), and the built-in data
sets, have a fixed task.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ostinato_learn import tasks
from ostinato_learn.cli.failures import BadInput
from ostinato_learn.cli.run import defaults, sources
from ostinato_learn.cli.run.config import OPTIONS, Config, Given
from ostinato_learn.cli.run.runs import Trained, find
from ostinato_learn.tasks import TaskSpec

if TYPE_CHECKING:
    from ostinato_learn.tasks.job import Job

def task_of(settings: Config) -> str:
    """The task of a configuration.

    Raises:
        BadInput: it names two tasks, or none although the file does not imply one; or there is no
            file.
    """
    asked = [name for name in tasks.NAMES if getattr(settings.task, name) is not None]
    if len(asked) > 1:
        raise BadInput(f"--{asked[0]} and --{asked[1]} are two tasks; wanted one")
    source = settings.data.source
    if not source:
        raise BadInput(f"what should be learnt? wanted {sources.WANTED}")
    own = _task_of_source(source, asked)
    if own is not None and asked and asked != [own]:
        raise BadInput(f"--{asked[0]} is not for {source}, whose task is {own}")
    if own is None and not asked:
        wanted = ", ".join(f"--{name} COLUMN" for name in tasks.NAMES)
        raise BadInput(f"{source}: what should be learnt of it? wanted one of {wanted}")
    return own or asked[0]


def _task_of_source(source: str, asked: list[str]) -> str | None:
    """The only task that a source allows; if it allows several, the asked one first; else None."""
    for task in sorted(tasks.every(), key=lambda task: task.name not in asked):
        of_files = (
            (task.reads_arrays and defaults.holds_arrays(source))
            or (task.reads_text and sources.is_text(source))
        )  # fmt: skip
        if source in task.built_in or of_files:
            return task.name
    return None


def with_defaults(settings: Config, given: Given) -> Config:
    """The settings with the defaults of their task.

    Args:
        settings: resolved, with the defaults of the notebook.
        given: the parameters that the user set, which are kept.

    Raises:
        BadInput: a parameter is given that the task does not use.
    """
    task = task_of(settings)
    check_used(task, given)
    return defaults.for_task(task, settings, given)


def check_used(task: str, given: Given) -> None:
    """Raise BadInput if a parameter is given that the task does not use."""
    unused = _unused(task)
    for key, value in given.items():
        if value != OPTIONS[key].default and key in unused:
            uses = ", ".join(sorted(each.name for each in tasks.every() if key in each.uses))
            raise BadInput(f"{OPTIONS[key].flag} is for {uses}, not for {task}; leave it out")


def unused(settings: Config) -> frozenset[str]:
    """The keys of the configuration that its task does not use."""
    return _unused(task_of(settings))


def _unused(task: str) -> frozenset[str]:
    every = frozenset().union(*(each.uses for each in tasks.every()))
    return every - tasks.named(task).uses


def read(settings: Config, given: Given) -> Job:
    """The job of a configuration, its data read and checked; torch is not imported.

    Args:
        settings, given: as for `with_defaults`; further defaults follow from the data.

    Raises:
        BadInput, ValueError: the data or a parameter cannot be used.
    """
    settings = with_defaults(settings, given)
    return kind(tasks.named(task_of(settings))).read(settings, given)


def folds(settings: Config, given: Given, k: int) -> Iterator[Job]:
    """The jobs of a cross-validation, one for each of k folds, in which everything is checked.

    Sequences are dealt out by class, and each --group whole; so are documents. A text is cut into k
    stretches. For series, fold j learns from all steps before the j-th stretch of their ends, and
    is tested on that stretch. A source with its own test part keeps it out of all folds.

    Raises:
        BadInput, ValueError: the data or a parameter cannot be used, or there are too few data.
    """
    settings = with_defaults(settings, given)
    return kind(tasks.named(task_of(settings))).folds(settings, given, k)


def again(settings: Config) -> Job:
    """`read` for complete settings, such as those of a resumed run."""
    return kind(tasks.named(task_of(settings))).read(settings, dict(settings.items()))


def of_model(trained: Trained) -> tuple[TaskSpec, type[Job]]:
    """The task of a saved model, and the class of its jobs.

    Raises:
        BadInput: this version does not know its kind.
    """
    task = trained.task()
    return task, kind(task)


def check_origin(settings: Config) -> None:
    """Raise BadInput if the weights to start from belong to a model with another task."""
    origin = settings.run.from_
    if origin is None:
        return
    task, own = task_of(settings), find(Path(origin)).task().name
    if own != task:
        raise BadInput(f"--from {origin} has the task {own}; this is {task}: wanted the same")


def kind(task: TaskSpec) -> type[Job]:
    """The class of the jobs of a task."""
    found: type[Job] = task.module("job").JOB
    return found
