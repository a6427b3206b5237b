"""Training a regressor: a table with `--regress COLUMN[,COLUMN]`, or X and y of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.cli.failures import BadInput
from ostinato.cli.many import paired
from ostinato.cli.output import csv_text
from ostinato.cli.run import answering, defaults, dry_run, partition, sources
from ostinato.cli.run.config import Config, Given
from ostinato.cli.run.rundir import RunDir
from ostinato.cli.run.runs import Trained
from ostinato.cli.run.summaries import Rows
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.preparation import Preparation
from ostinato.tasks.parts_job import PartsJob, measured_part

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato.cli.compare import Measured
    from ostinato.tasks.regress.model import Regressor
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History


def read(settings: Config, given: Given) -> RegressJob:
    """The job of a configuration; see `jobs.read`."""
    return _job(settings, given, partition.load(settings))


def folds(settings: Config, given: Given, k: int) -> Iterator[RegressJob]:
    """The jobs of a cross-validation; see `jobs.folds`."""
    return (_job(settings, given, parts) for parts in partition.folds(settings, k))


def _job(settings: Config, given: Given, parts: partition.Parts) -> RegressJob:
    y = parts.train.y
    if (y == y[0]).all():
        raise BadInput(
            f"{settings.data.source}: all sequences to learn from have the same target, "
            f"{', '.join(f'{value:g}' for value in y[0])}; wanted numbers that differ"
        )
    return RegressJob(defaults.for_file(settings, given, len(parts.train)), parts)


def evaluated(trained: Trained, file: str | None) -> dict[str, Any]:
    """The measures of a saved regressor, on a file or on the test part of its run."""
    part = measured_part(trained, file)
    model = answering.model_of(trained)
    sources.check_fits(file or str(trained.model), part, model, labels=False)
    return model.evaluate(part, part.y)


def predicted(trained: Trained, file: str, proba: bool) -> Iterator[str]:
    """The predictions for the sequences of a file as CSV; with `proba` all quantiles."""
    parts = sources.begun(sources.blocks(file, trained.settings(), trained.preparation()))

    model = answering.model_of(trained)
    if proba and not model.levels:
        raise BadInput("--proba is for quantiles; this model was trained without --loss quantiles")
    for i, part in enumerate(parts):
        sources.check_fits(file, part, model, labels=False)
        answers = model.predict_quantiles(part)
        yield _csv(model, part, answers, proba, with_header=i == 0)


def compared(a: Measured, b: Measured) -> paired.PairedResult:
    """The test of run B against run A on the same test part.

    Raises:
        Apart: their predictions cannot be paired.
    """
    return paired.regress(*paired.predictions(a, b))


@dataclass(frozen=True)
class RegressJob(PartsJob):
    """The job of a regression: one or several numbers for each sequence."""

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
        parts, train = self.parts, self.parts.train
        dry_run.check_prepared(parts, self.settings)
        held_out = [] if parts.validation is None else [("validation", parts.validation)]
        every = [("training", train), *held_out, ("test", parts.test)]
        names = ("always the mean", "always the median", "ridge regression on summaries")
        return {
            "columns": dry_run.columns(self.settings, train.roles),
            "first example": dry_run.first(train),
            "parts": [(name, dry_run.size(part)) for name, part in every],
            "targets in training: least, median, greatest": [
                (repr(name), "  ".join(f"{v:.6g}" for v in (y.min(), np.median(y), y.max())))
                for name, y in zip(self.targets, train.y.T, strict=True)
            ],
            "baselines on the test part": [(name, "measured with a training") for name in names],
        }

    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Regressor, History]:
        from ostinato.cli.run import start
        from ostinato.data.sequences.step_labels import as_texts_or_sequences
        from ostinato.tasks.regress.fit import Targeted, fit

        settings, train, validation = self.settings, self.parts.train, self.parts.validation
        data, began = settings.data, None
        preparation: Preparation | None
        if origin is None:
            preparation = partition.preparation(train, data.missing, data.standardize)
        else:
            began = start.origin(origin)
            preparation = start.preparation(origin, began, train)

        def inputs(part: Examples) -> Any:
            return as_texts_or_sequences(partition.inputs(preparation, part))

        held_out = None if validation is None else (inputs(validation), validation.y)
        given = Targeted(inputs(train), train.y, self.targets, train.y.shape[1] == 1)
        inputs(self.parts.test)  # an error in the test part appears before the training
        model, history = fit(
            replace(given, validation=held_out),
            settings.model,
            self._plan(),
            loss=settings.task.loss,
            start=began,
            callbacks=callbacks,
            resume=resume,
        )
        return replace(model, preparation=preparation), history

    def answers(self, model: Regressor, ranks: Ranks, report: bool) -> np.ndarray | None:
        import torch

        part = self._share(ranks)
        own = np.zeros((0, len(model.targets), max(1, len(model.levels))))
        if len(part):
            own = model.predict_quantiles(part)
        every = ranks.at_first(torch.from_numpy(own))
        return None if every is None else torch.cat(every).numpy()

    def evaluate(self, model: Regressor, answers: np.ndarray) -> dict[str, Any]:
        from ostinato.tasks.regress import baselines

        train, test = self.parts.train, self.parts.test
        of = model.prepared if model.vocabulary is None else model.words
        seed = self.settings.training.seed
        found = baselines.of_all(of(train), train.y, of(test), test.y, seed)
        return {
            "task": "regress",
            "test": model.measured(answers, test.y),
            "baselines": found,
        }

    def parameters(self, model: Regressor) -> dict[str, Any]:
        settings = self.settings
        parameters = {"loss": settings.task.loss, "standardize": settings.data.standardize}
        return parameters | {n: v for n, v in asdict(settings.model).items() if n != "init"}

    def keep(
        self,
        run: RunDir,
        model: Regressor,
        history: History,
        evaluation: dict[str, Any],
        answers: np.ndarray,
    ) -> None:
        from ostinato import files, report
        from ostinato.cli.run import reported
        from ostinato.tasks.regress.report import collect_numbers
        from ostinato.training import saved_model

        settings, test = self.settings, self.parts.test
        saved_model.save(model, run.model, self.parameters(model), history.iterations)
        files.write_text(run.predictions, _csv(model, test, answers, bool(model.levels)))
        facts = reported.facts(settings, run, history, evaluation)
        report.write_report(run.report, collect_numbers(model, test, answers, facts))



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
        of = "" if model.is_one else f"_{target}"
        if part.y is not None:
            header.append(f"value{of}")
            columns.append(part.y[:, k])
        header.append(f"prediction{of}")
        columns.append(points[:, k])
        if quantiles:
            header += [f"q{level:g}{of}" for level in model.levels]
            columns += list(answers[:, k].T)
    names = part.ids if part.roles is not None else np.arange(len(answers))
    rows = ([name, *(f"{v:.9g}" for v in row)] for name, *row in zip(names, *columns, strict=True))
    return csv_text(header if with_header else None, rows)
