"""Simulations as scientists write them: native, with Python's values and gradients, in float64."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import forms
import ostinato

T = 40
DOSE = [1.0 if t % 7 == 0 else 0.0 for t in range(T)]
TABLE = torch.linspace(0.5, 1.5, T, dtype=torch.float64)


def zero():
    return torch.zeros((), dtype=torch.float64)


def hundreds_of_leaves(p, x):
    """A chain of 150 compartments, each a 0-d tensor in a list."""
    c = [zero() for _ in range(150)]
    for t in range(T):
        flux = [p[i % 8] * (c[i] - c[i + 1]) for i in range(149)]
        new = [c[0] + x[t] - flux[0]]
        for i in range(1, 149):
            new.append(c[i] + 0.1 * (flux[i - 1] - flux[i]))
        c = [*new, c[149] + 0.1 * flux[148]]
    return sum(c)


def scalars_and_floats(p, x):
    """0-d tensors as state; parameters as elements of a vector, 0-d tensors and floats."""
    k, dt, decay = p[0], 0.05, math.exp(-0.05)
    y, v = p[1], zero()
    for t in range(T):
        v = v * decay - dt * k * torch.sin(y) + x[t] * dt
        y = y + dt * v
    return y * v


def in_a_dict(p, x):
    s = {"prey": p[0].exp(), "predator": p[1].exp()}
    for t in range(T):
        a, b = s["prey"], s["predator"]
        s["prey"] = a + 0.01 * (a - p[2] * a * b) + 0.01 * x[t]
        s["predator"] = b + 0.01 * (p[3] * a * b - b)
    return s["prey"] - s["predator"]


def tables(p, x):
    """Constants by the step: a tensor, a list of numbers, the time as a number."""
    c = zero()
    for t in range(T):
        c = c * torch.exp(-p[0].exp() * TABLE[t]) + DOSE[t] * p[1] + math.sin(0.3 * t) * x[t]
    return c.square()


def linear_algebra(function, n=2):
    def run(p, x):
        eye = torch.eye(n, dtype=torch.float64)
        S, total = eye, zero()
        for t in range(T):
            v = p[:n] * torch.sin(x[t])
            S = 0.9 * S + 0.1 * torch.outer(v, v) + 0.1 * eye
            total = total + function(S, v)
        return total

    run.__name__ = f"{function.__name__}_of_{n}"
    return run


def solve(S, v):
    return v @ torch.linalg.solve(S, v)


def solve_matrix(S, v):
    return torch.linalg.solve(S, torch.outer(v, v) + S).sum()


def inverse(S, v):
    return v @ torch.linalg.inv(S) @ v


def cholesky(S, v):
    return torch.linalg.cholesky(S).diagonal().log().sum()


def determinant(S, v):
    return torch.linalg.det(S)


def log_determinant(S, v):
    return torch.logdet(S)


def events(p, x):
    """A neuron that spikes: a threshold, a reset, a refractory count as a tensor."""
    V, wait, n = zero(), zero(), zero()
    for t in range(T):
        V = torch.where(wait > 0, V, V + 0.2 * (p[0].exp() * 3 + x[t] - V))
        spike = V > 1.0
        n = n + torch.where(spike, V, 0.0)
        V = torch.where(spike, p[1] * 0.1, V)
        wait = torch.where(spike, 3.0, torch.clamp(wait - 1, min=0.0))
    return V + n


def runge_kutta(p, x):
    def f(y, t):
        a, b = y[0], y[1]
        return torch.stack([b, p[0] * (1 - a * a) * b - a + p[1] * torch.cos(t)])

    y, dt = p[2:4], 0.05
    times = dt * torch.arange(T, dtype=torch.float64)
    for i in range(T):
        t = times[i]
        k1 = f(y, t)
        k2 = f(y + dt / 2 * k1, t + dt / 2)
        k3 = f(y + dt / 2 * k2, t + dt / 2)
        k4 = f(y + dt * k3, t + dt)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4) + dt * x[i]
    return y.prod()


def by_a_tableau(p, x):
    """Stages in a list, with a table of numbers."""
    A = [[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]]
    b = [1 / 6, 1 / 3, 1 / 3, 1 / 6]
    y, dt = p[:3], 0.05
    for i in range(T):
        ks = []
        for row in A:
            inner = y
            for a, k in zip(row, ks, strict=True):
                inner = inner + dt * a * k
            ks.append(torch.tanh(inner) * p[3:6] - inner.roll(1) + x[i])
        y = y + dt * sum(w * k for w, k in zip(b, ks, strict=True))
    return y.sum()


def leapfrog(p, x):
    q, v = p[:6].reshape(3, 2), torch.zeros(3, 2, dtype=torch.float64)
    for t in range(T):
        d = q[None] - q[:, None]
        a = (d / ((d * d).sum(-1, keepdim=True) + 0.5) ** 1.5).sum(1) * p[6]
        v = v + 0.1 * a + 0.01 * x[t]
        q = q + 0.1 * v
    return (q * v).sum()


def newton(p, x):
    """An implicit step, solved by five iterations of Newton."""
    y = p[0]
    for t in range(T):
        new = y
        for _ in range(5):
            f = new - y + 0.1 * (new**3 * p[1].exp() - x[t])
            new = new - f / (1 + 0.3 * new**2 * p[1].exp())
        y = new
    return y


def newton_of_two(p, x):
    y = p[:2]
    for t in range(T):
        new = y
        for _ in range(3):
            a, b = new
            f = torch.stack([a - y[0] - 0.1 * b, b - y[1] + 0.1 * (a + p[2] * a**3 - x[t])])
            one, slope = torch.ones_like(a), 0.1 * (1 + 3 * p[2] * a**2)
            J = torch.stack([torch.stack([one, -0.1 * one]), torch.stack([slope, one])])
            new = new - torch.linalg.solve(J, f)
        y = new
    return y.prod()


def a_delay_line(p, x):
    """A queue in a list: the state of five steps ago."""
    past = [p[0] * 1.0 for _ in range(6)]
    for t in range(T):
        old = past[-6]
        past.append(past[-1] + 0.1 * (p[1] * old / (1 + old**2) - 0.5 * past[-1]) + 0.1 * x[t])
    return past[-1] * past[-4]


def a_delay_in_a_tensor(p, x):
    past, y = torch.zeros(5, dtype=torch.float64), p[0]
    for t in range(T):
        y = 0.8 * y + p[1] * torch.tanh(past[-1]) + x[t]
        past = torch.cat([y[None], past[:-1]])
    return past.sum()


def a_delay_that_shifts(p, x):
    past = [zero()] * 4
    for t in range(T):
        past = [torch.tanh(p[0] * past[-1] + x[t]), *past[:-1]]
    return sum(past)


def reflecting(p, x):
    y, v = p[:3], p[3:6]
    for t in range(T):
        y = y + 0.3 * v + 0.1 * x[t]
        v = torch.where(y.abs() > 1, -v, v)
        y = torch.where(y > 1, 2 - y, y)
        y = torch.where(y < -1, -2 - y, y)
    return (y * v).sum()


def observed_at_some_steps(p, x):
    y, total = p[0], zero()
    for t in range(T):
        y = y + 0.1 * torch.sin(p[1] * y + x[t])
        if t % 5 == 4:
            total = total + (y - x[t]) ** 2
    return total


def observed_by_a_mask(p, x):
    seen = torch.arange(T) % 3 == 0
    y, total = p[0], zero()
    for t in range(T):
        y = y + 0.1 * torch.sin(p[1] * y + x[t])
        total = total + torch.where(seen[t], (y - x[t]) ** 2, 0.0)
    return total


def complex_oscillators(p, x):
    z = torch.complex(p[:3], p[3:6])
    turn = torch.exp(torch.complex(-0.1 * p[:3] ** 2, p[:3]))
    for t in range(T):
        z = z * turn * 0.95 + 0.1 * x[t] - 0.01 * z * z.abs() ** 2
    return z.abs().sum() + z.real.prod()


def on_a_grid(p, x):
    u = p[:8] * 1.0
    for t in range(T):
        u = u + 0.2 * (torch.roll(u, 1, 0) - 2 * u + torch.roll(u, -1, 0)) + 0.1 * x[t]
        u = torch.cat([u[:1] * 0, u[1:-1], u[-1:]])
    return u.square().sum()


def on_a_plane(p, x):
    u, v = torch.outer(p[:6], p[:6]), torch.ones(6, 6, dtype=torch.float64)
    for t in range(T):
        around = u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1) - 4 * u
        u, v = u + 0.1 * around - 0.1 * u * v**2 + 0.01 * x[t], v + 0.1 * (u * v**2 - 0.5 * v)
    return (u * v).sum()


def by_slices(p, x):
    u = p[:8]
    for t in range(T):
        inner = u[1:-1] + 0.2 * (u[2:] - 2 * u[1:-1] + u[:-2])
        u = torch.cat([x[t].reshape(1), inner, inner[-1:]])
    return u.square().sum()


def in_a_buffer(p, x):
    """Places written by the step into a tensor of the whole trajectory."""
    path = torch.zeros(T + 1, 2, dtype=torch.float64)
    path[0] = y = p[:2]
    for t in range(T):
        y = y + 0.1 * torch.stack([y[1], -p[2] * torch.sin(y[0]) + x[t]])
        path[t + 1] = y
    return path.square().sum()


def of_a_class(p, x):
    class Pendulum:
        def __init__(self):
            self.angle, self.speed = p[0], p[1]

        def step(self, force):
            self.speed = self.speed + 0.1 * (force - p[2] * torch.sin(self.angle))
            self.angle = self.angle + 0.1 * self.speed

    pendulum = Pendulum()
    for force in x:
        pendulum.step(force)
    return pendulum.angle * pendulum.speed


def an_ensemble(p, x):
    """Eight systems of two numbers, `[8, 2]`."""
    y = torch.stack([p, p.flip(0)], 1)
    for t in range(T):
        a, b = y[:, 0], y[:, 1]
        y = y + 0.1 * torch.stack([b, -torch.sin(a) + x[t]], 1)
    return y.prod(1).sum()


MATRICES = [
    *[linear_algebra(f, n) for f in (solve, inverse, cholesky) for n in (2, 3, 4, 8)],
    *[linear_algebra(f, n) for f in (determinant, log_determinant) for n in (2, 4)],
    linear_algebra(solve_matrix, 3),
]
LOOPS = [
    hundreds_of_leaves, scalars_and_floats, in_a_dict, tables, events, runge_kutta, by_a_tableau,
    leapfrog, newton, newton_of_two, a_delay_line, a_delay_in_a_tensor, a_delay_that_shifts,
    reflecting, observed_at_some_steps, observed_by_a_mask, complex_oscillators, on_a_grid,
    on_a_plane, by_slices, in_a_buffer, of_a_class, an_ensemble,
]  # fmt: skip


def called(function, p, x):
    p, x = p.clone().requires_grad_(), x.clone().requires_grad_()
    value = function(p, x)
    return value.detach(), *torch.autograd.grad(value, (p, x), allow_unused=True)


@pytest.mark.parametrize("function", [*LOOPS, *MATRICES], ids=lambda f: f.__name__)
def test_the_loop_is_native_with_the_value_and_gradients_of_python(function):
    """Sums of some thousand terms in float64: relative 1e-9 is far below a missing term."""
    looped = ostinato.loop(function)
    for _ in range(2):
        p = 0.3 + torch.rand(8, dtype=torch.float64)
        x = torch.randn(T, dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # All cases of matrices have the same code.
            warnings.filterwarnings("ignore", message=r".* was recorded \d+ times")
            found = called(looped, p, x)
        for a, b in zip(found, called(function, p, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    over_time = [s for s in forms.sites(looped) if s.native]
    assert over_time, [s.reason for s in forms.sites(looped)]
