"""Loops under transforms of torch.func are scans, equal to the loop in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, jvp, vmap

import ostinato
from ostinato.loops.running import attempt
from zoo.small import B, D, H, assert_same

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")
torch.manual_seed(0)
W, init, xs = (torch.randn(*s, dtype=D) / 2 for s in [(H, H), (B, H), (30, B, H)])
Ws, inits = torch.randn(3, H, H, dtype=D), torch.randn(3, B, H, dtype=D)


def over_elements(W: Tensor, h: Tensor, xs: Tensor) -> Any:
    for x in xs:
        h = torch.tanh(x + h @ W)
    return h


def appended(W: Tensor, h: Tensor, xs: Tensor) -> Any:
    out = []
    for t in range(xs.shape[0]):
        h = torch.tanh(xs[t] + h @ W)
        out.append(h)
    return torch.stack(out)


def written(W: Tensor, h: Tensor, xs: Tensor) -> Any:
    out = torch.zeros_like(xs) * h
    for t in range(xs.shape[0]):
        h = torch.tanh(xs[t] + h @ W)
        out[t] = h * 2
    return out


def two_elements(W: Tensor, h: Tensor, xs: Tensor) -> Any:
    total = 0.0
    for t in range(1, xs.shape[0]):
        h = torch.tanh(xs[t] - xs[t - 1] + h @ W)
        total = total + h.sum()
    return h * total


def total(f: Any) -> Any:
    return lambda *z: f(*z).sin().sum()


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: grad(total(f), (0, 1, 2))(W, init, xs),
    "vmap over rows": lambda f: vmap(f, (None, 0, None))(W, inits, xs),
    "vmap over parameters": lambda f: vmap(total(f), (0, None, None))(Ws, init, xs),
    "per-sample gradients": lambda f: vmap(grad(total(f)), (None, 0, 1))(W, init, xs),
    "jvp": lambda f: jvp(f, (W, init, xs), (W, init.cos(), xs)),
    "jvp of grad": lambda f: jvp(grad(total(f)), (W, init, xs), (W, init.cos(), xs)),
    "jacrev": lambda f: jacrev(total(f), 1)(W, init, xs),
    "jacfwd": lambda f: jacfwd(total(f), 1)(W, init, xs),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("function", [over_elements, appended, written, two_elements])
def test_a_loop(function: Any, transform: str, monkeypatch):
    of = TRANSFORMS[transform]
    try:
        expected = of(function)
    except RuntimeError as error:  # vmap refuses some changes in place
        assert function is written and "inplace" in str(error)
        pytest.skip("PyTorch cannot map it")
    played, scan_iterations = [], attempt.scan_iterations

    def counted(*arguments: Any) -> Any:
        found = scan_iterations(*arguments)
        played.append(found)
        return found

    monkeypatch.setattr(attempt, "scan_iterations", counted)
    looped = ostinato.loop(function)
    for _ in range(3):
        played.clear()
        assert_same(of(looped), expected, 1e-10)
    assert len(played) == 1
