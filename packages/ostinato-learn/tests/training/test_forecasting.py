from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasting_examples import HORIZON, bare, fit, panel, windows, with_target
from test_checkpoint import KillAfter, Killed
from training_examples import without_clock

from ostinato_learn.data.series.windows import every_window, last_windows
from ostinato_learn.metrics import forecasts as forecast_metrics
from ostinato_learn.models import ForecasterNet
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.forecast.loss import Forecasting, parts, pinball, tensors
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.training import Checkpoint

LEVELS = (0.1, 0.5, 0.9)


def task(given, **options):
    cut = windows(given)
    none = np.zeros(len(given), dtype=int)
    learnt = every_window(given, cut.context, cut.horizon, none)
    return Forecasting(given, cut, learnt, LEVELS, batch_size=7, seed=0, **options)


def network(given) -> ForecasterNet:
    torch.manual_seed(0)
    sizes = given.n_past, given.n_future, given.n_static, windows(given).n_lags
    return ForecasterNet(HORIZON, *sizes, LEVELS, hidden_size=4, dropout=0.5).eval()


def scaled_loss(given, cut, net, pairs) -> float:
    """The mean pinball loss in the windows' scales, by `forecast_metrics`."""
    read = cut.contexts(given, *pairs)
    actual = (cut.actual(given, *pairs) - read.centre) / read.scale
    answer = net(*tensors(read)).detach().numpy()
    return forecast_metrics.pinball(np.clip(actual, -1e3, 1e3), answer, LEVELS)


def test_the_loss_is_the_mean_pinball_loss_of_the_batch():
    given = panel()
    one, net = task(given), network(given)
    chosen = task(given).batches.next_indices()
    pairs = one.series[chosen], one.cutoffs[chosen]
    assert np.isnan(one.windows.actual(given, *pairs)).any()  # missing values are left out
    wanted = scaled_loss(given, one.windows, net, pairs)
    assert one.loss(net).loss.item() == pytest.approx(wanted, rel=1e-5)


def test_pinball_in_torch_is_that_of_the_measures():
    rng = np.random.default_rng(0)
    y, f = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 3))
    losses = pinball(torch.tensor(y), torch.tensor(f), torch.tensor(LEVELS, dtype=torch.float64))
    assert losses.mean().item() == pytest.approx(forecast_metrics.pinball(y, f, LEVELS))


def test_validation_is_over_all_its_windows_in_parts(monkeypatch):
    given = panel()
    cut = windows(given)
    pairs = last_windows(given, cut.context, cut.horizon, windows=3, stride=2)
    one, net = task(given, validation=pairs), network(given).train()
    whole, _ = one.validate(net)["validation_loss"]
    assert net.training
    wanted = scaled_loss(given, cut, net.eval(), pairs)
    assert whole == pytest.approx(wanted, rel=1e-5)
    monkeypatch.setattr("ostinato_learn.tasks.forecast.loss.parts", lambda p: parts(p, 2))
    assert one.validate(net)["validation_loss"][0] == pytest.approx(whole)


def test_a_jump_after_a_constant_context_leaves_the_loss_finite():
    given = bare(panel(missing=0))
    target = given.target.copy()
    target[9:36] = 1.0
    target[20:24] += 1e-11  # a deviation of about 5e-12
    target[24:39] = 1e30
    given = with_target(given, target)
    one, net = task(given), network(given)
    losses = [one.loss(net).loss.item() for _ in range(20)]
    assert all(math.isfinite(loss) and loss < 1e3 for loss in losses)


def test_forecasts_come_back_in_the_unit_of_the_series():
    """If values are a · y + b, forecasts are a · forecast + b, where the context has a spread."""
    given = bare(panel())
    cut, net = windows(given), network(given)
    series, cutoffs = last_windows(given, cut.context, cut.horizon, windows=2, stride=3)
    pairs = series[cutoffs > 1], cutoffs[cutoffs > 1]
    model = Forecaster(network=ModuleNetwork(net), windows=cut, levels=LEVELS)
    before = model.quantiles_after(given, *pairs)
    other = with_target(given, 1000 * given.target - 7)
    # scaled values differ by roundings of float32
    np.testing.assert_allclose(
        model.quantiles_after(other, *pairs), 1000 * before - 7, rtol=1e-5, atol=1e-2
    )
    assert before.shape == (len(pairs[0]), HORIZON, 3)
    assert (np.diff(before, axis=2) >= 0).all()


def assert_same_end(one, other):
    for (name, a), b in zip(
        one[0].net.state_dict().items(), other[0].net.state_dict().values(), strict=True
    ):
        assert a.numpy().tobytes() == b.numpy().tobytes(), name
    assert without_clock(one[1]) == without_clock(other[1])


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_training_that_was_killed_goes_on_to_the_same_bits(after, tmp_path):
    whole = fit(panel())
    checkpoint = Checkpoint(tmp_path / "c", every=2)
    with pytest.raises(Killed):
        fit(panel(), callbacks=[checkpoint, KillAfter(after)])
    assert_same_end(fit(panel(), resume=tmp_path / "c"), whole)


def test_it_would_show_batches_that_were_forgotten(tmp_path, monkeypatch):
    whole = fit(panel())
    with pytest.raises(Killed):
        fit(panel(), callbacks=[Checkpoint(tmp_path / "c", every=4), KillAfter(4)])
    monkeypatch.setattr(Forecasting, "load_state_dict", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_same_end(fit(panel(), resume=tmp_path / "c"), whole)


def test_a_checkpoint_of_other_series_is_refused(tmp_path):
    fit(panel(), callbacks=[Checkpoint(tmp_path / "c")])
    with pytest.raises(ValueError, match="n_examples"):
        fit(panel(missing=0.6), resume=tmp_path / "c")


def test_what_is_kept_for_validation_is_not_learnt_from():
    """Changed, it changes neither the losses nor the weights, if these are not chosen by it."""
    given = panel(missing=0)
    target, past = given.target.copy(), given.past.copy()
    for i in (0, 1, 3):  # series 2 is too short for a validation window
        end = given.offsets[i + 1]
        target[end - HORIZON : end] = 77
        past[end - HORIZON : end] = 99
    plan = {"restore_best": False}
    one = fit(given, plan)
    other = fit(replace(given, target=target, past=past), plan)
    assert one[1]["loss"] == other[1]["loss"]
    assert one[1]["validation_loss"] != other[1]["validation_loss"]
    for a, b in zip(one[0].net.parameters(), other[0].net.parameters(), strict=True):
        assert torch.equal(a, b)
    third = fit(replace(given, target=target), plan, validation_windows=0)
    assert third[1]["loss"] != one[1]["loss"]  # where nothing is kept, it is seen
