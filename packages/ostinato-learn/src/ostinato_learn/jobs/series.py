"""The series of a table for the command line: as panels, with notes on missing values and gaps."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ostinato_learn.data.formats import dates
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import Config

_log = logging.getLogger(__name__)

FEW = 0.05  # share of late steps: fewer are gaps, more are the calendar of the series
BECOME = {
    "forward": "are taken from the step before",
    "fill": "become the mean",
    "zero": "become 0",
    "mask": "are marked as missing",
}


def read(source: str, settings: Config, preparation: Preparation | None = None) -> Examples:
    """The series in a table, with their inputs: those of the model, if there is one."""
    if source != sources.STDIN and not sources.is_table(source):
        raise BadInput(f"{source} is not a table; --forecast reads {', '.join(sources.TABLES)}")
    columns = sources.trained_roles(preparation, settings, answers=True)
    return sources.read(source, settings, trained=columns)


def filled(settings: Config) -> str:
    """What missing inputs are; by default in columns that `DataConfig.missing` does not name."""
    missing = settings.data.missing
    has_usual = any("=" not in part for part in missing.split(","))
    return missing if has_usual else f"forward,{missing}"


@dataclass(frozen=True)
class Missing:
    """The numbers of missing values and of all values in each column."""

    n_missing: Counter[str] = field(default_factory=Counter)
    n: Counter[str] = field(default_factory=Counter)
    target: str = ""

    def __add__(self, other: Missing) -> Missing:
        return Missing(self.n_missing + other.n_missing, self.n + other.n, other.target)

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


def missing_in(series: Examples, also_ahead: bool = False) -> Missing:
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
    return Missing(n_missing, n, target)


def after_gaps(series: Examples) -> int:
    """The number of steps that come later than 1.5 times the usual time of their series, if few do.

    With working days, for example, every fifth step does.
    """
    steps = [np.diff(times.astype(np.float64)) for times in series.times or ()]
    late = [d > 1.5 * np.median(d) for d in steps if len(d)]
    return sum(int(of.sum()) for of in late if of.mean() < FEW)


def times_ahead(series: Examples, i: int, end: int, horizon: int) -> np.ndarray:
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
