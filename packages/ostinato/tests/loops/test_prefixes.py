"""Slices whose length grows with the loop, as full ones with a mask."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.nn import functional as F

import ostinato

W = torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(6, 6).requires_grad_()


def run(function, x, w=W):
    x = x.clone().requires_grad_()
    out = function(x)
    total = (out * out.detach().cos()).sum()
    return [out, *torch.autograd.grad(total, [x, w], allow_unused=True)]


def same(function, looped, x):
    """Values and gradients are those of Python, within rounding of float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(looped, x)
    for a, b in zip(found, run(function, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12, equal_nan=True)


def summed(x):
    outs = []
    for t in range(1, x.shape[1]):
        outs.append(x[:, :t].sum(1) + x[:, t])
    return torch.stack(outs, 1)


def averaged(x):
    h, outs = x[:, 0], []
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, : t + 1].mean(1) + x[:, 0 : t + 1].amax(1))
        outs.append(h)
    return torch.stack(outs, 1)


def largest(x):
    h, outs = x[:, 0], []
    for t in range(1, x.shape[1]):
        h = torch.tanh(h - x[:, :t, :].max(1).values + x[..., :t, :].logsumexp(-2))
        outs.append(h)
    return torch.stack(outs, 1)


def attended(x):
    """A decoder that attends to what it wrote."""
    h, outs = x[:, 0], [x[:, 0]]
    for t in range(x.shape[1]):
        keys = torch.stack(outs, 1)
        weights = torch.softmax((keys @ h.unsqueeze(-1)).squeeze(-1), -1)
        h = torch.tanh(x[:, t] @ W + (weights.unsqueeze(-1) * keys).sum(1))
        outs.append(h)
    return torch.stack(outs, 1)


def multiplied(x):
    h, outs = x[:, 0], []
    for t in range(x.shape[1]):
        outs.append(h)
        keys = torch.stack(outs)
        scores = torch.einsum("tbh,bh->bt", torch.tanh(F.linear(keys, W)), h)
        h = torch.tanh(x[:, t] + torch.einsum("bt,tbh->bh", F.softmax(scores, dim=1), keys))
    return torch.stack(outs, 1)


def joined(x):
    h, outs = x[:, :1], []
    for t in range(x.shape[1]):
        outs.append(h)
        keys = torch.cat(outs, dim=1)
        heads = keys.view(keys.shape[0], keys.size(1), 2, 3).transpose(1, 2)
        query = h.view(h.shape[0], 1, 2, 3).transpose(1, 2)
        found = F.scaled_dot_product_attention(query, heads, heads)
        h = torch.tanh(x[:, t : t + 1] + found.transpose(1, 2).reshape(h.shape))
    return torch.cat(outs, 1)


def delta(x):
    """The inverse of a triangular matrix, row by row, as chunked delta rules compute it."""
    attn = (x @ x.transpose(1, 2)).tril(-1) * 0.1
    for i in range(1, attn.shape[-1]):
        row = attn[..., i, :i].clone()
        sub = attn[..., :i, :i].clone()
        attn[..., i, :i] = row + (row.unsqueeze(-1) * sub).sum(-2)
    return attn


def delta_of_one_line(x):
    A = (x @ x.transpose(1, 2)).tril(-1) * 0.1
    for i in range(1, A.shape[1]):
        A[..., i, :i] += (A[..., i, :i, None].clone() * A[..., :i, :i].clone()).sum(-2)
    return A


def delta_of_columns(x):
    A = (x @ x.transpose(1, 2)).tril(-1) * 0.1
    for i in range(1, A.shape[1]):
        A[..., i, :i] = A[..., i, :i].clone() + (
            A[..., i, :, None].clone() * A[..., :, :i].clone()
        ).sum(-2)
    return A


def helper(x, h, t):
    return (x[:, :t] * h.unsqueeze(1)).sum((1,))


def called(x):
    h, outs = x[:, 0], []
    for t in range(1, x.shape[1]):
        h = torch.tanh(x[:, t] + helper(x, h, t))
        outs.append(h)
    return torch.stack(outs, 1)


def shrinking(x):
    h, outs, T = x[:, 0], [], x.shape[1]
    for t in range(T - 1):
        h = torch.tanh(h + (2 - x[:, : T - t]).mul(h[:, None]).mean((1,), keepdim=True)[:, 0])
        outs.append(h)
    return torch.stack(outs, 1)


def last_ones(x):
    """A window, which is shorter at first."""
    h, outs = x[:, 0], [x[:, 0]]
    for t in range(x.shape[1]):
        h = torch.tanh(
            x[:, t] + torch.stack(outs[-3:], 1).amax(1) + x[:, max(t - 2, 0) : t + 1].sum(1)
        )
        outs.append(h)
    return torch.stack(outs, 1)


def with_buffer(x):
    """What was written so far, in a tensor with room for all."""
    h, keys = x[:, 0], torch.zeros(x.shape[1], *x[:, 0].shape, dtype=x.dtype)
    for t in range(x.shape[1]):
        keys[t] = h
        past = keys[: t + 1].clone()
        h = torch.tanh(x[:, t] + ((past * h).sum(-1).softmax(0)[..., None] * past).sum(0))
    return keys


def with_cache(x):
    """Keys and values of a transformer that generates."""
    h, keys, values = x[:, :1], None, None
    for t in range(x.shape[1]):
        keys = h @ W if keys is None else torch.cat([keys, h @ W], dim=1)
        values = h if values is None else torch.cat([values, h], dim=1)
        weights = F.softmax(h @ keys.transpose(-2, -1) / math.sqrt(keys.size(-1)), dim=-1)
        h = torch.tanh(x[:, t : t + 1] + weights @ values + keys[:, -1:])
    return torch.cat([keys, values], 1)


def mixed(x):
    """A list read in several ways."""
    h, m, outs, sizes = x[:, 0], x[:, 1:5].transpose(1, 2) * 0, [x[:, 0], x[:, 1]], []
    for _ in range(1, x.shape[1]):
        past = torch.stack(outs)
        h = torch.tanh(outs[-1] + past.prod(0) + past.amin((0,)))
        best = past.max(0)
        m = m + (torch.where(best.indices > 0, best.values, 0)).unsqueeze(-1)
        outs.append(h)
        sizes.append(past.shape[0] * h[:, 0])
    return torch.cat(
        [torch.stack(outs, 1), m.transpose(1, 2), torch.stack(sizes)[:6].T[:, None]], 1
    )


NATIVE = [
    mixed,
    with_buffer,
    with_cache,
    last_ones,
    summed,
    averaged,
    largest,
    attended,
    multiplied,
    joined,
    delta,
    delta_of_one_line,
    delta_of_columns,
    called,
    shrinking,
]


@pytest.mark.parametrize("function", NATIVE, ids=lambda f: f.__name__)
def test_values_and_gradients(function):
    torch.manual_seed(0)
    looped = ostinato.loop(function)
    for n in (14, 14, 20):
        same(function, looped, torch.randn(3, n, 6, dtype=torch.float64) / 2)
    found = looped.__ostinato_loops__
    assert all(s.native for s in found), [s.reason for s in found]


def unmasked(x):
    h, outs, seen = x[:, 0] * 0, [], x.clone()
    for t in range(1, x.shape[1] - 4):
        seen[:, t] = h
        h = h + (seen[:, :t].clone() * x[:, :t]).sum(1) * seen[:, t].clone().sigmoid()
        past = x[:, :t]
        weights = torch.softmax(past.log().sum(-1) + h[:, :1], 1)
        h = (weights.unsqueeze(-1) * past.sqrt()).sum(1) + past.reciprocal().amax(1) + h.sigmoid()
        outs.append((weights.unsqueeze(1) @ past).squeeze(1) + past.mean(1) * h)
    return torch.stack(outs, 1)


@pytest.mark.parametrize("later", [float("nan"), float("inf"), 0.0, -1.0])
def test_later_elements_have_no_effect(later):
    """Neither NaN and inf there, nor numbers whose logarithm or derivative is not finite."""
    x = torch.rand(3, 24, 6, dtype=torch.float64) + 0.5
    x[:, -4:] = later
    looped = ostinato.loop(unmasked)
    for _ in range(2):
        same(unmasked, looped, x)
        assert torch.isfinite(looped(x)).all()
    assert looped.__ostinato_loops__[0].native, looped.__ostinato_loops__[0].reason


def double(x):
    return Doubled.apply(x).sum(1)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


REFUSED = {
    "dropout": lambda past: F.dropout(past, 0.5).sum(1),
    "squeeze": lambda past: past.squeeze().sum(1),
    "the last": lambda past: past[:, -1],
    "another order": lambda past: past.reshape(6, -1, 2).sum((0, 1)),
    "a sum by steps": lambda past: past.cumsum(1)[:, 0],
    "a function with a gradient of its own": double,
    "a transform": lambda past: torch.func.vmap(lambda p: p.sum(0))(past),
    "no gradients": lambda past: past.sum(1) + _without_gradients(past),
    "itself": lambda past: past,
    "a list of it": lambda past: past.tolist() and past.sum(1),
}


def _without_gradients(past):
    with torch.no_grad():
        return past.sum(1)


@pytest.mark.parametrize("how", REFUSED)
def test_other_operations_run_in_python(how):
    def function(x):
        h, outs = x[:, 0], []
        for t in range(1, x.shape[1]):
            h = torch.tanh(h + x[:, t])
            outs.append(REFUSED[how](x[:, :t]).reshape(-1) + h.sum())
        return torch.cat(outs)

    looped = ostinato.loop(function)
    x = torch.randn(2, 14, 6, dtype=torch.float64)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run(looped, x)
        for a, b in zip(found if "dropout" not in how else (), run(function, x), strict=False):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert not looped.__ostinato_loops__[0].native


def of_length(x, n):
    h, outs = x[:, 0], []
    for t in range(1, n):
        h = torch.tanh(h + x[:, :t].mean(1))
        outs.append(h)
    return torch.stack(outs, 1)


def test_a_slice_beyond_the_end_is_that_of_python():
    looped, x = ostinato.loop(of_length), torch.randn(2, 14, 6, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in (13, 30, 13, 15):
            torch.testing.assert_close(looped(x, n), of_length(x, n), rtol=1e-10, atol=1e-12)
            assert looped.__ostinato_loops__[0].native is (n < 16)
