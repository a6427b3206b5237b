"""The problems of `benchmarks steps`: every peer computes what the step does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.harness import Contender

from benchmarks import steps, steps_jax

SIZE = replace(steps.QUICK, T=7)


@pytest.fixture
def in_double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


IN_CHUNKS = [make for make in steps.PROBLEMS if make(steps.QUICK).in_chunks is not None]


@pytest.mark.parametrize("length", [1, 3, 7])  # the last chunk shorter; all in one
@pytest.mark.parametrize("make", IN_CHUNKS)
def test_chunks_are_the_step(make, length, in_double):
    p = make(SIZE)
    expected = steps._loop(p.step, p.init, p.xs)[1]
    found = p.in_chunks(length)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    d = torch.randn_like(expected)
    of_loop = torch.autograd.grad(expected, p.weights, d)
    for ours, theirs in zip(torch.autograd.grad(found, p.weights, d), of_loop, strict=True):
        assert (ours - theirs).abs().max() <= 1e-11 * theirs.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("make", steps.PROBLEMS)
def test_jax_computes_the_gradients(make):
    pytest.importorskip("jax")
    torch.manual_seed(0)
    p = make(SIZE)
    ys = steps._loop(p.step, p.init, p.xs)[1]
    d = torch.randn_like(ys)
    peer = steps_jax.contender(make.__name__, p, SIZE, d, quick=True)
    assert isinstance(peer, Contender)
    steps._check(peer, torch.autograd.grad(ys, p.weights, d))


def test_other_gradients_are_refused():
    right = torch.ones(3)
    with pytest.raises(AssertionError, match="peer: other gradients"):
        steps._check(Contender("peer", lambda: (right * 1.01,)), (right,))
