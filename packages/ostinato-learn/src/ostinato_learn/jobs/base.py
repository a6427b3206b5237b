"""`Job`: the work of the command line for a task, from a user's file to results.

Each task has one, in the module of its name; `registry.py` lists them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.runs.runs import Trained
from ostinato_learn.jobs.runs.summaries import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from typing_extensions import Self

    from ostinato_learn.jobs.runs.paired import Measured, PairedResult
    from ostinato_learn.jobs.runs.rundir import RunDir
    from ostinato_learn.report.page import PageData, RunFacts
    from ostinato_learn.training import Plan
    from ostinato_learn.training.callbacks import Callback
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History


class Job(ABC):
    """A training on data that were read and checked. Only some of its methods import torch.

    Attributes:
        settings: the configuration, with defaults from the task and the data.
    """

    settings: Config

    @classmethod
    @abstractmethod
    def read(cls, settings: Config, given: Given) -> Self:
        """The job of a configuration; see `registry.read`."""

    @classmethod
    @abstractmethod
    def folds(cls, settings: Config, given: Given, k: int) -> Iterator[Self]:
        """The jobs of a cross-validation; see `registry.folds`."""

    @classmethod
    @abstractmethod
    def evaluated(cls, trained: Trained, file: str | None) -> dict[str, Any]:
        """The measures of a saved model, on a file or on the test part of its run.

        Raises:
            BadInput: it is a model without a run, and there is no file; or the data cannot be read.
        """

    @classmethod
    @abstractmethod
    def predicted(cls, trained: Trained, file: str, proba: bool) -> Iterator[str]:
        """The answers of a saved model to a file, as pieces of CSV; with `proba` in full."""

    @classmethod
    @abstractmethod
    def compared(cls, a: Measured, b: Measured) -> PairedResult:
        """The test of run B against run A on the same test part.

        Raises:
            NotComparable: their predictions cannot be paired.
        """

    @property
    @abstractmethod
    def aim(self) -> str:
        """A phrase for the task, for `train --dry-run`."""

    @abstractmethod
    def shown(self) -> dict[str, Rows]:
        """The sections of `train --dry-run` on data, parts and baselines: rows of name, value."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The sizes of the data and their digests: a run is resumed only with the same."""

    def redrawn(self, draw: int) -> Self | None:
        """The job with another draw of a small validation part; None if there is no other."""
        return None

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

    def lines(self, model: Any, answers: Any) -> Iterator[str] | None:
        """The content of predictions.csv, in pieces; None: there is no such file."""
        return None

    @abstractmethod
    def page(self, model: Any, answers: Any, facts: RunFacts) -> PageData:
        """The contents of the report."""

    def keep(
        self, run: RunDir, model: Any, history: History, evaluation: dict[str, Any], answers: Any
    ) -> None:
        """Write the model, the predictions and the report."""
        from ostinato_learn import files, report
        from ostinato_learn.models import saved_model

        saved_model.save(model, run.model, self.parameters(model), history.iterations)
        lines = self.lines(model, answers)
        if lines is not None:
            files.write_pieces(run.predictions, (piece.encode() for piece in lines))
        facts = run_facts(self.settings, run, history, evaluation)
        report.write_report(run.report, self.page(model, answers, facts))

    def _plan(self) -> Plan:
        """How to train, as `training` has it."""
        from ostinato_learn.training import Plan

        given = asdict(self.settings.training)
        return Plan(**{f.name: given[f.name] for f in fields(Plan)})


def run_facts(
    settings: Config, run: RunDir, history: History, evaluation: dict[str, Any]
) -> RunFacts:
    """Title, course, results, configuration and surroundings of a run.

    Parameters that the task does not use, or that are not set, are left out.
    """
    from ostinato_learn.jobs.inputs.task import unused
    from ostinato_learn.report import RunFacts

    without = unused(settings)
    tables = {
        section: {
            name: value
            for name, value in table.items()
            if value is not None and f"{section}.{name}" not in without
        }
        for section, table in settings.tables().items()
    }
    source, model = Path(settings.data.source or "").name, settings.model
    return RunFacts(
        title=f"{source}, {model.cell}, {model.hidden_size} units",
        metrics=history.reports,
        losses=history.course,
        evaluation=evaluation,
        config={section: table for section, table in tables.items() if table},
        environment=run.surroundings(),
    )


def without_run(trained: Trained) -> BadInput:
    """The error of a model that has no test part of its own."""
    return BadInput(f"{trained.model} is a model without a run; name the FILE to evaluate it on")


def gathered(ranks: Ranks, own: np.ndarray) -> np.ndarray | None:
    """The rows of all processes, in their order; None except in the first process."""
    import torch

    every = ranks.at_first(torch.from_numpy(own))
    return None if every is None else torch.cat(every).numpy()
