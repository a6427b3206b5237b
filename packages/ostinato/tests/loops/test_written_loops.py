"""`ostinato.loop`: the meaning of a loop is Python's, and it is played by scan."""

from __future__ import annotations

import functools
import inspect
import random
import sys
import threading
import traceback
import warnings

import numpy as np
import pytest
import torch

import forms
import ostinato
from ostinato.loops.running import run


@pytest.mark.parametrize("function", forms.NATIVE, ids=lambda f: f.__name__)
def test_values_and_gradients(function):
    torch.manual_seed(0)
    looped = ostinato.loop(function)
    for n in (14, 14, 20):  # recorded, played again, and of another length
        forms.compare(function, looped, torch.randn(3, n, 6, dtype=torch.float64))
    found = forms.sites(looped)
    assert any(s.native for s in found), found
    assert all(s.native or s.reason == "it is short" for s in found), found


def clamped(x, first, count):
    h, outs, T = torch.zeros_like(x[:, 0]), torch.zeros_like(x), x.shape[1]
    for t in range(first, T):
        h = torch.tanh(x[:, max(t - 3, 0)] + 0.5 * x[:, min(t + 1, T - 1)] + h / (count + 1))
        outs[:, max(t - 2, 0)] = h
        count += 1
    return outs, count


def test_an_element_need_not_follow_that_of_the_iteration_before():
    """In the first iterations an index stays where it is: max(t - 3, 0); later it moves."""
    looped, x = ostinato.loop(clamped), torch.randn(3, 20, 4, dtype=torch.float64)
    x.requires_grad_()
    for first, count in ((0, 0), (0, 0), (5, 0), (2, 3), (3, 0), (4, 0), (0, 7)):
        found, wanted = looped(x, first, count), clamped(x, first, count)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        grads = [torch.autograd.grad(of[0].square().sum(), x) for of in (found, wanted)]
        torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)
    assert forms.sites(looped)[0].native, forms.sites(looped)[0].reason


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_joined_outputs_lie_as_pytorch_lays_them_and_share_nothing(dim):
    def function(x):
        kept, h, outs, flat = [], torch.zeros_like(x[:, 0]), [], []
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] + h)
            outs.append(h)
            kept.append(h)
            flat.append(h)
        once, again, other = torch.stack(outs, dim), torch.stack(outs, dim), torch.stack(kept, dim)
        once.mul_(2)
        other.mul_(3)
        return once, again, other, torch.cat(flat, dim), *kept

    x = torch.randn(3, 14, 6)
    looped = ostinato.loop(function)
    for ours, theirs in zip(looped(x), function(x), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()
    assert forms.sites(looped)[0].native


def read_one_before(saved, other, t):
    return saved["h"][t - 1] if t else 0


def read_as_a_whole(saved, other, t):
    return saved["h"].sum(0)


def read_by_another_name(saved, other, t):
    return other[t] + other[0]


def changed_as_a_whole(saved, other, t):
    return saved["h"].mul_(0.99)[0]


@pytest.mark.parametrize(
    "read", [read_one_before, read_as_a_whole, read_by_another_name, changed_as_a_whole]
)
@pytest.mark.filterwarnings("ignore:the loop")
def test_a_buffer_made_in_the_loop_that_is_also_read(read):
    def function(p, x):
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(h + p.cell(x[:, t], h))
            if t == 0:
                saved = {"h": x.new_zeros(x.shape[1], *h.shape)}
                other = saved["h"]
            saved["h"][t] = h.detach()
            h = h + read(saved, other, t)
        return saved, h

    looped, x, parts = ostinato.loop(function), torch.randn(3, 14, 6).double(), forms.Parts()
    for _ in range(2):
        found, expected = (forms.run(how, parts, x) for how in (looped, function))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


GRIDS = [(14, 14), (40, 2), (14, 14), (33, 3), (30, 12), (40, 2), (12, 12)]


def test_grids_of_several_kinds_in_turn():
    """Times that are written at each element, at the last, at two of them, at no regular ones."""
    looped = ostinato.loop(forms.integrated)
    parts, x = forms.Parts(), torch.randn(3, 1, 6, dtype=torch.float64)
    for n, m in GRIDS:
        grid, at = (torch.linspace(0, 1, k, dtype=torch.float64) for k in (n, m))
        found = []
        for how in (forms.integrated, looped):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ys, j = how(parts, x, grid, at)
            found.append((ys, *torch.autograd.grad(ys.square().sum(), [*parts.inner.parameters()])))
            assert j == m
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)
        if m != 12 or n == 12:
            assert forms.sites(looped)[0].native, (n, m, forms.sites(looped)[0].reason)


def test_a_refused_loop_of_an_object_made_for_each_call_is_not_tried_in_each(monkeypatch):
    class Solver:
        scale = 1.0

        def run(self, x):
            h = torch.zeros(3)
            for x_t in x:
                h = h + x_t * self.scale if h.sum().item() < 1e9 else h  # a branch on a value
            return h

    tries = []
    scan = run.Loop.scan
    monkeypatch.setattr(run.Loop, "scan", lambda self, names: tries.append(1) or scan(self, names))
    looped = ostinato.loop(Solver.run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(64):
            looped(Solver(), torch.randn(20, 3))
    assert 8 <= len(tries) <= 8 + 4  # and at 16, 32, 64


OWN = torch.Generator()


def noise_of_an_equation(x, generator):
    y, ys = x[:, 0], []
    for t in range(1, x.shape[1]):
        dw = torch.randn(y.shape, dtype=y.dtype, generator=generator)
        y = y - 0.1 * torch.sin(y) + 0.3 * dw * x[:, t]
        ys.append(y)
    return torch.stack(ys, 1)


def dropout_between(x, generator):
    h, out = torch.zeros_like(x[:, 0]), []
    for x_t in x.unbind(1):
        h = torch.tanh(torch.nn.functional.dropout(x_t, 0.3) + h)
        out.append(h * torch.bernoulli(torch.sigmoid(h), generator=OWN))
    return torch.stack(out, 1)


@pytest.mark.parametrize("function", [noise_of_an_equation, dropout_between])
@pytest.mark.parametrize("generator", [None, OWN], ids=["default", "own"])
def test_random_numbers_are_those_of_python(function, generator):
    """Numbers and the generators' states exactly, from the first call on; values to rounding."""
    looped, x = ostinato.loop(function), torch.randn(3, 14, 6, dtype=torch.float64)
    x.requires_grad_()
    found = []
    for how in (function, looped, looped):
        torch.manual_seed(1)
        OWN.manual_seed(2)
        y = how(x, generator)
        found.append((y, *torch.autograd.grad(y.square().sum(), x)))
        states = torch.get_rng_state(), OWN.get_state()
        if how is function:
            expected = states
        assert all(map(torch.equal, states, expected))
        torch.testing.assert_close(found[-1], found[0], rtol=1e-10, atol=1e-10)
    assert forms.sites(looped)[0].native, forms.sites(looped)[0].reason


def counted(p, x):
    h, j = None, "steps: "
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        j += "."
    return h, j


def alternating(p, x):
    h, sign = None, 1
    for t in range(x.shape[1]):
        h = p.cell(x[:, t] * sign, h)
        sign = 1 if sign == -1 else -1
    return h, sign


def list_that_is_read(p, x):
    h, out = None, []
    for t in range(x.shape[1]):
        h = p.cell(x[:, t] * (1 + sum(o.mean() for o in out)), h)
        out.append(h)
    return out


def value_decides(p, x):
    h = None
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        if h.sum() > 0:
            h = -h
    return h


def logs_numbers(p, x):
    h, log = None, []
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        log.append(h.detach().mean().item())
    return h, log


def logs_arrays(p, x):
    h, log = None, []
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        log.append(h.detach().numpy())
    return h, [array.tolist() for array in log]


def batch_norm(p, x):
    h, norm = None, torch.nn.BatchNorm1d(5, dtype=x.dtype)
    for t in range(x.shape[1]):
        h = norm(p.cell(x[:, t], h))
    return h


def alias(p, x):
    h, out = x.new_zeros(len(x), 6), []
    for t in range(x.shape[1]):
        h += x[:, t]
        out.append(h)
    return out


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (counted, "j changes its form in each iteration"),
        (alternating, "sign is a number that changes in a different way"),
        (list_that_is_read, "reads a list that iterations append to"),
        (value_decides, "goes one way at some elements .*torch.where"),
        (logs_numbers, "a Python value .item.; .*append the tensor, .* convert it after the loop"),
        (logs_arrays, "ndarray, .*append the tensor, .* and convert it after the loop"),
        (batch_norm, "rows of the batch read each other .batch statistics, .*eval"),
        (alias, "emits a tensor that the next one changes in place"),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_refused_with_one_warning(function, why):
    torch.manual_seed(0)
    looped = ostinato.loop(function)
    x = torch.randn(3, 14, 6, dtype=torch.float64)
    with pytest.warns(UserWarning, match=why) as caught:
        looped(forms.Parts(), x)
    assert caught[0].filename == __file__ and "write instead: " in str(caught[0].message)
    assert (
        "for t in range"
        in inspect.getsource(function).splitlines()[
            caught[0].lineno - function.__code__.co_firstlineno
        ]
    )
    forms.compare(function, looped, x)  # and no further warning


def ends(x, n):
    h = torch.zeros_like(x[:, 0])
    for t in range(n):
        h = torch.tanh(h + x[:, t])
        if t == 11:
            break
    return h


def returns(x, n):
    h = torch.zeros_like(x[:, 0])
    for t in range(n):
        h = torch.tanh(h + x[:, t])
        if t == 11:
            return h
    return -h


def tries(x, n):
    h = torch.zeros_like(x[:, 0])
    for x_t in x.unbind(1)[:n]:
        try:
            h = torch.tanh(h + x_t)
        except ValueError:
            break
    else:
        h = h * 2
    return h


def yields(x, n):
    h = torch.zeros_like(x[:, 0])
    for t in range(n):
        h = torch.tanh(h + x[:, t])
        yield h


def has_else(x, n):
    h = torch.zeros_like(x[:, 0])
    for t in range(n):
        h = torch.tanh(h + x[:, t])
    else:
        h = h * 2
    return h


def over_other_things(x, n):
    """Over names and numbers: nobody would write these otherwise."""
    for name in "abcdefghijkl":
        if name == "k":
            break
    k = 0
    for _ in range(n):
        try:
            k = k + int(name, 36)
        finally:
            pass
    return x + k


def around_a_native_loop(x, n):
    found = []
    for k in range(n):
        try:
            h = x[:, k]
            for t in range(14):
                h = torch.tanh(h + x[:, t])
            found.append(h)
        finally:
            pass
    return found


@pytest.mark.parametrize(
    "function",
    [ends, returns, tries, yields, has_else, over_other_things, around_a_native_loop],
)
@pytest.mark.parametrize("n", [3, 14])
def test_a_loop_that_its_text_rules_out(function, n):
    """It runs as it did; a warning comes where it is one over tensors, and was asked for."""
    x, looped = torch.randn(3, 14, 6), ostinato.loop(function)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.testing.assert_close([*looped(x, n)], [*function(x, n)])
    silent = over_other_things, around_a_native_loop
    assert len(caught) == (n == 14 and function not in silent)
    assert all("write instead: " in str(w.message) for w in caught)
    report = forms.sites(looped)[0]
    assert report.native is False and report.reason

    model = type("Model", (torch.nn.Module,), {"forward": staticmethod(function)})()
    ostinato.accelerate(model, loops=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close([*model(x, n)], [*function(x, n)])
    is_listed = report.reason in [getattr(r, "reason", "") for r in ostinato.nn.inspect(model)]
    assert is_listed == (function not in (over_other_things, yields))


def test_tracebacks_show_the_users_lines():
    def fails(x):
        total = torch.zeros(2)
        for t in range(20):
            total = total + x[t]  # the line
            if t == 17:
                raise ValueError("late")
        return total

    looped = ostinato.loop(fails)
    assert inspect.getsource(looped) == inspect.getsource(fails)
    for x, error in ((torch.ones(20, 2), ValueError), (torch.ones(15, 2), IndexError)):
        with warnings.catch_warnings(), pytest.raises(error) as caught:
            warnings.simplefilter("ignore")
            looped(x)
        lines = [f.line for f in traceback.extract_tb(caught.tb) if f.filename == __file__]
        assert lines[-1] in ('raise ValueError("late")', "total = total + x[t]  # the line")


def test_closure_cells_are_shared():
    scale = 1.0

    @ostinato.loop
    def run(x):
        h = torch.zeros_like(x[0])
        for x_t in x:
            h = h * 0.5 + x_t * scale
        return h

    x = torch.randn(12, 2, 3)
    first = run(x)
    scale = 2.0
    torch.testing.assert_close(run(x), 2 * first)


def test_explain_shows_a_loop_as_it_shows_a_step():
    looped = ostinato.loop(forms.stacked)
    x = torch.randn(3, 14, 6, dtype=torch.float64)
    explained = ostinato.explain(looped, forms.Parts(), x)
    ((report, step),) = explained.loops
    assert explained.native and step.native and step.n_steps == 13 and len(step.loop_products) == 2
    assert f"{report.file}:{report.line}" in str(explained)
    in_python = ostinato.explain(ostinato.loop(counted), forms.Parts(), x)
    assert not in_python.native and "j changes its form" in str(in_python)


class Decorated(torch.nn.Module):
    @ostinato.loop
    def forward(self, x):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t])
        return h


class Around(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def calls_decorated(x):
    return Decorated.forward(None, x)


@pytest.mark.parametrize(
    "function",
    [
        Decorated(),
        Around(Decorated()),
        Decorated().forward,
        Decorated().__call__,
        calls_decorated,
        functools.partial(Decorated.forward, None),
    ],
    ids=["module", "submodule", "method", "call", "function", "partial"],
)
def test_explain_finds_decorated_functions(function):
    explained = ostinato.explain(function, torch.randn(3, 14, 6))
    ((report, step),) = explained.loops
    assert report.name == "Decorated.forward" and explained.native and step.n_steps in (13, 14)


@pytest.mark.parametrize("function", [torch.nn.Linear(6, 6), Around(torch.nn.Tanh()), torch.tanh])
def test_explain_without_a_loop_says_what_to_do(function):
    with pytest.raises(TypeError, match=r"no loop of .* is known to ostinato: decorate"):
        ostinato.explain(function, torch.randn(3, 14, 6))


def test_a_decorated_function_without_a_for_loop_is_named():
    def counted(x):
        while x.sum() < 9:
            x = x + 1
        return x

    with pytest.warns(UserWarning, match="counted has no `for` loop"):
        looped = ostinato.loop(counted)
    with pytest.raises(TypeError, match="counted has no `for` loop over time"):
        ostinato.explain(looped, torch.zeros(3))


def sum_without_gradients(x, seen):
    h, total = torch.zeros_like(x[0]), torch.zeros((), dtype=x.dtype)
    for x_t in x:
        h = torch.tanh(h + x_t)
        size = h.sum()
        with torch.no_grad():
            total = total + size
    return h, total


def added_up_without_gradients(x, seen):
    h, total = torch.zeros_like(x[0]), torch.zeros((), dtype=x.dtype)
    for x_t in x:
        h = torch.tanh(h + x_t)
        size = h.sum()
        with torch.no_grad():
            total += size
    return h, total


def written_without_gradients(x, seen):
    h = torch.zeros_like(x[0])
    for t in range(len(x)):
        h = torch.tanh(h + x[t])
        with torch.no_grad():
            seen[t] = h
    return h, seen


@pytest.mark.filterwarnings("ignore:the loop")
@pytest.mark.parametrize(
    "function", [sum_without_gradients, added_up_without_gradients, written_without_gradients]
)
@pytest.mark.parametrize("seen_has_gradients", [False, True])
def test_what_is_kept_without_gradients_has_none(function, seen_has_gradients):
    x = torch.randn(14, 3, 4, dtype=torch.float64, requires_grad=True)
    found = []
    for how in (function, ostinato.loop(function)):
        seen = torch.ones_like(x) * (x if seen_has_gradients else x.detach())
        outs = how(x, seen)
        loss = sum(o.sum() for o in outs if o.requires_grad)
        found.append(([o.requires_grad for o in outs], torch.autograd.grad(loss, x)[0]))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-12, atol=1e-12)


def test_a_tensor_whose_elements_iterations_write_has_gradients_in_some_calls():
    looped = ostinato.loop(written_without_gradients)
    x = torch.randn(14, 3, 4, dtype=torch.float64, requires_grad=True)
    for has_gradients in (False, True, False):
        found = []
        for how in (written_without_gradients, looped):
            h, seen = how(x, torch.ones_like(x) * (x if has_gradients else x.detach()))
            loss = h.sum() + (seen.sum() if has_gradients else 0)
            found.append((seen.requires_grad, torch.autograd.grad(loss, x)[0]))
        assert found[0][0] is found[1][0]
        torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-12, atol=1e-12)


def read_behind(x, into):
    h = torch.zeros_like(x[0])
    for t in range(2, len(x)):
        h = torch.tanh(h + x[t - 1])
        into[t] = h
    return h


def read_whole(x, into):
    kept, h = {"w": into[9]}, torch.zeros_like(x[0])
    for t in range(len(x)):
        h = torch.tanh(h + x[t] + kept["w"])
        x[t] = h
    return h


def gone_through(x, into):
    h = torch.zeros_like(x[0])
    for t, x_t in enumerate(x[:-1]):
        h = torch.tanh(h + x_t)
        into[t + 1] = h
    return h


@pytest.mark.filterwarnings("ignore:the loop")
@pytest.mark.parametrize("function", [read_behind, read_whole, gone_through])
@pytest.mark.parametrize("first_apart", [True, False])
def test_a_tensor_given_twice_is_looked_at_anew(function, first_apart):
    """A plan of two tensors is not used where both are one, and iterations read what they wrote."""
    looped, x = ostinato.loop(function), torch.randn(14, 3, 4, dtype=torch.float64)
    if first_apart:
        looped(x.clone(), torch.zeros_like(x))
        assert forms.sites(looped)[0].native
    a, b = x.clone(), x.clone()
    torch.testing.assert_close(looped(a, a), function(b, b), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_threads_that_look_at_loops_leave_python_as_it_was(monkeypatch):
    """The first look replaces `open` and the standard streams, which are of all threads."""
    from ostinato.loops.iteration.probe import _unseen

    before = sys.stdout, sys.stderr, open
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # puts all back, whatever happens
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr("builtins.open", open)
    began, may_end = threading.Event(), threading.Event()

    def look():
        with _unseen():
            began.set()
            may_end.wait(5)

    other = threading.Thread(target=look)
    with _unseen():
        other.start()
        began.wait(0.2)  # in vain, if one at a time looks
    may_end.set()
    other.join()
    assert (sys.stdout, sys.stderr, open) == before


def _helped(h):
    return h * random.random()


def of_python(x):
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = _helped(torch.tanh(x[:, t] + h)) * random.choice([1.0, 2.0])
    return h


def of_numpy(x):
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h) * float(np.random.rand())
    return h


@pytest.mark.parametrize("function", [of_python, of_numpy])
def test_numbers_that_other_generators_draw_are_drawn_once(function):
    looped, x, found = ostinato.loop(function), torch.randn(3, 14, 4), []
    for run_ in (function, looped):
        random.seed(1)
        np.random.seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append([run_(x), run_(x), random.random(), np.random.rand()])
    assert not forms.sites(looped)[0].native
    torch.testing.assert_close(*found)


def test_gradients_that_iterations_retain_are_there():
    @ostinato.loop
    def run(x):
        h, hs = torch.zeros_like(x[0]), []
        for x_t in x:
            h = torch.tanh(h + x_t)
            h.retain_grad()
            hs.append(h)
        return hs

    with pytest.warns(UserWarning, match="retain_grad"):
        hs = run(torch.randn(12, 3, 4, requires_grad=True))
    hs[-1].sum().backward()
    assert all(h.grad is not None for h in hs)


def test_numbers_that_differ_from_call_to_call_keep_no_plans():
    @ostinato.loop
    def run(x, state):
        for x_t in x:
            state = {"h": torch.tanh(state["h"] + x_t), "epoch": state["epoch"]}
        return state

    x = torch.randn(12, 3, 4)
    for epoch in range(40):
        assert run(x, {"h": torch.zeros(3, 4), "epoch": epoch})["epoch"] == epoch
    assert len(forms.sites(run)[0].plans) < 40
