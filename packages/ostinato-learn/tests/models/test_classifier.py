from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ostinato_learn.models import ClassifierNet
from zoo.suites import in_pairs

CELLS = ["rnn", "gru", "lstm"]
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@pytest.mark.parametrize("cell, num_layers, bidirectional", in_pairs(CELLS, [1, 2], [False, True]))
def test_logits_have_a_row_for_each_example_and_a_gradient_for_each_weight(
    cell, num_layers, bidirectional
):
    net = ClassifierNet(3, 5, cell, 4, num_layers, bidirectional)
    logits = net(torch.randn(6, 7, 3))
    assert logits.shape == (6, 5)
    logits.square().sum().backward()
    for name, weight in net.named_parameters():
        # the backward half's W has seen nothing but its zero start when T is 1; here T is 7
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_the_network_is_the_notebooks_equations():
    net = ClassifierNet(3, 5, hidden_size=4)
    for weight in net.parameters():
        torch.nn.init.normal_(weight)
    w = {name: p.detach().double().numpy() for name, p in net.named_parameters()}
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    s = np.zeros((2, 4))
    bias = w["body.bias_ih_l0"] + w["body.bias_hh_l0"]
    for t in range(6):
        s = np.tanh(x[:, t] @ w["body.weight_ih_l0"].T + s @ w["body.weight_hh_l0"].T + bias)
    wanted = s @ w["readout.weight"].T + w["readout.bias"]
    # float32, sums of at most 8 terms of order 1 through 6 steps
    np.testing.assert_allclose(net(torch.tensor(x)).detach().numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_row_is_read_as_if_it_came_alone(cell, bidirectional):
    net = ClassifierNet(3, 5, cell, 4, 2, bidirectional).eval()
    x = torch.randn(3, 6, 3)
    lengths = torch.tensor([2, 6, 3])
    for row, length in enumerate(lengths.tolist()):
        x[row, length:] = math.nan
    together = net(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = net(x[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row], alone)


@pytest.mark.parametrize("cell", CELLS)
def test_forward_steps_says_after_each_step_what_forward_says_of_the_sequence_so_far(cell):
    net = ClassifierNet(3, 5, cell, 4, 2).eval()
    x = torch.randn(2, 6, 3)
    logits, states = net.forward_steps(x)
    assert logits.shape == (2, 6, 5) and states.shape == (2, 6, 4)
    for t in range(6):
        torch.testing.assert_close(logits[:, t], net(x[:, : t + 1]))
    torch.testing.assert_close(net.readout(states), logits)


def test_forward_steps_of_a_bidirectional_network_is_refused():
    with pytest.raises(ValueError, match="bidirectional=False"):
        ClassifierNet(3, 5, bidirectional=True).forward_steps(torch.zeros(1, 2, 3))


def test_config_builds_the_same_network():
    net = ClassifierNet(3, 5, "lstm", np.int64(4), 2, True, 0.25, "relu")
    again = ClassifierNet(**net.config)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 6, 3)
    assert torch.equal(net.eval()(x), again.eval()(x))
    assert type(net.config["hidden_size"]) is int  # so that it fits into JSON


@pytest.mark.parametrize("cell", CELLS)
def test_the_default_start(cell):
    F, H, C = 20, 32, 5
    net = ClassifierNet(F, C, cell, H, num_layers=2)
    for layer, inputs in ((0, F), (1, H)):
        U = getattr(net.body, f"weight_ih_l{layer}").detach()
        W = getattr(net.body, f"weight_hh_l{layer}").detach()
        assert U.shape == (GATES[cell] * H, inputs)
        for gate in W.split(H):
            torch.testing.assert_close(gate @ gate.T, torch.eye(H), atol=1e-5, rtol=0)
        for gate in U.split(H):
            bound = math.sqrt(6 / (inputs + H))
            assert 0.9 * bound < gate.abs().max() <= bound
        bias = getattr(net.body, f"bias_ih_l{layer}").detach().split(H)
        for i, gate in enumerate(bias):
            assert (gate == (1 if cell == "lstm" and i == 1 else 0)).all()
        assert not getattr(net.body, f"bias_hh_l{layer}").any()
    assert not net.readout.bias.any()
    assert net.readout.weight.abs().max() <= math.sqrt(6 / (H + C))


@pytest.mark.parametrize("cell", CELLS)
def test_the_notebooks_start_is_zero_but_for_the_readout_and_yet_learns(cell):
    net = ClassifierNet(28, 10, cell, init="notebook")
    assert not any(w.any() for w in net.body.parameters())
    assert not net.readout.bias.any()
    V = net.readout.weight.detach()
    assert V.abs().max() <= 0.02
    # 1280 draws of a normal cut off at two deviations, whose deviation is 0.88 of the whole one's
    assert 0.0083 < V.std() < 0.0093
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    x, y = torch.rand(64, 5, 28), torch.arange(64) % 10
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert all(w.any() for w in net.parameters())


@pytest.mark.parametrize("arguments", [{"nonlinearity": "relu"}, {"num_layers": 2}])
def test_the_notebooks_start_is_refused_where_nothing_would_be_learnt(arguments):
    with pytest.raises(ValueError, match="init='default'"):
        ClassifierNet(3, 5, init="notebook", **arguments)


def test_dropout_acts_in_training_only_and_also_with_one_layer():
    net = ClassifierNet(3, 5, hidden_size=64, dropout=0.5)
    x = torch.randn(2, 6, 3)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "transformer"}, "cell='transformer': wanted one of"),
        ({"nonlinearity": "gelu"}, "nonlinearity='gelu': wanted one of"),
        ({"init": "zeros"}, "init='zeros': wanted one of"),
        ({"hidden_size": 0}, "hidden_size=0: wanted a whole number"),
        ({"hidden_size": 1.5}, "hidden_size=1.5: wanted a whole number"),
        ({"num_layers": True}, "num_layers=True: wanted a whole number"),
        ({"dropout": 1.0}, "dropout=1.0: wanted a number from 0"),
        ({"dropout": math.nan}, "dropout=nan: wanted a number from 0"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassifierNet(3, 5, **arguments)
