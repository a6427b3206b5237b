"""Steps whose rows are arrays, as their authors write them: matrix states, heads, attention.

`MODERN[name](Kit(dtype))` makes a `Case`, as those of `zoo.steps`. Sizes are small, and all
different, so that an axis that is taken for another is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.steps import Case, Kit

MODERN: dict[str, Callable[[Kit], Case]] = {}

N_HEADS, D_KEY, D_VALUE = 2, 3, 4
IN, E = 5, 6  # features of an input; of a model


def modern(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
    MODERN[make.__name__] = make
    return make


def _inputs(kit: Kit, *shape: int) -> Callable[[int], Tensor]:
    return lambda B: kit.normal(B, *(shape or (IN,))) * 0.7


def _states(kit: Kit, *shapes: tuple[int, ...]) -> Callable[[int], Any]:
    def init(B: int) -> Any:
        leaves = tuple(kit.normal(B, *shape) * 0.3 for shape in shapes)
        return leaves[0] if len(leaves) == 1 else leaves

    return init


def _heads(x: Tensor, W: Tensor, d: int) -> Tensor:
    """`[B, heads, d]`"""
    return (x @ W).view(x.shape[0], N_HEADS, d)


# ---- linear attention, fast weights and their gates: states [B, heads, d_key, d_value]


class Projections:
    """q, k, v and gates of x."""

    def __init__(self, kit: Kit):
        keys, values = N_HEADS * D_KEY, N_HEADS * D_VALUE
        self.Wq, self.Wk, self.Wv = (
            kit.weight(IN, keys),
            kit.weight(IN, keys),
            kit.weight(IN, values),
        )
        self.Wg, self.Wb = kit.weight(IN, keys), kit.weight(IN, N_HEADS)
        self.all = [self.Wq, self.Wk, self.Wv]

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _heads(x, self.Wq, D_KEY), _heads(x, self.Wk, D_KEY), _heads(x, self.Wv, D_VALUE)

    def case(self, kit: Kit, step: Any, more: list[Tensor], *states: tuple[int, ...]) -> Case:
        states = states or ((N_HEADS, D_KEY, D_VALUE),)
        return Case(step, self.all + more, _states(kit, *states), _inputs(kit))


@modern
def linear_attention(kit: Kit) -> Case:
    """Katharopoulos et al. 2020, arXiv:2006.16236."""
    p = Projections(kit)

    def step(carry: Any, x: Tensor) -> Any:
        S, z = carry
        q, k, v = p.qkv(x)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        S = S + torch.einsum("bhk,bhv->bhkv", k, v)
        z = z + k
        y = torch.einsum("bhk,bhkv->bhv", q, S) / (torch.einsum("bhk,bhk->bh", q, z)[..., None] + 9)
        return (S, z), y.flatten(1)

    return p.case(kit, step, [], (N_HEADS, D_KEY, D_VALUE), (N_HEADS, D_KEY))


@modern
def retnet(kit: Kit) -> Case:
    """Sun et al. 2023, arXiv:2307.08621; a decay per head that is a constant."""
    p = Projections(kit)
    gamma = 1 - 2.0 ** (-5 - torch.arange(N_HEADS, dtype=kit.dtype))
    norm = kit.module(nn.GroupNorm, N_HEADS, N_HEADS * D_VALUE)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v = p.qkv(x)
        S = gamma[None, :, None, None] * S + k.unsqueeze(-1) * v.unsqueeze(-2)
        y = (q.unsqueeze(-2) @ S).squeeze(-2)
        return S, norm(y.reshape(x.shape[0], -1))

    return p.case(kit, step, list(norm.parameters()))


@modern
def gated_linear_attention(kit: Kit) -> Case:
    """GLA: Yang et al. 2023, arXiv:2312.06635."""
    p = Projections(kit)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v = p.qkv(x)
        a = torch.sigmoid(_heads(x, p.Wg, D_KEY)) ** (1 / 16)
        S = a[..., None] * S + k[..., None] * v[..., None, :]
        y = torch.matmul(q[:, :, None, :], S)[:, :, 0]
        return S, F.layer_norm(y, (D_VALUE,)).reshape(x.shape[0], -1)

    return p.case(kit, step, [p.Wg])


@modern
def hgrn2(kit: Kit) -> Case:
    """Qin et al. 2024, arXiv:2404.07904: the key is one minus the forget gate."""
    p = Projections(kit)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v = p.qkv(x)
        f = torch.sigmoid(k)
        S = f.unsqueeze(-1) * S + torch.einsum("bhi,bhj->bhij", 1 - f, v)
        return S, torch.einsum("bhi,bhij->bhj", q, S).reshape(-1, N_HEADS * D_VALUE)

    return p.case(kit, step, [])


@modern
def delta_net(kit: Kit) -> Case:
    """Schlag et al. 2021, arXiv:2102.11174; Yang et al. 2024, arXiv:2406.06484."""
    p = Projections(kit)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v = p.qkv(x)
        k = F.normalize(F.silu(k), dim=-1)
        beta = torch.sigmoid(x @ p.Wb)[:, :, None]
        old = torch.einsum("bhkv,bhk->bhv", S, k)
        S = S + torch.einsum("bhk,bhv->bhkv", k, beta * (v - old))
        return S, torch.einsum("bhkv,bhk->bhv", S, q).flatten(1)

    return p.case(kit, step, [p.Wb])


@modern
def gated_delta_net(kit: Kit) -> Case:
    """Yang et al. 2024, arXiv:2412.06464."""
    p = Projections(kit)
    A = kit.weight(N_HEADS)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v = p.qkv(x)
        k = k / k.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        g = torch.exp(-A.exp() * F.softplus(x @ p.Wb)).view(-1, N_HEADS, 1, 1)
        beta = torch.sigmoid(x @ p.Wb).unsqueeze(-1)
        S = S * g
        S = S + k.unsqueeze(-1) * ((v - (S * k.unsqueeze(-1)).sum(-2)) * beta).unsqueeze(-2)
        return S, (S * q.unsqueeze(-1)).sum(-2).flatten(1)

    return p.case(kit, step, [p.Wb, A])


@modern
def fast_weights(kit: Kit) -> Case:
    """Ba et al. 2016, arXiv:1610.06258: a fast matrix holds the past."""
    W, U = kit.weight(E, E), kit.weight(IN, E)
    gain, bias = kit.weight(E), kit.weight(E)

    def step(carry: Any, x: Tensor) -> Any:
        h, A = carry
        start = h @ W + x @ U
        A = 0.95 * A + 0.5 * torch.bmm(h.unsqueeze(2), h.unsqueeze(1))
        for _ in range(2):
            h = torch.relu(
                F.layer_norm(start + torch.bmm(h.unsqueeze(1), A).squeeze(1), (E,), gain, bias)
            )
        return h, A

    return Case(step, [W, U, gain, bias], _states(kit, (E,), (E, E)), _inputs(kit))


@modern
def ttt_linear(kit: Kit) -> Case:
    """Sun et al. 2024, arXiv:2407.04620: the state is a model that learns."""
    p = Projections(kit)
    scale, shift = kit.weight(N_HEADS, 1, D_VALUE), kit.weight(N_HEADS, 1, D_VALUE)

    def step(carry: Any, x: Tensor) -> Any:
        W, b = carry
        q, k, v = (t.unsqueeze(2) for t in p.qkv(x))
        z = k @ W + b
        mu = z.mean(-1, keepdim=True)
        std = torch.sqrt(z.var(-1, keepdim=True, unbiased=False) + 1e-3)
        normal = (z - mu) / std
        error = normal * scale + shift - v
        g = error * scale
        dz = (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) / std
        W = W - 0.1 * k.transpose(-1, -2) @ dz
        b = b - 0.1 * dz
        y = q @ W + b
        return (W, b), y.reshape(x.shape[0], -1)

    return p.case(kit, step, [scale, shift], (N_HEADS, D_KEY, D_VALUE), (N_HEADS, 1, D_VALUE))


# ---- xLSTM: Beck et al. 2024, arXiv:2405.04517


@modern
def mlstm(kit: Kit) -> Case:
    p = Projections(kit)
    Wf = kit.weight(IN, N_HEADS)

    def step(carry: Any, x: Tensor) -> Any:
        C, n, m = carry
        q, k, v = p.qkv(x)
        k = k / math.sqrt(D_KEY)
        i, f = x @ p.Wb, F.logsigmoid(x @ Wf)
        m_new = torch.maximum(f + m, i)
        i, f = torch.exp(i - m_new), torch.exp(f + m - m_new)
        C = f[:, :, None, None] * C + i[:, :, None, None] * (v[:, :, :, None] * k[:, :, None, :])
        n = f[:, :, None] * n + i[:, :, None] * k
        down = torch.maximum((n * q).sum(-1).abs(), torch.exp(-m_new))
        h = (C @ q[:, :, :, None]).squeeze(-1) / down[:, :, None]
        return (C, n, m_new), h.reshape(x.shape[0], -1)

    shapes = (N_HEADS, D_VALUE, D_KEY), (N_HEADS, D_KEY), (N_HEADS,)
    return p.case(kit, step, [p.Wb, Wf], *shapes)


@modern
def mlstm_einsum(kit: Kit) -> Case:
    p = Projections(kit)
    Wf = kit.weight(IN, N_HEADS)

    def step(carry: dict[str, Tensor], x: Tensor) -> Any:
        q, k, v = p.qkv(x)
        f, i = torch.sigmoid(x @ Wf), torch.exp(0.3 * (x @ p.Wb))
        C = f[..., None, None] * carry["C"] + i[..., None, None] * torch.einsum(
            "bhv,bhk->bhvk", v, k
        )
        n = f[..., None] * carry["n"] + i[..., None] * k
        below = torch.einsum("bhk,bhk->bh", n, q).abs().clamp(min=1.0)
        h = torch.einsum("bhvk,bhk->bhv", C, q) / below.unsqueeze(-1)
        return {"C": C, "n": n}, h.flatten(1)

    def init(B: int) -> Any:
        return {
            "C": kit.normal(B, N_HEADS, D_VALUE, D_KEY),
            "n": kit.normal(B, N_HEADS, D_KEY),
        }

    return Case(step, [*p.all, p.Wb, Wf], init, _inputs(kit))


@modern
def slstm_heads(kit: Kit) -> Case:
    """Recurrent weights of each head: a block-diagonal matrix [heads, D, 4 D]."""
    D = D_VALUE
    W, R = kit.weight(IN, 4 * N_HEADS * D), kit.weight(N_HEADS, D, 4 * D)
    b = kit.weight(4 * N_HEADS * D)

    def step(carry: Any, x: Tensor) -> Any:
        c, n, m, h = carry
        B = x.shape[0]
        recurrent = torch.einsum("bhd,hde->bhe", h.view(B, N_HEADS, D), R)
        gates = (x @ W + b).view(B, N_HEADS, 4 * D) + recurrent
        z, i, f, o = (g.reshape(B, -1) for g in gates.chunk(4, dim=-1))
        log_f = F.logsigmoid(f)
        m_new = torch.max(log_f + m, i)
        i, f = torch.exp(i - m_new), torch.exp(log_f + m - m_new)
        c = f * c + i * torch.tanh(z)
        n = f * n + i
        h = torch.sigmoid(o) * c / (n.abs() + 0.5)
        return (c, n, m_new, h), h

    return Case(step, [W, R, b], _states(kit, *((N_HEADS * D,),) * 4), _inputs(kit))


# ---- state spaces: states [B, D, N]

D, N = 4, 3


@modern
def s6(kit: Kit) -> Case:
    """Mamba: Gu and Dao 2023, arXiv:2312.00752."""
    A_log, skip = kit.weight(D, N), kit.weight(D)
    Wx, W_dt, W_B, W_C = kit.weight(IN, D), kit.weight(D, D), kit.weight(D, N), kit.weight(D, N)
    dt_bias = kit.weight(D)

    def step(h: Tensor, x: Tensor) -> Any:
        u = x @ Wx
        dt = F.softplus(u @ W_dt + dt_bias)
        A = -torch.exp(A_log)
        dA = torch.exp(dt.unsqueeze(-1) * A)
        dB = dt.unsqueeze(-1) * (u @ W_B).unsqueeze(1)
        h = dA * h + dB * u.unsqueeze(-1)
        y = (h @ (u @ W_C).unsqueeze(-1)).squeeze(-1) + skip * u
        return h, y

    return Case(
        step, [A_log, skip, Wx, W_dt, W_B, W_C, dt_bias], _states(kit, (D, N)), _inputs(kit)
    )


@modern
def mamba_block(kit: Kit) -> Case:
    """With the short convolution, whose window is a second state, and the gate."""
    A_log, conv, W_in = kit.weight(D, N), kit.weight(D, 3), kit.weight(IN, 2 * D)
    W_x, W_dt, W_out = kit.weight(D, 2 + 2 * N), kit.weight(2, D), kit.weight(D, E)

    def step(carry: Any, x: Tensor) -> Any:
        window, h = carry
        u, z = (x @ W_in).chunk(2, dim=-1)
        window = torch.cat([window[:, :, 1:], u.unsqueeze(-1)], dim=-1)
        u = F.silu((window * conv).sum(-1))
        dt, Bm, Cm = torch.split(u @ W_x, [2, N, N], dim=-1)
        dt = F.softplus(dt @ W_dt)
        h = torch.exp(torch.einsum("bd,dn->bdn", dt, -A_log.exp())) * h
        h = h + torch.einsum("bd,bn,bd->bdn", dt, Bm, u)
        y = torch.einsum("bdn,bn->bd", h, Cm)
        return (window, h), (y * F.silu(z)) @ W_out

    leaves = [A_log, conv, W_in, W_x, W_dt, W_out]
    return Case(step, leaves, _states(kit, (D, 3), (D, N)), _inputs(kit))


@modern
def mamba2(kit: Kit) -> Case:
    """Dao and Gu 2024, arXiv:2405.21060: one decay a head, states [B, heads, P, N]."""
    P = D_VALUE
    W = kit.weight(IN, N_HEADS * P + 2 * N + N_HEADS)
    A_log, skip, dt_bias = kit.weight(N_HEADS), kit.weight(N_HEADS), kit.weight(N_HEADS)

    def step(h: Tensor, x: Tensor) -> Any:
        u, Bm, Cm, dt = torch.split(x @ W, [N_HEADS * P, N, N, N_HEADS], dim=1)
        u = u.reshape(-1, N_HEADS, P)
        dt = F.softplus(dt + dt_bias)
        decay = torch.exp(dt * -torch.exp(A_log))
        update = torch.einsum("bh,bn,bhp->bhpn", dt, Bm, u)
        h = h * decay[:, :, None, None] + update
        y = torch.einsum("bhpn,bn->bhp", h, Cm) + skip[:, None] * u
        return h, y.reshape(x.shape[0], -1)

    return Case(step, [W, A_log, skip, dt_bias], _states(kit, (N_HEADS, P, N)), _inputs(kit))


@modern
def s4d_pairs(kit: Kit) -> Case:
    """Gu et al. 2022, arXiv:2206.11893: complex numbers as pairs of real tensors."""
    decay, angle = kit.weight(D, N), kit.weight(D, N)
    Wx, C_re, C_im = kit.weight(IN, D), kit.weight(D, N), kit.weight(D, N)

    def step(carry: Any, x: Tensor) -> Any:
        re, im = carry
        u = (x @ Wx)[:, :, None]
        size = torch.exp(-torch.exp(decay))
        a, b = size * torch.cos(angle), size * torch.sin(angle)
        re, im = a * re - b * im + u, a * im + b * re
        return (re, im), 2 * (C_re * re - C_im * im).sum(dim=-1)

    return Case(step, [decay, angle, Wx, C_re, C_im], _states(kit, (D, N), (D, N)), _inputs(kit))


@modern
def lru_pairs(kit: Kit) -> Case:
    """Orvieto et al. 2023, arXiv:2303.06349: the two parts in the last axis, [B, H, 2]."""
    nu, theta, W = kit.weight(E), kit.weight(E), kit.weight(IN, 2 * E)
    C = kit.weight(2 * E, 3)

    def step(h: Tensor, x: Tensor) -> Any:
        size = torch.exp(-torch.exp(nu))
        a, b = size * torch.cos(theta), size * torch.sin(theta)
        re, im = h[..., 0], h[..., 1]
        u = (x @ W).view(-1, E, 2)
        h = torch.stack([a * re - b * im, b * re + a * im], dim=-1) + u
        return h, h.flatten(1) @ C

    return Case(step, [nu, theta, W, C], _states(kit, (E, 2)), _inputs(kit))


# ---- RWKV: Peng et al. 2023 to 2025


@modern
def rwkv4(kit: Kit) -> Case:
    """arXiv:2305.13048: the running maximum keeps the exponentials small."""
    Wk, Wv, Wr, decay, bonus = (kit.weight(*s) for s in ((IN, E), (IN, E), (IN, E), (E,), (E,)))

    def step(carry: Any, x: Tensor) -> Any:
        a, b, p = carry
        k, v, r = x @ Wk, x @ Wv, torch.sigmoid(x @ Wr)
        q = torch.maximum(p, bonus + k)
        e1, e2 = torch.exp(p - q), torch.exp(bonus + k - q)
        y = r * (e1 * a + e2 * v) / (e1 * b.abs() + e2)
        w = -torch.exp(decay)
        q = torch.maximum(p + w, k)
        e1, e2 = torch.exp(p + w - q), torch.exp(k - q)
        return (e1 * a + e2 * v, e1 * b + e2, q), y

    return Case(step, [Wk, Wv, Wr, decay, bonus], _states(kit, (E,), (E,), (E,)), _inputs(kit))


@modern
def rwkv6(kit: Kit) -> Case:
    """arXiv:2404.05892: matrix states, a decay that depends on the data."""
    p = Projections(kit)
    bonus = kit.weight(N_HEADS, D_KEY)

    def step(S: Tensor, x: Tensor) -> Any:
        r, k, v = p.qkv(x)
        w = torch.exp(-torch.exp(_heads(x, p.Wg, D_KEY)))
        kv = k.unsqueeze(-1) @ v.unsqueeze(-2)
        y = r.unsqueeze(-2) @ (S + bonus.unsqueeze(-1) * kv)
        return w.unsqueeze(-1) * S + kv, y.flatten(1)

    return p.case(kit, step, [p.Wg, bonus])


@modern
def rwkv7(kit: Kit) -> Case:
    """arXiv:2503.14456: a generalized delta rule, states [B, heads, d_value, d_key]."""
    p = Projections(kit)
    Wa = kit.weight(IN, N_HEADS * D_KEY)

    def step(S: Tensor, x: Tensor) -> Any:
        r, k, v = p.qkv(x)
        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(_heads(x, p.Wg, D_KEY)))
        a = torch.sigmoid(_heads(x, Wa, D_KEY))
        kk = F.normalize(k, dim=-1)
        removed = (S @ -kk.unsqueeze(-1)) @ (kk * a).unsqueeze(-2)
        S = S * w.unsqueeze(-2) + removed + v.unsqueeze(-1) @ (k * a).unsqueeze(-2)
        return S, (S @ r.unsqueeze(-1)).squeeze(-1).reshape(x.shape[0], -1)

    return p.case(kit, step, [p.Wg, Wa], (N_HEADS, D_VALUE, D_KEY))


# ---- attention over what the carry, or an input, holds

S = 4  # places of a memory


@modern
def bahdanau(kit: Kit) -> Case:
    """arXiv:1409.0473: encoder states [B, S, E] in the carry; a GRU decoder."""
    W, U, v = kit.weight(E, D), kit.weight(E, D), kit.weight(D)
    cell = kit.module(nn.GRUCell, IN + E, E)

    def step(carry: Any, x: Tensor) -> Any:
        h, encoded = carry
        scores = torch.tanh(encoded @ U + (h @ W).unsqueeze(1)) @ v
        weights = torch.softmax(scores, dim=1)
        context = torch.bmm(weights.unsqueeze(1), encoded).squeeze(1)
        h = cell(torch.cat([x, context], -1), h)
        return (h, encoded), (h, weights)

    leaves = [W, U, v, *cell.parameters()]
    return Case(step, leaves, _states(kit, (E,), (S, E)), _inputs(kit))


@modern
def luong(kit: Kit) -> Case:
    """arXiv:1508.04025, the general score; encoder states as an input at every step."""
    cell, Wa, Wc = kit.module(nn.LSTMCell, IN, E), kit.weight(E, E), kit.weight(2 * E, E)

    def step(carry: Any, inputs: Any) -> Any:
        (h, c), (x, encoded) = carry, inputs
        h, c = cell(x, (h, c))
        scores = torch.einsum("be,bse->bs", h @ Wa, encoded)
        context = (scores.softmax(-1)[:, :, None] * encoded).sum(1)
        return (h, c), torch.tanh(torch.cat((context, h), 1) @ Wc)

    def x(B: int) -> Any:
        return kit.normal(B, IN), kit.normal(B, S, E)

    return Case(step, [*cell.parameters(), Wa, Wc], _states(kit, (E,), (E,)), x)


@modern
def multihead_cross_attention(kit: Kit) -> Case:
    Wq, Wk, Wv, Wo = kit.weight(E, E), kit.weight(E, E), kit.weight(E, E), kit.weight(E, E)
    W = kit.weight(IN, E)

    def step(carry: Any, x: Tensor) -> Any:
        h, memory = carry
        B = x.shape[0]
        q = ((h + x @ W) @ Wq).view(B, 1, N_HEADS, E // N_HEADS).transpose(1, 2)
        k = (memory @ Wk).view(B, S, N_HEADS, E // N_HEADS).transpose(1, 2)
        v = (memory @ Wv).view(B, S, N_HEADS, E // N_HEADS).transpose(1, 2)
        a = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(E // N_HEADS), dim=-1)
        y = (a @ v).transpose(1, 2).reshape(B, E)
        return (torch.tanh(h + y @ Wo), memory), y

    return Case(step, [Wq, Wk, Wv, Wo, W], _states(kit, (E,), (S, E)), _inputs(kit))


@modern
def rolling_attention(kit: Kit) -> Case:
    """A window of the last S inputs, in the carry: scaled_dot_product_attention over it."""
    Wq, Wk, Wv = kit.weight(IN, E), kit.weight(IN, E), kit.weight(IN, E)

    def step(window: Tensor, x: Tensor) -> Any:
        window = torch.cat([window[:, 1:], x[:, None]], dim=1)
        q, k, v = (x @ Wq)[:, None], window @ Wk, window @ Wv
        a = F.softmax(torch.matmul(q, k.mT) / E**0.5, -1)
        return window, torch.matmul(a, v)[:, 0]

    return Case(step, [Wq, Wk, Wv], _states(kit, (S, IN)), _inputs(kit))


@modern
def ntm(kit: Kit) -> Case:
    """Graves et al. 2014, arXiv:1410.5401: content addressing, interpolation, erase and add."""
    W, Wk, We, Wa, Wg = (kit.weight(*s) for s in ((IN + D, E), (E, D), (E, D), (E, D), (E, 2)))

    def step(carry: Any, x: Tensor) -> Any:
        memory, weights, read = carry
        h = torch.tanh(torch.cat([x, read], 1) @ W)
        key = h @ Wk
        g = torch.sigmoid(h @ Wg)
        match = F.cosine_similarity(memory, key.unsqueeze(1), dim=-1, eps=1e-6)
        content = F.softmax(match * (1 + 3 * g[:, :1]), dim=1)
        weights = g[:, 1:] * content + (1 - g[:, 1:]) * weights
        erase, add = torch.sigmoid(h @ We), torch.tanh(h @ Wa)
        w = weights.unsqueeze(-1)
        memory = memory * (1 - w * erase.unsqueeze(1)) + w * add.unsqueeze(1)
        read = (weights.unsqueeze(1) @ memory).squeeze(1)
        return (memory, weights, read), read

    return Case(step, [W, Wk, We, Wa, Wg], _states(kit, (S, D), (S,), (D,)), _inputs(kit))


@modern
def slot_attention(kit: Kit) -> Case:
    """Locatello et al. 2020, arXiv:2006.15055: slots compete for the places of an input."""
    Wq, Wk, Wv = kit.weight(E, E), kit.weight(IN, E), kit.weight(IN, E)
    cell = kit.module(nn.GRUCell, E, E)
    norm = kit.module(nn.LayerNorm, E)

    def step(slots: Tensor, x: Tensor) -> Tensor:
        B, n_slots, _ = slots.shape
        q, k, v = norm(slots) @ Wq, x @ Wk, x @ Wv
        a = torch.softmax(torch.einsum("bsd,bnd->bsn", q, k) / E**0.5, dim=1) + 1e-3
        a = a / a.sum(-1, keepdim=True)
        updates = torch.einsum("bsn,bnd->bsd", a, v)
        new = cell(updates.reshape(-1, E), slots.reshape(-1, E))
        return new.view(B, n_slots, E)

    leaves = [Wq, Wk, Wv, *cell.parameters(), norm.weight]  # of its bias the softmax is independent
    return Case(step, leaves, _states(kit, (3, E)), _inputs(kit, S, IN))


@modern
def soft_experts(kit: Kit) -> Case:
    """Jordan and Jacobs 1994: every expert computes, a gate weights them."""
    n = 3
    W, b, G = kit.weight(n, IN + E, E), kit.weight(n, E), kit.weight(IN + E, n)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = torch.cat([x, h], dim=1)
        gate = torch.softmax(z @ G, dim=-1)
        experts = torch.tanh(torch.einsum("bi,nij->bnj", z, W) + b)
        return torch.einsum("bn,bnj->bj", gate, experts)

    return Case(step, [W, b, G], _states(kit, (E,)), _inputs(kit))


@modern
def recurrent_independent_mechanisms(kit: Kit) -> Case:
    """In the manner of Goyal et al. 2019, arXiv:1909.10893: modules that read each other."""
    n = 3
    Wx, Wh = kit.weight(n, IN, E), kit.weight(n, E, E)
    Wq, Wk = kit.weight(E, D), kit.weight(E, D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        own = torch.tanh(torch.einsum("bi,nij->bnj", x, Wx) + torch.einsum("bni,nij->bnj", h, Wh))
        a = torch.softmax((own @ Wq) @ (own @ Wk).transpose(1, 2), dim=-1)
        return own + 0.1 * a @ own

    return Case(step, [Wx, Wh, Wq, Wk], _states(kit, (n, E)), _inputs(kit))


# ---- graphs: states [B, nodes, H]


def _adjacency(kit: Kit, n: int) -> Tensor:
    A = kit.uniform(n, n) + torch.eye(n, dtype=kit.dtype)
    return A / A.sum(-1, keepdim=True)


@modern
def graph_gru(kit: Kit) -> Case:
    """A convolution over a fixed graph in each gate: Li et al. 2017, arXiv:1707.01926."""
    A = _adjacency(kit, S)
    W, W_new = kit.weight(2 + D, 2 * D), kit.weight(2 + D, D)
    b, b_new = kit.weight(2 * D), kit.weight(D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z, r = torch.sigmoid(A @ torch.cat([x, h], -1) @ W + b).chunk(2, dim=-1)
        new = torch.tanh(A @ torch.cat([x, r * h], -1) @ W_new + b_new)
        return z * h + (1 - z) * new

    return Case(step, [W, W_new, b, b_new], _states(kit, (S, D)), _inputs(kit, S, 2))


@modern
def graph_learned(kit: Kit) -> Case:
    """An adjacency made of embeddings of the nodes: Bai et al. 2020, arXiv:2007.02842."""
    nodes, W, U = kit.weight(S, 2), kit.weight(D, D), kit.weight(2, D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        A = torch.softmax(torch.relu(nodes @ nodes.T), dim=1)
        return torch.tanh(torch.einsum("ij,bjd->bid", A, h @ W) + x @ U)

    return Case(step, [nodes, W, U], _states(kit, (S, D)), _inputs(kit, S, 2))


@modern
def graph_attention(kit: Kit) -> Case:
    """Veličković et al. 2018, arXiv:1710.10903, on a fixed graph."""
    mask = torch.eye(S, dtype=torch.bool) | (torch.arange(S)[:, None] < torch.arange(S))
    W, a_to, a_from, U = kit.weight(D, D), kit.weight(D, 1), kit.weight(D, 1), kit.weight(2, D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = h @ W + x @ U
        e = F.leaky_relu(z @ a_to + (z @ a_from).transpose(1, 2), 0.2)
        a = torch.softmax(e.masked_fill(~mask, float("-inf")), dim=-1)
        return torch.tanh(a @ z)

    return Case(step, [W, a_to, a_from, U], _states(kit, (S, D)), _inputs(kit, S, 2))


# ---- filters and dynamic programs


@modern
def kalman(kit: Kit) -> Case:
    """Kalman 1960, with a measurement of one number: no matrix is inverted."""
    A, H, Q = kit.weight(3, 3), kit.weight(1, 3), torch.eye(3, dtype=kit.dtype) * 0.1

    def step(carry: Any, z: Tensor) -> Any:
        m, P = carry
        m = (A @ m.unsqueeze(-1)).squeeze(-1)
        P = A @ P @ A.T + Q
        innovation = z - (H @ m.unsqueeze(-1)).squeeze(-1)
        s = (H @ P @ H.T) + 1.5
        K = P @ H.T / s
        m = m + (K @ innovation.unsqueeze(-1)).squeeze(-1)
        P = (torch.eye(3, dtype=kit.dtype) - K @ H) @ P
        return (m, P), m

    def init(B: int) -> Any:
        root = kit.normal(B, 3, 3) * 0.3
        return kit.normal(B, 3), root @ root.transpose(1, 2)

    return Case(step, [A, H], init, _inputs(kit, 1))


@modern
def hmm_forward(kit: Kit) -> Case:
    """Rabiner 1989: log p(x₁ … x_t, state)."""
    transitions = kit.weight(S, S)

    def step(alpha: Tensor, emission: Tensor) -> Tensor:
        log_A = torch.log_softmax(transitions, dim=-1)
        return torch.logsumexp(alpha.unsqueeze(2) + log_A, dim=1) + emission

    return Case(step, [transitions], _states(kit, (S,)), _inputs(kit, S))


@modern
def crf_forward(kit: Kit) -> Case:
    """Lafferty et al. 2001, with the partition function as an output."""
    T, end = kit.weight(S, S), kit.weight(S)

    def step(alpha: Tensor, emission: Tensor) -> Any:
        alpha = torch.logsumexp(alpha[:, :, None] + T[None, :, :] + emission[:, None, :], 1)
        return alpha, torch.logsumexp(alpha + end, -1, keepdim=True)

    return Case(step, [T, end], _states(kit, (S,)), _inputs(kit, S))


@modern
def viterbi_values(kit: Kit) -> Case:
    T = kit.weight(S, S)

    def step(best: Tensor, emission: Tensor) -> Tensor:
        return (best.unsqueeze(-1) + T).amax(1) + emission

    return Case(step, [T], _states(kit, (S,)), _inputs(kit, S))


# ---- weights of each row


@modern
def hypernetwork(kit: Kit) -> Case:
    """Ha et al. 2016, arXiv:1609.09106: a small network makes the weights of a large one."""
    Wz, Uz, make = kit.weight(IN, 3), kit.weight(D, 3), kit.weight(3, D * D)
    U = kit.weight(IN, D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = torch.tanh(x @ Wz + h @ Uz)
        W = (z @ make).view(-1, D, D)
        return torch.tanh(torch.bmm(h.unsqueeze(1), W).squeeze(1) + x @ U)

    return Case(step, [Wz, Uz, make, U], _states(kit, (D,)), _inputs(kit))


@modern
def min_gru_log(kit: Kit) -> Case:
    """Feng et al. 2024, arXiv:2410.01201: the recurrence in log space."""
    Wz, Wh = kit.weight(IN, E), kit.weight(IN, E)

    def step(log_h: Tensor, x: Tensor) -> Any:
        k, v = x @ Wz, x @ Wh
        log_z, log_keep = -F.softplus(-k), -F.softplus(k)
        log_g = torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v))
        log_h = torch.logaddexp(log_keep + log_h, log_z + log_g)
        return log_h, log_h.exp()

    return Case(step, [Wz, Wh], _states(kit, (E,)), _inputs(kit))


@modern
def tensor_lstm_groups(kit: Kit) -> Case:
    """Group LSTM: Kuchaiev and Ginsburg 2017, arXiv:1703.10722; gates by bmm over groups."""
    n, d = 2, 3
    W = kit.weight(n, IN + d, 4 * d)

    def step(carry: Any, x: Tensor) -> Any:
        h, c = carry
        z = torch.cat([x.unsqueeze(1).expand(-1, n, -1), h], dim=-1)
        gates = torch.bmm(z.transpose(0, 1), W).transpose(0, 1)
        i, f, g, o = gates.split(d, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h.flatten(1)

    return Case(step, [W], _states(kit, (n, d), (n, d)), _inputs(kit))


@modern
def hopfield(kit: Kit) -> Case:
    """Ramsauer et al. 2020, arXiv:2008.02217: captured patterns that all rows share."""
    patterns, U = kit.weight(S, E), kit.weight(IN, E)

    def step(h: Tensor, x: Tensor) -> Tensor:
        q = h + x @ U
        return F.softmax(2.0 * q @ patterns.T, dim=-1) @ patterns

    return Case(step, [patterns, U], _states(kit, (E,)), _inputs(kit))


@modern
def power_iteration(kit: Kit) -> Case:
    """Oja 1982 for a subspace: states [B, E, 2], made orthogonal by Gram and Schmidt."""

    U = kit.weight(IN, E)

    def step(Q: Tensor, x: Tensor) -> Tensor:
        x = x @ U
        Q = Q + 0.1 * x[:, :, None] * (x[:, None, :] @ Q)
        a, b = Q[:, :, 0], Q[:, :, 1]
        a = a / a.norm(dim=1, keepdim=True)
        b = b - (a * b).sum(1, keepdim=True) * a
        b = b / b.norm(dim=1, keepdim=True)
        return torch.stack([a, b], dim=2)

    return Case(step, [U], _states(kit, (E, 2)), _inputs(kit))


@modern
def tree_sum_of_experts(kit: Kit) -> Case:
    """A product-key memory with soft reads: keys [2, n, d] captured, values [n · n, E]."""
    keys, values, W = kit.weight(2, 3, D), kit.weight(9, E), kit.weight(IN + E, 2 * D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        q = (torch.cat([x, h], 1) @ W).view(-1, 2, D)
        scores = torch.einsum("bpd,pnd->bpn", q, keys)
        both = scores[:, 0, :, None] + scores[:, 1, None, :]
        return torch.tanh(h + both.flatten(1).softmax(-1) @ values)

    return Case(step, [keys, values, W], _states(kit, (E,)), _inputs(kit))


# ---- convolutions: states [B, channels, …]


@modern
def conv_lstm(kit: Kit) -> Case:
    """Shi et al. 2015, arXiv:1506.04214."""
    conv = kit.module(nn.Conv2d, 2 + 3, 4 * 3, 3, padding=1)

    def step(carry: Any, x: Tensor) -> Any:
        h, c = carry
        i, f, o, g = conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h

    shape = (3, 4, 5)
    return Case(step, list(conv.parameters()), _states(kit, shape, shape), _inputs(kit, 2, 4, 5))


@modern
def conv_gru_1d(kit: Kit) -> Case:
    """Ballas et al. 2015, arXiv:1511.06432, along one axis; dilated, in groups."""
    gates, new = kit.weight(2 * D, 2 + D, 3), kit.weight(D, (2 + D) // 2, 3)
    b = kit.weight(D)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z, r = torch.sigmoid(F.conv1d(torch.cat([x, h], 1), gates, padding=1)).chunk(2, 1)
        n = F.conv1d(torch.cat([x, r * h], 1), new, b, padding=2, dilation=2, groups=2)
        return z * h + (1 - z) * torch.tanh(n)

    return Case(step, [gates, new, b], _states(kit, (D, 7)), _inputs(kit, 2, 7))


@modern
def cellular_automaton(kit: Kit) -> Case:
    """Mordvintsev et al. 2020: fixed filters for each channel, then a network at each cell."""
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=kit.dtype) / 8
    filters = torch.stack([sobel, sobel.T]).repeat(3, 1, 1)[:, None]
    one, two = kit.weight(8, 9, 1, 1), kit.weight(3, 8, 1, 1)

    def step(h: Tensor, x: Tensor) -> Tensor:
        seen = torch.cat([h, F.conv2d(h, filters, padding=1, groups=3)], 1)
        return h + F.conv2d(F.relu(F.conv2d(seen, one)), two) * x[:, :, None, None]

    return Case(step, [one, two], _states(kit, (3, 3, 4)), _inputs(kit, 1))


@modern
def strided_reader(kit: Kit) -> Case:
    """A recurrence over images that are read by strided convolutions and a pooling."""
    conv, W, U = kit.module(nn.Conv2d, 1, 3, (3, 2), (2, 1)), kit.weight(3, E), kit.weight(E, E)

    def step(h: Tensor, x: Tensor) -> Tensor:
        seen = F.relu(conv(x)).mean((2, 3))
        return torch.tanh(seen @ W + h @ U)

    leaves = [*conv.parameters(), W, U]
    return Case(step, leaves, _states(kit, (E,)), _inputs(kit, 1, 6, 5))


# ---- parts of steps, each once


@modern
def sdpa_module(kit: Kit) -> Case:
    """nn.MultiheadAttention over a memory in the carry, without its weights: fused in PyTorch."""
    attend, W = kit.module(nn.MultiheadAttention, E, N_HEADS, batch_first=True), kit.weight(IN, E)

    def step(carry: Any, x: Tensor) -> Any:
        h, memory = carry
        y, _ = attend((h + x @ W).unsqueeze(1), memory, memory, need_weights=False)
        return (torch.tanh(y[:, 0]), memory), y[:, 0]

    return Case(step, [*attend.parameters(), W], _states(kit, (E,), (S, E)), _inputs(kit))


@modern
def sdpa_causal(kit: Kit) -> Case:
    """Attention within a window that may not look ahead, and one with a mask."""
    W, mask = kit.weight(IN, E), torch.tensor([[True, True, False, True]])

    def step(window: Tensor, x: Tensor) -> Any:
        window = torch.cat([window[:, 1:], (x @ W)[:, None]], dim=1)
        split = window.view(-1, S, N_HEADS, E // N_HEADS).transpose(1, 2)
        y = F.scaled_dot_product_attention(split, split, split, is_causal=True)
        z = F.scaled_dot_product_attention(y, split, split, attn_mask=mask, scale=0.7)
        return window, z.transpose(1, 2).reshape(-1, S, E)

    return Case(step, [W], _states(kit, (S, E)), _inputs(kit))


@modern
def transformer_layer(kit: Kit) -> Case:
    layer = kit.module(nn.TransformerEncoderLayer, E, N_HEADS, 8, 0.0, batch_first=True)
    leaves = [p for name, p in layer.named_parameters() if not name.endswith("in_proj_bias")]

    def step(slots: Tensor, x: Tensor) -> Tensor:
        return layer(slots + x[:, None])

    return Case(step, leaves, _states(kit, (3, E)), _inputs(kit, E))


@modern
def triangles_and_diagonals(kit: Kit) -> Case:
    W = kit.weight(IN, D)

    def step(P: Tensor, x: Tensor) -> Any:
        u = x @ W
        P = torch.tril(0.9 * P + u[:, :, None] * u[:, None]) + torch.diag_embed(u)
        return P + 0.1 * torch.triu(P.mT, 1), P.diagonal(dim1=1, dim2=2)

    return Case(step, [W], _states(kit, (D, D)), _inputs(kit))


@modern
def largest_and_its_place(kit: Kit) -> Case:
    """max over an axis that is not the last, and gather and scatter along it."""
    W = kit.weight(IN, 2 * D)

    def step(M: Tensor, x: Tensor) -> Any:
        value, place = M.max(dim=1)
        u = (x @ W).view(-1, 2, D)
        M = M.scatter_add(1, place.unsqueeze(1).expand(-1, 2, -1), u)
        seen = torch.gather(M, 1, place.unsqueeze(1))
        return torch.tanh(M + 0.1 * seen), value

    return Case(step, [W], _states(kit, (S, D)), _inputs(kit))


@modern
def pooled(kit: Kit) -> Case:
    U = kit.weight(6, 6)

    def step(h: Tensor, x: Tensor) -> Tensor:
        seen = F.avg_pool2d(x, (2, 3), (2, 2)).flatten(1)
        return torch.tanh(seen + F.avg_pool1d(h[:, None], 3, 1, 1).squeeze(1) @ U)

    return Case(step, [U], _states(kit, (6,)), _inputs(kit, 2, 3, 8))
