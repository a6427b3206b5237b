"""`History`: the reports of a training and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Report = dict[str, Any]

LOSS_EVERY = 10  # iterations between two of the losses: 500 points of the notebook's 5,000


@dataclass
class History:
    """What a training recorded: reports, losses, and how it ended.

    Attributes:
        reports: one dict each, in order: iteration (updates made), epoch (passes over the data, a
            fraction), loss and further measures of the task, such as train_accuracy (on that
            iteration's batch, before its update; in the report at the end on the last batch),
            learning_rate, with a validation set validation_loss and further measures, such as
            validation_accuracy, and elapsed_s (seconds since the start).
        losses: the loss of every tenth iteration (0, 10, 20, …), on its batch before its update.
        iterations: updates made.
        best_iteration: the iteration of the report with the lowest validation loss; None without
            validation.
        outcome: "finished", "stopped early", "interrupted"; "running" until it ends, and for ever
            if it ended with an error.

    Example:
        >>> History(reports=[{"iteration": 0, "loss": 2.3}, {"iteration": 9, "loss": 0.2}])["loss"]
        [2.3, 0.2]
    """

    reports: list[Report] = field(default_factory=list)
    iterations: int = 0
    best_iteration: int | None = None
    outcome: str = "running"
    losses: list[float] = field(default_factory=list)

    @property
    def course(self) -> list[tuple[int, float]]:
        """The losses with their iterations: (0, 2.31), (10, 2.25), …"""
        return [(LOSS_EVERY * i, loss) for i, loss in enumerate(self.losses)]

    def __getitem__(self, name: str) -> list[Any]:
        """One entry of all reports."""
        return [report[name] for report in self.reports]
