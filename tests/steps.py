"""A zoo of step functions as PyTorch users write them, and the loop they are compared with.

`ZOO[name](Kit(dtype))` makes a `Case`: a step with its parameters and makers of its inputs. F and H
are the kit's; nothing below is special to the sizes.
"""

from __future__ import annotations

import functools
import math
import sys
import types
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

ENGINES = ("native", "reference", "eager")


class Kit:
    """Makes the parameters and inputs of a case, the same for the same seed in every dtype."""

    def __init__(self, dtype: torch.dtype, F: int = 5, H: int = 8, seed: int = 0):
        self.dtype, self.F, self.H = dtype, F, H
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random, dtype=torch.float64).to(self.dtype)

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


ZOO: dict[str, Callable[[Kit], Case]] = {}  # the engine must play these
WILD: dict[str, Callable[[Kit], Case]] = {}  # the loop may play these, and says so


def zoo(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
    ZOO[make.__name__] = make
    return make


def wild(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
    WILD[make.__name__] = make
    return make


def make(name: str, dtype: torch.dtype = torch.float64, F: int = 5, H: int = 8) -> Case:
    return (ZOO | WILD)[name](Kit(dtype, F, H, seed=zlib.crc32(name.encode())))


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

    return Case(
        step, [U, W, b, P], lambda B: (kit.normal(B, R), kit.normal(B, kit.H)), inputs(kit)
    )


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
        for n_in, n_out in zip(sizes, sizes[1:], strict=False)
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
    return Case(
        functools.partial(_leaky, U=U, W=W, slope=0.2), [U, W], states(kit), inputs(kit)
    )


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

    return Case(
        lambda h, x: torch.tanh(project(x) + recur(h)), [U, W, b], states(kit), inputs(kit)
    )


# ------------------------------------------------------------------ steps that the loop may play


@wild
def heads(kit: Kit) -> Case:
    """A block-diagonal recurrence, one block a head."""
    n = 2
    U, W = kit.weight(kit.F, kit.H), kit.weight(n, kit.H // n, kit.H // n)
    H = kit.H

    def step(h: Tensor, x: Tensor) -> Tensor:
        by_head = torch.einsum("bni,nio->bno", h.view(-1, n, H // n), W)
        return torch.tanh(x @ U + by_head.reshape(-1, H))

    return Case(step, [U, W], states(kit), inputs(kit))


def _wild(
    name: str, formula: Callable[[Tensor, Tensor, Tensor], Any]
) -> Callable[[Kit], Case]:
    """A step that does something odd to `a = tanh(x U + h W)`, given (a, h, x U)."""

    def make_case(kit: Kit) -> Case:
        U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

        def step(h: Tensor, x: Tensor) -> Any:
            from_x = x @ U
            return formula(torch.tanh(from_x + h @ W), h, from_x)

        # A code object of its own for each, as if each had been written out.
        step.__code__ = step.__code__.replace(co_name=name)
        return Case(step, [U, W], states(kit), inputs(kit))

    return make_case


def _clipped_gradient(a: Tensor) -> Tensor:
    if a.requires_grad:
        a.register_hook(lambda g: g.clamp(-0.1, 0.1))
    return a


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return grad * (a.abs() < 0.5)


def _overwritten(a: Tensor) -> Tensor:
    a = a.clone()
    a[:, 1:3] = 2 * a[:, 0:2]
    a[0] = 0.5
    return a


def _without_gradient(a: Tensor) -> Tensor:
    with torch.no_grad():
        return 3 * a


_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    # the rows of the batch are not independent
    "batch_mean": lambda a, h, x: a - a.mean(0),
    "batch_mean_kept": lambda a, h, x: a - a.mean(0, keepdim=True),
    "batch_std": lambda a, h, x: a / (1 + a.std(0, unbiased=False)),
    "batch_softmax": lambda a, h, x: torch.softmax(a, 0),
    "batch_cumsum": lambda a, h, x: a.cumsum(0) / 4,
    "batch_norm_of_all": lambda a, h, x: a / a.norm(),
    "batch_sum_of_all": lambda a, h, x: a / (1 + a.square().sum()),
    "batch_max_of_all": lambda a, h, x: a / a.abs().max(),
    "batch_flip": lambda a, h, x: a.flip(0),
    "batch_roll": lambda a, h, x: a.roll(1, 0),
    "batch_first_row": lambda a, h, x: a + a[0],
    "batch_last_row": lambda a, h, x: a + a[-1:],
    "batch_gram": lambda a, h, x: (a @ a.t()) @ a / 4,
    "batch_halves": lambda a, h, x: torch.cat(a.chunk(2, 0)[::-1], 0),
    "batch_in_reshape": lambda a, h, x: a.t().reshape(a.shape),
    # the size of the batch as a number
    "batch_length": lambda a, h, x: a / len(a),
    "batch_shape": lambda a, h, x: a / a.shape[0],
    "batch_numel": lambda a, h, x: a * (a.numel() / 20),
    "batch_arange": lambda a, h, x: a + torch.arange(a.shape[0], dtype=a.dtype)[:, None],
    "batch_branch": lambda a, h, x: a if a.shape[0] < 4 else -a,
    "batch_branch_in_gradient": lambda a, h, x: a if len(a) < 16 else 2 * a - a.detach(),
    "batch_eye": lambda a, h, x: torch.eye(a.shape[0], dtype=a.dtype) @ a,
    "made_of_the_batch": lambda a, h, x: a + a.new_ones(a.shape) + torch.zeros(len(a), 1),
    # outputs that are not rows
    "scalar_output": lambda a, h, x: (a, a.mean()),
    "output_without_rows": lambda a, h, x: (a, a.sum(0)),
    "transposed_output": lambda a, h, x: (a, a.t()),
    "constant_output": lambda a, h, x: (a, (2 * a, torch.ones(3, dtype=a.dtype))),
    "indices_as_output": lambda a, h, x: (a, (2 * a, a.argmax(1))),
    # values that steer
    "item": lambda a, h, x: a * float(a.detach().sum()),
    "branch_on_a_value": lambda a, h, x: a if bool(a.sum() > 0) else -a,
    "branch_on_requires_grad": lambda a, h, x: a if h.requires_grad else 0.5 * a,
    "through_numpy": lambda a, h, x: a + torch.from_numpy(2 * a.detach().numpy()),
    # operations within a row
    "hard_sigmoid": lambda a, h, x: nn.functional.hardsigmoid(a) * a,
    "sort": lambda a, h, x: a.sort(1)[0],
    "top_k": lambda a, h, x: a * (a >= a.topk(2, 1)[0][:, -1:]),
    "gather": lambda a, h, x: a.gather(1, (x > 0).long()),
    "cumsum": lambda a, h, x: a.cumsum(1) / 2,
    "flip": lambda a, h, x: a.flip(1),
    "roll": lambda a, h, x: a.roll(1, 1),
    "every_second": lambda a, h, x: torch.cat([a[:, ::2], a[:, 1::2]], 1),
    "index": lambda a, h, x: torch.cat([a[:, [3, 1, 0, 0]], a[:, 4:]], 1),
    "row_max": lambda a, h, x: a / a.abs().max(1, keepdim=True)[0],
    "row_amax": lambda a, h, x: a - a.amax(1, keepdim=True),
    "log_sum_exp": lambda a, h, x: a - a.logsumexp(1, keepdim=True),
    "normalize": lambda a, h, x: F.normalize(a, dim=1),
    "row_variance": lambda a, h, x: a / (a.var(1, keepdim=True) + 0.1),
    "row_product": lambda a, h, x: a * a.prod(1, keepdim=True),
    "group_norm": lambda a, h, x: F.group_norm(a, 2),
    "outer_product": lambda a, h, x: (a[:, :, None] * x[:, None, :]).sum(-1) / 4,
    "heads_transposed": lambda a, h, x: a.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8),
    "stack_and_max": lambda a, h, x: torch.stack([a, x], 2).max(2)[0],
    "glu": lambda a, h, x: F.glu(torch.cat([a, x], 1), 1),
    "powers": lambda a, h, x: a**3 + (a.abs() + 0.1) ** 1.5 - 2**a + (a.abs() + 0.1) ** x,
    "remainder": lambda a, h, x: torch.remainder(a, 0.3),
    "atan2": lambda a, h, x: torch.atan2(a, x),
    "many_activations": lambda a, h, x: (
        F.elu(a) + F.selu(x) + F.celu(a) + F.mish(x) + F.relu6(a) + F.softshrink(x)
        + F.hardswish(a) + F.tanhshrink(x) + F.threshold(a, 0.1, 0.2) + F.softplus(x)
    ) / 4,
    "ties": lambda a, h, x: (
        torch.maximum(a, a) + torch.relu(a - a) + (x - x).abs() + torch.maximum(a * 0, x * 0)
    ),
    "clamps": lambda a, h, x: a.clamp(min=x.clamp(-0.1, 0.1)) + a.clamp(-0.2) + x.clamp(max=0.3),
    "masks": lambda a, h, x: torch.where((a > 0) & ~(x > 0) | (h == 0), a, x).masked_fill(h > 1, 0),
    "scaled_sums": lambda a, h, x: (
        torch.addcmul(a, h, x, value=0.5) + torch.addcdiv(a, h, x.abs() + 1, value=0.3)
        + torch.rsub(a, x, alpha=2) - torch.add(a, x, alpha=-1.5)
    ) / 4,
    # gradients of the user's own
    "straight_through": lambda a, h, x: _StraightThrough.apply(a) + a,
    "rounded": lambda a, h, x: a + (a.round() - a).detach(),
    "clipped_gradient": lambda a, h, x: _clipped_gradient(a),
    "without_gradient": lambda a, h, x: a + _without_gradient(a),
    "data": lambda a, h, x: a + 2 * a.data,
    "overwritten": lambda a, h, x: _overwritten(a),
    "changes_a_copy": lambda a, h, x: a + h.clone().mul_(2),
    # other dtypes inside
    "float_inside": lambda a, h, x: (a.float() * 2).to(a.dtype),
    "made_of_numbers": lambda a, h, x: (
        a[:, :3] * torch.tensor([1.0, 2.0, 3.0], dtype=a.dtype) + torch.tensor(2.0)
    ).repeat(1, 3)[:, : a.shape[1]],
}  # fmt: skip
WILD.update({name: _wild(name, formula) for name, formula in _FORMULAS.items()})


# ----------------------------------------------------------------------------- what is right


def loop(
    step: Callable[[Any, Any], Any], init: Any, xs: Any, *, reverse: bool = False, dim: int = 0
) -> tuple[Any, Any]:
    """What `scan` means, without lengths or resets."""
    structure = pytree.tree_structure(init)
    T = pytree.tree_leaves(xs)[0].shape[dim]
    carry, ys = init, [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        result = step(carry, pytree.tree_map(lambda leaf, t=t: leaf.select(dim, t), xs))
        carry, ys[t] = (
            (result, result) if pytree.tree_structure(result) == structure else result
        )
    return carry, pytree.tree_map(lambda *at_t: torch.stack(at_t, dim), *ys)


def rows_apart(
    step: Callable[[Any, Any], Any],
    init: Any,
    xs: Any,
    *,
    reverse: bool = False,
    lengths: Any = None,
    resets: Tensor | None = None,
    restart: Any = None,
) -> tuple[Any, Any]:
    """What `lengths` and `resets` mean: each row alone, no longer than it is, cut into segments."""
    structure = pytree.tree_structure(init)
    T, B = pytree.tree_leaves(xs)[0].shape[:2]
    if restart is None:
        restart = pytree.tree_map(torch.zeros_like, init)
    restart = pytree.tree_map(lambda r, leaf: r.expand_as(leaf), restart, init)
    carries, ys_of_rows = [], []
    for b in range(B):
        row = slice(b, b + 1)
        again = pytree.tree_map(lambda leaf, row=row: leaf[row], restart)
        carry = pytree.tree_map(lambda leaf, row=row: leaf[row], init)
        n = T if lengths is None else int(lengths[b])
        ys: list[Any] = [None] * T
        for t in reversed(range(n)) if reverse else range(n):
            ends_a_segment = t + 1 < n and reverse and resets is not None and resets[t + 1, b]
            begins_one = not reverse and resets is not None and resets[t, b]
            if ends_a_segment or begins_one:
                carry = again
            result = step(carry, pytree.tree_map(lambda leaf, t=t, row=row: leaf[t, row], xs))
            carry, ys[t] = (
                (result, result) if pytree.tree_structure(result) == structure else result
            )
        carries.append(carry)
        ys_of_rows.append(ys)
    some = next(y for ys in ys_of_rows for y in ys if y is not None)
    nothing = pytree.tree_map(lambda y: torch.zeros_like(y).detach(), some)
    columns = [
        pytree.tree_map(
            lambda *at_t: torch.stack(at_t), *[nothing if y is None else y for y in ys]
        )
        for ys in ys_of_rows
    ]
    return (
        pytree.tree_map(lambda *rows: torch.cat(rows), *carries),
        pytree.tree_map(lambda *rows: torch.cat(rows, 1), *columns),
    )


@dataclass
class Played:
    """Everything that came out of a scan: values, and gradients of a fixed weighting of them."""

    carry: list[Tensor]
    ys: list[Tensor]
    d_parameters: list[Tensor]
    d_init: list[Tensor]
    d_xs: list[Tensor]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        for part in ("carry", "ys", "d_parameters", "d_init", "d_xs"):
            for i, tensor in enumerate(getattr(self, part)):
                yield f"{part}[{i}]", tensor


def play(
    how: Callable[..., tuple[Any, Any]],
    case: Case,
    init: Any,
    xs: Any,
    *,
    seed: int = 1,
    **options: Any,
) -> Played:
    """`how(step, init, xs, **options)`, and the gradients of a random weighting of its outputs.

    init and xs are taken anew as leaves; a gradient that autograd does not give is zero.
    """
    init = pytree.tree_map(_as_leaf, init)
    xs = pytree.tree_map(_as_leaf, xs)
    carry, ys = how(case.step, init, xs, **options)
    outs = [*pytree.tree_leaves(carry), *pytree.tree_leaves(ys)]
    random = torch.Generator().manual_seed(seed)
    weights = [torch.randn(o.shape, generator=random, dtype=torch.float64) for o in outs]
    inputs_ = [*case.wanted, *pytree.tree_leaves(init), *pytree.tree_leaves(xs)]
    pairs = [(o, w.to(o.dtype)) for o, w in zip(outs, weights, strict=True) if o.requires_grad]
    wanted = [t for t in inputs_ if t.requires_grad]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs], wanted, [w for _, w in pairs], allow_unused=True,
            retain_graph=True,
        )
    )  # fmt: skip
    grads = []
    for t in inputs_:
        g = next(found) if t.requires_grad else None
        grads.append(torch.zeros(t.shape, dtype=t.dtype) if g is None else g)
    p, s = len(case.wanted), len(case.wanted) + len(pytree.tree_leaves(init))
    n_carry = len(pytree.tree_leaves(carry))
    values = [o.detach() for o in outs]
    return Played(values[:n_carry], values[n_carry:], grads[:p], grads[p:s], grads[s:])


def _as_leaf(t: Tensor) -> Tensor:
    return t.detach().clone().requires_grad_(t.is_floating_point())


def assert_close(ours: Played, theirs: Played, relative: float) -> None:
    """Every tensor, relative to the largest element of the right one."""
    pairs = list(zip(ours.named(), theirs.named(), strict=True))
    assert pairs
    for (name, a), (_, b) in pairs:
        assert a.shape == b.shape, f"{name}: shape {list(a.shape)}, wanted {list(b.shape)}"
        assert a.dtype == b.dtype, f"{name}: {a.dtype}, wanted {b.dtype}"
        if not b.is_floating_point():
            assert torch.equal(a, b), name
            continue
        scale = float(b.abs().max()) if b.numel() else 0.0
        error = float((a - b).abs().max()) if b.numel() else 0.0
        assert error <= relative * scale + 1e-300, f"{name}: error {error:.3g} at {scale:.3g}"


def code_of(step: Any) -> types.CodeType:
    """The code that runs once for each step of the plain loop."""
    if isinstance(step, functools.partial):
        return code_of(step.func)
    if isinstance(step, nn.Module):
        return type(step).forward.__code__
    if hasattr(step, "__func__"):
        return step.__func__.__code__
    return step.__code__ if hasattr(step, "__code__") else type(step).__call__.__code__


@contextmanager
def counting(step: Any) -> Iterator[list[int]]:
    """Count the calls of a step in `[n]`, without being a part of what it reaches."""
    code, calls = code_of(step), [0]

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is code:
            calls[0] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(before)
