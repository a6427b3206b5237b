"""Matrix states in chunks, as they were published: a whole chunk of time in a few products.

Every function takes rows `[B, heads, T, D]` and gates `[B, heads, T]`, the first state, and the
length of a chunk; b is the sum of the logarithms of the decays since the chunk began. The forms are
written from the papers' equations, in PyTorch, and compared with the steps in
tests/benchmarks/test_bench_steps.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNKS = (10, 20, 50, 100)  # lengths to choose the fastest from


def _chunks(length: int, *of_time: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts of tensors whose third axis is time."""
    for start in range(0, of_time[0].shape[2], length):
        yield tuple([t[:, :, start : start + length] for t in of_time])


def vector_decays(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S: Tensor, length: int
) -> Tensor:
    """GLA: Yang et al. 2023, arXiv:2312.06635, equation 4; log_decay `[B, heads, T, D]`.

    y = (q · e^b) S + tril((q · e^b)(k · e^−b)ᵀ) v,  S ← e^b_last · S + (k · e^(b_last − b))ᵀ v
    """
    ys = []
    for q_, k_, v_, g in _chunks(length, q, k, v, log_decay):
        b = g.cumsum(2)
        q_ = q_ * b.exp()
        ys.append(q_ @ S + (q_ @ (k_ * (-b).exp()).mT).tril() @ v_)
        last = b[:, :, -1:]
        S = last.exp().mT * S + (k_ * (last - b).exp()).mT @ v_
    return torch.cat(ys, 2)


def scalar_decays(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S: Tensor, length: int
) -> Tensor:
    """Mamba-2's state space duality: Dao and Gu 2024, arXiv:2405.21060, section 6.

    y = e^b · q S + (q kᵀ · e^(b_i − b_j), j ≤ i) v,  S ← e^b_last S + (k · e^(b_last − b))ᵀ v
    """
    ys = []
    for q_, k_, v_, g in _chunks(length, q, k, v, log_decay):
        b = g.cumsum(2)[..., None]
        ys.append(b.exp() * (q_ @ S) + (q_ @ k_.mT * _below(b - b.mT).exp()) @ v_)
        last = b[:, :, -1:]
        S = last.exp() * S + (k_ * (last - b).exp()).mT @ v_
    return torch.cat(ys, 2)


def _below(x: Tensor) -> Tensor:
    """−∞ above the diagonal."""
    n = x.shape[-1]
    return x.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)


def exponential_gates(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, log_i: Tensor, length: int
) -> Tensor:
    """mLSTM: Beck et al. 2024, arXiv:2405.04517, appendix A.3, from a state of zeros.

    m is the largest exponent so far; the state S and the normalizer n are divided by e^m.
    """
    B, heads, _, D = q.shape
    S, n, m = q.new_zeros(B, heads, D, D), q.new_zeros(B, heads, D, 1), q.new_zeros(B, heads, 1, 1)
    ys = []
    for q_, k_, v_, f, i in _chunks(length, q, k, v, log_f, log_i):
        b, i = f.cumsum(2)[..., None], i[..., None]
        inside = _below(b - b.mT + i.mT)
        top = torch.maximum(inside.amax(-1, keepdim=True), b + m)
        weights = q_ @ k_.mT * (inside - top).exp()
        before = (b + m - top).exp()
        size = (before * (q_ @ n) + weights.sum(-1, keepdim=True)).abs()
        ys.append((before * (q_ @ S) + weights @ v_) / torch.maximum(size, (-top).exp()))
        last = b[:, :, -1:]
        new_m = torch.maximum((last - b + i).amax(2, keepdim=True), last + m)
        keys = k_ * (last - b + i - new_m).exp()
        kept = (last + m - new_m).exp()
        S, n, m = kept * S + keys.mT @ v_, kept * n + keys.mT.sum(-1, keepdim=True), new_m
    return torch.cat(ys, 2)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, S: Tensor, length: int) -> Tensor:
    """DeltaNet: Yang et al. 2024, arXiv:2406.06484, equations 8 to 11.

    T = (1 + tril(β k kᵀ, −1))⁻¹ β,  new = T v − T k S,  y = q S + tril(q kᵀ) new,  S ← S + kᵀ new
    """
    ys = []
    for q_, k_, v_, b in _chunks(length, q, k, v, beta):
        b = b[..., None]
        n = k_.shape[2]
        system = torch.eye(n, dtype=q.dtype) + (b * k_ @ k_.mT).tril(-1)
        new = torch.linalg.solve_triangular(
            system, b * (v_ - k_ @ S), upper=False, unitriangular=True
        )
        ys.append(q_ @ S + (q_ @ k_.mT).tril() @ new)
        S = S + k_.mT @ new
    return torch.cat(ys, 2)
