"""Small series with every sort of input, and a small forecaster of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ostinato_learn.data.series.panel import Panel
from ostinato_learn.data.series.windows import Columns, SeriesWindows
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.tasks.forecast import fit as forecast
from ostinato_learn.tasks.forecast.loss import ForecastSettings
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.training import History, Plan

LENGTHS = (9, 30, 4, 17)
HORIZON, CONTEXT = 3, 6


def panel(ahead: int = HORIZON, missing: float = 0.1, seed: int = 0) -> Panel:
    """Four series with P = 2, K = 1, S = 2; the known inputs go `ahead` beyond the ends."""
    rng = np.random.default_rng(seed)
    target = [10 * i + rng.normal(size=T) for i, T in enumerate(LENGTHS)]
    for values in target:
        values[rng.random(len(values)) < missing] = np.nan
        values[-1] = 1.0
    return Panel.of(
        target,
        past=[rng.normal(size=(T, 2)) for T in LENGTHS],
        future=[rng.normal(size=T + ahead) for T in LENGTHS],
        static=rng.normal(size=(len(LENGTHS), 2)),
    )


def bare(given: Panel) -> Panel:
    """The series alone."""
    return Panel.of([given.series(i) for i in range(len(given))])


def windows(given: Panel, scaling: str = "std") -> SeriesWindows:
    columns = {n: Columns.of(getattr(given, n)) for n in ("past", "future", "static")}
    return SeriesWindows(CONTEXT, HORIZON, scaling, 2, **columns)


def fit(
    given: Panel, plan: dict[str, Any] | None = None, **options: Any
) -> tuple[Forecaster, History]:
    settings = ForecastSettings(horizon=HORIZON, context=CONTEXT, season=2)
    changed = {name: options.pop(name) for name in list(options) if hasattr(settings, name)}
    defaults: dict[str, Any] = {
        "iterations": 8,
        "batch_size": 5,
        "optimizer": "adamw",
        "learning_rate": 0.02,
        "schedule": "cosine",
        "clip_norm": 1.0,
        "eval_every": 3,
        "seed": 5,
    }
    return forecast.fit(
        given,
        replace(settings, **changed),
        Architecture(cell="gru", hidden_size=4, dropout=0.2),
        Plan(**defaults | (plan or {})),
        **options,
    )


def with_target(given: Panel, target: np.ndarray) -> Panel:
    return replace(given, target=target)
