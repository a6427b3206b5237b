"""A forecaster as one ONNX graph: its windows, the network, and the quantiles in the series' units.

Inputs, float64 as in `runtime.Forecaster`, NaN for a missing value of the target:

    series    `[batch, time, 1 + P]`, the target and P inputs known for the same steps
    lengths   `[batch]` int64, the steps of each series; later values are not read
    future    `[batch, time_ahead, K]`, inputs known in advance from the first step of the series to
              h steps beyond its end; only where K > 0
    static    `[batch, S]`, inputs that do not change; only where S > 0

The output is `answer [batch, h, Q]` float64. Equations: see `data/series/windows.py`, from which
the constants come, and `models/forecaster.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato_learn.data.series.windows import CONSTANT, Columns, SeriesWindows
from ostinato_learn.export.onnx.writer import DOUBLE, FLOAT, INT64, Writer

SERIES, LENGTHS, FUTURE, STATIC = "series", "lengths", "future", "static"
Network = Callable[[str, str], str]  # x `[B, C, F]` and lengths `[B]` → `[B, h · H]`
Each = Callable[[str, str], str]  # vectors `[B, h, H]` and known inputs `[B, h, n]` → `[B, h, Q]`


def described_inputs(w: Writer, windows: SeriesWindows) -> list[Any]:
    """The inputs of the graph."""
    found = [
        w.value(SERIES, ("batch", "time", 1 + len(windows.past)), DOUBLE),
        w.value(LENGTHS, ("batch",), INT64),
    ]
    if len(windows.future):
        found.append(w.value(FUTURE, ("batch", "time_ahead", len(windows.future)), DOUBLE))
    if len(windows.static):
        found.append(w.value(STATIC, ("batch", len(windows.static)), DOUBLE))
    return found


def write_forecast(w: Writer, windows: SeriesWindows, network: Network, each: Each) -> str:
    """The quantiles, `[batch, h, Q]` float64."""
    read = _contexts(w, windows)
    count = w.node("Shape", LENGTHS)
    lengths = w.node("Expand", w.constant(np.array(windows.context, np.int64)), count)
    vectors = network(read.x, lengths)
    vectors = w.node("Reshape", vectors, w.integers(0, windows.horizon, -1))
    answers = w.node("Cast", each(vectors, read.known), to=DOUBLE)
    values = w.node("Add", read.centre, w.node("Mul", read.scale, answers))
    values = w.node("Round", values) if windows.whole else values
    return w.node("Max", values, _double(w, 0)) if windows.nonnegative else values


@dataclass(frozen=True)
class _Contexts:
    """Windows as the network reads them: see `data.series.windows.SeriesContexts`.

    Attributes:
        x: `[B, C, F]` float32.
        known: `[B, h, K + J]` float32, of the steps ahead.
        centre, scale: `[B, 1, 1]` float64.
    """

    x: str
    known: str
    centre: str
    scale: str


def _contexts(w: Writer, windows: SeriesWindows) -> _Contexts:
    steps = _steps(w, -windows.context, 0)  # [B, C]
    inside = w.node("Unsqueeze", _not_negative(w, steps), w.integers(2))
    rows = _rows(w, SERIES, steps)
    values = w.node("Where", inside, w.slice(rows, 0, 1), _double(w, np.nan))
    observed = w.node("Not", w.node("IsNaN", values))
    centre, scale = _scales(w, values, observed, windows.scaling)
    scaled = w.node("Div", w.node("Sub", values, centre), scale)
    known = w.node("Where", observed, scaled, _double(w, 0))
    parts = [known, w.node("Cast", observed, to=DOUBLE)]
    if len(windows.past):
        past = w.slice(rows, 1, 1 + len(windows.past))
        parts.append(_within(w, inside, _standard(w, windows.past, past)))
    if len(windows.future):
        future = _standard(w, windows.future, _rows(w, FUTURE, steps))
        parts.append(_within(w, inside, future))
    if len(windows.static):
        static = w.node("Unsqueeze", _standard(w, windows.static, STATIC), w.integers(1))
        times = w.integers(1, windows.context, 1)
        parts.append(w.node("Expand", static, times))
    ahead = [_lags(w, windows, known)]
    if len(windows.future):
        future = _rows(w, FUTURE, _steps(w, 0, windows.horizon))
        ahead.insert(0, _standard(w, windows.future, future))
    return _Contexts(_side_by_side(w, parts), _side_by_side(w, ahead), centre, scale)


def _steps(w: Writer, first: int, end: int) -> str:
    """The places of the steps from `first` to `end` − 1 behind the end of each series, `[B, n]`."""
    ends = w.node("Unsqueeze", LENGTHS, w.integers(1))
    return w.node("Add", ends, w.constant(np.arange(first, end, dtype=np.int64)[None]))


def _not_negative(w: Writer, steps: str) -> str:
    return w.node("GreaterOrEqual", steps, w.constant(np.array(0, np.int64)))


def _rows(w: Writer, source: str, steps: str) -> str:
    """Rows `[B, n, width]` of `[B, time, width]` at these places; at a negative one the first."""
    places = w.node("Max", steps, w.constant(np.array(0, np.int64)))
    return w.node("GatherND", source, w.node("Unsqueeze", places, w.integers(2)), batch_dims=1)


def _within(w: Writer, inside: str, values: str) -> str:
    """0 before the first step of a series."""
    return w.node("Where", inside, values, _double(w, 0))


def _standard(w: Writer, columns: Columns, values: str) -> str:
    mean, deviation = (np.array(v, np.float64) for v in (columns.mean, columns.deviation))
    return w.node("Div", w.node("Sub", values, w.constant(mean)), w.constant(deviation))


def _scales(w: Writer, values: str, observed: str, scaling: str) -> tuple[str, str]:
    """`data.series.windows.scales`: centre and scale `[B, 1, 1]` of values `[B, C, 1]`."""
    zero, one = _double(w, 0), _double(w, 1)
    n = w.node("Max", _total(w, w.node("Cast", observed, to=DOUBLE)), one)
    known = w.node("Where", observed, values, zero)
    size = w.node("Div", _total(w, w.node("Abs", known)), n)
    if scaling == "mean_abs":
        centre, scale = w.node("Mul", n, zero), size
    else:
        centre = w.node("Div", _total(w, known), n)
        off = w.node("Where", observed, w.node("Sub", values, centre), zero)
        scale = w.node("Sqrt", w.node("Div", _total(w, w.node("Mul", off, off)), n))
    least = w.node("Mul", size, _double(w, CONSTANT))
    scale = w.node("Where", w.node("LessOrEqual", scale, least), size, scale)
    return centre, w.node("Where", w.node("Greater", scale, zero), scale, one)


def _total(w: Writer, values: str) -> str:
    """Over the steps of a window, `[B, 1, 1]`."""
    return w.node("ReduceSum", values, w.integers(1), keepdims=1)


def _lags(w: Writer, windows: SeriesWindows, known: str) -> str:
    """The scaled values `[B, C, 1]` at the places of the lags, `[B, h, J]`; 0 before the window."""
    places = windows.lag_places()
    flat = w.integers(*np.maximum(places, 0).ravel().tolist())
    taken = w.node("Gather", known, flat, axis=1)  # [B, h · J, 1]
    lags = w.node("Reshape", taken, w.integers(0, *places.shape))
    return w.node("Where", w.constant(places[None] >= 0), lags, _double(w, 0))


def _side_by_side(w: Writer, parts: list[str]) -> str:
    joined = parts[0] if len(parts) == 1 else w.node("Concat", *parts, axis=2)
    return w.node("Cast", joined, to=FLOAT)


def _double(w: Writer, value: float) -> str:
    return w.constant(np.array(value, np.float64))
