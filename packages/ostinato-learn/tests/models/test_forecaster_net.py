from __future__ import annotations

import numpy as np
import pytest
import torch

from ostinato_learn.tasks.forecast.net import NINE, ForecasterNet, check_levels, increasing
from zoo.suites import in_pairs

CELLS = ["rnn", "gru", "lstm"]


@pytest.mark.parametrize("cell, num_layers, bidirectional", in_pairs(CELLS, [1, 2], [False, True]))
def test_there_is_an_answer_for_each_step_and_a_gradient_for_each_weight(
    cell, num_layers, bidirectional
):
    torch.manual_seed(0)
    net = ForecasterNet(
        3, 1, 2, 1, 3, cell=cell, hidden_size=4, num_layers=num_layers, bidirectional=bidirectional
    )
    answer = net(torch.randn(6, 7, 6), torch.randn(6, 3, 2), torch.randn(6, 3, 3))
    assert answer.shape == (6, 3, 9)
    answer.square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_the_network_is_its_equations():
    torch.manual_seed(0)
    levels = [0.2, 0.5, 0.7, 0.9]
    net = ForecasterNet(3, n_future=2, n_lags=2, quantiles=levels, cell="rnn", hidden_size=4)
    for weight in net.parameters():
        torch.nn.init.normal_(weight)
    w = {name: p.detach().double().numpy() for name, p in net.named_parameters()}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 4)).astype(np.float32)
    future = rng.normal(size=(2, 3, 2)).astype(np.float32)
    lags = rng.normal(size=(2, 3, 2)).astype(np.float32)
    bias = w["body.bias_ih_l0"] + w["body.bias_hh_l0"]
    wanted = np.zeros((2, 3, 4))
    for b in range(2):
        s = np.zeros(4)
        for t in range(6):
            s = np.tanh(w["body.weight_ih_l0"] @ x[b, t] + w["body.weight_hh_l0"] @ s + bias)
        ahead = np.maximum(w["ahead.weight"] @ s + w["ahead.bias"], 0).reshape(3, 4)
        for k in range(3):
            d = np.concatenate([ahead[k], future[b, k], lags[b, k]])
            d = np.maximum(w["step.weight"] @ d + w["step.bias"], 0)
            o = w["readout.weight"] @ d + w["readout.bias"]
            gap = np.log1p(np.exp(o))
            middle = o[1] + w["naive"] @ lags[b, k]
            wanted[b, k] = middle + np.array([-gap[0], 0, gap[2], gap[2] + gap[3]])
    answer = net(*map(torch.tensor, (x, future, lags))).detach().numpy()
    # float32, sums of at most 8 terms of order 1 to 10 through 6 steps and three layers
    np.testing.assert_allclose(answer, wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("median", [0, 1, 4, 8])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4, 1e30])
def test_quantiles_never_cross_whatever_the_network_says(median, size):
    raw = size * torch.randn(500, 9, generator=torch.Generator().manual_seed(0))
    answer = increasing(raw, median, torch.ones(500, 1))
    assert (answer.diff(dim=1) >= 0).all()
    assert torch.equal(answer[:, median], raw[:, median] + 1)


def test_a_single_quantile_is_the_median():
    assert torch.equal(increasing(torch.ones(2, 1), 0), torch.ones(2, 1))
    assert ForecasterNet(2, quantiles=[0.5])(torch.zeros(1, 4, 2)).shape == (1, 2, 1)


def test_it_begins_as_the_mean_of_the_lags_and_a_correction():
    net, lags = ForecasterNet(2, n_lags=3), torch.randn(5, 2, 3)
    torch.nn.init.zeros_(net.readout.weight)
    torch.testing.assert_close(net(torch.randn(5, 8, 2), lags=lags)[:, :, 4], lags.mean(2))


def test_config_builds_the_same_network():
    net = ForecasterNet(2, 1, 0, 1, 0, (0.1, 0.5), "lstm", np.int64(4), 2, True, 0.25)
    again = ForecasterNet(**net.config)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 6, 4)
    assert torch.equal(net.eval()(x), again.eval()(x))
    assert again.config == net.config


@pytest.mark.parametrize(
    "quantiles",
    [
        (),
        (0.1, 0.9),
        (0.5, 0.1),
        (0.5, 0.5),
        (0.0, 0.5),
        (0.5, 1.0),
        "0.5",
        0.5,
        (0.5, float("nan")),
    ],
)
def test_levels_that_cannot_be_used_are_refused(quantiles):
    with pytest.raises(ValueError, match=r"wanted increasing numbers between 0 and 1 with 0\.5"):
        check_levels(quantiles)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0}, "horizon=0: wanted a whole number, 1 or more"),
        ({"horizon": 2, "n_past": -1}, "n_past=-1"),
        ({"horizon": 2, "cell": "tree"}, "cell='tree': wanted one of"),
        ({"horizon": 2, "dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ForecasterNet(**given)


def test_nine_levels_are_the_default():
    assert ForecasterNet(1).config["quantiles"] == list(NINE) == [k / 10 for k in range(1, 10)]


def test_every_parameter_is_described():
    assert "{hyperparameters}" not in ForecasterNet.__doc__
    for name in ("cell", "hidden_size", "num_layers", "bidirectional", "dropout", "quantiles"):
        assert f"{name}:" in ForecasterNet.__doc__
