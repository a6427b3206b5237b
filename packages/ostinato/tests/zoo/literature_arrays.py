"""Further steps whose rows are arrays: paths, memories, messages, experts, attention.

They join those of `zoo.literature`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.literature import IN, D, H, N, inputs, literature, states
from zoo.steps import Case, Kit


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


@literature
def ctc_alpha(kit: Kit) -> Case:
    """The forward variables of CTC: Graves et al. 2006."""
    S = 5
    W = kit.weight(IN, S)
    skip = torch.tensor([False, False, False, True, False])
    NEG = -1e30

    def step(a: Any, x: Any) -> Any:
        lp = F.log_softmax(x @ W, -1)
        a1 = F.pad(a, (1, 0), value=NEG)[:, :-1]
        a2 = F.pad(a, (2, 0), value=NEG)[:, :-2]
        a2 = a2.masked_fill(~skip, NEG)
        return torch.logsumexp(torch.stack([a, a1, a2]), 0) + lp

    return Case(step, [W], states(kit, (S,)), inputs(kit))


@literature
def viterbi_pointers(kit: Kit) -> Case:
    """Viterbi with its pointers as outputs."""
    Tm = kit.weight(4, 4)

    def step(v: Any, e: Any) -> Any:
        s = v.unsqueeze(2) + Tm.unsqueeze(0)
        best, arg = s.max(dim=1)
        return best + e, (best, arg)

    return Case(step, [Tm], states(kit, (4,)), inputs(kit, 4))


@literature
def message_passing(kit: Kit) -> Case:
    """Messages along captured edges: Gilmer et al. 2017, arXiv:1704.01212."""
    src = torch.tensor([0, 1, 2, 3, 0, 2])
    dst = torch.tensor([1, 2, 3, 0, 2, 1])
    M = kit.linear(2 * 4, 4)
    g = kit.module(nn.GRUCell, 4, 4)
    U = kit.weight(IN, 4)

    def step(h: Any, x: Any) -> Any:
        m = F.relu(M(torch.cat([h[:, src], h[:, dst]], -1)))
        agg = torch.zeros_like(h).index_add(1, dst, m) + (x @ U)[:, None]
        return g(agg.reshape(-1, 4), h.reshape(-1, 4)).view_as(h)

    return Case(step, [*M.parameters(), *g.parameters(), U], states(kit, (4, 4)), inputs(kit))


@literature
def deep_sets(kit: Kit) -> Case:
    """Zaheer et al. 2017, arXiv:1703.06114."""
    phi, rho = kit.linear(4, 4), kit.linear(8, 4)

    def step(s: Any, x: Any) -> Any:
        z = F.relu(phi(s))
        pooled = torch.cat([z.mean(1), z.max(1).values], -1)
        return torch.tanh(s + rho(pooled).unsqueeze(1) + x[:, None, :4])

    return Case(step, [*phi.parameters(), *rho.parameters()], states(kit, (3, 4)), inputs(kit))


@literature
def neural_stack(kit: Kit) -> Case:
    """Grefenstette et al. 2015, arXiv:1506.02516."""
    n, d = 4, 3
    ctl = kit.linear(IN + d, 2 + d)

    def step(c: Any, x: Any) -> Any:
        V, s, r = c
        z = ctl(torch.cat([x, r], -1))
        dpop, dpush = torch.sigmoid(z[:, :1]), torch.sigmoid(z[:, 1:2])
        v = torch.tanh(z[:, 2:])
        above = s.flip(-1).cumsum(-1).flip(-1) - s
        s = F.relu(s - F.relu(dpop - above))
        V = torch.cat([V[:, 1:], v[:, None]], 1)
        s = torch.cat([s[:, 1:], dpush], 1)
        above = s.flip(-1).cumsum(-1).flip(-1) - s
        w = torch.minimum(s, F.relu(1 - above))
        r = (w.unsqueeze(-1) * V).sum(1)
        return (V, s, r), r

    return Case(
        step,
        [*ctl.parameters()],
        lambda B: (kit.normal(B, n, d), kit.uniform(B, n), kit.normal(B, d)),
        inputs(kit),
    )


@literature
def dnc_parts(kit: Kit) -> Case:
    """Allocation, writing and temporal links: Graves et al. 2016, Nature."""
    n, w = 4, 3
    ctl = kit.linear(IN, 2 * w + 4)

    def step(c: Any, x: Any) -> Any:
        M, L, p, ww, u = c
        z = ctl(x)
        k, e = z[:, :w], torch.sigmoid(z[:, w : 2 * w])
        ga, gw, beta, fg = (z[:, 2 * w + i : 2 * w + i + 1] for i in range(4))
        u = (u + ww - u * ww) * torch.sigmoid(fg)
        su, phi = torch.sort(u, dim=-1)
        sp = torch.cumprod(torch.cat([torch.ones_like(su[:, :1]), su[:, :-1]], -1), -1)
        a = ((1 - su) * sp).gather(1, phi.argsort(-1))
        cos = F.cosine_similarity(M, k[:, None], dim=-1)
        cw = F.softmax(F.softplus(beta) * cos, -1)
        ww = torch.sigmoid(gw) * (torch.sigmoid(ga) * a + (1 - torch.sigmoid(ga)) * cw)
        M = M * (1 - ww[..., None] * e[:, None]) + ww[..., None] * k[:, None]
        L = (1 - ww[:, :, None] - ww[:, None]) * L + ww[:, :, None] * p[:, None]
        L = L * (1 - torch.eye(n, dtype=x.dtype))
        p = (1 - ww.sum(-1, keepdim=True)) * p + ww
        f = (L @ ww[..., None]).squeeze(-1)
        return (M, L, p, ww, u), torch.bmm(f[:, None], M).squeeze(1)

    return Case(
        step,
        [*ctl.parameters()],
        lambda B: (
            kit.normal(B, n, w),
            kit.normal(B, n, n) * 0.1,
            kit.uniform(B, n),
            kit.normal(B, n).softmax(-1),
            kit.uniform(B, n) * 0.5 + torch.arange(n) * 0.1,
        ),
        inputs(kit),
    )


@literature
def sparse_experts(kit: Kit) -> Case:
    """The two best of four experts: Shazeer et al. 2017, arXiv:1701.06538."""
    G = kit.weight(IN, 4)
    W = kit.weight(4, IN + H, H)

    def step(h: Any, x: Any) -> Any:
        top, idx = torch.topk(x @ G, 2, dim=-1)
        gate = torch.zeros(x.size(0), 4, dtype=x.dtype).scatter(1, idx, F.softmax(top, -1))
        out = torch.einsum("bi,eio->beo", torch.cat([x, h], -1), W)
        return torch.tanh(torch.einsum("be,beo->bo", gate, out))

    return Case(step, [G, W], states(kit, (H,)), inputs(kit))


@literature
def rotary_cache_attention(kit: Kit) -> Case:
    """Attention with rotary positions over a rolling cache: Su et al. 2021, arXiv:2104.09864."""
    L = 4
    d = 4
    Wq, Wk, Wv = (kit.weight(IN, N * d) for _ in range(3))
    inv = 1 / (10000 ** (torch.arange(0, d, 2, dtype=torch.float64) / d))
    ang = torch.arange(L, dtype=torch.float64)[:, None] * inv
    cos, sin = ang.cos().to(kit.dtype), ang.sin().to(kit.dtype)

    def step(c: Any, x: Any) -> Any:
        K, V = c
        q = (x @ Wq).view(-1, N, 1, d)
        k = (x @ Wk).view(-1, N, 1, d)
        v = (x @ Wv).view(-1, N, 1, d)
        K = torch.cat([K[:, :, 1:], k], 2)
        V = torch.cat([V[:, :, 1:], v], 2)
        y = F.scaled_dot_product_attention(
            _rotated(q, cos[-1:], sin[-1:]), _rotated(K, cos, sin), V
        )
        return (K, V), y.transpose(1, 2).reshape(x.shape[0], -1)

    return Case(step, [Wq, Wk, Wv], states(kit, (N, L, d), (N, L, d)), inputs(kit))


@literature
def gated_attention_unit(kit: Kit) -> Case:
    """A gated attention unit as a recurrence, by baddbmm: Hua et al. 2022, arXiv:2202.10447."""
    Wu, Wv, Wz, g, b, Wo = (
        kit.weight(IN, 8),
        kit.weight(IN, 8),
        kit.weight(IN, 3),
        kit.weight(2, 3),
        kit.weight(2, 3),
        kit.weight(8, IN),
    )

    def step(S: Any, x: Any) -> Any:
        u, v, z = F.silu(x @ Wu), F.silu(x @ Wv), F.silu(x @ Wz)
        q, k = (z[..., None, :] * g + b).unbind(-2)
        S = torch.baddbmm(S, k.unsqueeze(2), v.unsqueeze(1), beta=0.9)
        return S, (u * torch.bmm(q[:, None], S)[:, 0]) @ Wo

    return Case(step, [Wu, Wv, Wz, g, b, Wo], states(kit, (3, 8)), inputs(kit))


@literature
def extended_kalman(kit: Kit) -> Case:
    """An extended Kalman filter with a covariance for each row, and its log likelihood."""
    F_, R = kit.weight(3, 3), kit.weight(2, 2)
    Hm = kit.weight(2, 3)

    def step(c: Any, z: Any) -> Any:
        m, P = c
        m = torch.tanh(m @ F_.T)
        J = F_ * (1 - m**2)[:, :, None]
        P = J @ P @ J.mT + 0.1 * torch.eye(3, dtype=z.dtype)
        S = Hm @ P @ Hm.T + R @ R.T + 0.5 * torch.eye(2, dtype=z.dtype)
        K = P @ Hm.T @ torch.linalg.inv(S)
        r = z - m @ Hm.T
        m = m + (K @ r[..., None]).squeeze(-1)
        P = (torch.eye(3, dtype=z.dtype) - K @ Hm) @ P
        ll = -0.5 * (
            r[:, None] @ torch.linalg.solve(S, r[..., None])
        ).squeeze() - 0.5 * torch.logdet(S)
        return (m, P), ll

    return Case(
        step,
        [F_, R, Hm],
        lambda B: (kit.normal(B, 3), torch.eye(3, dtype=kit.dtype).expand(B, 3, 3).clone()),
        inputs(kit, 2),
    )


@literature
def alif_refractory(kit: Kit) -> Case:
    """Adaptive spiking neurons with a refractory counter."""
    W = kit.weight(IN, H)

    def step(c: Any, x: Any) -> Any:
        v, a, cnt = c
        v = 0.9 * v + x @ W
        th = 0.5 + 0.1 * a
        spike = (v > th) & (cnt == 0)
        v = torch.where(spike, torch.zeros_like(v), v)
        a = 0.9 * a + spike.float().to(a.dtype)
        cnt = torch.where(spike, 2, (cnt - 1).clamp(min=0))
        return (v, a, cnt), spike

    return Case(
        step,
        [W],
        lambda B: (kit.normal(B, H), kit.uniform(B, H), torch.zeros(B, H, dtype=torch.int64)),
        inputs(kit),
    )


@literature
def tensor_product_rnn(kit: Kit) -> Case:
    """A bilinear step by einsum of three."""
    W = kit.weight(H, IN, H)

    def step(h: Any, x: Any) -> Any:
        return torch.tanh(torch.einsum("bi,ijk,bj->bk", h, W, x))

    return Case(step, [W], states(kit, (H,)), inputs(kit))


@literature
def exp_rnn(kit: Kit) -> Case:
    """expRNN: Lezcano-Casado and Martínez-Rubio 2019, arXiv:1901.08428."""
    W, V = kit.weight(H, H), kit.linear(IN, H)

    def modrelu(z: Tensor, b: float) -> Tensor:
        return z.sign() * F.relu(z.abs() + b)

    def step(h: Any, x: Any) -> Any:
        return modrelu(h @ torch.matrix_exp(W.triu(1) - W.triu(1).T) + V(x), -0.01)

    return Case(step, [W, *V.parameters()], states(kit, (H,)), inputs(kit))


@literature
def gru_d(kit: Kit) -> Case:
    """Missing values: Che et al. 2016, arXiv:1606.01865."""
    g = kit.module(nn.GRUCell, 2 * IN, H)
    gx, gh = kit.weight(IN), kit.linear(IN, H)
    mean = kit.normal(IN)

    def step(c: Any, both: Any) -> Any:
        h, last = c
        x, m, d = both
        dx = torch.exp(-torch.relu(d * gx))
        dh = torch.exp(-F.relu(gh(d)))
        xh = m * x + (1 - m) * (dx * last + (1 - dx) * mean)
        last = torch.where(m.bool(), x, last)
        h = g(torch.cat([xh, m], -1), dh * h)
        return (h, last), h

    return Case(
        step,
        [*g.parameters(), gx, *gh.parameters()],
        states(kit, (H,), (IN,)),
        lambda B: (kit.normal(B, IN), (kit.uniform(B, IN) > 0.5).to(kit.dtype), kit.uniform(B, IN)),
    )


@literature
def hebbian_plastic(kit: Kit) -> Case:
    """Differentiable plasticity: Miconi et al. 2018, arXiv:1804.02464."""
    W, al, U = kit.weight(H, H), kit.weight(H, H), kit.weight(IN, H)
    eta = nn.Parameter(torch.tensor(0.1, dtype=kit.dtype))

    def step(c: Any, x: Any) -> Any:
        h, Hb = c
        hn = torch.tanh(x @ U + h.unsqueeze(1).bmm(W + al * Hb).squeeze(1))
        Hb = torch.clamp(Hb + eta * torch.bmm(h.unsqueeze(2), hn.unsqueeze(1)), -1, 1)
        return (hn, Hb), hn

    return Case(step, [W, al, U, eta], states(kit, (H,), (H, H)), inputs(kit))


@literature
def titans(kit: Kit) -> Case:
    """A memory with momentum: Behrouz et al. 2024, arXiv:2501.00663."""
    Wk, Wv, Wq = kit.weight(IN, D), kit.weight(IN, D), kit.weight(IN, D)
    g = kit.weight(IN, 3)

    def step(c: Any, x: Any) -> Any:
        M, S = c
        k, v, q = F.normalize(x @ Wk, dim=-1), x @ Wv, F.normalize(x @ Wq, dim=-1)
        th, et, al = (x @ g).sigmoid().unbind(-1)
        err = (M @ k[..., None])[..., 0] - v
        S = et[:, None, None] * S - th[:, None, None] * err[:, :, None] * k[:, None]
        M = (1 - al)[:, None, None] * M + S
        return (M, S), torch.einsum("bij,bj->bi", M, q)

    return Case(step, [Wk, Wv, Wq, g], states(kit, (D, D), (D, D)), inputs(kit))


@literature
def delta_product(kit: Kit) -> Case:
    """DeltaProduct: Siems et al. 2025, arXiv:2502.10297."""
    Wk, Wv, Wb = kit.weight(IN, 2 * D), kit.weight(IN, 2 * D), kit.weight(IN, 2)

    def step(S: Any, x: Any) -> Any:
        ks = F.normalize((x @ Wk).view(-1, 2, D), dim=-1)
        vs = (x @ Wv).view(-1, 2, D)
        bs = 2 * torch.sigmoid(x @ Wb)
        for k, v, b in zip(ks.unbind(1), vs.unbind(1), bs.unbind(1), strict=True):
            S = (
                S
                - b[:, None, None] * k[:, :, None] @ (k[:, None] @ S)
                + b[:, None, None] * (k[:, :, None] @ v[:, None])
            )
        return S, S.flatten(1)

    return Case(step, [Wk, Wv, Wb], states(kit, (D, D)), inputs(kit))


@literature
def s5_bilinear(kit: Kit) -> Case:
    """S5 with a bilinear discretization: Smith et al. 2022, arXiv:2208.04933."""
    Lr, Li, ld = kit.weight(4), kit.weight(4), kit.weight(4)
    Bm, Cm = kit.weight(IN, 8), kit.weight(8, 3)

    def step(h: Any, x: Any) -> Any:
        dt = ld.exp()
        ar, ai = -Lr.exp() * dt / 2, Li * dt / 2
        den = (1 - ar) ** 2 + ai**2
        br, bi = (1 - ar**2 - ai**2) / den, 2 * ai / den
        hr, hi = h.unbind(-1)
        u = (x @ Bm).view(-1, 4, 2)
        h = torch.stack([br * hr - bi * hi, br * hi + bi * hr], -1) + u
        return h, h.flatten(-2) @ Cm

    return Case(step, [Lr, Li, ld, Bm, Cm], states(kit, (4, 2)), inputs(kit))


@literature
def variational_rnn(kit: Kit) -> Case:
    """A variational step with its noise in xs: Chung et al. 2015, arXiv:1506.02216."""
    enc, pri = kit.linear(IN + H, 2 * 3), kit.linear(H, 2 * 3)
    g = kit.module(nn.GRUCell, IN + 3, H)

    def step(h: Any, both: Any) -> Any:
        x, eps = both
        mu, ls = enc(torch.cat([x, h], -1)).chunk(2, -1)
        pm, pl = pri(h).chunk(2, -1)
        z = mu + ls.exp() * eps
        kl = (pl - ls + (ls.mul(2).exp() + (mu - pm) ** 2) / (2 * pl.mul(2).exp()) - 0.5).sum(-1)
        h = g(torch.cat([x, z], -1), h)
        return h, (z, kl)

    return Case(
        step,
        [*enc.parameters(), *pri.parameters(), *g.parameters()],
        states(kit, (H,)),
        lambda B: (kit.normal(B, IN), kit.normal(B, 3)),
    )


@literature
def rssm(kit: Kit) -> Case:
    """Categorical states, straight through: Hafner et al. 2020, arXiv:2010.02193."""
    linear = kit.linear(H + IN, 3 * 4)
    g = kit.module(nn.GRUCell, 12, H)

    def step(h: Any, x: Any) -> Any:
        lo = linear(torch.cat([h, x], -1)).view(-1, 3, 4)
        p = 0.99 * lo.softmax(-1) + 0.01 / 4
        z = F.one_hot(p.argmax(-1), 4) + p - p.detach()
        h = g(z.flatten(1).to(h.dtype), h)
        return h, (p.log() * p).sum((-1, -2))

    return Case(step, [*linear.parameters(), *g.parameters()], states(kit, (H,)), inputs(kit))


@literature
def learned_optimizer(kit: Kit) -> Case:
    """An LSTM for each coordinate: Andrychowicz et al. 2016, arXiv:1606.04474."""
    linear = kit.module(nn.LSTMCell, 2, 4)
    o = kit.linear(4, 1)

    def step(c: Any, g: Any) -> Any:
        th, h, cc = c
        f = torch.stack([g, g.sign() * torch.log(g.abs() + 1e-3)], -1).view(-1, 2)
        h, cc = linear(f, (h.reshape(-1, 4), cc.reshape(-1, 4)))
        th = th - 0.1 * o(h).view_as(th)
        return (th, h.view(-1, 3, 4), cc.view(-1, 3, 4)), th

    return Case(
        step,
        [*linear.parameters(), *o.parameters()],
        states(kit, (3,), (3, 4), (3, 4)),
        inputs(kit, 3),
    )


@literature
def sinkhorn(kit: Kit) -> Case:
    """Potentials of optimal transport: Cuturi 2013, arXiv:1306.0895."""

    def step(c: Any, x: Any) -> Any:
        f, g = c
        M = x
        f = -torch.logsumexp(g[:, None] - M, 2)
        g = -torch.logsumexp(f[:, :, None] - M, 1)
        return (f, g), (f.sum(-1) + g.sum(-1))

    return Case(step, [], states(kit, (3,), (4,)), inputs(kit, 3, 4))


@literature
def pointer_network(kit: Kit) -> Case:
    """Vinyals et al. 2015, arXiv:1506.03134; a mask in the carry."""
    W1, W2, v = kit.weight(4, 4), kit.weight(4, 4), kit.weight(4)
    g = kit.module(nn.GRUCell, 4, 4)

    def step(c: Any, x: Any) -> Any:
        h, E, mask = c
        s = (
            (torch.tanh(E @ W1 + (h @ W2).unsqueeze(1)) * v)
            .sum(-1)
            .masked_fill(mask, float("-inf"))
        )
        lp = s.log_softmax(-1)
        i = lp.argmax(-1)
        mask = mask | F.one_hot(i, 6).bool()
        inputs = E.gather(1, i.view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1)
        h = g(inputs, h)
        return (h, E, mask), lp.gather(1, i[:, None]).squeeze(1)

    return Case(
        step,
        [W1, W2, v, *g.parameters()],
        lambda B: (kit.normal(B, 4), kit.normal(B, 6, 4), torch.zeros(B, 6, dtype=torch.bool)),
        inputs(kit, 1),
    )


@literature
def location_attention(kit: Kit) -> Case:
    """Chorowski et al. 2015, arXiv:1506.07503."""
    conv = kit.module(nn.Conv1d, 2, 3, 3, padding=1, bias=False)
    W, U, v = kit.weight(4, 3), kit.weight(4, 3), kit.weight(3)

    def step(c: Any, x: Any) -> Any:
        h, E, a, cum = c
        loc = conv(torch.stack((a, cum), 1)).transpose(1, 2)
        e = torch.tanh(loc + E @ W + (h @ U).unsqueeze(1)) @ v
        a = e.softmax(-1)
        ctx = torch.bmm(a.unsqueeze(1), E).squeeze(1)
        return (torch.tanh(ctx + x), E, a, cum + a), ctx

    return Case(
        step,
        [*conv.parameters(), W, U, v],
        lambda B: (
            kit.normal(B, 4),
            kit.normal(B, 6, 4),
            kit.normal(B, 6).softmax(-1),
            kit.normal(B, 6).softmax(-1),
        ),
        inputs(kit, 4),
    )


@literature
def gmm_attention(kit: Kit) -> Case:
    """A window that moves: Graves 2013, arXiv:1308.0850."""
    linear = kit.linear(4, 3 * 2)
    pos = torch.arange(6.0)

    def step(c: Any, x: Any) -> Any:
        h, E, kap = c
        a, b, k = linear(h).chunk(3, -1)
        kap = kap + F.softplus(k)
        w = (a.exp()[..., None] * torch.exp(-b.exp()[..., None] * (kap[..., None] - pos) ** 2)).sum(
            1
        )
        return (torch.tanh((w[..., None] * E).sum(1) + x), E, kap), w

    return Case(
        step,
        [*linear.parameters()],
        lambda B: (kit.normal(B, 4), kit.normal(B, 6, 4), kit.uniform(B, 2)),
        inputs(kit, 4),
    )
