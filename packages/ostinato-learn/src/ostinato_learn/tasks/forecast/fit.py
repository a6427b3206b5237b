"""From series to a trained `Forecaster`. No scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato_learn.data.sequences.moments import Moments
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.data.series.windows import (
    Columns,
    Pairs,
    SeriesWindows,
    every_window,
    last_windows,
)
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.models.build import built
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.fitting import check_start, planned
from ostinato_learn.tasks.forecast.loss import Forecasting, ForecastSettings
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.tasks.forecast.net import NINE, ForecasterNet, check_levels
from ostinato_learn.training import loop
from ostinato_learn.training.callbacks import Callback
from ostinato_learn.training.history import History
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.start import check_network

NETWORK = ForecasterNet
ARGUMENTS = set(signature(ForecasterNet).parameters)


@torch.inference_mode(False)  # the caller's mode would make tensors without gradients
def fit(
    panel: Panel,
    settings: ForecastSettings,
    model: Architecture,
    plan: Plan,
    *,
    quantiles: Sequence[float] = NINE,
    start: Forecaster | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
) -> tuple[Forecaster, History]:
    """Train a network; see `tasks/fitting.py`.

    Args:
        panel: the series.
        settings: the task.
        quantiles: levels, with 0.5 among them.
    """
    check_start(model)
    levels = check_levels(quantiles)
    context, horizon = settings.n_context, settings.horizon
    held_back = _held_back(panel.lengths, settings)
    learnt = every_window(panel, context, horizon, held_back)
    windows, n_windows = _windows(panel, settings, held_back), len(learnt[0])
    if start is not None:
        start.windows.check_inputs(panel)
        check_network(_sizes(start.windows), _sizes(windows))
        windows = replace(
            start.windows,
            nonnegative=start.windows.nonnegative and windows.nonnegative,
            whole=start.windows.whole and windows.whole,
        )
    if not n_windows:
        raise ValueError(
            f"no series has a value to read and one to forecast within horizon={horizon} "
            f"steps; the longest of {len(panel)} has {panel.lengths.max()} steps; wanted more "
            "than horizon, or a shorter horizon"
        )
    plan = planned(plan, n_windows)
    validation = _validation(panel, settings, held_back)
    task = Forecasting(panel, windows, learnt, levels, plan.batch_size, plan.seed, validation)
    net = built(
        ForecasterNet,
        horizon,
        len(windows.past),
        len(windows.future),
        len(windows.static),
        windows.n_lags,
        levels,
        seed=plan.seed,
        **{n: v for n, v in asdict(model).items() if n in ARGUMENTS},
    )
    if start is not None:
        check_network(start.net.config, net.config)
        net.load_state_dict(start.net.state_dict())
    history = loop.learn(net, task, plan, callbacks=callbacks, resume=resume)
    made = Forecaster(network=ModuleNetwork(net), windows=windows, levels=levels)
    return made, history


def _held_back(lengths: np.ndarray, settings: ForecastSettings) -> np.ndarray:
    """The number of steps of each series to keep from training, `[N]`; 0 for too short ones."""
    steps = settings.validation_windows * settings.horizon
    return np.where(lengths > steps + settings.horizon, steps, 0)


def _validation(panel: Panel, settings: ForecastSettings, held_back: np.ndarray) -> Pairs | None:
    """The windows that end in the steps held back, a horizon apart; None without validation.

    Args:
        panel: the series.
        settings: the task.
        held_back: the number of steps of each series that are kept from training, `[N]`.

    Raises:
        ValueError: no series is long enough.
    """
    if not settings.validation_windows:
        return None
    horizon = settings.horizon
    series, cutoffs = last_windows(
        panel, settings.n_context, horizon, settings.validation_windows, horizon
    )
    kept = held_back[series] > 0
    if not kept.any():
        raise ValueError(
            f"validation_windows={settings.validation_windows} and horizon={horizon} need a series "
            f"of {(settings.validation_windows + 1) * horizon + 1} steps with values near its end; "
            f"the longest has {panel.lengths.max()}; give longer ones, or validation_windows=0"
        )
    return series[kept], cutoffs[kept]


def _sizes(windows: SeriesWindows) -> dict[str, Any]:
    """The settings that must be equal in two models that read series in the same way."""
    inputs = {f"n_{name}": len(getattr(windows, name)) for name in ("past", "future", "static")}
    names = ("context", "horizon", "scaling", "season")
    return {name: getattr(windows, name) for name in names} | inputs


def _windows(panel: Panel, settings: ForecastSettings, held_back: np.ndarray) -> SeriesWindows:
    """How windows are cut; inputs are standardised by the training part."""
    past, future = ([Moments() for _ in range(n)] for n in (panel.n_past, panel.n_future))
    for add in (Moments.add, Moments.add_deviations):
        for chosen, part in panel.parts() if past or future else ():
            kept = part.lengths - held_back[chosen]
            known = zip(
                (past, future),
                (part.past, part.future),
                (part.offsets, part.future_offsets),
                strict=True,
            )
            for moments, values, offsets in known:
                for each, column in zip(moments, values[_first(offsets, kept)].T, strict=True):
                    add(each, column)
    return SeriesWindows(
        settings.n_context,
        settings.horizon,
        settings.scaling,
        settings.season,
        past=Columns.of_moments(past),
        future=Columns.of_moments(future),
        static=Columns.of(panel.static),
        names=panel.names,
        **_bounds(panel, settings),
    )


def _bounds(panel: Panel, settings: ForecastSettings) -> dict[str, bool]:
    """Whether forecasts are at least 0 and whole numbers: whether all known values are."""
    nonnegative = whole = settings.bounds == "past"
    for _, part in panel.parts() if nonnegative else ():
        values = part.target[np.isfinite(part.target)]
        nonnegative = nonnegative and bool((values >= 0).all())
        whole = whole and bool((values == np.rint(values)).all())
    return {"nonnegative": nonnegative, "whole": whole}


def _first(offsets: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which rows are among the first `kept` `[N]` of their series."""
    lengths = np.diff(offsets)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) < np.repeat(kept, lengths)
