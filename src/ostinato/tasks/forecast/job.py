"""The job of a forecaster: a table with `--forecast COLUMN --horizon N`."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato import environment
from ostinato.baselines import SURE
from ostinato.cli.failures import BadInput
from ostinato.cli.many import paired
from ostinato.cli.output import csv_text, time_type, times_as_text
from ostinato.cli.run import answering, defaults, dry_run, limits, partition, sources
from ostinato.cli.run.config import Config, Given
from ostinato.cli.run.rundir import RunDir
from ostinato.cli.run.runs import Trained
from ostinato.cli.run.summaries import Rows
from ostinato.data.formats import dates
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.mapped import Mapped, stretches
from ostinato.data.sequences.preparation import Preparation
from ostinato.data.series.panel import BLOCK, Panel
from ostinato.tasks.forecast import TASK
from ostinato.tasks.job import Job

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato.cli.compare import Measured
    from ostinato.tasks.forecast.loss import ForecastSettings
    from ostinato.tasks.forecast.model import Backtest, Forecaster
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History

_log = logging.getLogger(__name__)

SHOWN = 1 << 20  # values of series in a file that the report reads
FEW = 0.05  # share of late steps: fewer are gaps, more are the calendar of the series
WINDOWS = 5  # forecasts of each series, one after another, in the test, at most


def read(settings: Config, given: Given) -> ForecastJob:
    """The job of a configuration; see `jobs.read`."""
    if settings.task.horizon is None:
        raise BadInput("--forecast needs --horizon N: how many steps ahead?")
    if settings.data.test is not None:
        raise BadInput("--test is not for forecasts: the test part is the ends of the series")
    series = _series(sources.known(settings.data.source), settings)
    total = settings.training.iterations
    if total is not None:
        settings = defaults.with_warm_up(settings, given, total)
    for name, values in zip(series.ids.tolist(), series.y, strict=True):
        if not np.isfinite(values).any():
            raise BadInput(
                f"{series.source}: the series {name!r} has no value of {settings.task.forecast!r}; "
                "leave it out"
            )
    job = ForecastJob(settings, series)
    job.n_windows()  # which refuses series that are too short
    _missing(series).tell(series.source, partition.how_missing(series, _filled(settings)))
    return job


def folds(settings: Config, given: Given, k: int) -> Iterator[ForecastJob]:
    """The jobs of a cross-validation, whose origins roll towards the end; see `jobs.folds`."""
    job = read(settings, given)
    horizon = job._asked().horizon
    windows = _windows(job.lengths, horizon, job.series.source, k)
    steps = [(k - 1 - j) * windows * horizon for j in range(k)]
    return (replace(job, windows=windows, held_back=each) for each in steps)


def evaluated(
    trained: Trained, file: str | None, windows: int | None = None, stride: int | None = None
) -> dict[str, Any]:
    """The measures of a saved forecaster, on the ends of the series of a file or of its run's.

    Args:
        windows: the number of forecasts of each series; None: that of a run on these series.
        stride: steps from one forecast to the next; None: the horizon.

    Raises:
        BadInput: the run learnt from steps that would be forecast; or there is no series.
    """
    if file is None and trained.config is None:
        raise BadInput(f"{trained.model} is a model without a run; name the FILE to evaluate it on")
    settings = trained.settings()
    source = file or sources.known(settings.data.source)
    series = _series(source, settings, trained.preparation())

    model = answering.model_of(trained)
    horizon = model.windows.horizon
    tested = _windows(_lengths(series), horizon, series.source)
    windows, stride = windows or tested, stride or horizon
    steps = (windows - 1) * stride + horizon
    if file is None and steps > tested * horizon:
        raise BadInput(
            f"{windows} forecasts {stride} steps apart begin {steps} steps before the end; the run "
            f"kept {tested * horizon} steps of each series for its test, and learnt from those "
            "before; wanted fewer --windows, a smaller --stride, or a FILE of other series"
        )
    return _known(model.evaluate(_panel(series, model.preparation), windows, stride))


def predicted(trained: Trained, file: str, proba: bool) -> Iterator[str]:
    """The forecasts after the end of each series, as CSV: the median, or with `proba` all
    quantiles."""
    if file != sources.STDIN and not sources.is_table(sources.known(file)):
        raise BadInput(f"{file} is not a table; wanted {', '.join(sources.TABLES)}")
    parts = sources.begun(sources.blocks(file, trained.settings(), trained.preparation()))

    model = answering.model_of(trained)
    missing, after_gaps, source = _Missing(), 0, file
    for i, series in enumerate(parts):
        source = series.source
        missing = missing + _missing(series, also_ahead=True)
        after_gaps += _after_gaps(series)
        yield _csv(model, series, proba, with_header=i == 0)
    kept = model.preparation
    how = {"": kept.missing} if kept is not None else {}
    how |= {f.name: f.missing for f in (kept.features if kept else ()) if f.missing}
    missing.tell(source, how)
    if after_gaps:
        _log.warning(
            "%s: %s of its steps come after a gap of over 1.5 times the usual time; a forecast "
            "counts steps: fill gaps with rows whose values are missing, or train with --every",
            source, f"{after_gaps:,}",
        )  # fmt: skip


def compared(a: Measured, b: Measured) -> paired.PairedResult:
    """The test of run B against run A on the same test part.

    Raises:
        Apart: their predictions cannot be paired.
    """
    assert a.settings.task.horizon is not None
    return paired.forecast(*paired.predictions(a, b), a.settings.task.horizon)


@dataclass(frozen=True)
class ForecastJob(Job):
    """To forecast series: it learns from their beginnings and is tested on their ends."""

    settings: Config
    series: Examples
    windows: int | None = None  # test forecasts of each series; None: as many as possible
    held_back: int = 0  # steps at the end of each series that are left out

    @property
    def aim(self) -> str:
        task = self.settings.task
        return f"forecast {task.horizon} steps of {task.forecast!r}"

    def shown(self) -> dict[str, Rows]:
        series, task = self.series, self.settings.task
        names = ["last value", *(["seasonal naive"] if task.season > 1 else [])]
        return {
            "columns": dry_run.columns(self.settings, series.roles),
            "first series": dry_run.first(series),
            "parts": [
                ("series", dry_run.size(series)),
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

    def redrawn(self, draw: int) -> None:
        return None

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
        from ostinato.cli.run import start
        from ostinato.tasks.forecast.fit import fit
        from ostinato.training import Plan

        settings, asked, began = self.settings, self._asked(), None
        if origin is None:
            preparation: Preparation | None = self._preparation()
        else:
            began = start.origin(origin)
            preparation = start.preparation(origin, began, self.series)
        panel, windows = self._panel(preparation, unseen=environment.rank_here() > 0)
        plan = asdict(settings.training)
        model, history = fit(
            panel.before(windows * asked.horizon),
            asked,
            settings.network,
            Plan(**{f.name: plan[f.name] for f in fields(Plan)}),
            start=began,
            callbacks=callbacks,
            resume=resume,
        )
        return replace(model, preparation=preparation), history

    def answers(self, model: Forecaster, ranks: Ranks, report: bool) -> np.ndarray | None:
        import torch

        panel, windows = self._panel(model.preparation, unseen=environment.rank_here() > 0)
        every = ranks.at_first(torch.from_numpy(model.answers(panel, windows, ranks.rows)))
        return None if every is None else torch.cat(every).numpy()

    def evaluate(self, model: Forecaster, answers: np.ndarray) -> dict[str, Any]:
        from ostinato.tasks.forecast.model import in_turn

        panel, windows = self._panel(model.preparation)
        found = _known(model.evaluate(panel, windows, answer=in_turn(answers)))
        simple = {name: _known(each) for name, each in model.baselines(panel, windows).items()}
        key = TASK.first_measure(found)
        best = min(simple, key=lambda name: simple[name].get(key, math.inf))
        losses = [
            model.losses(panel, windows, answer)
            for answer in (model.naive(model.season)[best], in_turn(answers))
        ]
        shown = [TASK.measures[key].shown(each[key]) for each in (found, simple[best])]
        figures = f"({shown[0]} and {shown[1]} by {TASK.measures[key].words})"
        return {
            "task": "forecast",
            "test": found | {"windows": windows},
            "baselines": simple,
            "verdict": _verdict(losses[0][0], losses[1][0], losses[0][1], f"{best} {figures}"),
        }

    def parameters(self, model: Forecaster) -> dict[str, Any]:
        task, network = self.settings.task, asdict(self.settings.network)
        parameters = {"horizon": task.horizon, "context": task.context, "season": task.season}
        return parameters | {n: v for n, v in network.items() if n != "init"}

    def keep(
        self,
        run: RunDir,
        model: Forecaster,
        history: History,
        evaluation: dict[str, Any],
        answers: np.ndarray,
    ) -> None:
        from ostinato import files, report
        from ostinato.cli.run import reported
        from ostinato.training import saved_model

        settings = self.settings
        saved_model.save(model, run.model, self.parameters(model), history.iterations)
        lines = (piece.encode() for piece in self._backtest(model, answers))
        files.write_pieces(run.predictions, lines)
        shown, on_disk = self.series.some(SHOWN), isinstance(self.series.X, Mapped)
        contents = report.collect_forecasts(
            model,
            _panel(shown, model.preparation).before(self.held_back),
            reported.facts(settings, run, history, evaluation),
            windows=self.n_windows(),
            ids=shown.ids,
            times=shown.times,
            quantiles=None if on_disk else answers,  # on disk, a few series are answered again
        )
        report.write_report(run.report, contents)

    def _backtest(self, model: Forecaster, answers: np.ndarray) -> Iterator[str]:
        """A line for each step of the test: the actual value, and the quantiles."""
        from ostinato.tasks.forecast.model import in_turn

        panel, windows = self._panel(model.preparation)
        times = self.series.times
        dtype = None if times is None else time_type(times)
        header = ["id", "step" if times is None else "time", "value", "prediction"]
        head: list[str] | None = [*header, *(f"q{level:g}" for level in model.levels)]
        for chosen, _, tested in model.backtests(panel, windows, answer=in_turn(answers)):
            part = self.series.select(chosen)
            when = None if part.times is None else times_as_text(list(part.times), dtype)
            yield csv_text(head, _lines(tested, part.ids, when))
            head = None

    @cached_property
    def lengths(self) -> np.ndarray:
        """Steps of each series, `[N]`, up to its last value; for series in a file by a pass over
        it."""
        return _lengths(self.series)

    def n_windows(self) -> int:
        """The number of test forecasts of each series."""
        lengths = self.lengths - self.held_back
        return self.windows or _windows(lengths, self._asked().horizon, self.series.source)

    def _panel(
        self, preparation: Preparation | None, unseen: bool = True
    ) -> tuple[Panel, int]:
        """The sizes of the training and the test part, and the test windows."""
        panel = _panel(self.series, preparation, unseen)
        return panel.before(self.held_back), self.n_windows()

    def _asked(self) -> ForecastSettings:
        from ostinato.tasks.forecast.loss import ForecastSettings

        task = self.settings.task
        assert task.horizon is not None
        return ForecastSettings(horizon=task.horizon, context=task.context, season=task.season)

    def _preparation(self) -> Preparation:
        """The preparation, without scales: the network scales its inputs itself, as for arrays."""
        return partition.preparation(self.series, _filled(self.settings), standardize=False)


def _verdict(theirs: np.ndarray, ours: np.ndarray, series: np.ndarray, baseline: str) -> str:
    """The comparison with the best baseline, tested over series, or over windows of few series.

    Args:
        theirs, ours: `[M]`, the losses of each window.
        series: `[M]`, the series of each.
        baseline: its name, and the measures of both.
    """
    units = np.unique(series, return_inverse=True)[1]
    if units.max() + 1 < paired.FEWEST:
        units = np.arange(len(series))
    differences = paired.relative_differences(theirs, ours, units)
    if len(differences) < paired.FEWEST:
        return f"not tested against {baseline}: {len(differences)} forecasts are too few"
    if paired.flips(differences) >= SURE:
        return f"no significant difference from {baseline}"
    return f"{'better' if differences.mean() < 0 else 'WORSE'} than {baseline}"


def _filled(settings: Config) -> str:
    """What missing inputs are; by default in columns that `DataConfig.missing` does not name."""
    missing = settings.data.missing
    has_usual = any("=" not in part for part in missing.split(","))
    return missing if has_usual else f"forward,{missing}"


def _series(source: str, settings: Config, preparation: Preparation | None = None) -> Examples:
    """The series in a table, with their inputs: those of the model, if there is one."""
    if source != sources.STDIN and not sources.is_table(source):
        raise BadInput(f"{source} is not a table; --forecast reads {', '.join(sources.TABLES)}")
    columns = sources.trained_roles(preparation, settings, answers=True)
    return sources.read(source, settings, trained=columns)


def _panel(
    series: Examples,
    preparation: Preparation | None,
    unseen: bool = False,
) -> Panel:
    """The series as a network's panel, on disk if they are.

    Steps at the end of a series without a value are its future, in which inputs may be known.

    Args:
        series: the series with their inputs.
        preparation: that of the inputs.
        unseen: see `Preparation.apply`.
    """
    has_inputs = bool(series.features or series.statics)
    X = static = None
    is_known = np.zeros(0, bool)
    if preparation is not None and has_inputs:
        X, static = preparation.apply(series, unseen=unseen), preparation.apply_statics(series)
        known = set(series.roles.known) if series.roles else set()
        origin = [f.name for f in preparation.features for _ in f.columns]
        is_known = np.array([name in known for name in origin], dtype=bool)

    def of(chosen: np.ndarray) -> Panel:
        y = [series.y[i] for i in chosen]
        ends = [_end(each) for each in y]
        values = [each[:end] for each, end in zip(y, ends, strict=True)]
        if X is None or static is None:
            return Panel.of(values)
        inputs = list(X[chosen])
        return Panel.of(
            values,
            past=[x[:end, ~is_known] for x, end in zip(inputs, ends, strict=True)],
            future=[x[:, is_known] for x in inputs],
            static=static[chosen],
        )

    if not isinstance(series.X, Mapped):
        return of(np.arange(len(series)))
    return Panel.joined(map(of, stretches(series.X.sizes, BLOCK)), on_disk=True)


def _lengths(series: Examples) -> np.ndarray:
    """Steps of each series, `[N]`, up to its last value."""
    return np.array([_end(y) for y in series.y])


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


BECOME = {
    "forward": "are taken from the step before",
    "fill": "become the mean",
    "zero": "become 0",
    "mask": "are marked as missing",
}


@dataclass(frozen=True)
class _Missing:
    """The numbers of missing values and of all values in each column."""

    n_missing: Counter[str] = field(default_factory=Counter)
    n: Counter[str] = field(default_factory=Counter)
    target: str = ""

    def __add__(self, other: _Missing) -> _Missing:
        return _Missing(self.n_missing + other.n_missing, self.n + other.n, other.target)

    def tell(self, source: str, how: Mapping[str, str]) -> None:
        """Log a note for each column with missing values, and how they are filled."""
        usual = how.get("", "forward")
        for name, n_missing in self.n_missing.items():
            if n_missing:
                _log.warning(
                    "%s: %s of %s values of %r are missing; they %s",
                    source,
                    f"{n_missing:,}",
                    f"{self.n[name]:,}",
                    name,
                    "are skipped" if name == self.target else BECOME[how.get(name, usual)],
                )


def _missing(series: Examples, also_ahead: bool = False) -> _Missing:
    """Count the missing values in series.

    Args:
        also_ahead: whether inputs that are known in advance are needed in the future, too.
    """
    target = str(series.roles.target) if series.roles else "y"
    known = series.roles.known if series.roles and also_ahead else ()
    n_missing, n = Counter[str](), Counter[str]()
    for block in series.blocks():
        within = ~block.ahead
        n[target] += int(within.sum())
        n_missing[target] += int(np.isnan(np.concatenate(block.y)[within]).sum())
        for i, name in enumerate(series.features):
            if name != target:
                values = block.values[:, i] if name in known else block.values[within, i]
                n[name] += len(values)
                n_missing[name] += int(np.isnan(values).sum())
    return _Missing(n_missing, n, target)


def _after_gaps(series: Examples) -> int:
    """The number of steps that come later than 1.5 times the usual time of their series, if few do.

    With working days, for example, every fifth step does.
    """
    steps = [np.diff(times.astype(np.float64)) for times in series.times or ()]
    late = [d > 1.5 * np.median(d) for d in steps if len(d)]
    return sum(int(of.sum()) for of in late if of.mean() < FEW)


def _end(y: np.ndarray) -> int:
    """The number of steps up to the last value."""
    present = np.flatnonzero(~np.isnan(y))
    return int(present[-1]) + 1 if len(present) else len(y)


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


def _check_values(series: Examples) -> None:
    """Raise BadInput if a series has no value to forecast from."""
    empty = [i for i, y in enumerate(series.y) if not np.isfinite(y).any()]
    if empty:
        raise BadInput(
            f"{series.source}: {series.ids[empty[0]].item()!r} has no value of "
            f"{series.roles.target if series.roles else 'y'!r}; wanted some to forecast from"
        )


def _check_future(series: Examples, panel: Panel, horizon: int) -> None:
    """Raise BadInput if inputs known in advance are missing at steps to be forecast."""
    further = series.lengths - panel.lengths
    if panel.n_future == 0 or (further >= horizon).all():
        return
    i = int(np.argmax(further < horizon))
    assert series.roles is not None
    names = ", ".join(map(repr, series.roles.known))
    raise BadInput(
        f"{series.source}: {series.ids[i].item()!r} has {further[i]} rows after its last value of "
        f"{series.roles.target!r}; to forecast {horizon} steps, append {horizon} rows with {names} "
        f"filled in and {series.roles.target!r} empty"
    )


def _csv(model: Forecaster, series: Examples, proba: bool, with_header: bool = True) -> str:
    """A line for each series and step ahead."""
    _check_values(series)
    panel = _panel(series, model.preparation)
    assert isinstance(panel, Panel)  # series to be forecast are in memory
    _check_future(series, panel, model.windows.horizon)
    answers = model.predict_quantiles(panel)
    levels = model.levels
    median = levels.index(0.5)
    header = ["id", "step" if series.times is None else "time", "prediction"]
    header += [f"q{level:g}" for level in levels] if proba else []
    ahead = [_ahead(series, i, int(n), answers.shape[1]) for i, n in enumerate(panel.lengths)]
    rows = []
    for i, (times, of_series) in enumerate(zip(times_as_text(ahead), answers, strict=True)):
        for when, row in zip(times, of_series, strict=True):
            values = map(_written, (row[median], *(row if proba else ())))
            rows.append([series.ids[i], when, *values])
    return csv_text(header if with_header else None, rows)


def _ahead(series: Examples, i: int, end: int, horizon: int) -> np.ndarray:
    """The times of the steps ahead: those in the file, or continued at the same distance."""
    if series.times is None:
        return np.arange(1, horizon + 1)
    times = series.times[i]
    if len(times) >= end + horizon:
        return times[end : end + horizon]
    if end < 2:
        raise BadInput(
            f"{series.source}: {series.ids[i].item()!r} has one step, which does not say how far "
            "apart steps are; wanted two or more, or rows with the times of those to be forecast"
        )
    return dates.following(times[:end], horizon)
