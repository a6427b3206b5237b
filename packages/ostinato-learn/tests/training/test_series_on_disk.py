"""Series on disk are trained on, and forecast, with the bits of series in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasting_examples import HORIZON, panel

from ostinato_learn.data.series import panel as panels
from ostinato_learn.data.series.panel import Panel
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.tasks.forecast.fit import fit
from ostinato_learn.tasks.forecast.loss import ForecastSettings
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.training.plan import Plan

SETTINGS = ForecastSettings(horizon=HORIZON, context=8)


def on_disk(given: Panel) -> Panel:
    """Of all series once and again, so that a block has some of them."""
    return Panel.joined([given], on_disk=True)


@pytest.fixture(params=[1, 60, 1 << 20])
def block(request, monkeypatch):
    """Each series alone, some together, and all."""
    monkeypatch.setattr(panels, "BLOCK", request.param)


def fitted(given: Panel, **plan) -> Forecaster:
    settings = Plan(iterations=6, batch_size=9, eval_every=3, **plan)
    model = Architecture(hidden_size=4, cell="gru")
    return fit(given, SETTINGS, model, settings)[0]


def test_a_model_is_fitted_and_measured_as_on_series_in_memory(block):
    given, stored = panel(), on_disk(panel())
    assert stored.on_disk and not given.on_disk
    one, other = fitted(given), fitted(stored)
    assert one.windows == replace(other.windows, names=one.windows.names)
    for name, weights in one.net.state_dict().items():
        assert torch.equal(weights, other.net.state_dict()[name]), name
    for season in (1, 4):  # products of other sizes are rounded in another way, in float32
        wanted = pytest.approx(one.evaluate(given, 2, season=season), rel=1e-5)
        assert one.evaluate(stored, 2, season=season) == wanted
        assert one.baselines(stored, 2, season=season) == one.baselines(given, 2, season=season)


def test_inputs_are_standardised_by_what_is_learnt_from(block):
    given = panel()
    kept = given.lengths - np.where(given.lengths > 2 * HORIZON, HORIZON, 0)
    found = fitted(on_disk(given)).windows
    for columns, values, offsets in (
        (found.past, given.past, given.offsets),
        (found.future, given.future, given.future_offsets),
    ):
        learnt = np.concatenate(
            [values[start : start + n] for start, n in zip(offsets[:-1], kept, strict=True)]
        )
        np.testing.assert_allclose(columns.mean, learnt.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(columns.deviation, learnt.std(0), rtol=1e-12)


def test_steps_are_held_back_on_disk(block):
    given = panel()
    stored, wanted = on_disk(given).before(3), given.before(3)
    assert stored.on_disk and on_disk(given).before(0).on_disk
    for name in ("target", "offsets", "past", "future", "future_offsets", "static"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(wanted, name))
    parts = list(stored.parts())
    assert not any(part.on_disk for _, part in parts)
    assert np.concatenate([chosen for chosen, _ in parts]).tolist() == list(range(len(given)))
    with pytest.raises(ValueError, match=r"series 2 has 4 steps; wanted more than the 4 that are"):
        on_disk(given).before(4)
