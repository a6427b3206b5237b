"""The series of a table as a panel."""

from __future__ import annotations

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.mapped import Mapped, stretches
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.series.panel import BLOCK, Panel


def panel_of(series: Examples, preparation: Preparation | None, unseen: bool = False) -> Panel:
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

    if not isinstance(series.sequences, Mapped):
        return of(np.arange(len(series)))
    return Panel.joined(map(of, stretches(series.sequences.sizes, BLOCK)), on_disk=True)


def lengths_of(series: Examples) -> np.ndarray:
    """Steps of each series, `[N]`, up to its last value."""
    return np.array([_end(y) for y in series.y])


def _end(y: np.ndarray) -> int:
    """The number of steps up to the last value."""
    present = np.flatnonzero(~np.isnan(y))
    return int(present[-1]) + 1 if len(present) else len(y)


def check_values(series: Examples) -> None:
    """Raise ValueError if a series has no value to forecast from."""
    empty = [i for i, y in enumerate(series.y) if not np.isfinite(y).any()]
    if empty:
        raise ValueError(
            f"{series.source}: {series.ids[empty[0]].item()!r} has no value of "
            f"{series.roles.target if series.roles else 'y'!r}; wanted some to forecast from"
        )


def check_future(series: Examples, panel: Panel, horizon: int) -> None:
    """Raise ValueError if inputs known in advance are missing at steps to be forecast."""
    further = series.lengths - panel.lengths
    if panel.n_future == 0 or (further >= horizon).all():
        return
    i = int(np.argmax(further < horizon))
    assert series.roles is not None
    names = ", ".join(map(repr, series.roles.known))
    raise ValueError(
        f"{series.source}: {series.ids[i].item()!r} has {further[i]} rows after its last value of "
        f"{series.roles.target!r}; to forecast {horizon} steps, append {horizon} rows with {names} "
        f"filled in and {series.roles.target!r} empty"
    )
