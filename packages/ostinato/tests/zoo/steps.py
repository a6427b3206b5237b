"""A zoo of step functions as PyTorch users write them: what the engine must play.

`ZOO[name](Kit(dtype))` makes a `Case`: a step with its parameters and makers of its inputs. F and H
are the kit's; nothing below is special to the sizes.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class Kit:
    """Makes the parameters and inputs of a case, the same for the same seed in every dtype."""

    def __init__(self, dtype: torch.dtype, F: int = 5, H: int = 8, seed: int = 0):
        self.dtype, self.F, self.H = dtype, F, H
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random, dtype=torch.float64).to(self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.random, dtype=torch.float64).to(self.dtype)

    def weight(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(self.normal(*shape) * 0.4 / math.sqrt(shape[0] / 4))

    def module(self, kind: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        made = kind(*args, **kwargs, dtype=self.dtype)
        for p in made.parameters():
            p.data = self.normal(*p.shape) * 0.4 / math.sqrt(max(p.shape[-1], 4) / 4)
        return made

    def linear(self, n_in: int, n_out: int, bias: bool = True) -> nn.Module:
        return self.module(nn.Linear, n_in, n_out, bias)


@dataclass
class Case:
    step: Callable[[Any, Any], Any]
    parameters: list[Tensor]
    init: Callable[[int], Any]  # init(B)
    x: Callable[[int], Any]  # x(B): one element of xs
    leaves: list[Tensor] = field(default_factory=list)  # whose gradients are wanted, if others

    @property
    def wanted(self) -> list[Tensor]:
        return self.leaves or self.parameters

    def xs(self, T: int, B: int) -> Any:
        """`[T, B, …]`, new tensors."""
        elements = [self.x(B) for _ in range(T)]
        return pytree.tree_map(lambda *at_t: torch.stack(at_t), *elements)


ZOO: dict[str, Callable[[Kit], Case]] = {}


def zoo(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
    ZOO[make.__name__] = make
    return make


def make(name: str, dtype: torch.dtype = torch.float64, F: int = 5, H: int = 8) -> Case:
    return ZOO[name](Kit(dtype, F, H, seed=zlib.crc32(name.encode())))


def states(kit: Kit, n: int = 1) -> Callable[[int], Any]:
    """A maker of n states [B, H]: a tensor, or a tuple if n > 1."""

    def init(B: int) -> Any:
        leaves = tuple(kit.normal(B, kit.H) * 0.3 for _ in range(n))
        return leaves[0] if n == 1 else leaves

    return init


def inputs(kit: Kit) -> Callable[[int], Tensor]:
    return lambda B: kit.normal(B, kit.F)


# ------------------------------------------------------------------------------------ plain RNNs


@zoo
def tanh_rnn_matmul(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W + b)

    return Case(step, [U, W, b], states(kit), inputs(kit))


@zoo
def relu_rnn_linear(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.H, kit.F), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return F.relu(F.linear(x, U, b) + F.linear(h, W))

    return Case(step, [U, W, b], states(kit), inputs(kit))


@zoo
def rnn_addmm(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(torch.addmm(b, x, U), h, W).tanh()

    return Case(step, [U, W, b], states(kit), inputs(kit))


@zoo
def rnn_addmm_scaled(kit: Kit) -> Case:
    W, b = kit.weight(kit.H, kit.H), kit.weight(kit.H)
    U = kit.linear(kit.F, kit.H, bias=False)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.addmm(U(x) + b, h, W.t(), beta=0.5, alpha=1.5))

    return Case(step, [W, b, *U.parameters()], states(kit), inputs(kit))


@zoo
def rnn_cat(kit: Kit) -> Case:
    W, b = kit.weight(kit.F + kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.cat([x, h], dim=-1) @ W + b)

    return Case(step, [W, b], states(kit), inputs(kit))


@zoo
def rnn_einsum(kit: Kit) -> Case:
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("bf,fh->bh", x, U) + torch.einsum("bi,oi->bo", h, W))

    return Case(step, [U, W], states(kit), inputs(kit))


@zoo
def rnn_in_place(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        a = x @ U
        a += h @ W
        a.add_(b).mul_(0.9)
        return a.tanh_()

    return Case(step, [U, W, b], states(kit), inputs(kit))


@zoo
def rnn_truncated(kit: Kit) -> Case:
    """Gradients through the projection only, none from step to step."""
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h.detach() @ W)

    return Case(step, [U, W], states(kit), inputs(kit))


@zoo
def rnn_cell_module(kit: Kit) -> Case:
    cell = kit.module(nn.RNNCell, kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return cell(x, h)

    return Case(step, list(cell.parameters()), states(kit), inputs(kit))


@zoo
def ind_rnn(kit: Kit) -> Case:
    U, u, b = kit.weight(kit.F, kit.H), kit.weight(kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.relu(x @ U + u * h + b)

    return Case(step, [U, u, b], states(kit), inputs(kit))


# ------------------------------------------------------------------------------------------- GRU


@zoo
def gru_reset_after(kit: Kit) -> Case:
    x_to_g, h_to_g = kit.linear(kit.F, 3 * kit.H), kit.linear(kit.H, 3 * kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        x_r, x_z, x_n = x_to_g(x).chunk(3, dim=-1)
        h_r, h_z, h_n = h_to_g(h).chunk(3, dim=-1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return (1 - z) * n + z * h

    return Case(step, [*x_to_g.parameters(), *h_to_g.parameters()], states(kit), inputs(kit))


@zoo
def gru_reset_before(kit: Kit) -> Case:
    U, W, Wn, b = (
        kit.weight(kit.F, 3 * kit.H),
        kit.weight(kit.H, 2 * kit.H),
        kit.weight(kit.H, kit.H),
        kit.weight(3 * kit.H),
    )
    H = kit.H

    def step(h: Tensor, x: Tensor) -> Tensor:
        from_x = x @ U + b
        gates = torch.sigmoid(from_x[:, : 2 * H] + h @ W)
        r, z = gates[:, :H], gates[:, H:]
        n = torch.tanh(from_x[:, 2 * H :] + (r * h) @ Wn)
        return torch.lerp(n, h, z)

    return Case(step, [U, W, Wn, b], states(kit), inputs(kit))


@zoo
def gru_cell_module(kit: Kit) -> Case:
    cell = kit.module(nn.GRUCell, kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return cell(x, h)

    return Case(step, list(cell.parameters()), states(kit), inputs(kit))


@zoo
def min_gru(kit: Kit) -> Case:
    to_z, to_h = kit.linear(kit.F, kit.H), kit.linear(kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = torch.sigmoid(to_z(x))
        return (1 - z) * h + z * to_h(x)

    return Case(step, [*to_z.parameters(), *to_h.parameters()], states(kit), inputs(kit))


# ------------------------------------------------------------------------------------------ LSTM


@zoo
def lstm_chunk(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.F, 4 * kit.H), kit.weight(kit.H, 4 * kit.H), kit.weight(4 * kit.H)

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = (x @ U + h @ W + b).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    return Case(step, [U, W, b], states(kit, 2), inputs(kit))


@zoo
def lstm_split(kit: Kit) -> Case:
    W, b = kit.weight(kit.F + kit.H, 4 * kit.H), kit.weight(4 * kit.H)
    H = kit.H

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = torch.split(torch.cat((x, h), 1) @ W + b, H, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h, c), h

    return Case(step, [W, b], states(kit, 2), inputs(kit))


@zoo
def lstm_unbind(kit: Kit) -> Case:
    W, b = kit.linear(kit.F + kit.H, 4 * kit.H, bias=False), kit.weight(4, kit.H)
    H = kit.H

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = (W(torch.cat((x, h), 1)).view(-1, 4, H) + b).unbind(1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h, c), h

    return Case(step, [*W.parameters(), b], states(kit, 2), inputs(kit))


@zoo
def lstm_peepholes(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.F, 4 * kit.H), kit.weight(kit.H, 4 * kit.H), kit.weight(4 * kit.H)
    to_i, to_f, to_o = kit.weight(kit.H), kit.weight(kit.H), kit.weight(kit.H)
    H = kit.H

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        a = x @ U + h @ W + b
        i = torch.sigmoid(a[:, :H] + to_i * c)
        f = torch.sigmoid(a[:, H : 2 * H] + to_f * c)
        c = f * c + i * torch.tanh(a[..., 2 * H : 3 * H])
        h = torch.sigmoid(a[:, 3 * H :] + to_o * c) * torch.tanh(c)
        return (h, c), h

    return Case(step, [U, W, b, to_i, to_f, to_o], states(kit, 2), inputs(kit))


@zoo
def lstm_projection(kit: Kit) -> Case:
    R = 3
    U, W, b = kit.weight(kit.F, 4 * kit.H), kit.weight(R, 4 * kit.H), kit.weight(4 * kit.H)
    P = kit.weight(kit.H, R)

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = (x @ U + h @ W + b).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = (o.sigmoid() * c.tanh()) @ P
        return (h, c), h

    return Case(step, [U, W, b, P], lambda B: (kit.normal(B, R), kit.normal(B, kit.H)), inputs(kit))


@zoo
def lstm_coupled_forget(kit: Kit) -> Case:
    """The input gate is one minus the forget gate; a bias of one on the latter."""
    U, W = kit.weight(kit.F, 3 * kit.H), kit.weight(kit.H, 3 * kit.H)

    def step(state: dict[str, Tensor], x: Tensor) -> Any:
        f, g, o = (x @ U + state["h"] @ W).chunk(3, 1)
        f = torch.sigmoid(f + 1.0)
        c = f * state["c"] + (1 - f) * g.tanh()
        h = o.sigmoid() * c.tanh()
        return {"h": h, "c": c}, h

    def init(B: int) -> dict[str, Tensor]:
        return {"h": kit.normal(B, kit.H), "c": kit.normal(B, kit.H)}

    return Case(step, [U, W], init, inputs(kit))


@zoo
def lstm_hard_gates(kit: Kit) -> Case:
    U, W = kit.weight(kit.F, 4 * kit.H), kit.weight(kit.H, 4 * kit.H)

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = (x @ U + h @ W).chunk(4, 1)
        i, f, o = (torch.clamp(gate * 0.2 + 0.5, 0.0, 1.0) for gate in (i, f, o))
        c = f * c + i * F.hardtanh(g)
        h = o * F.softsign(c)
        return (h, c), h

    return Case(step, [U, W], states(kit, 2), inputs(kit))


@zoo
def lstm_cell_module(kit: Kit) -> Case:
    cell = kit.module(nn.LSTMCell, kit.F, kit.H)

    def step(state: Any, x: Tensor) -> Any:
        return cell(x, state)

    return Case(step, list(cell.parameters()), states(kit, 2), inputs(kit))


@zoo
def min_lstm(kit: Kit) -> Case:
    to_f, to_i, to_h = (kit.linear(kit.F, kit.H) for _ in range(3))

    def step(c: Tensor, x: Tensor) -> Tensor:
        f, i = torch.sigmoid(to_f(x)), torch.sigmoid(to_i(x))
        total = f + i
        return f / total * c + i / total * to_h(x)

    parameters = [p for m in (to_f, to_i, to_h) for p in m.parameters()]
    return Case(step, parameters, states(kit), inputs(kit))


class LayerNormLSTM(nn.Module):
    def __init__(self, kit: Kit):
        super().__init__()
        self.from_x = kit.linear(kit.F, 4 * kit.H, bias=False)
        self.from_h = kit.linear(kit.H, 4 * kit.H, bias=False)
        self.norm_x = kit.module(nn.LayerNorm, 4 * kit.H)
        self.norm_h = kit.module(nn.LayerNorm, 4 * kit.H)
        self.norm_c = kit.module(nn.LayerNorm, kit.H)

    def forward(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = (self.norm_x(self.from_x(x)) + self.norm_h(self.from_h(h))).chunk(4, 1)
        c = self.norm_c(torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g))
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h


@zoo
def lstm_layer_norm(kit: Kit) -> Case:
    module = LayerNormLSTM(kit)
    return Case(module, list(module.parameters()), states(kit, 2), inputs(kit))


@zoo
def rnn_norm_by_hand(kit: Kit) -> Case:
    U, W, gain = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        a = x @ U + h @ W
        a = (a - a.mean(-1, keepdim=True)) / (a.std(-1, keepdim=True) + 1e-3)
        return torch.tanh(gain * a) / (1 + a.var(1, correction=0, keepdim=True))

    return Case(step, [U, W, gain], states(kit), inputs(kit))


@zoo
def lstm_rms_norm(kit: Kit) -> Case:
    U, W, gain = kit.weight(kit.F, 4 * kit.H), kit.weight(kit.H, 4 * kit.H), kit.weight(4 * kit.H)

    def rms_norm(a: Tensor) -> Tensor:
        return a * torch.rsqrt(a.pow(2).mean(-1, keepdim=True) + 1e-6)

    def step(state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = (rms_norm(x @ U + h @ W) * gain).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h, c), h

    return Case(step, [U, W, gain], states(kit, 2), inputs(kit))


@zoo
def rnn_rms_norm_module(kit: Kit) -> Case:
    norm = kit.module(nn.RMSNorm, kit.H)
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(norm(x @ U + h @ W))

    return Case(step, [U, W, *norm.parameters()], states(kit), inputs(kit))


@zoo
def slstm_stabilised(kit: Kit) -> Case:
    """Exponential gates, kept in range by a running maximum."""
    U, W, b = kit.weight(kit.F, 4 * kit.H), kit.weight(kit.H, 4 * kit.H), kit.weight(4 * kit.H)

    def step(state: Any, x: Tensor) -> Any:
        c, n, h, m = state
        z, i, f, o = (x @ U + h @ W + b).chunk(4, -1)
        log_f = F.logsigmoid(f)
        m_new = torch.maximum(log_f + m, i)
        i, f = torch.exp(i - m_new), torch.exp(log_f + m - m_new)
        c = f * c + i * torch.tanh(z)
        n = f * n + i
        h = torch.sigmoid(o) * c / n
        return (c, n, h, m_new), h

    def init(B: int) -> Any:
        return (
            kit.normal(B, kit.H),
            kit.uniform(B, kit.H) + 1,
            kit.normal(B, kit.H),
            kit.normal(B, kit.H),
        )

    return Case(step, [U, W, b], init, inputs(kit))


@zoo
def half_lives(kit: Kit) -> Case:
    """A leaky integrator whose units learn how often they halve in a step."""
    U, W, rate = kit.weight(kit.F, 2 * kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        new, often = (x @ U).chunk(2, -1)
        kept = torch.exp2(-F.softplus(often + rate))
        return kept * h + (1 - kept) * torch.tanh(new + h @ W)

    return Case(step, [U, W, rate], states(kit), inputs(kit))


# ----------------------------------------------------------------------------------------- others


@zoo
def cornn(kit: Kit) -> Case:
    dt, gamma, epsilon = 0.042, 2.7, 4.7
    to_force = kit.linear(kit.F + 2 * kit.H, kit.H)

    def step(state: Any, x: Tensor) -> Any:
        y, z = state
        force = torch.tanh(to_force(torch.cat((x, z, y), 1)))
        z = z + dt * (force - gamma * y - epsilon * z)
        y = y + dt * z
        return (y, z), y

    return Case(step, list(to_force.parameters()), states(kit, 2), inputs(kit))


@zoo
def lem(kit: Kit) -> Case:
    from_x, from_y, from_z = (
        kit.linear(kit.F, 4 * kit.H),
        kit.linear(kit.H, 3 * kit.H),
        kit.linear(kit.H, kit.H),
    )

    def step(state: Any, x: Tensor) -> Any:
        y, z = state
        x1, x2, xz, xy = from_x(x).chunk(4, 1)
        y1, y2, y3 = from_y(y).chunk(3, 1)
        dt_y, dt_z = 0.5 * torch.sigmoid(x1 + y1), 0.5 * torch.sigmoid(x2 + y2)
        z = (1.0 - dt_z) * z + dt_z * torch.tanh(xy + y3)
        y = (1.0 - dt_y) * y + dt_y * torch.tanh(from_z(z) + xz)
        return (y, z), y

    parameters = [p for m in (from_x, from_y, from_z) for p in m.parameters()]
    return Case(step, parameters, states(kit, 2), inputs(kit))


@zoo
def antisymmetric(kit: Kit) -> Case:
    U, V, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)
    damping = 0.01 * torch.eye(kit.H, dtype=kit.dtype)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return h + 0.1 * torch.tanh(x @ U + h @ (V - V.t() - damping) + b)

    return Case(step, [U, V, b], states(kit), inputs(kit))


@zoo
def antisymmetric_eye_inside(kit: Kit) -> Case:
    U, V = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        A = V.triu(1) - V.triu(1).T - 0.1 * torch.eye(V.shape[0], dtype=V.dtype)
        return h + 0.2 * torch.tanh(x @ U + h @ A)

    return Case(step, [U, V], states(kit), inputs(kit))


@zoo
def clockwork(kit: Kit) -> Case:
    """Each unit is updated where its clock ticks; the clock comes with xs."""
    U, W, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Any) -> Tensor:
        x, ticks = x
        return torch.where(ticks, torch.tanh(x @ U + h @ W + b), h)

    def x(B: int) -> Any:
        return kit.normal(B, kit.F), kit.uniform(B, kit.H) > 0.4

    return Case(step, [U, W, b], states(kit), x)


@zoo
def clockwork_counting(kit: Kit) -> Case:
    """The clock is a part of the carry: a phase that each unit advances."""
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)
    periods = 1.0 + torch.arange(kit.H, dtype=kit.dtype) % 3

    def step(carry: Any, x: Tensor) -> Any:
        h, phase = carry
        phase = phase + 1
        ticks = (phase >= periods).to(h.dtype)
        h = ticks * torch.tanh(x @ U + h @ W) + (1 - ticks) * h
        return (h, phase * (1 - ticks)), h

    def init(B: int) -> Any:
        return kit.normal(B, kit.H), torch.zeros(B, kit.H, dtype=kit.dtype)

    return Case(step, [U, W], init, inputs(kit))


@zoo
def leaky_integrator(kit: Kit) -> Case:
    U, W, rate = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        alpha = torch.sigmoid(rate)
        return (1 - alpha) * h + alpha * torch.tanh(x @ U + h @ W)

    return Case(step, [U, W, rate], states(kit), inputs(kit))


@zoo
def leaky_scalar_rate(kit: Kit) -> Case:
    """A rate of no dimensions, an input of one feature, a row vector as bias."""
    U, rate, b = kit.weight(1, kit.H), kit.weight(1), kit.weight(1, kit.H)
    rate = nn.Parameter(rate.data.reshape(()))

    def step(h: Tensor, x: Tensor) -> Tensor:
        return h + torch.exp(rate) * (torch.tanh(x @ U + b) - h) / 4

    return Case(step, [U, rate, b], states(kit), lambda B: kit.normal(B, 1))


@zoo
def stack_of_two(kit: Kit) -> Case:
    lower, upper = kit.module(nn.GRUCell, kit.F, kit.H), kit.module(nn.LSTMCell, kit.H, kit.H)

    def step(state: Any, x: Tensor) -> Any:
        a, b, c = state
        a = lower(x, a)
        b, c = upper(a, (b, c))
        return (a, b, c), b

    return Case(step, [*lower.parameters(), *upper.parameters()], states(kit, 3), inputs(kit))


@zoo
def stack_of_three(kit: Kit) -> Case:
    sizes = [kit.F, kit.H, kit.H, kit.H]
    layers = [
        (kit.weight(n_in, n_out), kit.weight(n_out, n_out), kit.weight(n_out))
        for n_in, n_out in itertools.pairwise(sizes)
    ]

    def step(state: Any, x: Tensor) -> Any:
        new = []
        for h, (U, W, b) in zip(state, layers, strict=True):
            x = torch.tanh(x @ U + h @ W + b)
            new.append(x)
        return new, x

    def init(B: int) -> list[Tensor]:
        return list(states(kit, 3)(B))

    return Case(step, [p for layer in layers for p in layer], init, inputs(kit))


@zoo
def mlp_gelu(kit: Kit) -> Case:
    up, down = kit.linear(kit.H, 2 * kit.H), kit.linear(2 * kit.H, kit.H)
    U = kit.weight(kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return h + 0.3 * down(F.gelu(up(h + x @ U)))

    return Case(step, [*up.parameters(), *down.parameters(), U], states(kit), inputs(kit))


@zoo
def mlp_gelu_tanh(kit: Kit) -> Case:
    up, down, U = kit.linear(kit.H, 12), kit.linear(12, kit.H), kit.weight(kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return 0.5 * h + 0.3 * down(F.gelu(up(h + x @ U), approximate="tanh"))

    return Case(step, [*up.parameters(), *down.parameters(), U], states(kit), inputs(kit))


@zoo
def mlp_silu_residual(kit: Kit) -> Case:
    mlp = nn.Sequential(kit.linear(kit.H, 11), nn.SiLU(), kit.linear(11, kit.H), nn.Tanh())
    U = kit.linear(kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Any:
        h = h + mlp(h + U(x)) / 2
        return h, F.silu(h)

    return Case(step, [*mlp.parameters(), *U.parameters()], states(kit), inputs(kit))


@zoo
def readout_per_step(kit: Kit) -> Case:
    """Outputs that are not the state: logits, and their softmax."""
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)
    V, b = kit.weight(kit.H, 3), kit.weight(3)

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(x @ U + h @ W)
        logits = h @ V + b
        return h, {"logits": logits, "p": torch.softmax(logits, -1)}

    return Case(step, [U, W, V, b], states(kit), inputs(kit))


@zoo
def feeds_back_its_output(kit: Kit) -> Case:
    """An Elman net whose readout is carried along: the carry's leaves differ in width."""
    U, W, V = kit.weight(kit.F, kit.H), kit.weight(3, kit.H), kit.weight(kit.H, 3)

    def step(carry: Any, x: Tensor) -> Any:
        out, h = carry
        h = torch.tanh(x @ U + out @ W + 0.5 * h)
        return (torch.log_softmax(h @ V, 1), h), h

    return Case(step, [U, W, V], lambda B: (kit.normal(B, 3), kit.normal(B, kit.H)), inputs(kit))


@zoo
def dropout_mask_tuple(kit: Kit) -> Case:
    U, W, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Any) -> Tensor:
        x, mask = x
        return torch.tanh(x @ U + (h * mask) @ W + b)

    def x(B: int) -> Any:
        return kit.normal(B, kit.F), (kit.uniform(B, kit.H) > 0.3).to(kit.dtype) / 0.7

    return Case(step, [U, W, b], states(kit), x)


@zoo
def zoneout_dict(kit: Kit) -> Case:
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

    def step(h: Tensor, x: dict[str, Tensor]) -> Tensor:
        new = torch.tanh(x["x"] @ U + h @ W)
        return torch.where(x["keep"] > 0.5, h, new)

    def x(B: int) -> Any:
        return {"x": kit.normal(B, kit.F), "keep": kit.uniform(B, 1)}

    return Case(step, [U, W], states(kit), x)


@zoo
def shared_twice(kit: Kit) -> Case:
    """One matrix in two places, once transposed, and one bias in both."""
    W, b, U = kit.weight(kit.H, kit.H), kit.weight(kit.H), kit.weight(kit.F, kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        a = torch.tanh(x @ U + h @ W + b)
        return torch.tanh(a @ W.t() + b)

    return Case(step, [W, b, U], states(kit), inputs(kit))


@zoo
def frozen_recurrence(kit: Kit) -> Case:
    """A reservoir: only the input's weights learn."""
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H).requires_grad_(False)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W)

    return Case(step, [U], states(kit), inputs(kit))


@zoo
def masked_weight(kit: Kit) -> Case:
    """A captured tensor that is not a leaf: the gradient must reach what it was made of."""
    V, U, scale = kit.weight(kit.H, kit.H), kit.weight(kit.F, kit.H), kit.weight(1)
    W = V * (kit.uniform(kit.H, kit.H) > 0.3).to(kit.dtype) * scale

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W)

    return Case(step, [], states(kit), inputs(kit), leaves=[V, U, scale])


@zoo
def weight_normed_inside(kit: Kit) -> Case:
    U, V, g = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        W = V * (g / V.norm(dim=0))
        return torch.tanh(x @ U + h @ W)

    return Case(step, [U, V, g], states(kit), inputs(kit))


@zoo
def highway(kit: Kit) -> Case:
    """An SRU: light recurrence with a highway to the output."""
    W, v, b = kit.weight(kit.F, 4 * kit.H), kit.weight(2 * kit.H), kit.weight(2 * kit.H)
    H = kit.H

    def step(c: Tensor, x: Tensor) -> Any:
        u, f, r, skip = (x @ W).chunk(4, -1)
        f = torch.sigmoid(f + v[:H] * c + b[:H])
        r = torch.sigmoid(r + v[H:] * c + b[H:])
        c = f * c + (1 - f) * u
        return c, r * c + (1 - r) * skip

    return Case(step, [W, v, b], states(kit), inputs(kit))


@zoo
def delay_line(kit: Kit) -> Case:
    """Leaves of the carry that are x itself, and the other leaf of one step before."""
    W = kit.weight(3 * kit.F, kit.H)

    def step(carry: Any, x: Tensor) -> Any:
        one, two = carry
        return (x, one), torch.cat([x, one, two], 1) @ W

    return Case(step, [W], lambda B: (kit.normal(B, kit.F), kit.normal(B, kit.F)), inputs(kit))


# ----------------------------------------------------------------------- functions of other kinds


def _leaky(h: Tensor, x: Tensor, U: Tensor, W: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x @ U + h @ W, slope)


@zoo
def partial_function(kit: Kit) -> Case:
    U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)
    return Case(functools.partial(_leaky, U=U, W=W, slope=0.2), [U, W], states(kit), inputs(kit))


class Elman(nn.Module):
    def __init__(self, kit: Kit):
        super().__init__()
        self.U, self.W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)
        self.gain = 0.8

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        return self._squash(x @ self.U + h @ self.W)

    def _squash(self, a: Tensor) -> Tensor:
        return torch.tanh(self.gain * a)


@zoo
def method_of_a_module(kit: Kit) -> Case:
    module = Elman(kit)
    return Case(module.step, list(module.parameters()), states(kit), inputs(kit))


class PlainObject:
    """Not a module: the step is a method of an ordinary object."""

    def __init__(self, kit: Kit):
        self.U, self.W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.U + h @ self.W)

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        return self(h, x)


@zoo
def method_of_an_object(kit: Kit) -> Case:
    plain = PlainObject(kit)
    return Case(plain.step, [plain.U, plain.W], states(kit), inputs(kit))


@zoo
def callable_object(kit: Kit) -> Case:
    plain = PlainObject(kit)
    return Case(plain, [plain.U, plain.W], states(kit), inputs(kit))


@zoo
def helper_functions(kit: Kit) -> Case:
    """A closure that calls closures that hold the weights."""
    U, W, b = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H), kit.weight(kit.H)

    def project(x: Tensor) -> Tensor:
        return x @ U + b

    def recur(h: Tensor) -> Tensor:
        return h @ W

    return Case(lambda h, x: torch.tanh(project(x) + recur(h)), [U, W, b], states(kit), inputs(kit))


# --------------------------------------------------------------- inputs and states of one width


# Of two square weights: values and gradients that fall together.
SQUARE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "x + h": lambda W, V: lambda h, x: torch.tanh(x + h),
    "h + x": lambda W, V: lambda h, x: h + x,
    "one weight": lambda W, V: lambda h, x: torch.tanh(x @ W + h @ W),
    "(x + h) W": lambda W, V: lambda h, x: torch.tanh((x + h) @ W),
    "linear": lambda W, V: lambda h, x: x @ W + h @ V,
    "x alone": lambda W, V: lambda h, x: torch.tanh(x @ W),
    "h alone": lambda W, V: lambda h, x: (torch.tanh(h @ W), x @ V),
    "x is the carry": lambda W, V: lambda h, x: (x, h @ W),
    "h stays": lambda W, V: lambda h, x: (h, h + x),
    "h comes out": lambda W, V: lambda h, x: (torch.tanh(h @ W + x), h),
    "x comes out": lambda W, V: lambda h, x: (torch.tanh(h @ W), x),
    "both and twice": lambda W, V: lambda h, x: (torch.tanh(h @ W + x), (h, x, h, x + h, x + h)),
    "x h": lambda W, V: lambda h, x: torch.tanh(x * h) @ W,
    "h h": lambda W, V: lambda h, x: torch.tanh(h * h + h @ W) + x,
    "h W h": lambda W, V: lambda h, x: torch.tanh(h * (h @ W) + x),
    "x (h W) V": lambda W, V: lambda h, x: torch.tanh(x * (h @ W)) @ V,
    "W V": lambda W, V: lambda h, x: torch.tanh(h @ (W @ V) + x),
    "W + V": lambda W, V: lambda h, x: torch.tanh(h @ (W + V.t()) + x @ (W * V)),
    "one column + x": lambda W, V: lambda h, x: x + h @ W[:, :1],
    "x + one column": lambda W, V: lambda h, x: torch.tanh(h @ V[:1].t() + x @ W),
    "one column of each": lambda W, V: lambda h, x: torch.tanh(x * (h @ V[:, 1:2]) + x @ W[:, :1]),
    "one row of x": lambda W, V: lambda h, x: (torch.tanh(h @ W + x[:, :1]), h - x[:, 3:]),
    "row of a weight": lambda W, V: lambda h, x: torch.tanh(h * W[0] + x * V[:, 1]),
}
# Of two square weights, for a carry of two.
PAIRS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "swap": lambda W, V: lambda s, x: ((s[1], s[0] + x), s[0]),
    "shift": lambda W, V: lambda s, x: ((torch.tanh(s[0] @ W + x), s[0]), s[1]),
    "the same twice": lambda W, V: lambda s, x: (torch.tanh(s[0] + s[1] + x),) * 2,
    "sums": lambda W, V: lambda s, x: ((s[0] + x, s[0]), s[0] - x),
    "crossed": lambda W, V: (
        lambda s, x: (
            torch.tanh(s[1] @ W + x),
            torch.sigmoid(s[0] @ W + s[1] @ V),
        )
    ),
    "one idle": lambda W, V: lambda s, x: ((torch.tanh(s[0] @ W + x), s[1]), s[0] * s[1]),
    "one zeroed": lambda W, V: lambda s, x: ((torch.tanh(s[0] @ W + x), s[1] * 0), s[1]),
    "one detached": lambda W, V: (
        lambda s, x: (
            (torch.tanh(s[0] @ W + x), 0.5 * s[1] + s[0].detach() @ V),
            s[1],
        )
    ),
}

# The new carry is a sum of products, which lies where an output does.
LINEAR: dict[str, Callable[..., Tensor]] = {
    "x last": lambda h, x, A, U, b: h @ A + x @ U,
    "x first": lambda h, x, A, U, b: x @ U + torch.tanh(h) @ A,
    "one product": lambda h, x, A, U, b: torch.cat([h, x], 1) @ torch.cat([A, U]),
    "with a bias": lambda h, x, A, U, b: torch.nn.functional.linear(x, U.t(), b) + h @ A,
    "twice": lambda h, x, A, U, b: (h @ A + x @ U) @ A + x @ U,
    "and the carry": lambda h, x, A, U, b: h + (h @ A + x @ U),
}


class Depth(nn.Module):
    """A module with every kind of thing a step may reach through one."""

    def __init__(self, kit: Kit):
        super().__init__()
        self.layers = nn.ModuleList([kit.linear(kit.H, kit.H) for _ in range(2)])
        self.scales = nn.ParameterList([kit.weight(kit.H) for _ in range(2)])
        self.named = nn.ParameterDict({"in": kit.weight(kit.F, kit.H)})
        self.register_buffer("mask", (kit.uniform(kit.H) > 0.3).to(kit.dtype))
        self.act = nn.ModuleDict({"tanh": nn.Tanh()})

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        h = h * self.mask + x @ self.named["in"]
        for layer, scale in zip(self.layers, self.scales, strict=True):
            h = self.act["tanh"](layer(h)) * scale
        return h
