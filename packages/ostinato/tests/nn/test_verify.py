"""accelerate(model, verify=…): what it compares, and that it can fail."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import ostinato
from ostinato.nn import accelerate
from ostinato.nn.verify import Verification


@pytest.fixture
def wrong_gru(monkeypatch):
    """A GRU that is wrong by a little: one gate's bias is off by 1 %."""
    right = ostinato.nn.GRU._step

    def wrong(self, weights, all_states):
        w_ih, w_hh, b_ih, b_hh = weights
        return right(self, [w_ih, w_hh, b_ih * 1.01, b_hh], all_states)

    monkeypatch.setattr(ostinato.nn.GRU, "_step", wrong)


def test_a_wrong_layer_is_found_and_undone(wrong_gru):
    model = torch.nn.ModuleList([torch.nn.GRU(3, 4), torch.nn.LSTM(3, 4)])
    model.forward = lambda x: {"gru": model[0](x), "n": len(x), "lstm": model[1](x)}
    x = torch.randn(5, 2, 3)
    before = model(x)["gru"][0]
    with pytest.raises(ValueError, match=r"result 0 .*float32\[5, 2, 4\]\) differs by .*restored"):
        accelerate(model, verify=(x,))
    assert [type(layer) for layer in model] == [torch.nn.GRU, torch.nn.LSTM]
    assert torch.equal(model(x)["gru"][0], before)
    assert not any(layer._forward_hooks for layer in model)
    accelerate(model, verify=(x,), tolerance=0.1)
    assert type(model[0]) is ostinato.nn.GRU


def test_the_right_ones_pass(caplog):
    x = torch.randn(40, 3, 8)
    for name in ("RNN", "GRU", "LSTM"):
        layer = getattr(torch.nn, name)(8, 64, 2, bidirectional=True, dropout=0.3)
        with caplog.at_level(logging.INFO, logger="ostinato"):
            accelerate(layer, verify=(x,))
        assert layer.training
    assert sum("verified" in record.getMessage() for record in caplog.records) == 3
    accelerate(torch.nn.GRU(8, 64), verify=(pack_padded_sequence(x, [40, 7, 2]),))


def test_the_bound():
    """ε √K n: two layers of 40 steps, and one that is called twice with two."""
    lstm, gru = torch.nn.LSTM(8, 16, 2), torch.nn.GRU(16, 16)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.gru = lstm, gru

        def forward(self, x):
            _, (h_n, _) = self.lstm(input=x)
            return self.gru(self.gru(h_n)[0])[1]

    verification = Verification(Model(), (torch.randn(40, 3, 8),), [lstm, gru])
    assert verification.n_steps == 2 * 40 + 2 * 2
    epsilon = torch.finfo(torch.float32).eps
    assert verification._bound(torch.tensor([0.5])) == pytest.approx(epsilon * 32**0.5 * 84)
    assert verification._bound(torch.tensor([-3.0])) == pytest.approx(3 * epsilon * 32**0.5 * 84)
    assert verification._bound(torch.tensor([3])) == 0  # integers must be equal


def test_the_same_randomness_and_inputs():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(3, 4)

        def forward(self, x):
            x.add_(1)  # it writes into its input
            return self.gru(x)[0] + torch.rand(4)

    model, x = Model(), torch.randn(5, 2, 3)
    kept, state = x.clone(), torch.get_rng_state()
    accelerate(model, verify=(x,))
    assert torch.equal(x, kept) and torch.equal(torch.get_rng_state(), state)


def test_nan_and_shapes():
    class Model(torch.nn.Module):
        def __init__(self, *results):
            super().__init__()
            self.gru, self.results = torch.nn.GRU(3, 4), list(results)

        def forward(self):
            return self.results.pop(0)

    nan, one = torch.tensor([float("nan"), 1.0]), torch.ones(2)
    accelerate(Model(nan, nan), verify=())
    for before, after in [
        (one, nan),
        (nan, one),
        (one, one[:1]),
        (one, one.double()),
        (one, [one] * 2),
    ]:
        model = Model(before, after)
        with pytest.raises(ValueError, match="restored"):
            accelerate(model, verify=())
        assert type(model.gru) is torch.nn.GRU
    with pytest.raises(ValueError, match="no tensor to compare, but a str"):
        accelerate(Model("text"), verify=())


def test_not_a_tuple():
    gru = torch.nn.GRU(3, 4)
    with pytest.raises(TypeError, match=r"verify is a Tensor; wanted a tuple .* verify=\(x,\)"):
        accelerate(gru, verify=torch.randn(5, 3))
    assert type(gru) is torch.nn.GRU
