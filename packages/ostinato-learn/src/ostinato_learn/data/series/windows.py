"""Windows of series: what a network reads before a cutoff, and what comes after it.

A window of series i with cutoff t reads the `context` values y_{t−context}…y_{t−1} and forecasts
y_t…y_{t+horizon−1}. Values before the first step of the series are read as missing. Nothing at or
after t is read, except inputs that are known in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.mapped import Pieces
from ostinato_learn.data.sequences.moments import Moments
from ostinato_learn.data.series.panel import Names, Panel
from ostinato_learn.data.tables.feature_names import check_names

# Deviations below this share of the largest value are rounding errors: a mean of some hundred
# float64 values is wrong by up to some hundred times 2⁻⁵³, a share of about 1e-14.
CONSTANT = 1e-12
MOST_LAGS = 4  # earlier seasons that a step ahead reads besides the context


@dataclass(frozen=True)
class Columns:
    """Mean and deviation of inputs, one for each column, by which they are standardised."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @staticmethod
    def of(values: np.ndarray) -> Columns:
        """From `[n, K]`; a constant column has the deviation 1."""
        if not values.size:
            return Columns((0.0,) * values.shape[1], (1.0,) * values.shape[1])
        mean, deviation = values.mean(0), values.std(0)
        constant = deviation <= CONSTANT * np.abs(values).max(0)
        return Columns(tuple(mean.tolist()), tuple(np.where(constant, 1.0, deviation).tolist()))

    @staticmethod
    def of_moments(moments: Sequence[Moments]) -> Columns:
        """From those of each column: what `of` finds, to rounding."""
        sizes = [max(abs(each.least), abs(each.largest)) for each in moments]
        deviations = [
            each.deviation if each.deviation > CONSTANT * size else 1.0
            for each, size in zip(moments, sizes, strict=True)
        ]
        return Columns(tuple(each.mean for each in moments), tuple(deviations))

    def __len__(self) -> int:
        return len(self.mean)

    def standard(self, values: np.ndarray) -> np.ndarray:
        """`[…, K]` with mean 0 and deviation 1, as the values were that this was made of."""
        return (values - np.array(self.mean)) / np.array(self.deviation)

    def as_json(self) -> dict[str, list[float]]:
        return {name: list(values) for name, values in asdict(self).items()}

    @staticmethod
    def from_json(value: Any, n: int, where: str) -> Columns:
        """What `as_json` gave, of n columns; `where` names it in errors.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(value, dict) and value.keys() == {"mean", "deviation"}:
            lists = [value["mean"], value["deviation"]]
            if all(isinstance(x, list) and len(x) == n and all(map(_finite, x)) for x in lists):
                mean, deviation = (tuple(map(float, x)) for x in lists)
                if min(deviation, default=1.0) > 0:
                    return Columns(mean, deviation)
        raise ValueError(
            f"{where} is {value!r}; wanted mean and deviation of {n} columns; it is damaged"
        )


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


@dataclass(frozen=True)
class SeriesContexts:
    """The input of a network for B windows, and the way back from its answers to values.

    Attributes:
        x: `[B, context, 2 + P + K + S]` float32, see `models.ForecasterNet`.
        future: `[B, horizon, K]` float32; None if K is 0.
        lags: `[B, horizon, J]` float32: values of the same place in the last J seasons, scaled; 0
            where one is missing.
        centre, scale: `[B, 1]` float64; a value is centre + scale · answer, with scale above 0.
    """

    x: np.ndarray
    future: np.ndarray | None
    lags: np.ndarray
    centre: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class SeriesWindows:
    """How windows are cut from series and scaled.

    Attributes:
        context, horizon, scaling, season: see `ForecastSettings`.
        past, future, static: how inputs are standardised.
        names: see `Panel`.
        nonnegative, whole: whether forecasts are at least 0, and whole numbers.
    """

    context: int
    horizon: int
    scaling: str
    season: int
    past: Columns
    future: Columns
    static: Columns
    names: Names = field(default_factory=dict)
    nonnegative: bool = False
    whole: bool = False

    @property
    def n_lags(self) -> int:
        """J: 1, the last value, without a season; else the seasons in a context, up to four."""
        return 1 if self.season == 1 else min(MOST_LAGS, max(1, self.context // self.season))

    def contexts(self, panel: Panel, series: np.ndarray, cutoffs: np.ndarray) -> SeriesContexts:
        """The values before the cutoffs.

        Args:
            panel: the series.
            series, cutoffs: `[B]` integers; the cutoff t is the step that is forecast first, and
                the inputs known in advance reach to step t + horizon − 1.
        """
        steps = cutoffs[:, None] + np.arange(-self.context, 0)  # [B, context]
        inside = steps >= 0
        rows = panel.offsets[series][:, None] + np.maximum(steps, 0)
        values = np.where(inside, panel.target[rows], np.nan)
        centre, scale = scales(values, self.scaling)
        scaled = (values - centre) / scale
        observed = np.isfinite(values)
        known = np.where(observed, scaled, 0.0)
        parts = [known[:, :, None], observed[:, :, None]]
        if len(self.past):
            parts.append(self.past.standard(panel.past[rows]) * inside[:, :, None])
        if len(self.future):
            rows = panel.future_offsets[series][:, None] + np.maximum(steps, 0)
            parts.append(self.future.standard(panel.future[rows]) * inside[:, :, None])
        if len(self.static):
            static = self.static.standard(panel.static[series])[:, None, :]
            parts.append(np.broadcast_to(static, (*steps.shape, static.shape[2])))
        # In another memory order, which NumPy may choose, steps would not be rows that can be read.
        x = np.ascontiguousarray(np.concatenate(parts, axis=2, dtype=np.float32))
        ahead = self._ahead(panel, series, cutoffs)
        return SeriesContexts(x, ahead, self._lags(known), centre, scale)

    def lag_places(self) -> np.ndarray:
        """The places of the lags in the context, `[horizon, J]`; a negative one lies before it."""
        step = np.arange(self.horizon)[:, None]  # 0 is the first step ahead
        seasons = step // self.season + 1 + np.arange(self.n_lags)
        return self.context + step - self.season * seasons

    def _lags(self, known: np.ndarray) -> np.ndarray:
        """From the scaled context `[B, context]`; `forecast_baselines` has the first as median."""
        place = self.lag_places()
        lags = np.where(place >= 0, known[:, np.maximum(place, 0)], 0.0)
        return lags.astype(np.float32)

    def _ahead(self, panel: Panel, series: np.ndarray, cutoffs: np.ndarray) -> np.ndarray | None:
        if not len(self.future):
            return None
        steps = cutoffs[:, None] + np.arange(self.horizon)
        values = panel.future[panel.future_offsets[series][:, None] + steps]
        return self.future.standard(values).astype(np.float32)

    def bounded(self, values: np.ndarray) -> np.ndarray:
        """Forecasts rounded if they are whole numbers, and at least 0 if they are not negative."""
        values = np.rint(values) + 0.0 if self.whole else values  # −0 becomes 0
        return np.maximum(values, 0.0) if self.nonnegative else values

    def check_inputs(self, panel: Panel) -> None:
        """Raise ValueError if inputs of the training are missing, by name or number."""
        for name in sorted({*panel.names, *self.names}):
            names = panel.names.get(name), self.names.get(name)
            check_names(*names, "SequenceForecaster", name)
        came = (panel.n_past, panel.n_future, panel.n_static)
        wanted = (len(self.past), len(self.future), len(self.static))
        if came[0] != wanted[0]:
            raise ValueError(
                f"X has {1 + came[0]} features, but SequenceForecaster is expecting "
                f"{1 + wanted[0]} features as input: the target and {wanted[0]} past inputs"
            )
        for name, has, wants in zip(("future", "static"), came[1:], wanted[1:], strict=True):
            if has != wants:
                raise ValueError(f"{name} has {has} columns; wanted {wants}, as in the training")

    def check_ends(self, panel: Panel) -> None:
        """Raise ValueError if what follows the end of a series cannot be forecast."""
        known = np.diff(panel.future_offsets) - panel.lengths
        if panel.n_future and (known < self.horizon).any():
            i = int(np.argmax(known < self.horizon))
            raise ValueError(
                f"future[{i}] reaches {known[i]} steps beyond the end of series {i}; wanted the "
                f"{self.horizon} that are forecast: inputs known in advance must be given for them"
            )
        ends = panel.lengths
        empty = n_observed(panel, np.arange(len(panel)), ends - self.context, ends) == 0
        if empty.any():
            raise ValueError(
                f"series {np.argmax(empty)} has no value in its last {self.context} steps, which "
                "the network reads; wanted one at least"
            )

    def actual(self, panel: Panel, series: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
        """The values after the cutoffs, `[B, horizon]` float64; NaN where a value is missing."""
        steps = cutoffs[:, None] + np.arange(self.horizon)
        return panel.target[panel.offsets[series][:, None] + steps]


def scales(values: np.ndarray, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale of windows, each `[B, 1]`, from their contexts `[B, T]`; NaN is missing.

    "std": mean and deviation; "mean_abs": 0 and the mean absolute value. A context without a
    spread has its absolute value as scale, and 1 if that is 0 or nothing is observed.
    """
    observed = np.isfinite(values)
    known = np.where(observed, values, 0.0)
    n = np.maximum(observed.sum(1, keepdims=True), 1)
    mean = known.sum(1, keepdims=True) / n
    size = np.abs(known).sum(1, keepdims=True) / n
    if scaling == "mean_abs":
        centre, scale = np.zeros_like(mean), size
    else:
        spread = np.where(observed, values - mean, 0.0)
        centre, scale = mean, np.sqrt((spread**2).sum(1, keepdims=True) / n)
    scale = np.where(scale <= CONSTANT * size, size, scale)
    return centre, np.where(scale > 0, scale, 1.0)


Pairs = tuple[np.ndarray, np.ndarray]  # series [M] and cutoffs [M]


def every_window(panel: Panel, context: int, horizon: int, held_back: np.ndarray) -> Pairs:
    """All windows to learn from: they end before the last `held_back` `[N]` steps of each series.

    A window has at least half of its context within the series, or as much as the series has.
    Windows of series on disk are on disk, too.
    """
    series, cutoffs = Pieces(panel.on_disk), Pieces(panel.on_disk)
    for chosen, part in panel.parts():
        numbers, steps = _windows_of(part, context, horizon, held_back[chosen])
        series.append(chosen[numbers])
        cutoffs.append(steps)
    return series.joined(), cutoffs.joined()


def _windows_of(panel: Panel, context: int, horizon: int, held_back: np.ndarray) -> Pairs:
    """`every_window` of series in memory."""
    last = panel.lengths - held_back - horizon
    first = np.minimum((context + 1) // 2, last)
    counts = np.where(last >= 1, last - first + 1, 0)
    series = np.repeat(np.arange(len(panel)), counts)
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return observed(panel, context, horizon, (series, first[series] + steps))


def last_windows(panel: Panel, context: int, horizon: int, windows: int, stride: int) -> Pairs:
    """The last windows of each series, a stride apart, the very last one ending with the series.

    In the order of the series, the earlier first. Series that are too short for all of them give
    the windows that have a step before the cutoff.
    """
    back = stride * np.arange(windows - 1, -1, -1)
    found = []
    for chosen, part in panel.parts():
        cutoffs = part.lengths[:, None] - horizon - back  # [N, windows]
        series = np.broadcast_to(np.arange(len(part))[:, None], cutoffs.shape)
        there = cutoffs >= 1
        of_part, steps = observed(part, context, horizon, (series[there], cutoffs[there]))
        found.append((chosen[of_part], steps))
    return np.concatenate([i for i, _ in found]), np.concatenate([steps for _, steps in found])


def observed(panel: Panel, context: int, horizon: int, pairs: Pairs) -> Pairs:
    """The windows that have a value to read and one to forecast."""
    series, cutoffs = pairs
    read = n_observed(panel, series, cutoffs - context, cutoffs)
    ahead = n_observed(panel, series, cutoffs, cutoffs + horizon)
    usable = (read > 0) & (ahead > 0)
    return series[usable], cutoffs[usable]


def n_observed(panel: Panel, series: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How many values of some series are not missing from step `first` to before `end`, `[M]`.

    A `first` below 0 is before the series, where nothing is observed.
    """
    before = np.concatenate([[0], np.cumsum(np.isfinite(panel.target))])  # observed before a row
    start = panel.offsets[series]
    return before[start + end] - before[start + np.maximum(first, 0)]
