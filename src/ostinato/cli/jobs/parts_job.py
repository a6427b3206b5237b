"""The common part of the jobs to classify and to tag, which learn from parts of a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ostinato.cli import limits, partition, sources
from ostinato.cli.config import Config

J = TypeVar("J", bound="PartsJob")


@dataclass(frozen=True)
class PartsJob:
    """See `Job`."""

    settings: Config
    parts: partition.Parts

    def description(self) -> dict[str, Any]:
        return partition.describe(self.parts) | {"sha256": sources.digest(self.settings.data)}

    def redrawn(self: J, draw: int) -> J | None:
        parts = partition.redrawn(self.parts, self.settings, draw)
        return None if parts is None else replace(self, parts=parts)

    def least_memory(self) -> int:
        return limits.least_memory(self.settings, partition.describe(self.parts))
