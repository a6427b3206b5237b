"""The tasks: a folder each, and the registry that finds it.

    base.py          `TaskSpec`: the description of a task
    <kind>/          __init__.py   its `TaskSpec`: flags, recipe, measures; nothing heavy
                     model.py      outputs as answers, and measures: NumPy alone, also without torch
                     net.py        the network, a PyTorch module; graph.py: the same as nodes
                     loss.py       the loss of a batch
                     fit.py        from data to a trained model
                     estimator.py  the class in scikit-learn's manner

A new task is a folder and a name in `NAMES`, a job in `jobs/` and a report in `report/`. This
module and `base.py` import no folder: the runtime, the training and the command line import a
folder when they need it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from ostinato_learn.tasks.base import TaskSpec

__all__ = ["NAMES", "TaskSpec", "by_kind", "every", "named"]

NAMES = ("classify", "tag", "regress", "forecast", "language")


@cache
def named(name: str) -> TaskSpec:
    """The task of this name, one of `NAMES`."""
    found: TaskSpec = import_module(f"ostinato_learn.tasks.{name}").TASK
    return found


def every() -> list[TaskSpec]:
    """All tasks, in the order of `NAMES`."""
    return list(map(named, NAMES))


def by_kind(kind: str, where: str) -> TaskSpec:
    """The task of a saved model, by the entry "kind" of its configuration.

    Args:
        kind: the kind, such as "sequence_classifier".
        where: the origin of the model, for errors.

    Raises:
        ValueError: no task has this kind.
    """
    for task in every():
        if task.kind == kind:
            return task
    raise ValueError(
        f"{where} has the kind {kind[:60]!r}; wanted one of {', '.join(t.kind for t in every())}: "
        "use it with the version of ostinato that saved it"
    )
