"""The simulations of `benchmarks simulations` as loops in PyTorch.

Each is a function of parameters and data that gives one number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

F64 = torch.float64


def value_and_gradient(
    case: str, parameters: np.ndarray, data: np.ndarray, looped: bool
) -> Callable[[], Any]:
    import ostinato

    torch.set_num_threads(1)
    function = globals()[case]
    run = ostinato.loop(function) if looped else function
    p, x = torch.tensor(parameters, requires_grad=True), torch.tensor(data)

    def both() -> Any:
        value = run(p, x)
        return value.detach(), torch.autograd.grad(value, p)[0]

    return both


def lorenz(p: Tensor, start: Tensor) -> Tensor:
    x, y, z = start[0], start[1], start[2]
    xs = []
    for _ in range(5000):
        dx, dy, dz = p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z
        x, y, z = x + 0.0005 * dx, y + 0.0005 * dy, z + 0.0005 * dz
        xs.append(x)
    return torch.stack(xs).square().mean()


def neuron(g: Tensor, current: Tensor) -> Tensor:
    exp, dt = torch.exp, 0.01
    V, m, h, n = (torch.full_like(current[0], v) for v in (-65.0, 0.05, 0.6, 0.32))
    voltages = []
    for t in range(len(current)):
        am = 0.1 * (V + 40) / (1 - exp(-(V + 40) / 10))
        bm = 4 * exp(-(V + 65) / 18)
        ah = 0.07 * exp(-(V + 65) / 20)
        bh = 1 / (1 + exp(-(V + 35) / 10))
        an = 0.01 * (V + 55) / (1 - exp(-(V + 55) / 10))
        bn = 0.125 * exp(-(V + 65) / 80)
        m = m + dt * (am * (1 - m) - bm * m)
        h = h + dt * (ah * (1 - h) - bh * h)
        n = n + dt * (an * (1 - n) - bn * n)
        out = g[0] * m**3 * h * (V - 50) + g[1] * n**4 * (V + 77) + g[2] * (V + 54.4)
        V = V + dt * (current[t] - out)
        voltages.append(V)
    return torch.stack(voltages).square().mean()


neurons = neuron


def kalman(p: Tensor, y: Tensor) -> Tensor:
    F = torch.eye(3, dtype=F64) * 0.9 + torch.diag(p[:2], 1) * 0.1
    Q = torch.eye(3, dtype=F64) * torch.exp(p[2])
    H = torch.tensor([1.0, 0.2, 0.0], dtype=F64)
    m, P, ll = torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64), torch.zeros((), dtype=F64)
    for t in range(len(y)):
        m, P = F @ m, F @ P @ F.T + Q
        s = H @ P @ H + 0.5
        k = P @ H / s
        e = y[t] - H @ m
        m = m + k * e
        P = P - torch.outer(k, k) * s
        ll = ll + e * e / s + torch.log(s)
    return ll


def heat(k: Tensor, u: Tensor) -> Tensor:
    for _ in range(1000):
        u = u + k * (torch.roll(u, 1, 0) - 2 * u + torch.roll(u, -1, 0))
    return u.square().mean()


def beliefs(w: Tensor, xs: Tensor) -> Tensor:
    n = len(w)
    mu = [torch.zeros((), dtype=F64)] * n
    pi = [torch.ones((), dtype=F64)] * n
    loss = torch.zeros((), dtype=F64)
    for t in range(len(xs)):
        new_mu, new_pi = [], []
        for i in range(n):
            parent = mu[i - 1] if i else xs[t]
            p = pi[i] + torch.exp(-w[i]) * 0.5
            new_mu.append(mu[i] + (parent - mu[i]) / (1 + p))
            new_pi.append(1 / (1 / p + torch.exp(w[i]) * 0.1))
        mu, pi = new_mu, new_pi
        loss = loss + (xs[t] - mu[0]) ** 2 * pi[0] + mu[n - 1] ** 2
    return loss


def rivers(p: Tensor, weather: Tensor) -> Tensor:
    snow, soil, upper, lower = (torch.full_like(weather[0, :, 0], v) for v in (0, 100, 0, 0))
    flows = []
    for day in weather:
        rain, temperature, demand = day[:, 0], day[:, 1], day[:, 2]
        snowfall = torch.where(temperature < p[0], rain, 0.0)
        melt = torch.minimum(p[1] * torch.relu(temperature - p[0]), snow)
        snow = snow + snowfall - melt
        water = rain - snowfall + melt
        recharge = water * torch.clamp(soil / p[2], 1e-5, 1.0) ** p[3]
        soil = soil + water - recharge
        lost = demand * torch.clamp(soil / (p[4] * p[2]), 0.0, 1.0)
        soil = torch.clamp(soil - lost, min=1e-5)
        upper = upper + recharge
        quick = p[5] * torch.relu(upper - p[8])
        upper = upper - quick
        percolated = torch.minimum(upper, p[7])
        upper = upper - percolated
        slow = p[5] * upper
        upper, lower = upper - slow, lower + percolated
        base = p[6] * lower
        lower = lower - base
        flows.append(quick + slow + base)
    return torch.stack(flows).square().mean()


def orbits(mass: Tensor, start: Tensor) -> Tensor:
    def acceleration(x: Tensor) -> Tensor:
        d = x[None, :, :] - x[:, None, :]
        r3 = ((d * d).sum(-1) + 0.01) ** 1.5
        return (mass[None, :, None] * d / r3[:, :, None]).sum(1)

    x, v = start[0], start[1]
    dt, path = 0.005, []
    a = acceleration(x)
    for _ in range(3000):
        v = v + 0.5 * dt * a
        x = x + dt * v
        a = acceleration(x)
        v = v + 0.5 * dt * a
        path.append(x[1])
    return torch.stack(path).square().mean()


def epidemic(p: Tensor, start: Tensor) -> Tensor:
    beta, sigma, gamma = p.unbind(0)

    def rates(y: Tensor) -> Tensor:
        s, e, i, _ = y.unbind(0)
        new = beta * s * i
        return torch.stack([-new, new - sigma * e, sigma * e - gamma * i, gamma * i])

    y, dt, ill = start, 0.1, []
    for _ in range(2000):
        k1 = rates(y)
        k2 = rates(y + dt / 2 * k1)
        k3 = rates(y + dt / 2 * k2)
        k4 = rates(y + dt * k3)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        ill.append(y[2])
    return torch.stack(ill).square().mean()


def volatility(p: Tensor, returns: Tensor) -> Tensor:
    variance = returns.var()
    total = torch.zeros((), dtype=F64)
    for r in returns:
        total = total + torch.log(variance) + r * r / variance
        variance = p[0] + p[1] * r * r + p[2] * variance
    return total / len(returns)


def stiff(mu: Tensor, start: Tensor) -> Tensor:
    eye, dt, y, path = torch.eye(2, dtype=F64), 0.01, start, []
    for _ in range(1500):
        new = y
        for _ in range(4):
            a, b = new[0], new[1]
            f = torch.stack([b, mu[0] * (1 - a * a) * b - a])
            zero, one = torch.zeros_like(a), torch.ones_like(a)
            below = torch.stack([-2 * mu[0] * a * b - 1, mu[0] * (1 - a * a)])
            J = torch.stack([torch.stack([zero, one]), below])
            new = new - torch.linalg.solve(eye - dt * J, new - y - dt * f)
        y = new
        path.append(y[0])
    return torch.stack(path).square().mean()


def clocks(omega: Tensor, phase: Tensor) -> Tensor:
    order = []
    for _ in range(1000):
        pull = torch.sin(phase[None, :] - phase[:, None]).mean(1)
        phase = phase + 0.02 * (omega + 1.5 * pull)
        order.append(torch.cos(phase).mean() ** 2 + torch.sin(phase).mean() ** 2)
    return torch.stack(order).mean()
