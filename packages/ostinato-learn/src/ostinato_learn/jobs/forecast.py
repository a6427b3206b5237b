"""The job of a forecaster: a table with `--forecast COLUMN --horizon N`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn import environment
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.mapped import Mapped
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.series import of_examples
from ostinato_learn.jobs import dry_run, series
from ostinato_learn.jobs.answer_columns import number_columns
from ostinato_learn.jobs.base import Job, gathered, without_run
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import defaults, limits, partition, sources
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.output import csv_text, time_type, times_as_text
from ostinato_learn.jobs.runs import answering, paired
from ostinato_learn.jobs.runs.runs import Trained
from ostinato_learn.jobs.runs.summaries import Rows
from ostinato_learn.tasks.forecast import TASK
from ostinato_learn.tasks.verdicts import FEWEST, best_of, relative_differences, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato_learn.data.series.panel import Panel
    from ostinato_learn.jobs.runs.paired import Measured
    from ostinato_learn.report.page import PageData, RunFacts
    from ostinato_learn.tasks.forecast.loss import ForecastSettings
    from ostinato_learn.tasks.forecast.model import Backtest, Forecaster
    from ostinato_learn.training.callbacks import Callback
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History

_log = logging.getLogger(__name__)

SHOWN = 1 << 20  # values of series in a file that the report reads
WINDOWS = 5  # forecasts of each series, one after another, in the test, at most


@dataclass(frozen=True)
class ForecastJob(Job):
    """To forecast series: it learns from their beginnings and is tested on their ends."""

    settings: Config
    series: Examples
    windows: int | None = None  # test forecasts of each series; None: as many as possible
    held_back: int = 0  # steps at the end of each series that are left out

    @classmethod
    def read(cls, settings: Config, given: Given) -> ForecastJob:
        if settings.task.horizon is None:
            raise BadInput("--forecast needs --horizon N: how many steps ahead?")
        if settings.data.test is not None:
            raise BadInput("--test is not for forecasts: the test part is the ends of the series")
        found = series.read(sources.known(settings.data.source), settings)
        total = settings.training.iterations
        if total is not None:
            settings = defaults.with_warm_up(settings, given, total)
        for name, values in zip(found.ids.tolist(), found.y, strict=True):
            if not np.isfinite(values).any():
                raise BadInput(
                    f"{found.source}: the series {name!r} has no value of "
                    f"{settings.task.forecast!r}; leave it out"
                )
        job = cls(settings, found)
        job.n_windows()  # which refuses series that are too short
        how = partition.how_missing(found, series.filled(settings))
        series.missing_in(found).tell(found.source, how)
        return job

    @classmethod
    def folds(cls, settings: Config, given: Given, k: int) -> Iterator[ForecastJob]:
        """The jobs of a cross-validation, whose origins roll towards the end."""
        job = cls.read(settings, given)
        horizon = job._asked().horizon
        windows = _windows(job.lengths, horizon, job.series.source, k)
        steps = [(k - 1 - j) * windows * horizon for j in range(k)]
        return (replace(job, windows=windows, held_back=each) for each in steps)

    @classmethod
    def evaluated(
        cls,
        trained: Trained,
        file: str | None,
        windows: int | None = None,
        stride: int | None = None,
    ) -> dict[str, Any]:
        """The measures on the ends of the series.

        Args:
            windows: the number of forecasts of each series; None: that of a run on these series.
            stride: steps from one forecast to the next; None: the horizon.

        Raises:
            BadInput: the run learnt from steps that would be forecast; or there is no series.
        """
        if file is None and trained.config is None:
            raise without_run(trained)
        settings = trained.settings()
        source = file or sources.known(settings.data.source)
        found = series.read(source, settings, trained.preparation())

        model = answering.model_of(trained)
        horizon = model.windows.horizon
        tested = _windows(of_examples.lengths_of(found), horizon, found.source)
        windows, stride = windows or tested, stride or horizon
        steps = (windows - 1) * stride + horizon
        if file is None and steps > tested * horizon:
            raise BadInput(
                f"{windows} forecasts {stride} steps apart begin {steps} steps before the end; the "
                f"run kept {tested * horizon} steps of each series for its test, and learnt from "
                "those before; wanted fewer --windows, a smaller --stride, or a FILE of other "
                "series"
            )
        panel = of_examples.panel_of(found, model.preparation)
        return _known(model.evaluate(panel, windows, stride))

    @classmethod
    def predicted(cls, trained: Trained, file: str, proba: bool) -> Iterator[str]:
        if file != sources.STDIN and not sources.is_table(sources.known(file)):
            raise BadInput(f"{file} is not a table; wanted {', '.join(sources.TABLES)}")
        parts = sources.begun(sources.blocks(file, trained.settings(), trained.preparation()))

        model = answering.model_of(trained)
        missing, after_gaps, source = series.Missing(), 0, file
        for i, part in enumerate(parts):
            source = part.source
            missing = missing + series.missing_in(part, also_ahead=True)
            after_gaps += series.after_gaps(part)
            yield _csv(model, part, proba, with_header=i == 0)
        kept = model.preparation
        how = {"": kept.missing} if kept is not None else {}
        how |= {f.name: f.missing for f in (kept.features if kept else ()) if f.missing}
        missing.tell(source, how)
        if after_gaps:
            _log.warning(
                "%s: %s of its steps come after a gap of over 1.5 times the usual time; a forecast "
                "counts steps: fill gaps with rows whose values are missing, or train with --every",
                source,
                f"{after_gaps:,}",
            )

    @classmethod
    def compared(cls, a: Measured, b: Measured) -> paired.PairedResult:
        assert a.settings.task.horizon is not None
        return paired.forecast(*paired.predictions(a, b), a.settings.task.horizon)

    @property
    def aim(self) -> str:
        task = self.settings.task
        return f"forecast {task.horizon} steps of {task.forecast!r}"

    def shown(self) -> dict[str, Rows]:
        found, task = self.series, self.settings.task
        names = ["last value", *(["seasonal naive"] if task.season > 1 else [])]
        return {
            "columns": dry_run.columns(self.settings, found.roles),
            "first series": dry_run.first(found),
            "parts": [
                ("series", dry_run.size(found)),
                ("test", f"the last {self.n_windows()} x {task.horizon} steps of each"),
            ],
            "baselines on the test part": [(name, "measured with a training") for name in names],
        }

    def description(self) -> dict[str, Any]:
        lengths = self.series.lengths
        return {
            "n_train": len(self.series),
            "n_test": len(self.series),
            "n_features": len(self.series.features) + 1,
            "max_length": int(lengths.max()),
            "horizon": self.settings.task.horizon,
            "sha256": sources.digest(self.settings.data),
        }

    def least_memory(self) -> int:
        settings = self.settings
        sizes = {
            "n_train": settings.training.batch_size,
            "max_length": self._asked().n_context,
            "n_features": len(self.series.features) + 2,
            "n_classes": settings.task.horizon,
        }
        return limits.least_memory(settings, sizes)

    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Forecaster, History]:
        from ostinato_learn.jobs.inputs import start
        from ostinato_learn.tasks.forecast.fit import fit

        settings, asked, began = self.settings, self._asked(), None
        if origin is None:
            preparation: Preparation | None = self._preparation()
        else:
            began = start.origin(origin)
            preparation = start.preparation(origin, began, self.series)
        panel, windows = self._panel(preparation, unseen=environment.rank_here() > 0)
        model, history = fit(
            panel.before(windows * asked.horizon),
            asked,
            settings.network,
            self._plan(),
            start=began,
            callbacks=callbacks,
            resume=resume,
        )
        return replace(model, preparation=preparation), history

    def answers(self, model: Forecaster, ranks: Ranks, report: bool) -> np.ndarray | None:
        panel, windows = self._panel(model.preparation, unseen=environment.rank_here() > 0)
        return gathered(ranks, model.answers(panel, windows, ranks.rows))

    def evaluate(self, model: Forecaster, answers: np.ndarray) -> dict[str, Any]:
        from ostinato_learn.tasks.forecast.model import in_turn

        panel, windows = self._panel(model.preparation)
        found = _known(model.evaluate(panel, windows, answer=in_turn(answers)))
        simple = {name: _known(each) for name, each in model.baselines(panel, windows).items()}
        best, best_name = best_of(TASK, found, simple)
        theirs, units = model.losses(panel, windows, model.naive(model.season)[best])
        ours, _ = model.losses(panel, windows, in_turn(answers))
        return {
            "task": "forecast",
            "test": found | {"windows": windows},
            "baselines": simple,
            "verdict": _verdict(theirs, ours, units, best_name),
        }

    def parameters(self, model: Forecaster) -> dict[str, Any]:
        task, network = self.settings.task, asdict(self.settings.network)
        parameters = {"horizon": task.horizon, "context": task.context, "season": task.season}
        return parameters | {n: v for n, v in network.items() if n != "init"}

    def page(self, model: Forecaster, answers: np.ndarray, facts: RunFacts) -> PageData:
        from ostinato_learn.report.forecast import collect_forecasts

        shown, on_disk = self.series.some(SHOWN), isinstance(self.series.sequences, Mapped)
        return collect_forecasts(
            model,
            of_examples.panel_of(shown, model.preparation).before(self.held_back),
            facts,
            windows=self.n_windows(),
            ids=shown.ids,
            times=shown.times,
            quantiles=None if on_disk else answers,  # on disk, a few series are answered again
        )

    def lines(self, model: Forecaster, answers: np.ndarray) -> Iterator[str]:
        """A line for each step of the test: the actual value, and the quantiles."""
        from ostinato_learn.tasks.forecast.model import in_turn

        panel, windows = self._panel(model.preparation)
        times = self.series.times
        dtype = None if times is None else time_type(times)
        columns = number_columns(known=True, levels=model.levels)
        head: list[str] | None = ["id", "step" if times is None else "time", *columns]
        for chosen, _, tested in model.backtests(panel, windows, answer=in_turn(answers)):
            part = self.series.select(chosen)
            when = None if part.times is None else times_as_text(list(part.times), dtype)
            yield csv_text(head, _lines(tested, part.ids, when))
            head = None

    @cached_property
    def lengths(self) -> np.ndarray:
        """Steps of each series, `[N]`, up to its last value; for series in a file by a pass over
        it."""
        return of_examples.lengths_of(self.series)

    def n_windows(self) -> int:
        """The number of test forecasts of each series."""
        lengths = self.lengths - self.held_back
        return self.windows or _windows(lengths, self._asked().horizon, self.series.source)

    def _panel(self, preparation: Preparation | None, unseen: bool = True) -> tuple[Panel, int]:
        """The series, and the number of test windows."""
        panel = of_examples.panel_of(self.series, preparation, unseen)
        return panel.before(self.held_back), self.n_windows()

    def _asked(self) -> ForecastSettings:
        from ostinato_learn.tasks.forecast.loss import ForecastSettings

        task = self.settings.task
        assert task.horizon is not None
        return ForecastSettings(
            horizon=task.horizon, context=task.context, season=task.season, bounds=task.bounds
        )

    def _preparation(self) -> Preparation:
        """The preparation, without scales: the network scales its inputs itself, as for arrays."""
        return partition.preparation(self.series, series.filled(self.settings), standardize=False)


def _verdict(theirs: np.ndarray, ours: np.ndarray, of: np.ndarray, baseline: str) -> str:
    """The comparison with the best baseline, tested over series, or over windows of few series.

    Args:
        theirs, ours: `[M]`, the losses of each window.
        of: `[M]`, the series of each.
        baseline: its name, and the measures of both.
    """
    units = np.unique(of, return_inverse=True)[1]
    if units.max() + 1 < FEWEST:
        units = np.arange(len(of))
    differences = relative_differences(theirs, ours, units)
    return verdict(differences, baseline, "forecasts")


def _windows(lengths: np.ndarray, horizon: int, source: str, folds: int = 1) -> int:
    """The number of test forecasts of each series, in each fold.

    As many as possible so that the shortest series keeps a training part as long as a fold's.

    Raises:
        BadInput: the shortest series is too short.
    """
    shortest = int(lengths.min())
    windows = min(WINDOWS, (shortest - 1) // ((folds + 1) * horizon))
    if windows < 1 and folds > 1:
        raise BadInput(
            f"{source}: the shortest series has {shortest} steps; wanted more than {folds + 1} "
            "horizons of "
            f"{horizon}: one to learn from, and one for each fold to test on; or fewer --folds"
        )
    if windows < 1:
        raise BadInput(
            f"{source}: the shortest series has {shortest} steps; wanted more than two horizons of "
            f"{horizon}: one to learn from, and one to test on"
        )
    return windows


def _lines(tested: Backtest, ids: np.ndarray, times: list[list[Any]] | None) -> Iterator[list]:
    """The lines of a backtest: name, time or step, actual value, median, all quantiles."""
    median = tested.levels.index(0.5)
    for i, cutoff, actual, answers in zip(
        tested.series, tested.cutoffs, tested.actual, tested.quantiles, strict=True
    ):
        steps = range(cutoff, cutoff + len(actual))
        when = [step + 1 for step in steps] if times is None else times[i][cutoff : steps.stop]
        for time, value, row in zip(when, actual, answers, strict=True):
            yield [ids[i], time, *map(_written, (value, row[median], *row))]


def _written(value: float) -> str:
    """A value of a series as text, with enough digits for small variations of large values."""
    return f"{value:.12g}"


def _known(measures: dict[str, Any]) -> dict[str, Any]:
    """Measures for JSON, which has no NaN: MASE has no scale if a series never changes."""
    return {name: None if np.isnan(value) else value for name, value in measures.items()}


def _csv(model: Forecaster, found: Examples, proba: bool, with_header: bool = True) -> str:
    """A line for each series and step ahead."""
    of_examples.check_values(found)
    panel = of_examples.panel_of(found, model.preparation)
    of_examples.check_future(found, panel, model.windows.horizon)
    answers = model.predict_quantiles(panel)
    levels = model.levels
    median = levels.index(0.5)
    columns = number_columns(levels=levels if proba else ())
    header = ["id", "step" if found.times is None else "time", *columns]
    ends, horizon = panel.lengths.tolist(), answers.shape[1]
    ahead = [series.times_ahead(found, i, end, horizon) for i, end in enumerate(ends)]
    rows = []
    for i, (times, of_series) in enumerate(zip(times_as_text(ahead), answers, strict=True)):
        for when, row in zip(times, of_series, strict=True):
            values = map(_written, (row[median], *(row if proba else ())))
            rows.append([found.ids[i], when, *values])
    return csv_text(header if with_header else None, rows)
