"""Windows of series in a file are those of series in memory, in an order of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasting_examples import HORIZON, bare, panel, windows

from ostinato.data.series.panel import Panel
from ostinato.data.stored import panel as stored_panel
from ostinato.data.stored.panel import StoredPanel, in_parts
from ostinato.hyperparameters import Architecture
from ostinato.models import ForecasterNet
from ostinato.training.distributed import Ranks
from ostinato.training.fitted_forecaster import FittedForecaster
from ostinato.training.forecasting import validated_on, window_losses
from ostinato.training.plan import Plan
from ostinato.training.stored_forecasting import StoredForecasting, survey
from ostinato.training.windows import ForecastSettings, every_window, last_windows

LEVELS = (0.1, 0.5, 0.9)
SETTINGS = ForecastSettings(horizon=HORIZON, context=8)


def some_of(given: Panel, chosen: np.ndarray) -> Panel:
    def of(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        return [values[offsets[i] : offsets[i + 1]] for i in chosen]

    return Panel.of(
        of(given.target, given.offsets),
        past=of(given.past, given.offsets),
        future=of(given.future, given.future_offsets),
        static=given.static[chosen],
    )


def in_file(given: Panel) -> StoredPanel:
    return StoredPanel(lambda chosen: some_of(given, chosen), given.lengths, given.lengths)


@pytest.fixture(params=[1, 60, 1 << 20])
def block(request, monkeypatch):
    """Each series alone, some together, and all."""
    monkeypatch.setattr(stored_panel, "BLOCK", request.param)


def task(given: Panel, seed: int = 0, batch_size: int = 7) -> StoredForecasting:
    held_back = np.arange(len(given)) % 2 * HORIZON
    stored = in_file(given)
    found = survey(stored, SETTINGS, held_back)
    return StoredForecasting(stored, found, held_back, LEVELS, batch_size, seed)


def names(one: StoredForecasting, start: int, stop: int) -> list[bytes]:
    """What is read and what comes in each window, which tells windows apart."""
    return [
        one.windows.contexts(part, *pairs).x[i].numpy().tobytes()
        + one.windows.actual(part, *pairs)[i].tobytes()
        for part, pairs in one.drawn(start, stop)
        for i in range(len(pairs[0]))
    ]


def test_an_epoch_is_every_window_once(block):
    given = panel()
    one = task(given)
    pairs = every_window(given, 8, HORIZON, one.held_back)
    n = len(pairs[0])
    assert one.n_examples == n
    wanted = [
        one.windows.contexts(given, *pairs).x[i].numpy().tobytes()
        + one.windows.actual(given, *pairs)[i].tobytes()
        for i in range(n)
    ]
    first, second = names(one, 0, n), names(one, n, 2 * n)
    assert sorted(first) == sorted(second) == sorted(wanted)
    assert first != second and first != wanted
    assert names(one, n - 3, n + 4) == first[-3:] + second[:4]
    assert names(task(given), 0, n) == first
    assert names(task(given, seed=1), 0, n) != first


def test_series_far_apart_stand_side_by_side(monkeypatch):
    """A block has series from all over the file, where it does not have all of them."""
    rng = np.random.default_rng(0)
    given = Panel.of(list(rng.normal(size=(40, 30))))
    monkeypatch.setattr(stored_panel, "BLOCK", 240)
    one = task(given)
    blocks, firsts = one._order(0)
    assert len(blocks) == 6 and firsts[-1] == one.n_examples
    assert all(np.ptp(block) > 10 for block in blocks[:-1])
    assert sorted(np.concatenate(blocks)) == list(range(40))
    later = one._order(1)[0]
    assert [block.tolist() for block in later] != [block.tolist() for block in blocks]


def test_inputs_are_standardised_by_what_is_learnt_from(block):
    given = panel()
    held_back = np.arange(len(given)) % 2 * HORIZON
    found = survey(in_file(given), SETTINGS, held_back).windows
    kept = given.lengths - held_back
    past = [given.past[a : a + n] for a, n in zip(given.offsets, kept, strict=False)]
    future = [given.future[a : a + n] for a, n in zip(given.future_offsets, kept, strict=False)]
    for columns, values in ((found.past, past), (found.future, future)):
        every = np.concatenate(values)
        np.testing.assert_allclose(columns.mean, every.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(columns.deviation, every.std(0), rtol=1e-12)
    assert found.static == windows(given).static


def network(one: StoredForecasting) -> ForecasterNet:
    torch.manual_seed(0)
    sizes = len(one.windows.past), len(one.windows.future), len(one.windows.static)
    return ForecasterNet(HORIZON, *sizes, one.windows.n_lags, LEVELS, hidden_size=4).eval()


def test_the_loss_and_its_gradient_are_those_of_the_windows(block):
    """Of a batch from the end of one epoch and the head of the next, from several blocks."""
    given = panel()
    one = task(given)
    net = network(one)
    one.position = one.n_examples - 3
    parts = list(one.drawn(one.position, one.position + 7))
    share = one.loss(net)
    share.loss.backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    sums = [window_losses(net, one.windows, one.levels, *part) for part in parts]
    wanted = sum(loss for loss, _ in sums) / sum(n for _, n in sums)
    wanted.backward()
    assert share.loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert share.weight == sum(n for _, n in sums)
    for gradient, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_processes_share_a_batch(block, size):
    given = panel()
    whole = task(given)
    net = network(whole)
    wanted = [whole.loss(net) for _ in range(9)]
    shares = []
    for rank in range(size):
        one = task(given)
        one.ranks = Ranks(rank, size)
        shares.append([one.loss(net) for _ in range(9)])
    for i, share in enumerate(wanted):
        weight = sum(each[i].weight for each in shares)
        total = sum(each[i].loss.item() * each[i].weight for each in shares)
        assert weight == share.weight
        assert total / weight == pytest.approx(share.loss.item(), rel=1e-5)


def test_it_goes_on_where_it_stood(block):
    given = panel()
    one, net = task(given), None
    net = network(one)
    losses = [one.loss(net).loss.item() for _ in range(40)]
    other = task(given)
    other.position = 0
    for _ in range(17):
        other.loss(net)
    again = task(given)
    again.load_state_dict(other.state_dict())
    assert [again.loss(net).loss.item() for _ in range(23)] == losses[17:]
    for name, value in (("n_examples", 5), ("batch_size", 8), ("seed", 1)):
        with pytest.raises(ValueError, match="goes on only with the data, and the batches"):
            again.load_state_dict(one.state_dict() | {name: value})
    with pytest.raises(ValueError, match="goes on only with the data, and the batches"):
        again.load_state_dict({"position": 3})


def test_validation_reads_the_ends_of_the_series(block):
    given = panel()
    settings = replace(SETTINGS, validation_windows=2)
    found = survey(in_file(given), settings, np.zeros(len(given), int))
    net = network(task(given))
    levels = torch.tensor(LEVELS)
    both = [
        validated_on(net, found.windows, levels, each, pairs, Ranks())["validation_loss"]
        for each in (found.ends, given)
        for pairs in [last_windows(each, 8, HORIZON, 2, HORIZON)]
    ]
    assert both[0] == both[1] and both[0][1] > 0
    assert found.ends.lengths.max() == 8 + 2 * HORIZON


def fitted(given, **plan) -> FittedForecaster:
    settings = Plan(iterations=6, batch_size=9, eval_every=3, **plan)
    model = Architecture(hidden_size=4, cell="gru")
    return FittedForecaster.fit(given, SETTINGS, model, settings)[0]


def test_a_model_is_measured_on_series_in_a_file_as_on_those_in_memory(block):
    given = panel()
    model = fitted(in_file(given))
    stored = in_file(given)
    for season in (1, 4):  # products of other sizes are rounded in another way, in float32
        wanted = pytest.approx(model.evaluate(given, 2, season=season), rel=1e-5)
        assert model.evaluate(stored, 2, season=season) == wanted
        assert model.baselines(stored, 2, season=season) == model.baselines(given, 2, season=season)
    assert sum(len(part) for _, part in in_parts(stored.before(3))) == len(given)
    with pytest.raises(ValueError, match=r"series 0 has \d+ steps; wanted more than the 1000"):
        stored.before(1000)


def test_a_refusal_tells_the_length_of_whole_series(block):
    """Not of their ends, 28 steps here, which are all that validation reads."""
    settings = replace(SETTINGS, context=1, validation_windows=9)
    for given in (panel(), in_file(panel())):
        with pytest.raises(ValueError, match=r"a series of 31 steps .*; the longest has 30;"):
            FittedForecaster.fit(given, settings, Architecture(hidden_size=4), Plan(iterations=1))


def test_series_without_windows_are_refused(block):
    short = Panel.of([[1.0], [2.0]])
    with pytest.raises(ValueError, match="no series has a value to read and one to forecast"):
        fitted(in_file(short))
    model = fitted(in_file(bare(panel())))
    with pytest.raises(ValueError, match="no series has a value to forecast in its last"):
        model.evaluate(in_file(short))
