"""The common part of the jobs to classify and to tag, which learn from parts of a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ostinato.cli.failures import BadInput
from ostinato.cli.run import limits, partition, sources
from ostinato.cli.run.config import Config
from ostinato.cli.run.runs import Trained
from ostinato.tasks.job import Job

if TYPE_CHECKING:
    from ostinato.data.sequences.examples import Examples
    from ostinato.training.distributed import Ranks
    from ostinato.training.plan import Plan

J = TypeVar("J", bound="PartsJob")


@dataclass(frozen=True)
class PartsJob(Job):
    """A job whose data are the training, validation and test part of a file."""

    settings: Config
    parts: partition.Parts

    def description(self) -> dict[str, Any]:
        return partition.describe(self.parts) | {"sha256": sources.digest(self.settings.data)}

    def redrawn(self: J, draw: int) -> J | None:
        parts = partition.redrawn(self.parts, self.settings, draw)
        return None if parts is None else replace(self, parts=parts)

    def least_memory(self) -> int:
        return limits.least_memory(self.settings, partition.describe(self.parts))

    def _plan(self) -> Plan:
        """How to train, as `training` has it."""
        from ostinato.training import Plan

        given = asdict(self.settings.training)
        return Plan(**{f.name: given[f.name] for f in fields(Plan)})

    def _share(self, ranks: Ranks) -> Examples:
        """The test sequences of this process; empty if there are too few for all processes."""
        test = self.parts.test
        return test if ranks.alone else test.select(np.arange(len(test))[ranks.rows(len(test))])


def measured_part(trained: Trained, file: str | None) -> Examples:
    """The examples that a saved model is measured on: those of a file, or its run's test part.

    Raises:
        BadInput: it is a model without a run, and there is no file; or the data cannot be read.
    """
    settings, preparation = trained.settings(), trained.preparation()
    if file is not None:
        task = trained.task()
        if settings.get(task.target) is None and not sources.is_table(file):
            settings = settings.updated({task.target: "y"})  # arrays say it themselves
        columns = sources.trained_roles(preparation, settings, answers=True)
        found: Examples = sources.read_labelled(file, settings, trained.reading_of(file), columns)
        return found
    if trained.config is None:
        raise BadInput(f"{trained.model} is a model without a run; name the FILE to evaluate it on")
    return partition.load(settings, preparation).test
