"""Which of two loops, one within the other, becomes a scan."""

from __future__ import annotations

import warnings

import pytest
import torch

import forms
import ostinato

N = 12


def beliefs(w, xs):
    """Scalars in lists; each is moved by the one before."""
    mu, loss = [xs[0] * 0] * N, xs[0] * 0
    for t in range(len(xs)):
        new = []
        for i in range(N):
            parent = new[i - 1] if i else xs[t]
            new.append(mu[i] + (parent - mu[i]) * torch.sigmoid(w[i]))
        mu = new
        loss = loss + (xs[t] - mu[N - 1]) ** 2
    return loss


def on_a_grid(w, xs):
    """Three loops: time, rows, columns."""
    cells = {(i, j): xs[0] * 0 for i in range(3) for j in range(N)}
    for x in xs:
        before = dict(cells)
        for i in range(3):
            for j in range(N):
                around = before[i, (j + 1) % N] + before[(i + 1) % 3, j]
                cells[i, j] = torch.tanh(w[j] * around + x)
    return sum(c * (k + 1) for k, c in enumerate(cells.values()))


def moved(mu, w):
    new = []
    for m, v in zip(mu, w.unbind(0), strict=True):
        new.append(torch.tanh(m * v + mu[0]))
    return new


def by_a_function(w, xs):
    mu = [xs[0]] * N
    for x in xs:
        mu = moved([mu[0] + x, *mu[1:]], w)
    return torch.stack(mu).prod()


def in_a_tensor(w, xs):
    """Sweeps over a vector, whose elements the inner loop writes."""
    u = w * 0
    for x in xs:
        v = torch.zeros_like(u)
        for i in range(1, N - 1):
            v[i] = u[i] + 0.1 * (u[i - 1] - 2 * u[i] + u[i + 1]) + x * w[i]
        u = v
    return (u * w).sum()


def called(function, w, xs):
    w, xs = w.clone().requires_grad_(), xs.clone().requires_grad_()
    value = function(w, xs)
    return value, *torch.autograd.grad(value, (w, xs))


def compare(function, looped, n=30, n_calls=2):
    for _ in range(n_calls):
        w, xs = (torch.randn(k, dtype=torch.float64) for k in (N, n))
        for a, b in zip(called(looped, w, xs), called(function, w, xs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def ways(looped):
    """Of each loop that is a statement of its own whether it is native, by line."""
    loops = [s for s in forms.sites(looped) if s.source.text.startswith("for ")]
    return [s.native for s in sorted(loops, key=lambda s: (s.name, s.source.line))]


@pytest.mark.parametrize(
    ("function", "native"),
    [
        (beliefs, [True, False]),
        (on_a_grid, [True, None, False]),
        (by_a_function, [True, False]),
        (in_a_tensor, [True, False]),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_the_loop_over_time_is_taken_and_the_loops_within_are_unrolled(function, native):
    looped = ostinato.loop(function, calls=True if function is by_a_function else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(function, looped)
    assert ways(looped) == native


def of_each(w, xs):
    """No state: each iteration runs a recurrence of its own."""
    found = []
    for x in xs:
        h = x
        for i in range(N):
            h = torch.tanh(h * w[i] + x)
        found.append(h)
    return torch.stack(found).prod()


def with_a_number(w, xs):
    """The outer loop is no step: Python must know a value."""
    h, log = xs[0], []
    for x in xs:
        for i in range(N):
            h = torch.tanh(h * w[i] + x)
        log.append(h.item())
    return h * len(log)


def of_many(w, xs):
    h = xs[0]
    for scale in (0.5 + k / 10 for k in range(9)):
        for x in xs:
            h = torch.tanh(h * scale + x * w[0])
    return h + w[1]


@pytest.mark.parametrize(
    ("function", "native"),
    [(of_each, [False, True]), (with_a_number, [False, True]), (of_many, [None, True])],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_the_inner_loop_is_taken_if_the_outer_one_has_no_state_or_is_no_step(function, native):
    looped = ostinato.loop(function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(function, looped)
    assert ways(looped) == native


def of_few(w, xs):
    h = xs[0]
    for k in range(9):
        for x in xs:
            h = torch.tanh(h * w[k] + x)
    return h


def test_the_longer_loop_is_the_one_over_time():
    looped = ostinato.loop(of_few)
    compare(of_few, looped)
    assert ways(looped) == [False, True]


def of_numbers(w, xs):
    h = xs[0]
    for x in xs:
        for i in range(N):
            h = torch.tanh(h * w[i] + x) + (1.0 if h.item() > 0 else 0.5)
    return h


def test_if_neither_is_a_scan_the_warning_names_the_outer_loop():
    looped = ostinato.loop(of_numbers)
    with pytest.warns(UserWarning, match="for x in xs"):
        compare(of_numbers, looped, n_calls=1)
    assert ways(looped) == [False, False]
