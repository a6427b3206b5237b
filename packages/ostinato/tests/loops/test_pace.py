"""Which loops pay: on a clock that only iterations move, so that no test depends on the machine."""

import types
import warnings

import pytest
import torch

import forms
import ostinato
from ostinato.loops.running import attempt, pace, run, unwatched
from ostinato.loops.running.pace import LoopPace, Times


class Clock:
    """Seconds that pass in an iteration in Python, in one by scan, and in a backward pass."""

    now, python, scan, scans = 0.0, 1.0, 1.0, 0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock, at, scan = Clock(), run.Loop.at, attempt.scan_iterations

    def slow_at(loop, *arguments):
        clock.now += clock.python
        return at(loop, *arguments)

    def slow_scan(arguments, *others):
        clock.scans += 1
        clock.now += clock.scan * arguments.xs_leaves[0].shape[0]
        return scan(arguments, *others)

    monkeypatch.setattr(run.Loop, "at", slow_at)
    monkeypatch.setattr(attempt, "scan_iterations", slow_scan)
    for module in (attempt, run, pace, unwatched):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=clock.perf_counter))
    monkeypatch.setattr(pace, "MEASURES", True)
    return clock


def stacked(p, x):
    h, outs = torch.zeros_like(x[:, 0, :5]), []
    for t in range(x.size(1)):
        h = p.cell(x[:, t], h)
        outs.append(h)
    return torch.stack(outs, 1), h


def ways(clock, looped, x, n, backward=False):
    """For each of n calls whether all iterations, or all but the first one, ran as a scan."""
    found = []
    for _ in range(n):
        clock.scans = 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = looped(PARTS, x)
        torch.testing.assert_close(result, stacked(PARTS, x), rtol=1e-12, atol=1e-12)
        if backward:
            result[0].sum().backward()
        found.append(clock.scans == 1)
    return found


SIZE, PARTS = (3, 17, 6), forms.Parts()


def of_size(*size):
    return torch.randn(*size, dtype=torch.float64)


@torch.no_grad()
def test_a_scan_that_is_slower_is_given_up_for_good_and_another_size_is_measured_anew(clock):
    looped, x = ostinato.loop(stacked), of_size(*SIZE)
    clock.scan = 1.5
    found = ways(clock, looped, x, 24)
    assert found[:3] == [True] * 3 and not any(found[3:])
    assert "gains nothing" in forms.sites(looped)[0].reason
    clock.scan = 0.01
    assert not any(ways(clock, looped, x, 10))  # the verdict stays
    assert all(ways(clock, looped, of_size(3, 60, 6), 5))


@torch.no_grad()
@pytest.mark.parametrize(("scan", "in_python"), [(0.9, 2), (0.1, 0)])
def test_a_scan_that_gains_stays_and_a_clear_gain_is_not_compared(clock, scan, in_python):
    looped, x = ostinato.loop(stacked), of_size(*SIZE)
    clock.scan = scan
    found = ways(clock, looped, x, 12)
    assert found.count(False) == in_python and all(found[5:])
    clock.scan = 9.0
    assert all(ways(clock, looped, x, 8))  # what comes later is not measured


@pytest.mark.parametrize("function", forms.NATIVE, ids=lambda f: f.__name__)
def test_a_call_that_is_measured_in_python_has_its_values_and_gradients(function, monkeypatch):
    monkeypatch.setattr(pace, "MEASURES", True)
    monkeypatch.setattr(pace, "_CLEAR", float("inf"))  # so that each loop is compared
    trials, end = [], pace.Trial.end
    monkeypatch.setattr(pace.Trial, "end", lambda *a: (trials.append(a), end(*a)))
    torch.manual_seed(1)
    looped, parts = ostinato.loop(function), forms.Parts()
    for _ in range(8):
        x, results = of_size(3, 20, 6), []
        for how in (function, looped):
            parts.leaky.mem, parts.trace = None, []
            results.append(forms.run(how, parts, x))
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    assert trials


@torch.no_grad()
def test_a_cold_first_iteration_decides_nothing(clock):
    looped, x = ostinato.loop(stacked), of_size(*SIZE)
    clock.scan = 1.5
    at = run.Loop.at

    def cold(loop, *arguments):
        clock.now += 6.0 if loop.j == 1 else 0.0
        return at(loop, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Loop, "at", cold)
        assert not any(ways(clock, looped, x, 10)[5:])


def test_both_backward_passes_are_measured(clock, monkeypatch):
    made = []
    monkeypatch.setattr(attempt, "LoopPace", lambda: made.append(LoopPace()) or made[-1])
    looped, x = ostinato.loop(stacked), of_size(*SIZE)
    ways(clock, looped, x, 6, backward=True)
    assert made[0].python.backward == made[0].scan.backward == 0  # no time passes in them
    assert made[0].python.calls == made[0].scan.calls == 2


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clock, seconds):
        ctx.how = clock, seconds
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        clock, seconds = ctx.how
        clock.now += seconds
        return g, None, None


def test_the_backward_pass_of_some_iterations_is_that_between_their_states(clock):
    start = torch.ones(2, requires_grad=True)
    h, outs = Slow.apply(start, clock, 100.0), []
    before = pace.nodes_of([h, start])
    for _ in range(4):
        h = Slow.apply(h, clock, 3.0)
        outs.append(h)
    times = Times()
    times.add_backward(before, pace.nodes_of([h, *outs]), 4)
    Slow.apply(torch.stack(outs).sum() + h.sum(), clock, 100.0).backward()
    assert times.backward == 3.0


def paced(scan, python, scan_backward=float("inf"), python_backward=float("inf")):
    return LoopPace(Times(scan, scan_backward, 2), Times(python, python_backward, 2))


def test_the_backward_pass_counts_where_there_is_one():
    assert not paced(3.0, 1.0, 2.0, 4.4).is_slow(True)
    assert paced(0.9, 1.0, 2.0, 1.0).is_slow(True)
    assert not paced(1.5, 1.0).is_slow(True) and paced(2.5, 1.0).is_slow(True)
    assert paced(1.5, 1.0).is_slow(False) and not paced(1.05, 1.0).is_slow(False)


@torch.no_grad()
@pytest.mark.parametrize("python", [1.0, 1e-4])
def test_a_short_loop_of_heavy_iterations_is_tried(clock, monkeypatch, python):
    clock.python, clock.scan = 0.0, python / 20
    forward = torch.nn.GRUCell.forward

    def heavy(cell, *arguments):
        clock.now += python
        return forward(cell, *arguments)

    looped, x = ostinato.loop(stacked), of_size(3, 6, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.GRUCell, "forward", heavy)
        looped(PARTS, x)
    ways(clock, looped, x, 3)
    site = forms.sites(looped)[0]
    assert (site.native, site.reason) == ((True, "") if python == 1 else (None, "it is short"))
