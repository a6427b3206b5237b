"""The task that a configuration asks for, and its defaults.

The flag that names the target names the task. Files with X and y (.npz, .ts), and the built-in data
sets, have a fixed task.
"""

from __future__ import annotations

from ostinato_learn import tasks
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import defaults, sources
from ostinato_learn.jobs.inputs.config import OPTIONS, Config, Given


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
        of_files = (task.reads_arrays and defaults.holds_arrays(source)) or (
            task.reads_text and sources.is_text(source)
        )
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
