from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ostinato_learn.training import Plan, RMSProp
from ostinato_learn.training.optimizers import build


def rmsprop_in_numpy(p, gradients, lr, decay=0.9, momentum=0.0, eps=1e-10, weight_decay=0.0):
    """TensorFlow 1's RMSPropOptimizer, in float64."""
    s, m = np.ones_like(p), np.zeros_like(p)
    for g in gradients:
        g = g + weight_decay * p
        s = decay * s + (1 - decay) * g * g
        m = momentum * m + lr * g / np.sqrt(s + eps)
        p = p - m
    return p


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_rmsprop_is_tensorflow_1s(momentum, weight_decay):
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    gradients = [[rng.normal(size=p.shape) * 10.0**-k for k in range(6)] for p in starts]
    params = [torch.nn.Parameter(torch.tensor(p)) for p in starts]
    unused = torch.nn.Parameter(torch.ones(2))
    optimizer = RMSProp([*params, unused], lr=0.01, momentum=momentum, weight_decay=weight_decay)
    for k in range(6):
        for p, g in zip(params, gradients, strict=True):
            p.grad = torch.tensor(g[k])
        optimizer.step()
    for p, start, g in zip(params, starts, gradients, strict=True):
        wanted = rmsprop_in_numpy(start, g, 0.01, momentum=momentum, weight_decay=weight_decay)
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-12)
    assert (unused == 1).all()  # without a gradient, without a decay


def test_rmsprop_goes_on_from_its_state_dict():
    def trained(reload_after: int | None) -> torch.Tensor:
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = RMSProp([p], lr=0.1, momentum=0.5)
        for k in range(5):
            if k == reload_after:
                state = optimizer.state_dict()
                optimizer = RMSProp([p], lr=0.7)
                optimizer.load_state_dict(state)
            p.grad = torch.full((3,), float(k - 2))
            optimizer.step()
        return p.detach()

    assert torch.equal(trained(None), trained(3))


def test_rmsprop_calls_a_closure_with_gradients():
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = RMSProp([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1
    assert p.item() < 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rmsprop", RMSProp),
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_a_plan_gets_the_optimizer_that_it_names(name, kind):
    net = torch.nn.Linear(2, 3)
    momentum = 0.5 if name in ("rmsprop", "sgd") else 0.0
    plan = Plan(optimizer=name, learning_rate=0.25, weight_decay=0.125, momentum=momentum)
    optimizer = build(plan, net)
    assert isinstance(optimizer, kind)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25 and group["weight_decay"] == 0.125
    assert group.get("momentum", 0.0) == momentum
    assert len(group["params"]) == 2


WITHOUT_DYNAMO = """
import sys, torch
from ostinato_learn.training import Plan
from ostinato_learn.training.optimizers import build, without_dynamo
without_dynamo()
for optimizer in sys.argv[1:]:
    net = torch.nn.Linear(1, 1)
    before = net.weight.item()
    made = build(Plan(optimizer=optimizer), net)
    net(torch.ones(1)).backward()
    made.step()
    made.zero_grad()
    made.load_state_dict(made.state_dict())
    print(optimizer, before != net.weight.item(), net.weight.grad, "torch._dynamo" in sys.modules)
"""


@pytest.mark.process
def test_a_process_that_compiles_nothing_needs_no_dynamo():
    optimizers = ("adamw", "adam", "sgd", "rmsprop")
    line = [sys.executable, "-c", WITHOUT_DYNAMO, *optimizers]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} True None False" for name in optimizers]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_a_step_has_the_bits_of_pytorchs(kind):
    net, same = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    same.load_state_dict(net.state_dict())
    ours = build(Plan(optimizer=kind.__name__.lower()), net)
    asked = {name: ours.defaults[name] for name in ("lr", "weight_decay", "fused")}
    pytorchs = kind(same.parameters(), **asked)
    for _ in range(3):
        for each, optimizer in ((net, ours), (same, pytorchs)):
            optimizer.zero_grad()
            each(torch.ones(3)).square().sum().backward()
            optimizer.step()
    assert net.weight.requires_grad and net.weight.is_leaf
    assert torch.equal(net.weight, same.weight)
