"""Two runs on the same test part: significance tests of their difference.

The predictions of both are compared unit by unit: a sequence, a series, a stretch of text. The
steps of a sequence are not the units, since they depend on each other: as single observations they
would make any difference look significant.

    exact sign test      counts the units in which one run is right and the other wrong (McNemar's
                         test), or better and worse, like heads among throws of a coin
    sign-flip test       of mean differences; see `tasks.verdicts.flips`
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.baselines import sign_test
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.tasks.verdicts import FEWEST, flips, relative_differences

if TYPE_CHECKING:
    from ostinato_learn.jobs.inputs.config import Config
    from ostinato_learn.jobs.runs.rundir import RunDir

DRAWN_APART = "the test sequences were drawn independently of each other"

Rows = list[dict[str, str]]


class NotComparable(Exception):  # noqa: N818  it says that there is nothing to test
    """The predictions of two runs cannot be paired; the message says why."""


@dataclass(frozen=True)
class Measured:
    """A finished run.

    Attributes:
        name: as the user gave it.
        run: its directory.
        task: the name of its task.
        settings: its configuration.
        results: the content of evaluation.json.
        digests: the digests of its files.
        parameters: the number of parameters of the model.
    """

    name: str
    run: RunDir
    task: str
    settings: Config
    results: dict[str, Any]
    digests: dict[str, str]
    parameters: int


@dataclass(frozen=True)
class PairedResult:
    """The result of a test of run B against run A.

    Attributes:
        test: its name.
        unit: the noun for the compared units, in the plural.
        n: the number of units.
        better, worse: the units in which B is better, and worse, than A.
        ahead: whether B is better by the test's measure.
        difference: B's mean minus A's, in the words of `measure`.
        measure: the name of the difference.
        p: the probability of a difference as large as this, or larger, if the runs are alike.
        assumption: the assumption behind p.
    """

    test: str
    unit: str
    n: int
    better: int
    worse: int
    ahead: bool
    difference: float
    measure: str
    p: float
    assumption: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sign_tested(
    name: str, gain: np.ndarray, difference: float, measure: str, assumption: str = DRAWN_APART
) -> PairedResult:
    """An exact sign test over sequences; `gain` `[N]` is above 0 where run B is better."""
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    return PairedResult(
        name,
        "sequences",
        len(gain),
        better,
        worse,
        better > worse,
        difference,
        measure,
        sign_test(better, worse),
        assumption,
    )


def flip_tested(
    unit: str, differences: np.ndarray, measure: str, assumption: str = DRAWN_APART
) -> PairedResult:
    """A sign-flip test; `differences` `[N]` of the losses are below 0 where run B is better."""
    better, worse = int((differences < 0).sum()), int((differences > 0).sum())
    mean = float(differences.mean())
    return PairedResult(
        "sign-flip test",
        unit,
        len(differences),
        better,
        worse,
        mean < 0,
        mean,
        measure,
        flips(differences),
        assumption,
    )


def classify(a: Rows, b: Rows) -> PairedResult:
    """Compare two classifiers by the sequences that only one of them classifies correctly.

    Args:
        a, b: lines of predictions.csv.

    Raises:
        NotComparable: they belong to other sequences.
    """
    _check_same(a, b, ("index", "id", "label"))
    right_a, right_b = _right(a), _right(b)
    gain = right_b.astype(int) - right_a
    difference = float(right_b.mean() - right_a.mean())
    return sign_tested("exact sign test (McNemar)", gain, difference, "accuracy")


def tag(a: Rows, b: Rows) -> PairedResult:
    """Compare two taggers by the sequences in which one of them has more steps right.

    Args, Raises: as for `classify`.
    """
    _check_same(a, b, ("id", "step", "time", "label"))
    _, unit = np.unique([row["id"] for row in a], return_inverse=True)
    gain = np.bincount(unit, _right(b).astype(float) - _right(a))
    _check_enough(len(gain), "sequences")
    return sign_tested(
        "exact sign test",
        gain,
        float(gain.sum() / len(a)),
        "accuracy of a step's label",
        f"{DRAWN_APART} (the steps within one need not be)",
    )


def forecast(a: Rows, b: Rows, horizon: int) -> PairedResult:
    """Compare two forecasters by their quantile losses on each series, or window of few series.

    The loss is the mean pinball loss, or the absolute error if their quantiles have other levels.
    Differences are relative to the mean of both, since series differ in size.

    Args:
        a, b: lines of predictions.csv.
        horizon: steps of a window.

    Raises:
        NotComparable: they belong to other steps, or to too few.
    """
    _check_same(a, b, ("id", "step", "time", "value"))
    levels = [name for name in a[0] if name.startswith("q")]
    same = levels and levels == [name for name in b[0] if name.startswith("q")]
    losses = [_losses(rows, levels if same else []) for rows in (a, b)]
    names, unit = np.unique([row["id"] for row in a], return_inverse=True)
    what, assumption = "series", "the series are independent of each other"
    if len(names) < FEWEST:
        unit = np.arange(len(a)) // horizon
        what = "forecasts"
        assumption = (
            "the errors of one forecast are independent of those of the next (the forecasts of a "
            "series follow each other and do not overlap)"
        )
    relative = relative_differences(losses[0], losses[1], unit)
    _check_enough(len(relative), what)
    measure = "quantile loss" if same else "absolute error"
    measure = f"mean relative difference of the {measure}"
    return flip_tested(what, relative, measure, assumption)


def regress(a: Rows, b: Rows) -> PairedResult:
    """Two regressors by their absolute errors on each sequence, of several targets relative to
    the deviation of each.

    Args:
        a, b: lines of predictions.csv.

    Raises:
        NotComparable: they are of other sequences, or of too few.
    """
    values = [name for name in a[0] if name == "value" or name.startswith("value_")]
    _check_same(a, b, (next(iter(a[0])), *values))
    _check_enough(len(a), "sequences")
    losses = []
    for rows in (a, b):
        known = np.array([[float(row[name]) for name in values] for row in rows])
        predicted = [
            [float(row[name.replace("value", "prediction", 1)]) for name in values] for row in rows
        ]
        spread = known.std(axis=0)
        errors = np.abs(np.array(predicted) - known) / np.where(spread, spread, 1)
        losses.append(errors.mean(axis=1))
    gain = losses[1] - losses[0]
    measure = "mean absolute error, in deviations of the target"
    return flip_tested("sequences", gain, measure)


def predictions(a: Measured, b: Measured) -> tuple[Rows, Rows]:
    """The predictions of both runs.

    Raises:
        NotComparable: one has no predictions.
    """
    return read(a.run.predictions), read(b.run.predictions)


def read(path: Path) -> Rows:
    """The lines of predictions.csv.

    Raises:
        NotComparable: it is missing, or empty.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: Rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise NotComparable(f"{path} is missing") from None
    if not rows:
        raise NotComparable(f"{path} has no predictions")
    return rows


def _check_same(a: Rows, b: Rows, names: Iterable[str]) -> None:
    """Raise NotComparable if the lines do not have the same examples in the same order."""
    for name in names:
        if (name in a[0]) != (name in b[0]):
            raise NotComparable(
                f"the predictions of one run have no {name}, so they cannot be paired"
            )
        if name in a[0] and [row[name] for row in a] != [row[name] for row in b]:
            raise NotComparable(
                f"their predictions.csv differ in the column {name}: other examples"
            )


def _check_enough(n: int, unit: str) -> None:
    if n < FEWEST:
        raise NotComparable(f"too few {unit} for a test: {n}; wanted {FEWEST} or more")


def _right(rows: Rows) -> np.ndarray:
    try:
        return np.array([row["label"] == row["prediction"] for row in rows])
    except KeyError as error:
        raise BadInput(f"predictions.csv has no column {error.args[0]!r}; train again") from None


def _losses(rows: Rows, levels: Sequence[str]) -> np.ndarray:
    """The loss of each step, `[n]`; NaN without a value."""
    value = np.array([float(row["value"]) for row in rows])
    if not levels:
        return np.abs(value - np.array([float(row["prediction"]) for row in rows]))
    q = np.array([float(name[1:]) for name in levels])
    errors = value[:, None] - np.array([[float(row[name]) for name in levels] for row in rows])
    return np.maximum(q * errors, (q - 1) * errors).mean(axis=1)
