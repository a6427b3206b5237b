"""The job of a regressor: a table with `--regress COLUMN[,COLUMN]`, or X and y of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.jobs import dry_run
from ostinato_learn.jobs.answer_columns import number, number_columns
from ostinato_learn.jobs.base import gathered
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.output import csv_text
from ostinato_learn.jobs.parts import Inputs, PartsJob
from ostinato_learn.jobs.runs import paired
from ostinato_learn.jobs.runs.summaries import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato_learn.jobs.runs.paired import Measured
    from ostinato_learn.report.page import PageData, RunFacts
    from ostinato_learn.tasks.regress.model import Regressor
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History


@dataclass(frozen=True)
class RegressJob(PartsJob):
    """To regress: one or several numbers for each sequence."""

    def check(self) -> None:
        y = self.parts.train.y
        if (y == y[0]).all():
            raise BadInput(
                f"{self.settings.data.source}: all sequences to learn from have the same target, "
                f"{', '.join(f'{value:g}' for value in y[0])}; wanted numbers that differ"
            )

    @classmethod
    def csv(cls, model: Regressor, part: Examples, proba: bool, with_header: bool) -> str:
        if proba and not model.levels:
            raise BadInput(
                "--proba is for quantiles; this model was trained without --loss quantiles"
            )
        return _csv(model, part, model.predict_quantiles(part), proba, with_header)

    @classmethod
    def compared(cls, a: Measured, b: Measured) -> paired.PairedResult:
        return paired.regress(*paired.predictions(a, b))

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets; "y" if they came as arrays."""
        roles = self.parts.train.roles
        if roles is None:
            k = self.parts.train.y.shape[1]
            return ("y",) if k == 1 else tuple(f"y{i}" for i in range(k))
        return (roles.target,) if roles.target else roles.labels

    @property
    def aim(self) -> str:
        return "regress " + ", ".join(map(repr, self.targets))

    def shown(self) -> dict[str, Rows]:
        names = ("always the mean", "always the median", "ridge regression on summaries")
        columns = zip(self.targets, self.parts.train.y.T, strict=True)
        return dry_run.of_parts(self) | {
            "targets in training: least, median, greatest": [
                (repr(name), "  ".join(f"{v:.6g}" for v in (y.min(), np.median(y), y.max())))
                for name, y in columns
            ],
            "baselines on the test part": [(name, "measured with a training") for name in names],
        }

    def training(
        self, inputs: Inputs, began: Regressor | None, origin: Path | None
    ) -> Callable[..., tuple[Regressor, History]]:
        from ostinato_learn.tasks.regress.fit import Targeted, fit

        settings, train, validation = self.settings, self.parts.train, self.parts.validation
        given, loss = Targeted.of_parts(train, validation, inputs), settings.task.loss
        return partial(fit, given, settings.model, self._plan(), loss=loss)

    def answers(self, model: Regressor, ranks: Ranks, report: bool) -> np.ndarray | None:
        part = self._share(ranks)
        own = np.zeros((0, len(model.targets), max(1, len(model.levels))))
        return gathered(ranks, model.predict_quantiles(part) if len(part) else own)

    def evaluate(self, model: Regressor, answers: np.ndarray) -> dict[str, Any]:
        from ostinato_learn.tasks.regress import baselines

        found = baselines.compared(
            model, self.parts.train, self.parts.test, answers, self.settings.training.seed
        )
        return {"task": "regress", "test": model.measured(answers, self.parts.test.y)} | found

    def parameters(self, model: Regressor) -> dict[str, Any]:
        settings = self.settings
        parameters = {"loss": settings.task.loss, "standardize": settings.data.standardize}
        return parameters | {n: v for n, v in asdict(settings.model).items() if n != "init"}

    def lines(self, model: Regressor, answers: np.ndarray) -> Iterator[str]:
        yield _csv(model, self.parts.test, answers, bool(model.levels))

    def page(self, model: Regressor, answers: np.ndarray, facts: RunFacts) -> PageData:
        from ostinato_learn.report.regress import collect_numbers

        return collect_numbers(model, self.parts.test, answers, facts)


def _csv(
    model: Regressor,
    part: Examples,
    answers: np.ndarray,
    quantiles: bool,
    with_header: bool = True,
) -> str:
    """A line for each sequence: its name, and for each target the true value and the answer.

    The true values are left out if they are not known.

    Args:
        answers: `[N, K, Q]`.
        quantiles: whether all quantiles get columns.
    """
    points = model.points(answers).reshape(len(answers), -1)
    header, columns = ["id" if part.roles is not None else "index"], []
    for k, target in enumerate(model.targets):
        header += number_columns(
            known=part.y is not None,
            levels=model.levels if quantiles else (),
            target=None if model.is_one else target,
        )
        columns += [] if part.y is None else [part.y[:, k]]
        columns += [points[:, k], *(answers[:, k].T if quantiles else ())]
    names = part.ids if part.roles is not None else np.arange(len(answers))
    rows = ([name, *map(number, row)] for name, *row in zip(names, *columns, strict=True))
    return csv_text(header if with_header else None, rows)
