"""`steps`: training of matrix states, heads and attention by scan, over PyTorch's loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from benchmarks.contest import contest
from benchmarks.harness import Contender
from benchmarks.results import Bound, Row, Spec

WANTED_OVER_LOOP = 5.0
LOOP = "PyTorch's loop"


@dataclass(frozen=True)
class Size:
    """T steps of B rows; heads of D × D; channels C of a state space, with N numbers each."""

    T: int = 100
    B: int = 32
    F: int = 64
    heads: int = 4
    D: int = 32
    C: int = 256
    N: int = 16
    places: int = 50
    H: int = 128


QUICK = Size(T=5, B=4, F=6, heads=2, D=4, C=6, N=3, places=5, H=8)


@dataclass(frozen=True)
class Problem:
    step: Callable[[Any, Any], Any]
    init: Any
    xs: Tensor
    weights: list[Tensor]


def _weight(*shape: int) -> Tensor:
    return (torch.randn(*shape) / math.sqrt(shape[0])).requires_grad_()


def _projections(s: Size, n: int) -> list[Tensor]:
    return [_weight(s.F, s.heads * s.D) for _ in range(n)]


def mlstm(s: Size) -> Problem:
    """Beck et al. 2024, arXiv:2405.04517."""
    Wq, Wk, Wv = _projections(s, 3)
    Wi, Wf = _weight(s.F, s.heads), _weight(s.F, s.heads)

    def step(carry: Any, x: Tensor) -> Any:
        C, n, m = carry
        q, k, v = ((x @ W).view(-1, s.heads, s.D) for W in (Wq, Wk, Wv))
        k = k / s.D**0.5
        i, f = x @ Wi, F.logsigmoid(x @ Wf)
        new_m = torch.maximum(f + m, i)
        i, f = torch.exp(i - new_m), torch.exp(f + m - new_m)
        C = f[..., None, None] * C + i[..., None, None] * (v[..., :, None] * k[..., None, :])
        n = f[..., None] * n + i[..., None] * k
        below = torch.maximum((n * q).sum(-1).abs(), torch.exp(-new_m))
        return (C, n, new_m), ((C @ q[..., None])[..., 0] / below[..., None]).flatten(1)

    shapes = [(s.heads, s.D, s.D), (s.heads, s.D), (s.heads,)]
    init = tuple(torch.zeros(s.B, *shape) for shape in shapes)
    return Problem(step, init, 0.5 * torch.randn(s.T, s.B, s.F), [Wq, Wk, Wv, Wi, Wf])


def gla(s: Size) -> Problem:
    """Gated linear attention: Yang et al. 2023, arXiv:2312.06635."""
    weights = _projections(s, 4)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v, a = ((x @ W).view(-1, s.heads, s.D) for W in weights)
        S = torch.sigmoid(a)[..., None] * S + k[..., :, None] * v[..., None, :]
        return S, (q[..., None, :] @ S).flatten(1)

    init = torch.zeros(s.B, s.heads, s.D, s.D)
    return Problem(step, init, 0.5 * torch.randn(s.T, s.B, s.F), weights)


def delta_net(s: Size) -> Problem:
    """Schlag et al. 2021, arXiv:2102.11174."""
    Wq, Wk, Wv = _projections(s, 3)
    Wb = _weight(s.F, s.heads)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v = ((x @ W).view(-1, s.heads, s.D) for W in (Wq, Wk, Wv))
        k = F.normalize(k, dim=-1)
        new = torch.sigmoid(x @ Wb)[..., None] * (v - torch.einsum("bhkv,bhk->bhv", S, k))
        S = S + k[..., :, None] * new[..., None, :]
        return S, torch.einsum("bhkv,bhk->bhv", S, q).flatten(1)

    init = torch.zeros(s.B, s.heads, s.D, s.D)
    return Problem(step, init, 0.5 * torch.randn(s.T, s.B, s.F), [Wq, Wk, Wv, Wb])


def s6(s: Size) -> Problem:
    """Mamba's recurrence: Gu and Dao 2023, arXiv:2312.00752."""
    A, W_dt, W_B, W_C, bias = (
        _weight(*shape) for shape in ((s.C, s.N), (s.C, s.C), (s.C, s.N), (s.C, s.N), (s.C,))
    )

    def step(h: Tensor, u: Tensor) -> Any:
        dt = F.softplus(u @ W_dt + bias)
        h = torch.exp(dt[..., None] * -torch.exp(A)) * h
        h = h + (dt * u)[..., None] * (u @ W_B)[:, None, :]
        return h, (h * (u @ W_C)[:, None, :]).sum(-1)

    xs = 0.5 * torch.randn(s.T, s.B, s.C)
    return Problem(step, torch.zeros(s.B, s.C, s.N), xs, [A, W_dt, W_B, W_C, bias])


def bahdanau(s: Size) -> Problem:
    """A GRU that attends to encoder states: Bahdanau et al. 2014, arXiv:1409.0473."""
    W, v = _weight(s.H, s.H), _weight(s.H)
    cell = torch.nn.GRUCell(s.F + s.H, s.H)

    def step(carry: Any, x: Tensor) -> Any:
        h, encoded, keys = carry
        weights = torch.softmax(torch.tanh(keys + (h @ W)[:, None]) @ v, dim=1)
        context = torch.bmm(weights[:, None], encoded).squeeze(1)
        h = cell(torch.cat([x, context], -1), h)
        return (h, encoded, keys), h

    encoded, keys = (0.5 * torch.randn(s.B, s.places, s.H) for _ in range(2))
    init = torch.zeros(s.B, s.H), encoded, keys
    return Problem(step, init, 0.5 * torch.randn(s.T, s.B, s.F), [W, v, *cell.parameters()])


def crf(s: Size) -> Problem:
    """The forward algorithm of 20 labels: Lafferty et al. 2001."""
    transitions = _weight(20, 20)

    def step(alpha: Tensor, emission: Tensor) -> Tensor:
        return torch.logsumexp(alpha[:, :, None] + transitions, dim=1) + emission

    return Problem(step, torch.zeros(s.B, 20), torch.randn(s.T, s.B, 20), [transitions])


def conv_lstm(s: Size) -> Problem:
    """Images of 8 × 8 with 8 channels: Shi et al. 2015, arXiv:1506.04214."""
    conv = torch.nn.Conv2d(1 + 8, 4 * 8, 3, padding=1)

    def step(carry: Any, x: Tensor) -> Any:
        h, c = carry
        i, f, o, g = conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h

    init = tuple(torch.zeros(s.B, 8, 8, 8) for _ in range(2))
    return Problem(step, init, torch.randn(s.T, s.B, 1, 8, 8), list(conv.parameters()))


PROBLEMS = (mlstm, gla, delta_net, s6, bahdanau, crf, conv_lstm)


def specs(quick: bool) -> list[Spec]:
    return [Spec(make.__name__, partial(_row, make, quick)) for make in PROBLEMS]


def _loop(step: Callable[[Any, Any], Any], carry: Any, xs: Tensor) -> tuple[Any, Tensor]:
    ys = []
    for x in xs:
        result = step(carry, x)
        carry, y = result if isinstance(result, tuple) else (result, result)
        ys.append(y)
    return carry, torch.stack(ys)


def _row(make: Callable[[Size], Problem], quick: bool) -> Row:
    torch.manual_seed(0)
    size = QUICK if quick else Size()
    p = make(size)
    d_ys = torch.randn_like(_loop(p.step, p.init, p.xs)[1])

    def trained(by: Callable[..., tuple[Any, Tensor]]) -> tuple[Tensor, ...]:
        _, ys = by(p.step, p.init, p.xs)
        return torch.autograd.grad(ys, p.weights, d_ys)

    found = ostinato.explain(p.step, p.init, p.xs)
    assert found.native, found.reason
    for ours, theirs in zip(trained(ostinato.scan), trained(_loop), strict=True):
        # Rounding of T steps, each a few operations on sums of at most F + H terms.
        assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max(), "other gradients"
    contenders = [
        Contender("ostinato.scan", partial(trained, ostinato.scan)),
        Contender(LOOP, partial(trained, _loop)),
    ]
    measured = contest(contenders, quick)
    over_loop = measured.samples[LOOP].timing(measured.ours).ratio or 0.0
    row = measured.row(make.__name__, f"T {size.T}, B {size.B}", found.flops / 1e9)
    return replace(row, bounds=(Bound("over the loop", WANTED_OVER_LOOP, over_loop),))
