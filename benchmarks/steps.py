"""`steps`: training of matrix states, heads and attention by scan, beside three peers.

The peers are PyTorch's loop, JAX's lax.scan under jit, and, where one is published, the form that
computes a chunk of time in a few products, in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from benchmarks import steps_jax
from benchmarks.contest import contest
from benchmarks.harness import Contender, seconds
from benchmarks.results import Absent, Bound, Row, Spec
from benchmarks.steps_chunkwise import (
    CHUNKS,
    delta_rule,
    exponential_gates,
    scalar_decays,
    vector_decays,
)

WANTED_OVER_LOOP, WANTED_OVER_JAX = 5.0, 1.5
LOOP, IN_CHUNKS = "PyTorch's loop", "in chunks, PyTorch"


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
    """Attributes:
    in_chunks: the outputs, computed in chunks of so many steps; None where no such form is
        published, or it is not one of products.
    """

    step: Callable[[Any, Any], Any]
    init: Any
    xs: Tensor
    weights: list[Tensor]
    in_chunks: Callable[[int], Tensor] | None = None


def _weight(*shape: int) -> Tensor:
    return (torch.randn(*shape) / math.sqrt(shape[0])).requires_grad_()


def _projections(s: Size, n: int) -> list[Tensor]:
    return [_weight(s.F, s.heads * s.D) for _ in range(n)]


def _over_time(s: Size, of_xs: Tensor) -> Tensor:
    """`[T, B, heads · D]` as `[B, heads, T, D]`; `[T, B, heads]` as `[B, heads, T]`."""
    if of_xs.shape[2] == s.heads:
        return of_xs.permute(1, 2, 0)
    return of_xs.view(s.T, s.B, s.heads, -1).permute(1, 2, 0, 3)


def _as_outputs(ys: Tensor) -> Tensor:
    """`[B, heads, T, D]` as `[T, B, heads · D]`."""
    return ys.permute(2, 0, 1, 3).flatten(2)


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

    xs = 0.5 * torch.randn(s.T, s.B, s.F)

    def in_chunks(length: int) -> Tensor:
        q, k, v, f, i = (_over_time(s, xs @ W) for W in (Wq, Wk, Wv, Wf, Wi))
        return _as_outputs(exponential_gates(q, k / s.D**0.5, v, F.logsigmoid(f), i, length))

    shapes = [(s.heads, s.D, s.D), (s.heads, s.D), (s.heads,)]
    init = tuple(torch.zeros(s.B, *shape) for shape in shapes)
    return Problem(step, init, xs, [Wq, Wk, Wv, Wi, Wf], in_chunks)


def gla(s: Size) -> Problem:
    """Gated linear attention: Yang et al. 2023, arXiv:2312.06635."""
    weights = _projections(s, 4)

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v, a = ((x @ W).view(-1, s.heads, s.D) for W in weights)
        S = torch.sigmoid(a)[..., None] * S + k[..., :, None] * v[..., None, :]
        return S, (q[..., None, :] @ S).flatten(1)

    xs = 0.5 * torch.randn(s.T, s.B, s.F)
    init = torch.zeros(s.B, s.heads, s.D, s.D)

    def in_chunks(length: int) -> Tensor:
        q, k, v, a = (_over_time(s, xs @ W) for W in weights)
        return _as_outputs(vector_decays(q, k, v, F.logsigmoid(a), init, length))

    return Problem(step, init, xs, weights, in_chunks)


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

    xs = 0.5 * torch.randn(s.T, s.B, s.F)
    init = torch.zeros(s.B, s.heads, s.D, s.D)

    def in_chunks(length: int) -> Tensor:
        q, k, v, beta = (_over_time(s, xs @ W) for W in (Wq, Wk, Wv, Wb))
        return _as_outputs(
            delta_rule(q, F.normalize(k, dim=-1), v, torch.sigmoid(beta), init, length)
        )

    return Problem(step, init, xs, [Wq, Wk, Wv, Wb], in_chunks)


def mamba2(s: Size) -> Problem:
    """Dao and Gu 2024, arXiv:2405.21060: one decay a head, states of D × D."""
    Wu, Wb, Wc, W_dt = _weight(s.F, s.heads * s.D), *(_weight(s.F, n) for n in (s.D, s.D, s.heads))
    A, skip, bias = (_weight(s.heads) for _ in range(3))

    def step(h: Tensor, x: Tensor) -> Any:
        u, dt = (x @ Wu).view(-1, s.heads, s.D), F.softplus(x @ W_dt + bias)
        decay = torch.exp(dt * -torch.exp(A))
        into = (dt[..., None] * u)[..., None] * (x @ Wb)[:, None, None]
        h = decay[..., None, None] * h + into
        y = torch.einsum("bhpn,bn->bhp", h, x @ Wc) + skip[:, None] * u
        return h, y.flatten(1)

    xs = 0.5 * torch.randn(s.T, s.B, s.F)
    init = torch.zeros(s.B, s.heads, s.D, s.D)

    def in_chunks(length: int) -> Tensor:
        u, dt = _over_time(s, xs @ Wu), _over_time(s, F.softplus(xs @ W_dt + bias))
        q, k = ((xs @ W).permute(1, 0, 2)[:, None].expand_as(u) for W in (Wc, Wb))
        decay = dt * -torch.exp(A)[:, None]
        ys = scalar_decays(q, k, dt[..., None] * u, decay, init.mT, length)
        return _as_outputs(ys + skip[:, None, None] * u)

    return Problem(step, init, xs, [Wu, Wb, Wc, W_dt, A, skip, bias], in_chunks)


def rwkv7(s: Size) -> Problem:
    """A generalized delta rule: Peng et al. 2025, arXiv:2503.14456."""
    weights = _projections(s, 5)

    def step(S: Tensor, x: Tensor) -> Any:
        r, k, v, w, a = ((x @ W).view(-1, s.heads, s.D) for W in weights)
        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(w))
        a = torch.sigmoid(a)
        kk = F.normalize(k, dim=-1)
        old = torch.einsum("bhvk,bhk->bhv", S, kk)
        S = S * w[:, :, None] - old[..., None] * (kk * a)[:, :, None]
        S = S + v[..., None] * (k * a)[:, :, None]
        return S, torch.einsum("bhvk,bhk->bhv", S, r).flatten(1)

    init = torch.zeros(s.B, s.heads, s.D, s.D)
    return Problem(step, init, 0.5 * torch.randn(s.T, s.B, s.F), weights)


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


PROBLEMS = (mlstm, gla, delta_net, mamba2, rwkv7, s6, bahdanau, crf, conv_lstm)


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
    contenders: list[Contender | Absent] = [
        Contender("ostinato.scan", partial(trained, ostinato.scan)),
        Contender(LOOP, partial(trained, _loop)),
        steps_jax.contender(make.__name__, p, size, d_ys, quick),
    ]
    if p.in_chunks is not None:
        contenders.append(_in_chunks(p, d_ys, size))
    expected = trained(_loop)
    for contender in contenders:
        if isinstance(contender, Contender):
            _check(contender, expected)
    measured = contest(contenders, quick)
    bounds = [
        Bound(f"over {name}", wanted, measured.samples[name].timing(measured.ours).ratio or 0.0)
        for name, wanted in ((LOOP, WANTED_OVER_LOOP), (steps_jax.NAME, WANTED_OVER_JAX))
        if name in measured.samples
    ]
    row = measured.row(make.__name__, f"T {size.T}, B {size.B}", found.flops / 1e9)
    return replace(row, bounds=tuple(bounds))


def _in_chunks(p: Problem, d_ys: Tensor, size: Size) -> Contender:
    """The published form, in the fastest of several lengths of a chunk."""
    assert p.in_chunks is not None

    def form(length: int) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(p.in_chunks(length), p.weights, d_ys)

    lengths = [n for n in CHUNKS if n <= size.T] or [size.T]
    runs = {n: form(n) for n in lengths}
    times = {n: min(seconds(run) for _ in range(3)) for n, run in runs.items()}
    best = min(times, key=times.__getitem__)
    return Contender(IN_CHUNKS, runs[best], f"chunks of {best}")


def _check(contender: Contender, expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(contender.run(), expected, strict=True):
        # Rounding of T steps, each a few operations on sums of at most F + H terms.
        error = abs(np.asarray(ours) - theirs.numpy()).max()
        assert error <= 1e-3 * theirs.abs().max(), f"{contender.name}: other gradients"
