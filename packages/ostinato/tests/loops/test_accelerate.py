"""`accelerate(model, loops=True)`: loops in a model's methods and in what these call."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path

import helpers
import pytest
import torch
import typer
from torch import nn

import ostinato
from ostinato.loops import reach
from ostinato.loops.running.finish import LoopResults
from ostinato.nn import inspect, restore


class Base(nn.Module):
    def encoded(self, x):
        h = torch.zeros(len(x), 4, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = torch.tanh(self.__wide(x[:, t]) + h)
        return h

    def __wide(self, x):
        return self.inner(x)


class Model(Base):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.solver = helpers.Solver()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(9)])
        self.double()

    def encoded(self, x):
        return super(Model, self).encoded(x) * 2  # noqa: UP008 (the class names itself)

    @torch.no_grad()
    def sampled(self, h):
        for _ in range(12):
            h = self.out(h) * 0.5
        return h

    def forward(self, x):
        h = self.encoded(x)
        for layer in self.layers:
            h = layer(h)
        many = []
        for y in helpers.decoded(self.out, h, 15):
            many.append(y)
        times = torch.linspace(0, 1, 20, dtype=x.dtype)
        return torch.stack(many), self.solver.steps(self.out, h, times), self.sampled(h)


def results(model, x):
    out = model(x)
    total = out[0].sum() + (out[1] ** 2).sum()
    return [*out, *torch.autograd.grad(total, list(model.parameters()))]


def test_loops_in_methods_and_two_calls_deep():
    torch.manual_seed(0)
    model, x = Model(), torch.randn(5, 14, 3, dtype=torch.float64)
    expected = results(model, x)
    assert ostinato.accelerate(model, loops=True) is model
    assert isinstance(model, Model) and type(model).__name__ == "Model"
    for _ in range(2):
        torch.testing.assert_close(results(model, x), expected, rtol=1e-10, atol=1e-12)
    reports = {r.name: r for r in inspect(model)}
    ran = ("Base.encoded", "decoded", "Solver.steps", "Model.sampled")
    assert {n: reports[n].native for n in ran} == dict.fromkeys(ran, True), reports
    assert f"{reports['decoded'].file}" == helpers.__file__
    texts = [r.text for r in inspect(model) if hasattr(r, "text")]
    assert "for y in helpers.decoded(self.out, h, 15)" in texts
    assert "for layer in self.layers" not in texts
    helpers.SCALE = 0.5  # read by a function that a rewritten one replaces
    try:
        half = results(model, x)
        torch.testing.assert_close(half, results(restore(model), x), rtol=1e-10, atol=1e-12)
    finally:
        helpers.SCALE = 1.0
    assert type(model) is Model and inspect(model) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_swapped(copied):
    torch.manual_seed(0)
    model, x = Model(), torch.randn(5, 14, 3, dtype=torch.float64)
    expected = results(model, x)
    other = copied(ostinato.accelerate(model, loops=True))
    assert type(other) is Model
    torch.testing.assert_close(results(other, x), expected, rtol=1e-10, atol=1e-12)
    assert next(r for r in inspect(other) if r.name == "Base.encoded").native


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 8), nn.Linear(8, 4)

    def forward(self, x):
        h, outputs = None, []
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


def test_verify_counts_the_steps_of_loops(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(5, 40, 3)  # float32: a native loop rounds otherwise than PyTorch
    model = ostinato.accelerate(Cells(), verify=(x,), loops=True)
    assert [r.native for r in inspect(model) if hasattr(r, "file")] == [True]
    store = LoopResults.store

    def wrong(self, plan, state, targets, finals, ys):
        return store(self, plan, state, targets, finals, [y * 1.01 for y in ys])

    monkeypatch.setattr(LoopResults, "store", wrong)
    with pytest.raises(ValueError, match="the model is restored"):
        ostinato.accelerate(other := Cells(), verify=(x,), loops=True)
    assert type(other) is Cells


class Configured(nn.Module):
    """A configuration reaches all functions of a package that knows nothing of tensors."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, x):
        return functools.reduce(torch.add, helpers.decoded(torch.tanh, x, 12))


def test_loops_of_packages_without_tensors_are_left_alone():
    model = ostinato.accelerate(Configured(typer.Typer()), loops=True)
    found = [r for r in inspect(model) if hasattr(r, "file")]
    assert [Path(r.file).name for r in found] == ["helpers.py"]


def test_the_nearest_functions_are_found_first():
    """There is a limit, which what a model's first function calls must not use up."""
    found = [f.__qualname__ for f in reach.reached([], [Base, Configured])]
    assert found[-1] == "decoded" and {"Base.encoded", "Configured.forward"} < {*found}
