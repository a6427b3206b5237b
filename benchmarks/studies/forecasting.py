"""Forecasts of series whose noise is known: a network, baselines, and the best that is possible.

    python -m benchmarks.studies.forecasting measure     five seeds of each kind of series
    python -m benchmarks.studies.forecasting choose      settings, by the validation windows
    python -m benchmarks.studies.forecasting table       the table, and into results/tasks.md

`measure` adds a line to a file of results for each seed of each kind; kinds can be named. The
series are made anew from each seed, so that the deviations are those of data and training together.
Twelve steps are forecast at four cutoffs at the end of each series, which the training has not
seen. What made the series is known, and so is the best forecast that anybody can make:

    seasonal    level + season of 12 steps + AR(1) noise, each series with its own: 100 of 240 steps
    few         the same, four series of 120 steps
    walk        random walks
    events      as seasonal, and a known event (one step in six) lifts the value by 3 deviations
    threshold   an autoregression that falls slowly from below, and swings back from above
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn import SequenceForecaster
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.data.series.windows import Columns, Pairs, SeriesWindows, every_window
from ostinato_learn.metrics import forecasts as forecast_metrics
from ostinato_learn.metrics.naive_forecasts import seasonal_naive
from ostinato_learn.tasks.forecast.model import Backtest
from ostinato_learn.tasks.forecast.net import NINE

PAGE = Path(__file__).parents[1] / "results" / "tasks.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HORIZON, SEASON, WINDOWS, SEEDS = 12, 12, 4, 5
FIRST = 100
PATHS = 4000  # simulated futures, where the best quantiles have no formula
# Φ⁻¹ of the nine levels
NORMAL = np.array([-1.281552, -0.841621, -0.524401, -0.253347])
NORMAL = np.concatenate([NORMAL, [0.0], -NORMAL[::-1]])

Truth = Callable[[int, int], np.ndarray]  # series, cutoff -> the best quantiles [h, Q]


@dataclass(frozen=True)
class Made:
    """Series, and the best quantiles of what follows a cutoff."""

    panel: Panel
    truth: Truth


def seasonal(seed: int, n: int = 100, T: int = 240, events: bool = False) -> Made:
    rng = np.random.default_rng(seed)
    sigma, phi = rng.lognormal(size=n), rng.uniform(0.3, 0.9, size=n)
    season = 3 * sigma[:, None] * rng.normal(size=(n, SEASON))
    noise = np.zeros((n, T))
    shocks = sigma[:, None] * rng.normal(size=(n, T))
    noise[:, 0] = shocks[:, 0] / np.sqrt(1 - phi**2)
    for t in range(1, T):
        noise[:, t] = phi * noise[:, t - 1] + shocks[:, t]
    known = (rng.random((n, T)) < 1 / 6) * 1.0
    lift = 3 * sigma[:, None] * known if events else np.zeros((n, T))
    fixed = 20 * sigma[:, None] * rng.normal(size=(n, 1)) + season[:, np.arange(T) % SEASON] + lift

    def truth(i: int, t: int) -> np.ndarray:
        ahead = np.arange(1, HORIZON + 1)
        mean = fixed[i, t : t + HORIZON] + phi[i] ** ahead * noise[i, t - 1]
        spread = sigma[i] * np.sqrt((1 - phi[i] ** (2 * ahead)) / (1 - phi[i] ** 2))
        return mean[:, None] + spread[:, None] * NORMAL

    return Made(Panel.of(list(fixed + noise), future=list(known) if events else None), truth)


def walk(seed: int) -> Made:
    rng = np.random.default_rng(seed)
    sigma = rng.lognormal(size=100)
    y = (sigma[:, None] * rng.normal(size=(100, 240))).cumsum(axis=1)

    def truth(i: int, t: int) -> np.ndarray:
        spread = sigma[i] * np.sqrt(np.arange(1, HORIZON + 1))
        return y[i, t - 1] + spread[:, None] * NORMAL

    return Made(Panel.of(list(y)), truth)


def threshold(seed: int) -> Made:
    """y_t = c + s · z_t with z_t = 0.95 z_{t−1} below 0, −0.6 z_{t−1} above it, plus noise."""
    rng = np.random.default_rng(seed)
    n, T = 100, 240

    def after(z: np.ndarray) -> np.ndarray:
        return np.where(z < 0, 0.95, -0.6) * z + rng.normal(size=z.shape)

    z = np.zeros((n, T))
    for t in range(1, T):
        z[:, t] = after(z[:, t - 1])
    level, scale = rng.normal(size=n), rng.lognormal(size=n)

    def truth(i: int, t: int) -> np.ndarray:
        paths, rows = np.full(PATHS, z[i, t - 1]), []
        for _ in range(HORIZON):
            paths = after(paths)
            rows.append(np.quantile(paths, NINE))
        return level[i] + scale[i] * np.array(rows)

    return Made(Panel.of(list(level[:, None] + scale[:, None] * z)), truth)


KINDS: dict[str, Callable[[int], Made]] = {
    "seasonal": seasonal,
    "few": lambda seed: seasonal(seed, n=4, T=120),
    "walk": walk,
    "events": lambda seed: seasonal(seed, events=True),
    "threshold": threshold,
}


def least_squares(train: Panel, panel: Panel, pairs: Pairs, context: int) -> np.ndarray:
    """Linear regression of the steps ahead on the network's own window, and its residuals.

    Coefficients and the quantiles of the residuals come from every window of `train`.
    """
    none = Columns((), ())
    windows = SeriesWindows(context, HORIZON, "std", 1, none, Columns.of(panel.future), none)

    def inputs(given: Panel, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = windows.contexts(given, *pairs)
        ahead = [] if read.future is None else [read.future.flatten(1).numpy()]
        x = read.x[:, :, 0].numpy()
        return np.hstack([x, *ahead, np.ones((len(x), 1))]), read.centre, read.scale

    learnt = every_window(train, context, HORIZON, np.zeros(len(train), dtype=int))
    X, centre, scale = inputs(train, learnt)
    y = (windows.actual(train, *learnt) - centre) / scale
    weights = np.linalg.lstsq(X, y, rcond=None)[0]
    spread = np.quantile(y - X @ weights, NINE, axis=0).T  # [h, Q]
    X, centre, scale = inputs(panel, pairs)
    return centre[:, :, None] + scale[:, :, None] * ((X @ weights)[:, :, None] + spread)


def forecasts(made: Made, seed: int) -> tuple[dict[str, np.ndarray], Backtest, float]:
    """The quantiles of every forecaster, the windows, and the seconds of the training."""
    panel = made.panel
    train = panel.before(WINDOWS * HORIZON)
    model = SequenceForecaster(horizon=HORIZON, season=SEASON, random_state=seed)
    start = time.perf_counter()
    model.fit(train)
    elapsed = time.perf_counter() - start
    fitted = model._fitted()
    network = fitted.backtest(panel, windows=WINDOWS)
    pairs = list(zip(network.series, network.cutoffs, strict=True))
    linear = least_squares(train, panel, (network.series, network.cutoffs), fitted.windows.context)

    def each(answer: Callable[[int, int], np.ndarray]) -> np.ndarray:
        return np.array([answer(i, t) for i, t in pairs])

    def naive(season: int) -> np.ndarray:
        return each(lambda i, t: seasonal_naive(panel.series(i)[:t], HORIZON, NINE, season))

    answers = {
        "network": network.quantiles,
        "least squares": linear,
        "last value": naive(1),
        "seasonal naive": naive(SEASON),
        "best possible": each(made.truth),
    }
    return answers, network, elapsed


def measured(kind: str, seed: int) -> dict[str, Any]:
    """WQL, MASE and coverage of every forecaster on one seed of a kind of series."""
    made = KINDS[kind](seed)
    answers, network, elapsed = forecasts(made, seed)
    histories = [
        made.panel.series(i)[:t] for i, t in zip(network.series, network.cutoffs, strict=True)
    ]
    scales = [forecast_metrics.seasonal_scale(history, SEASON) for history in histories]
    measures = {
        name: forecast_metrics.measure(network.actual, quantiles, NINE, scales)
        for name, quantiles in answers.items()
    }
    return {"kind": kind, "seed": seed, "elapsed_s": elapsed, "measures": measures}


# Tried by `choose`, each otherwise with the defaults of SequenceForecaster.
CANDIDATES: list[dict[str, Any]] = [
    {},
    {"context": 36},
    {"context": 72},
    {"iterations": 2000},
    {"learning_rate": 1e-3},
    {"learning_rate": 4e-3},
    {"dropout": 0.2},
]


def choose(kinds: Iterable[str]) -> None:
    """The WQL of each setting on the validation windows, which lie within the training part.

    On seeds that `measure` does not use; the validation loss itself is in the scale of the context.
    """
    for kind in kinds:
        train = KINDS[kind](1000).panel.before(WINDOWS * HORIZON)
        for settings in CANDIDATES:
            start = time.perf_counter()
            model = SequenceForecaster(**{"horizon": HORIZON, "season": SEASON} | settings)
            wql = model.fit(train).evaluate(train)["wql"]
            seconds = time.perf_counter() - start
            print(f"{kind:10} {wql:.4f} {seconds:5.1f} s  {settings}", flush=True)


def table(results: list[dict[str, Any]]) -> str:
    """WQL, mean ± deviation over the seeds; the best that was fitted in bold."""
    names = list(results[0]["measures"])
    heads = ["series", *names, "network first", "in its 80 % interval", "training"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind in KINDS:
        runs = [result for result in results if result["kind"] == kind]
        wql = {name: [run["measures"][name]["wql"] for run in runs] for name in names}
        best = min(names[:-1], key=lambda name: statistics.mean(wql[name]))
        cells = [spread(wql[name], bold=name == best) for name in names]
        first = sum(
            min(names[:-1], key=lambda name: run["measures"][name]["wql"]) == "network"
            for run in runs
        )
        cover = statistics.mean(run["measures"]["network"]["coverage_80"] for run in runs)
        seconds = statistics.median(run["elapsed_s"] for run in runs)
        cells += [f"{first} of {len(runs)}", f"{100 * cover:.0f} %", f"{seconds:.0f} s"]
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def spread(values: list[float], bold: bool) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    mark = "**" if bold else ""
    return f"{mark}{statistics.mean(values):.4f}{mark} ± {deviation:.4f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["measure", "choose", "table"])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    default = Path(__file__).parents[1] / "results" / "forecasting.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    # The first of them: settings were looked at on 0 to 2.
    parser.add_argument("--first", type=int, default=FIRST)
    given = parser.parse_args()
    if given.what == "choose":
        choose(given.kinds)
    elif given.what == "measure":
        with given.results.open("a") as file:
            for seed in range(given.first, given.first + given.seeds):
                for kind in given.kinds:
                    result = measured(kind, seed)
                    print(json.dumps(result), file=file, flush=True)
                    wql = {n: round(m["wql"], 4) for n, m in result["measures"].items()}
                    print(kind, seed, f"{result['elapsed_s']:.1f} s", wql, flush=True)
    else:
        lines = given.results.read_text().splitlines()
        text = table([json.loads(line) for line in lines])
        print(text)
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
