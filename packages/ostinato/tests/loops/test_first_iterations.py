"""Calls whose first iteration does not run in Python: earlier calls have shown what it does."""

import gc

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import forms
import ostinato
from ostinato.loops.iteration.carry import State
from ostinato.loops.running import pace
from ostinato.loops.running.run import Loop

F64 = torch.float64


def element(p, x):
    h = torch.zeros_like(x[0])
    for t in range(len(x)):
        h = torch.tanh(p[0] * h + p[1] * x[t])
    return h.sum()


def numbered(p, x):
    h, outs = torch.zeros(3, dtype=F64), []
    for i, y in enumerate(x, 1):
        h = p[0] * h + y
        outs.append(h * i)
    return torch.stack(outs).mean()


def from_a_later_one(p, x):
    h = torch.zeros(3, dtype=F64)
    for t in range(2, len(x)):
        h = torch.sin(p[0] * h + x[t, :])
    return h.sum()


def written(p, x):
    out, h = torch.zeros_like(x), torch.zeros(3, dtype=F64)
    for t in range(len(x)):
        h = torch.tanh(p[1] * h + x[t])
        out[t] = h * p[0]
    return out.square().sum()


def from_the_parameters(p, x):
    h = p[2].expand(3)
    for y in x:
        h = torch.tanh(h * p[0] + y)
    return h.sum()


def of_another_shape(p, x):  # the first iteration makes [3] of a number
    h = torch.zeros((), dtype=F64)
    for y in x:
        h = torch.tanh(h * p[0] + y)
    return h.sum()


def none_at_first(p, x):
    h = None
    for y in x:
        h = y if h is None else torch.tanh(p[0] * h + y)
    return h.sum()


def with_the_one_before(p, x):
    h = torch.zeros(3, dtype=F64)
    for t in range(len(x)):
        h = torch.tanh(p[0] * h + x[t] * x[max(t - 1, 0)])
    return h.sum()


def in_place(p, x):
    h = torch.zeros(3, dtype=F64)
    for y in x:
        h.add_(torch.tanh(h * 0.5 + y).detach())
    return (h * p[0]).sum()


def other_elements(p, x):
    h = torch.zeros(3, dtype=F64)
    for t in range(len(x) - 1):
        h = torch.tanh(p[0] * h + x[t + 1])
    return h.sum()


def through_a_function(p, x):
    def rates(h, y):  # made anew at each call, and its stack is rewritten, too
        a, b, c = h.unbind(0)
        return torch.stack([p[0] * a - b, torch.tanh(c * y[0]), p[1] * b + y[1]])

    h, outs = torch.zeros(3, dtype=F64), []
    for y in x:
        h = h + 0.1 * rates(h, y)
        outs.append(h[2])
    return torch.stack(outs).square().sum()


ALIKE = [
    element,
    numbered,
    from_a_later_one,
    written,
    from_the_parameters,
    through_a_function,
]
DIFFERENT = [
    of_another_shape,
    none_at_first,
    with_the_one_before,
    in_place,
    other_elements,
]


def results(function, p, x):
    p, x = p.clone().requires_grad_(), x.clone().requires_grad_()
    value = function(p, x)
    return value.detach(), *torch.autograd.grad(value, (p, x), allow_unused=True)


@pytest.mark.parametrize("function", ALIKE + DIFFERENT, ids=lambda f: f.__name__)
def test_values_and_gradients_are_pythons_at_each_call(function):
    looped = ostinato.loop(function)
    for length in (20, 20, 20, 31, 20, 17, 20):
        p, x = torch.rand(3, dtype=F64), torch.randn(length, 3, dtype=F64)
        ours, theirs = results(looped, p, x), results(function, p, x)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (site,) = forms.sites(looped)
    assert site.native and site.times[0] < 60  # seconds of the last first iteration in Python
    assert (site.ahead is not None and site.first == 1) is (function in ALIKE)


def test_a_function_made_at_each_call_needs_no_first_iteration(monkeypatch):
    began, ahead = [], Loop.ahead
    monkeypatch.setattr(Loop, "ahead", lambda self, names: began.append(self) or ahead(self, names))
    looped = ostinato.loop(through_a_function)
    for _ in range(6):
        results(looped, torch.rand(3, dtype=F64), torch.randn(20, 3, dtype=F64))
    assert len(began) == 4  # the first calls show what an iteration does


def test_the_elements_are_those_of_the_present_call():
    def between(p, x, y):
        a, b = (x, y) if p[0] > 0 else (y, x)
        h = torch.zeros(3, dtype=F64)
        for t in range(len(a)):
            h = torch.tanh(p[0] * h + a[t]) * b[t]
        return h

    looped = ostinato.loop(between)
    for i in range(8):
        p = torch.tensor([(-1.0) ** (i // 2)], dtype=F64)
        x = torch.randn(20, 3, dtype=F64)
        y = x if i % 3 == 0 else torch.randn(20, 3, dtype=F64)
        torch.testing.assert_close(looped(p, x, y), between(p, x, y))
    assert forms.sites(looped)[0].ahead is not None


def test_a_checkpoint_finds_the_same_graph_when_it_computes_again():
    looped = ostinato.loop(element)

    def kept(p, x):
        return checkpoint(looped, p, x, use_reentrant=False)

    for _ in range(5):
        p, x = torch.rand(3, dtype=F64), torch.randn(20, 3, dtype=F64)
        results(looped, p, x)
        torch.testing.assert_close(results(kept, p, x), results(element, p, x))


def test_a_first_iteration_that_has_become_different_is_not_skipped():
    def branching(p, x, skips):
        h = torch.zeros(3, dtype=F64)
        for t in range(len(x)):
            h = torch.tanh(p[0] * h + (x[t] if t >= skips else 0 * x[t]))
        return h

    looped = ostinato.loop(branching)
    for skips in (0, 0, 0, 0, 1, 1, 0, 5):
        p, x = torch.rand(3, dtype=F64), torch.randn(30, 3, dtype=F64)
        torch.testing.assert_close(looped(p, x, skips), branching(p, x, skips))


def test_the_callers_own_state_is_handed_out_as_itself():
    def before(p, x, h):
        outs = []
        for t in range(len(x)):
            outs.append(h)
            h = torch.tanh(p[0] * h + x[t])
        return outs

    looped = ostinato.loop(before)
    for _ in range(5):
        p, x, h = torch.rand(3, dtype=F64), torch.randn(20, 3, dtype=F64), torch.ones(3, dtype=F64)
        ours = looped(p, x, h)
        assert ours[0] is h and forms.sites(looped)[0].native
        torch.testing.assert_close(ours, before(p, x, h))


@pytest.mark.parametrize("length", [31, 32, 33])
def test_what_a_call_held_ends_with_it(length, monkeypatch):
    """Without the garbage collector; and a verdict counts for calls of one length, with or without
    a first iteration in Python."""
    monkeypatch.setattr(pace, "MEASURES", True)
    looped, held = ostinato.loop(element), []
    gc.disable()
    try:
        for _ in range(10):
            p, x = torch.rand(3, dtype=F64), torch.randn(length, 3, dtype=F64)
            results(looped, p, x)
            held.append(sum(isinstance(o, (Loop, State)) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert held[-1] == held[-2] == held[-3]  # recordings keep one each
    (site,) = forms.sites(looped)
    ((plan,),) = site.plans.values()
    assert len(plan.paces) == 1
