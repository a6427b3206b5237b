"""Comparisons that rounding decides: a right step is not refused for it, a wrong one is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato.compiler import verify
from ostinato.forms import compiled
from zoo.small import weight

B, T, K, H = 3, 4, 37, 64


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return g / (1 + v.abs()) ** 2


def test_a_spike_at_its_threshold() -> None:
    """The threshold is what PyTorch gives; the engine adds in another order or rounds elsewhere."""
    dtype = torch.float32
    W = weight(K, H).detach().to(dtype).requires_grad_()
    xs = torch.randn(T, B, K, dtype=dtype)
    threshold = (xs[0] @ W).tanh().detach()

    def step(h: Tensor, x: Tensor) -> Any:
        s = Spike.apply(h + (x @ W).tanh() - threshold)
        return 0.5 * h + 0.1 * s, s

    init = torch.zeros(B, H, dtype=dtype)
    call = compiled(ostinato.arguments.checked(step, init, xs, 0, False))
    found = verify._compared(call, None)
    assert not verify._agree(call, found.pairs)  # or the test would test nothing
    assert ostinato.explain(step, init, xs).native


@pytest.mark.parametrize("wrong", [1, 1 + 1e-6, 1.5])
def test_a_wrong_step_with_spikes_is_refused(wrong: float, monkeypatch: Any) -> None:
    """A recording of which every output is off, beside spikes that rounding decides."""
    W = weight(K, H)
    xs, init = torch.randn(T, B, K, dtype=torch.float64), torch.zeros(B, H, dtype=torch.float64)
    threshold = (xs[0] @ W).tanh().detach()

    def step(h: Tensor, x: Tensor) -> Any:
        s = Spike.apply(h + x @ W - threshold)
        return 0.5 * h + 0.1 * s, s + torch.tanh(x @ W)

    whole = verify.ScanCall.outputs

    def outputs(self: Any, tensors: Any) -> Any:
        ys, finals = whole(self, tensors)
        return [y * wrong for y in ys], finals

    monkeypatch.setattr(verify.ScanCall, "outputs", outputs)
    ostinato.forget(step)
    found = ostinato.explain(step, init, xs)
    assert found.native == (wrong == 1)
    assert found.native or "differ from the Python loop's" in found.reason


def test_agreement_at_one_place_does_not_excuse_a_difference_at_another(monkeypatch: Any) -> None:
    """Where no comparison is within rounding of its threshold, engine and loop must agree."""
    W = weight(K, H)
    xs, init = torch.randn(T, B, K, dtype=torch.float64), torch.zeros(B, H, dtype=torch.float64)
    threshold = (xs[0] @ W).tanh().detach()

    def step(h: Tensor, x: Tensor) -> Any:
        s = Spike.apply(h + x @ W - threshold)
        return 0.5 * h + 0.1 * s, s + torch.tanh(x @ W)

    compared = verify._compared

    def wrong(call: Any, observation: Any, moved: float = 0.0, phase: int = 0) -> Any:
        found = compared(call, observation, moved, phase)
        right = phase == 1 and abs(moved) > 1e-3
        pairs = [(a if right else a * 1.5, b) for a, b in found.pairs[:1]]
        return found._replace(pairs=[*pairs, *found.pairs[1:]])

    monkeypatch.setattr(verify, "_compared", wrong)
    ostinato.forget(step)
    assert "differ from the Python loop's" in ostinato.explain(step, init, xs).reason
