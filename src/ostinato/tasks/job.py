"""`Job`: the work of the command line for a task, from a user's file to results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ostinato.cli.run.config import Config
    from ostinato.cli.run.rundir import RunDir
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History


class Job(ABC):
    """A training on data that were read and checked. Only its methods import torch.

    Attributes:
        settings: the configuration, with defaults from the task and the data.
    """

    settings: Config

    @property
    @abstractmethod
    def aim(self) -> str:
        """A phrase for the task, for `train --dry-run`."""

    @abstractmethod
    def shown(self) -> dict[str, list[tuple[str, str]]]:
        """The sections of `train --dry-run` on data, parts and baselines: rows of name, value."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The sizes of the data and their digests: a run is resumed only with the same."""

    @abstractmethod
    def redrawn(self, draw: int) -> Job | None:
        """The job with another draw of a small validation part; None if there is no other."""

    @abstractmethod
    def least_memory(self) -> int:
        """The least number of bytes of the training."""

    @abstractmethod
    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Any, History]:
        """Train, and return the model for the other methods.

        Args:
            callbacks: called in the course of the training.
            resume: the directory of a checkpoint to resume from.
            origin: the directory of a saved model, whose weights are the start, and whose
                preparation of features and words is kept.

        Raises:
            BadInput, ValueError: the data or the settings cannot be used.
            Diverged: the loss became NaN or infinite.
        """

    @abstractmethod
    def answers(self, model: Any, ranks: Ranks, report: bool) -> Any:
        """The answers to the test part, for `evaluate` and `keep`; None except in the first
        process.

        Every process answers its share, and all processes must call this.

        Args:
            model: the result of `fit`, the same in all processes.
            ranks: the processes.
            report: whether answers are kept and a report is written.
        """

    @abstractmethod
    def evaluate(self, model: Any, answers: Any) -> dict[str, Any]:
        """The entries of evaluation.json that depend on the task, "test" among them."""

    @abstractmethod
    def parameters(self, model: Any) -> dict[str, Any]:
        """The arguments of the estimator that would train this model, as its directory keeps."""

    @abstractmethod
    def keep(
        self, run: RunDir, model: Any, history: History, evaluation: dict[str, Any], answers: Any
    ) -> None:
        """Write the model, the predictions and the report."""
