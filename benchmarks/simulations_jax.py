"""The loops of `benchmarks simulations` in JAX: lax.scan of a step, jitted with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import scan

jax.config.update("jax_enable_x64", True)


def value_and_gradient(case: str, parameters: np.ndarray, data: np.ndarray) -> Callable[[], Any]:
    function = jax.jit(jax.value_and_grad(globals()[case]))
    p, x = jnp.asarray(parameters), jnp.asarray(data)
    return lambda: jax.block_until_ready(function(p, x))


def lorenz(p: Any, start: Any) -> Any:
    def step(c: Any, _: Any) -> Any:
        x, y, z = c
        dx, dy, dz = p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z
        c = x + 0.0005 * dx, y + 0.0005 * dy, z + 0.0005 * dz
        return c, c[0]

    return jnp.mean(scan(step, (start[0], start[1], start[2]), None, length=5000)[1] ** 2)


def neuron(g: Any, current: Any) -> Any:
    exp, dt = jnp.exp, 0.01

    def step(c: Any, i: Any) -> Any:
        V, m, h, n = c
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
        V = V + dt * (i - out)
        return (V, m, h, n), V

    start = tuple(jnp.full(current.shape[1:], v) for v in (-65.0, 0.05, 0.6, 0.32))
    return jnp.mean(scan(step, start, current)[1] ** 2)


neurons = neuron


def kalman(p: Any, y: Any) -> Any:
    F = jnp.eye(3) * 0.9 + jnp.diag(p[:2], 1) * 0.1
    Q = jnp.eye(3) * jnp.exp(p[2])
    H = jnp.array([1.0, 0.2, 0.0])

    def step(c: Any, y: Any) -> Any:
        m, P, ll = c
        m, P = F @ m, F @ P @ F.T + Q
        s = H @ P @ H + 0.5
        k = P @ H / s
        e = y - H @ m
        P = P - jnp.outer(k, k) * s
        return (m + k * e, P, ll + e * e / s + jnp.log(s)), None

    return scan(step, (jnp.zeros(3), jnp.eye(3), jnp.zeros(())), y)[0][2]


def heat(k: Any, u: Any) -> Any:
    def step(u: Any, _: Any) -> Any:
        return u + k * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1)), None

    return jnp.mean(scan(step, u, None, length=1000)[0] ** 2)


def beliefs(w: Any, xs: Any) -> Any:
    n = len(w)

    def step(c: Any, x: Any) -> Any:
        mu, pi, loss = c
        new_mu, new_pi = [], []
        for i in range(n):
            parent = mu[i - 1] if i else x
            p = pi[i] + jnp.exp(-w[i]) * 0.5
            new_mu.append(mu[i] + (parent - mu[i]) / (1 + p))
            new_pi.append(1 / (1 / p + jnp.exp(w[i]) * 0.1))
        loss = loss + (x - new_mu[0]) ** 2 * new_pi[0] + new_mu[n - 1] ** 2
        return (new_mu, new_pi, loss), None

    start = [jnp.zeros(())] * n, [jnp.ones(())] * n, jnp.zeros(())
    return scan(step, start, xs)[0][2]


def rivers(p: Any, weather: Any) -> Any:
    def step(c: Any, day: Any) -> Any:
        snow, soil, upper, lower = c
        rain, temperature, demand = day[:, 0], day[:, 1], day[:, 2]
        snowfall = jnp.where(temperature < p[0], rain, 0.0)
        melt = jnp.minimum(p[1] * jax.nn.relu(temperature - p[0]), snow)
        snow = snow + snowfall - melt
        water = rain - snowfall + melt
        recharge = water * jnp.clip(soil / p[2], 1e-5, 1.0) ** p[3]
        soil = soil + water - recharge
        lost = demand * jnp.clip(soil / (p[4] * p[2]), 0.0, 1.0)
        soil = jnp.maximum(soil - lost, 1e-5)
        upper = upper + recharge
        quick = p[5] * jax.nn.relu(upper - p[8])
        upper = upper - quick
        percolated = jnp.minimum(upper, p[7])
        upper = upper - percolated
        slow = p[5] * upper
        upper, lower = upper - slow, lower + percolated
        base = p[6] * lower
        return (snow, soil, upper, lower - base), quick + slow + base

    start = tuple(jnp.full(weather.shape[1], v) for v in (0.0, 100.0, 0.0, 0.0))
    return jnp.mean(scan(step, start, weather)[1] ** 2)


def orbits(mass: Any, start: Any) -> Any:
    def acceleration(x: Any) -> Any:
        d = x[None, :, :] - x[:, None, :]
        r3 = ((d * d).sum(-1) + 0.01) ** 1.5
        return (mass[None, :, None] * d / r3[:, :, None]).sum(1)

    dt = 0.005

    def step(c: Any, _: Any) -> Any:
        x, v, a = c
        v = v + 0.5 * dt * a
        x = x + dt * v
        a = acceleration(x)
        return (x, v + 0.5 * dt * a, a), x[1]

    first = start[0], start[1], acceleration(start[0])
    return jnp.mean(scan(step, first, None, length=3000)[1] ** 2)


def epidemic(p: Any, start: Any) -> Any:
    beta, sigma, gamma = p

    def rates(y: Any) -> Any:
        s, e, i, _ = y
        new = beta * s * i
        return jnp.stack([-new, new - sigma * e, sigma * e - gamma * i, gamma * i])

    dt = 0.1

    def step(y: Any, _: Any) -> Any:
        k1 = rates(y)
        k2 = rates(y + dt / 2 * k1)
        k3 = rates(y + dt / 2 * k2)
        k4 = rates(y + dt * k3)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y, y[2]

    return jnp.mean(scan(step, start, None, length=2000)[1] ** 2)


def volatility(p: Any, returns: Any) -> Any:
    def step(c: Any, r: Any) -> Any:
        variance, total = c
        total = total + jnp.log(variance) + r * r / variance
        return (p[0] + p[1] * r * r + p[2] * variance, total), None

    start = returns.var(ddof=1), jnp.zeros(())
    return scan(step, start, returns)[0][1] / len(returns)


def stiff(mu: Any, start: Any) -> Any:
    dt = 0.01

    def step(y: Any, _: Any) -> Any:
        new = y
        for _ in range(4):
            a, b = new
            f = jnp.stack([b, mu[0] * (1 - a * a) * b - a])
            below = jnp.stack([-2 * mu[0] * a * b - 1, mu[0] * (1 - a * a)])
            J = jnp.stack([jnp.array([0.0, 1.0]), below])
            new = new - jnp.linalg.solve(jnp.eye(2) - dt * J, new - y - dt * f)
        return new, new[0]

    return jnp.mean(scan(step, start, None, length=1500)[1] ** 2)


def clocks(omega: Any, phase: Any) -> Any:
    def step(phase: Any, _: Any) -> Any:
        pull = jnp.sin(phase[None, :] - phase[:, None]).mean(1)
        phase = phase + 0.02 * (omega + 1.5 * pull)
        return phase, jnp.cos(phase).mean() ** 2 + jnp.sin(phase).mean() ** 2

    return jnp.mean(scan(step, phase, None, length=1000)[1])
