"""Further steps of the literature and of practice, as ordinary researchers write them.

`LITERATURE[name](Kit(dtype))` makes a `Case`, as those of `zoo.steps` and `zoo.modern`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.steps import Case, Kit

LITERATURE: dict[str, Callable[[Kit], Case]] = {}
IN, H, N, D = 5, 6, 2, 3  # features of an input, of a state; heads, and the size of one


def literature(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
    LITERATURE[make.__name__] = make
    return make


def states(kit: Kit, *shapes: tuple[int, ...]) -> Callable[[int], Any]:
    def init(B: int) -> Any:
        leaves = tuple(kit.normal(B, *shape) * 0.3 for shape in shapes)
        return leaves[0] if len(leaves) == 1 else leaves

    return init


def inputs(kit: Kit, *shape: int) -> Callable[[int], Tensor]:
    return lambda B: kit.normal(B, *(shape or (IN,))) * 0.7


@literature
def griffin_rglru(kit: Kit) -> Case:
    """The gated linear recurrent unit of Griffin: De et al. 2024, arXiv:2402.19427."""
    Wa, Wx, ba, bx, L, Win, Wg, Wo = (
        kit.weight(H, H),
        kit.weight(H, H),
        kit.weight(H),
        kit.weight(H),
        kit.weight(H),
        kit.weight(IN, H),
        kit.weight(IN, H),
        kit.weight(H, IN),
    )
    c = 8.0

    def step(h: Any, x: Any) -> Any:
        u = x @ Win
        gate = F.gelu(x @ Wg, approximate="tanh")
        r = torch.sigmoid(F.linear(u, Wa, ba))
        i = torch.sigmoid(F.linear(u, Wx, bx))
        log_a = -c * r * F.softplus(L)
        a = torch.exp(log_a)
        mult = torch.sqrt(-torch.expm1(2 * log_a))
        h = a * h + mult * (i * u)
        return h, (h * gate) @ Wo

    return Case(step, [Wa, Wx, ba, bx, L, Win, Wg, Wo], states(kit, (H,)), inputs(kit))


@literature
def legendre_memory(kit: Kit) -> Case:
    """The Legendre memory unit: Voelker et al. 2019, NeurIPS."""
    d = 4
    Q = torch.arange(d, dtype=torch.float64)
    R = (2 * Q + 1)[:, None] / 7.0
    j, i = torch.meshgrid(Q, Q, indexing="ij")
    A = torch.where(j < i, -1.0, (-1.0) ** (j - i + 1)) * R
    B = (-1.0) ** Q[:, None] * R
    A = torch.matrix_exp(A).to(kit.dtype)
    B = B.to(kit.dtype)
    ex, eh, em = kit.weight(IN, 1), kit.weight(H, 1), kit.weight(d, 1)
    Wx, Wh, Wm = kit.weight(IN, H), kit.weight(H, H), kit.weight(d, H)

    def step(c: Any, x: Any) -> Any:
        h, m = c
        u = x @ ex + h @ eh + m @ em
        m = F.linear(m, A) + u @ B.T
        h = torch.tanh(x @ Wx + h @ Wh + m @ Wm)
        return (h, m), h

    return Case(step, [ex, eh, em, Wx, Wh, Wm], states(kit, (H,), (d,)), inputs(kit))


@literature
def hippo_legs(kit: Kit) -> Case:
    """HiPPO-LegS, with its time in the carry: Gu et al. 2020, arXiv:2008.07669."""
    n = 4
    A = torch.zeros(n, n, dtype=kit.dtype)
    for i in range(n):
        for j in range(i + 1):
            A[i, j] = (i + 1) if i == j else math.sqrt((2 * i + 1) * (2 * j + 1))
    b = torch.tensor([math.sqrt(2 * i + 1) for i in range(n)], dtype=kit.dtype)
    W = kit.weight(IN, 1)

    def step(carry: Any, x: Any) -> Any:
        c, t = carry
        t = t + 1
        c = c - (c @ A.T) / t[:, None] + b * (x @ W) / t[:, None]
        return (c, t), c

    def init(B):
        return kit.normal(B, n), torch.ones(B, dtype=kit.dtype) * 3

    return Case(step, [W], init, inputs(kit))


@literature
def ltc_fused(kit: Kit) -> Case:
    """Liquid time constants, the fused solver: Hasani et al. 2020, arXiv:2006.04439."""
    gl, vl, cm = kit.weight(H), kit.weight(H), kit.weight(H)
    w, mu, sg, er = kit.weight(H, H), kit.weight(H, H), kit.weight(H, H), kit.weight(H, H)
    U = kit.weight(IN, H)

    def step(v: Any, x: Any) -> Any:
        s = x @ U
        cmt = F.softplus(cm) * 6
        for _ in range(2):
            act = F.softplus(w) * torch.sigmoid((v.unsqueeze(-1) - mu) * sg)
            num = cmt * v + F.softplus(gl) * vl + (act * er).sum(1) + s
            den = cmt + F.softplus(gl) + act.sum(1) + 1e-8
            v = num / den
        return v

    return Case(step, [gl, vl, cm, w, mu, sg, er, U], states(kit, (H,)), inputs(kit))


@literature
def cfc(kit: Kit) -> Case:
    """Closed-form continuous time: Hasani et al. 2022, arXiv:2106.13898."""
    bb = kit.linear(IN + H, 8)
    f1, f2, ta, tb = (kit.linear(8, H) for _ in range(4))
    mods = [bb, f1, f2, ta, tb]

    def step(h: Any, both: Any) -> Any:
        x, ts = both
        z = 1.7159 * torch.tanh(0.666 * bb(torch.cat([x, h], 1)))
        a, b = torch.tanh(f1(z)), torch.tanh(f2(z))
        ti = torch.sigmoid(ta(z) * ts + tb(z))
        return a * (1.0 - ti) + ti * b

    def x(B: int) -> Any:
        return kit.normal(B, IN), kit.uniform(B, 1)

    return Case(step, [p for m in mods for p in m.parameters()], states(kit, (H,)), x)


@literature
def ode_rnn_rk4(kit: Kit) -> Case:
    """ODE-RNN by Runge and Kutta: Rubanova et al. 2019, arXiv:1907.03907."""
    net = nn.Sequential(kit.module(nn.Linear, H, 8), nn.Tanh(), kit.module(nn.Linear, 8, H))
    cellm = kit.module(nn.GRUCell, IN, H)

    def step(h: Any, both: Any) -> Any:
        x, dt = both
        dt = dt[:, None]
        k1 = net(h)
        k2 = net(h + dt * k1 / 2)
        k3 = net(h + dt * k2 / 2)
        k4 = net(h + dt * k3)
        h = h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return cellm(x, h)

    def x(B: int) -> Any:
        return kit.normal(B, IN), kit.uniform(B)

    return Case(step, [*net.parameters(), *cellm.parameters()], states(kit, (H,)), x)


@literature
def unicornn(kit: Kit) -> Case:
    """Rusch and Mishra 2021, arXiv:2103.05487; the carry is a list."""
    w, c, V = kit.weight(H), kit.weight(H), kit.linear(IN, H)

    def step(s: Any, x: Any) -> Any:
        y, z = s
        dt = 0.1 * torch.sigmoid(c)
        z = z - dt * (torch.tanh(w * y + V(x)) + 0.9 * y)
        y = y + dt * z
        return [y, z], y

    return Case(
        step, [w, c, *V.parameters()], lambda B: [kit.normal(B, H), kit.normal(B, H)], inputs(kit)
    )


@literature
def phased_lstm(kit: Kit) -> Case:
    """Neil et al. 2016, arXiv:1610.09513."""
    lstm = kit.module(nn.LSTMCell, IN, H)
    tau, s = kit.weight(H), kit.weight(H)

    def step(c: Any, both: Any) -> Any:
        x, t = both
        h, cc = c
        T = torch.exp(tau)
        r_on, alpha = 0.3, 1e-3
        phi = torch.fmod(torch.fmod(t[:, None] - s, T) + T, T) / T
        k = torch.where(
            phi < r_on / 2, 2 * phi / r_on, torch.where(phi < r_on, 2 - 2 * phi / r_on, alpha * phi)
        )
        h2, c2 = lstm(x, (h, cc))
        return (k * h2 + (1 - k) * h, k * c2 + (1 - k) * cc), h2

    def x(B: int) -> Any:
        return kit.normal(B, IN), kit.uniform(B) * 5

    return Case(step, [*lstm.parameters(), tau, s], states(kit, (H,), (H,)), x)


@literature
def sru(kit: Kit) -> Case:
    """Lei et al. 2017, arXiv:1709.02755, by lerp."""
    W = kit.weight(IN, 4 * H)
    v, b = kit.weight(2 * H), kit.weight(2 * H)

    def step(c: Any, x: Any) -> Any:
        u0, u1, u2, u3 = (x @ W).chunk(4, -1)
        vf, vr = v.chunk(2)
        bf, br = b.chunk(2)
        f = (u1 + vf * c + bf).sigmoid()
        r = (u2 + vr * c + br).sigmoid()
        c = u0.lerp(c, f)
        return c, torch.lerp(u3, torch.tanh(c), r)

    return Case(step, [W, v, b], states(kit, (H,)), inputs(kit))


@literature
def qrnn(kit: Kit) -> Case:
    """Bradbury et al. 2016, arXiv:1611.01576, a window of two."""
    W = kit.weight(2 * IN, 3 * H)

    def step(carry: Any, x: Any) -> Any:
        c, prev = carry
        z, f, o = torch.split(torch.cat((prev, x), dim=-1) @ W, H, dim=-1)
        f = f.sigmoid()
        c = f * c + (1 - f) * z.tanh()
        return (c, x), o.sigmoid() * c

    return Case(step, [W], states(kit, (H,), (IN,)), inputs(kit))


@literature
def fru(kit: Kit) -> Case:
    """The Fourier recurrent unit: Zhang et al. 2018, arXiv:1803.06585."""
    K = 3
    W = kit.weight(IN, K * H)
    freq = torch.linspace(0.0, 2.0, K, dtype=kit.dtype)
    ph = kit.weight(K, 1)
    Vv = kit.weight(K * H, 4)

    def step(c: Any, x: Any) -> Any:
        u, t = c
        ctx = torch.relu(x @ W).view(-1, K, H)
        u = u + torch.cos(2 * math.pi * freq[:, None] * t.view(-1, 1, 1) / 9 + ph) * ctx / 9
        return (u, t + 1.0), u.reshape(x.shape[0], -1) @ Vv

    return Case(
        step,
        [W, ph, Vv],
        lambda B: (kit.normal(B, K, H), torch.zeros(B, dtype=kit.dtype)),
        inputs(kit),
    )


@literature
def scrn(kit: Kit) -> Case:
    """Structurally constrained: Mikolov et al. 2014, arXiv:1412.7753; the carry is a dict."""
    B_, A, P, R = kit.weight(IN, 3), kit.weight(IN, H), kit.weight(3, H), kit.weight(H, H)
    alpha = 0.95

    def step(c: Any, x: Any) -> Any:
        s, h = c.values()
        s = (1 - alpha) * (x @ B_) + alpha * s
        h = torch.sigmoid(s @ P + x @ A + h @ R)
        return {"s": s, "h": h}, torch.cat([s, h], 1)

    return Case(
        step, [B_, A, P, R], lambda B: {"s": kit.normal(B, 3), "h": kit.normal(B, H)}, inputs(kit)
    )


@literature
def narx(kit: Kit) -> Case:
    """A nonlinear autoregression with windows of inputs and outputs: Lin et al. 1996."""
    L1, L2 = kit.linear(4 * 2 + 4 * IN, 8), kit.linear(8, 2)

    def step(c: Any, x: Any) -> Any:
        ub, yb = c
        ub = torch.cat([ub[:, 1:], x.unsqueeze(1)], 1)
        y = L2(torch.tanh(L1(torch.cat([ub.flatten(1), yb.flatten(1)], -1))))
        yb = torch.roll(yb, -1, 1)
        yb = torch.cat([yb[:, :-1], y[:, None]], 1)
        return (ub, yb), y

    return Case(
        step, [*L1.parameters(), *L2.parameters()], states(kit, (4, IN), (4, 2)), inputs(kit)
    )


@literature
def multiplicative_lstm(kit: Kit) -> Case:
    """Krause et al. 2016, arXiv:1609.07959."""
    Wm, Um, Wx, Wh = (
        kit.weight(IN, H),
        kit.weight(H, H),
        kit.weight(IN, 4 * H),
        kit.weight(H, 4 * H),
    )

    def step(c: Any, x: Any) -> Any:
        h, cc = c
        m = (x @ Wm) * (h @ Um)
        i, f, o, u = (x @ Wx + m @ Wh).tensor_split(4, -1)
        cc = f.sigmoid() * cc + i.sigmoid() * u.tanh()
        h = o.sigmoid() * cc.tanh()
        return (h, cc), h

    return Case(step, [Wm, Um, Wx, Wh], states(kit, (H,), (H,)), inputs(kit))


@literature
def predictive_coding(kit: Kit) -> Case:
    """Rao and Ballard 1999: a few descents in a step."""
    W1, W2 = kit.weight(4, IN), kit.weight(H, 4)

    def step(c: Any, x: Any) -> Any:
        r1, r2 = c
        for _ in range(3):
            e0 = x - torch.tanh(r1 @ W1)
            e1 = r1 - torch.tanh(r2 @ W2)
            r1 = r1 + 0.1 * (e0 @ W1.t() * (1 - r1**2) - e1)
            r2 = r2 + 0.1 * (e1 @ W2.t())
        return (r1, r2), torch.stack([e0.pow(2).sum(-1), e1.pow(2).sum(-1)], -1)

    return Case(step, [W1, W2], states(kit, (4,), (H,)), inputs(kit))


@literature
def pid_plant(kit: Kit) -> Case:
    """A controller with a plant; leaves of the carry that are one number a row."""
    K = kit.weight(3)
    A = kit.weight(2, 2)
    Bm = kit.weight(1, 2)

    def step(c: Any, r: Any) -> Any:
        s, integ, prev = c
        e = r[:, 0] - s[:, 0]
        integ = torch.clamp(integ + e * 0.1, -1.0, 1.0)
        d = (e - prev) / 0.1
        u = torch.stack([e, integ, d], -1) @ K
        u = u.clamp(-2, 2)
        s = s + 0.1 * (s @ A + u[:, None] @ Bm[None][0])
        return (s, integ, e), u

    return Case(step, [K, A, Bm], states(kit, (2,), (), ()), inputs(kit, 1))


@literature
def lqr_riccati(kit: Kit) -> Case:
    """The Riccati recurrence of a linear regulator."""
    A, Bm = kit.weight(3, 3), kit.weight(3, 1)

    def step(P: Any, x: Any) -> Any:
        Q = torch.diag_embed(x.exp())
        BtP = Bm.T @ P
        K = BtP @ A / (1 + BtP @ Bm)
        return Q + A.T @ P @ (A - Bm @ K)

    return Case(
        step,
        [A, Bm],
        lambda B: torch.eye(3, dtype=kit.dtype).expand(B, 3, 3).contiguous(),
        inputs(kit, 3),
    )


@literature
def verlet_springs(kit: Kit) -> Case:
    """Springs between particles, by velocity Verlet."""
    k = kit.weight(1)
    n = 4

    def acceleration(q: Tensor) -> Tensor:
        diff = q[:, :, None] - q[:, None]
        dist = (diff.square().sum(-1) + 1e-2).sqrt()
        f = -(k * (dist - 1) / dist)[..., None] * diff
        return f.sum(2)

    def step(c: Any, x: Any) -> Any:
        q, v = c
        v = v + 0.005 * acceleration(q)
        q = q + 0.01 * v
        v = v + 0.005 * acceleration(q)
        return (q, v), (0.5 * (v**2).sum((1, 2)))

    return Case(step, [k], states(kit, (n, 2), (n, 2)), inputs(kit, 1))
