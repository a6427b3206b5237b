"""`Job`: what the command line does for a task, from a user's file to results."""

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
    """A training on data that were read and checked. torch is imported by the methods alone.

    Attributes:
        settings: the configuration, with defaults that follow from the task and the data.
    """

    settings: Config

    @property
    @abstractmethod
    def aim(self) -> str:
        """What is learnt, for `train --dry-run`."""

    @abstractmethod
    def shown(self) -> dict[str, list[tuple[str, str]]]:
        """The sections of `train --dry-run` on data, parts and baselines: rows of name, value."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The sizes of the data and their digests: a run is resumed only with the same."""

    @abstractmethod
    def redrawn(self, draw: int) -> Job | None:
        """The job with another draw of a small validation part; None where there is no other."""

    @abstractmethod
    def least_memory(self) -> int:
        """Bytes that the training takes at least."""

    @abstractmethod
    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Any, History]:
        """Train. The result is what the other methods take.

        Args:
            callbacks: called in the course of the training.
            resume: the directory of a checkpoint to go on from.
            origin: the directory of a saved model, with whose weights it begins, and which reads
                features and words as they are read.

        Raises:
            BadInput, ValueError: the data or the settings cannot be used.
            Diverged: the loss became NaN or infinite.
        """

    @abstractmethod
    def answers(self, model: Any, ranks: Ranks, report: bool) -> Any:
        """The answers to the test part, for `evaluate` and `keep`; None but in the first process.

        Every process answers its share, and all call this together.

        Args:
            model: what `fit` gave, the same in all.
            ranks: the processes.
            report: whether there are answers to be kept, and a report.
        """

    @abstractmethod
    def evaluate(self, model: Any, answers: Any) -> dict[str, Any]:
        """The entries of evaluation.json that are the task's own, "test" among them."""

    @abstractmethod
    def parameters(self, model: Any) -> dict[str, Any]:
        """The arguments of the estimator that would train this model, as its directory keeps."""

    @abstractmethod
    def keep(
        self, run: RunDir, model: Any, history: History, evaluation: dict[str, Any], answers: Any
    ) -> None:
        """Write the model, the predictions and the report."""
