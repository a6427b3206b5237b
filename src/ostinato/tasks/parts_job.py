"""The common part of the jobs to classify and to tag, which learn from parts of a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ostinato.cli.run import limits, partition, sources
from ostinato.cli.run.config import Config
from ostinato.tasks.job import Job

if TYPE_CHECKING:
    from ostinato.data.sequences.examples import Examples
    from ostinato.training.distributed import Ranks

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

    def _share(self, ranks: Ranks) -> Examples:
        """The test sequences of this process; empty if there are too few for all processes."""
        test = self.parts.test
        return test if ranks.alone else test.select(np.arange(len(test))[ranks.rows(len(test))])
