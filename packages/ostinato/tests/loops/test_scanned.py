"""`scan` of steps that keep state in attributes: as in the Python loop, in the engine."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import ostinato
from ostinato.compiler.steps import code_key
from ostinato.loops import scanned


class Neuron(nn.Module):
    def __init__(self):
        super().__init__()
        self.mem, self.count, self.log = None, 0, []
        self.lin = nn.Linear(4, 4, dtype=torch.float64)
        self.register_buffer("trace", torch.zeros(4, dtype=torch.float64))

    def forward(self, h, x):
        self.mem = x if self.mem is None else 0.9 * self.mem + self.lin(x)
        self.trace.mul_(0.9).add_(0.1)
        self.log.append(self.mem)
        self.count += 1
        return torch.tanh(h + self.mem) * self.trace.clone(), {"y": h * 2, "mem": self.mem}

    def state(self):
        return [self.mem, self.trace, *self.log, torch.tensor(self.count)]


class Object:
    def __init__(self):
        self.mem = torch.zeros(3, 4, dtype=torch.float64)

    def step(self, h, x):
        self.mem = self.mem * 0.5 + x
        return torch.tanh(h + self.mem)

    def state(self):
        return [self.mem]


def module():
    torch.manual_seed(0)
    neuron = Neuron()
    return neuron, neuron.state


def method():
    of = Object()
    return of.step, of.state


def closure():
    held = Object()

    def step(h, x):
        return held.step(h, x), (h, x)

    return step, held.state


@pytest.mark.parametrize("make", [module, method, closure])
@pytest.mark.parametrize("dim", [0, 1])
def test_state_in_attributes(make, dim, monkeypatch):
    found = []
    for engine in ("eager", "native"):
        monkeypatch.setenv("OSTINATO_ENGINE", engine)
        step, state = make()
        out = []
        for n in (14, 20):
            torch.manual_seed(n)
            xs = torch.randn(n, 3, 4, dtype=torch.float64).movedim(0, dim).requires_grad_()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                carry, ys = ostinato.scan(step, torch.zeros_like(xs.select(dim, 0)), xs, dim=dim)
            ys = [*ys.values()] if isinstance(ys, dict) else list(ys) if type(ys) is tuple else [ys]
            total = sum((t * t.detach().cos()).sum() for t in (carry, *ys, *state()[:1]))
            out += [carry, *ys, *torch.autograd.grad(total, xs, retain_graph=True), *state()]
        found.append([t.detach() for t in out])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
    (site, *_) = scanned._loops[code_key(step)].__ostinato_loops__
    assert site.native, site.reason


@pytest.mark.parametrize("make", [module, method, closure])
def test_explain_says_that_such_a_step_is_native_and_changes_nothing(make):
    step, state = make()
    xs, before = torch.randn(14, 3, 4, dtype=torch.float64), copy.deepcopy(state())
    random = torch.get_rng_state()
    found = ostinato.explain(step, torch.zeros(3, 4, dtype=torch.float64), xs)
    assert found.native and not found.reason
    assert "tanh" in found.loop_ops and found.n_rows == 3
    torch.testing.assert_close(state(), before, rtol=0, atol=0)
    assert torch.equal(random, torch.get_rng_state())


def test_a_step_whose_state_decides_runs_in_python_with_one_warning():
    held = {"times": 0}

    def step(h, x):
        held["times"] = held["times"] * 3 + 1
        return torch.tanh(h + x) if held["times"] % 5 else h

    xs = torch.randn(14, 3, 4)
    with pytest.warns(UserWarning, match="the step changes what it reaches") as caught:
        for _ in range(3):
            held["times"] = 0
            ostinato.scan(step, torch.zeros(3, 4), xs)
    assert len(caught) == 1 and held["times"] == (3**14 - 1) // 2
    found = ostinato.explain(step, torch.zeros(3, 4), xs)
    assert not found.native and "changes what it reaches" in found.reason
