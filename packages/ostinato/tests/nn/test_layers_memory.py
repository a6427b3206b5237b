"""memory= and truncate= on layers: the bits without a budget, and scans with windows."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato

KINDS = ["RNN", "GRU", "LSTM"]


def trained(layer: Any, x: Tensor, **options: Any) -> list[Tensor]:
    """Output, last state, and the gradients of parameters and input."""
    x = x.detach().clone().requires_grad_()
    output, h_n, *_ = layer(x, **options)
    leaves = [h_n] if isinstance(h_n, Tensor) else list(h_n)
    loss = output.square().sum() + sum(leaf.sum() for leaf in leaves)
    return [output, *leaves, *torch.autograd.grad(loss, [*layer.parameters(), x])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [{}, {"num_layers": 2, "bidirectional": True}])
def test_bits_within_a_budget(kind, shape, dtype):
    """Also of ragged rows, resets and all states."""
    torch.manual_seed(0)
    layer = getattr(ostinato.nn, kind)(5, 7, batch_first=True, dtype=dtype, **shape)
    n_scans = 4 if shape else 1
    x, resets = torch.randn(9, 600, 5, dtype=dtype), torch.rand(9, 600) < 0.01
    lengths = [600, 0, 599, 300, 1, 2, 3, 100, 50]
    for options in ({}, {"lengths": lengths}, {"resets": resets}, {"return_all_states": True}):
        plain = trained(layer, x, **options)
        budget = n_scans * 62_500 * dtype.itemsize
        within = trained(layer, x, memory=budget, **options)
        assert all(map(torch.equal, within, plain))
        with pytest.raises(ValueError, match="need at least"):
            trained(layer, x, memory=n_scans * 1000, **options)


@pytest.mark.parametrize(
    "shape", [{}, {"bidirectional": True}, {"num_layers": 2}], ids=["one", "directions", "layers"]
)
def test_the_budget_that_is_named_as_the_least_is_enough(shape):
    """Also where layers and directions share it; layers read as many features as they have."""
    layer = ostinato.nn.LSTM(7, 7, **shape)
    x = torch.randn(600, 3, 7)
    with pytest.raises(ValueError, match="scan: memory=1000 ") as refused:
        trained(layer, x, memory="1kB")
    (least,) = re.findall(r"need at least (\d+) bytes", str(refused.value))
    (named,) = re.findall(r'memory="(.*MB)"', str(refused.value))
    plain = trained(layer, x)
    for enough in (int(least), named):
        assert all(map(torch.equal, trained(layer, x, memory=enough), plain))
    n_scans = 2 if shape else 1
    with pytest.raises(ValueError, match="is too little"):
        trained(layer, x, memory=int(least) - n_scans)


@pytest.mark.parametrize("kind", KINDS)
def test_truncate(kind):
    """Windows, one after the other, the state detached between them."""
    torch.manual_seed(0)
    layer = getattr(ostinato.nn, kind)(5, 7).double()
    x = torch.randn(11, 3, 5, dtype=torch.float64)
    ours = trained(layer, x, truncate=4)
    x.requires_grad_()
    outputs, state = [], None
    for window in x.split(4):
        if state is not None:
            state = (
                state.detach() if isinstance(state, Tensor) else tuple(s.detach() for s in state)
            )
        output, state = layer(window, state)
        outputs.append(output)
    leaves = [state] if isinstance(state, Tensor) else list(state)
    output = torch.cat(outputs)
    loss = output.square().sum() + sum(leaf.sum() for leaf in leaves)
    theirs = [output, *leaves, *torch.autograd.grad(loss, [*layer.parameters(), x])]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-13)
    plain = trained(layer, x)
    assert not torch.allclose(ours[-1], plain[-1])
    assert all(map(torch.equal, trained(layer, x, truncate=11), plain))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind, dtype):
    """The engine's carry is not rounded to a half where a segment ends."""
    torch.manual_seed(0)
    layer = getattr(ostinato.nn, kind)(5, 7, dtype=dtype)
    x = torch.randn(600, 9, 5, dtype=dtype)
    for options in ({}, {"lengths": [600, 0, 599, 300, 1, 2, 3, 100, 50]}):
        plain = trained(layer, x, return_all_states=True, **options)
        within = trained(layer, x, return_all_states=True, memory=120_000, **options)
        assert all(map(torch.equal, within, plain))


def test_the_loop_plays(monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", "eager")
    layer = ostinato.nn.LSTM(3, 4)
    x = torch.randn(9, 2, 3)
    with pytest.warns(UserWarning, match="PyTorch's checkpointing"):
        output, _ = layer(x, memory="1MB")
    assert torch.allclose(output, layer(x)[0], atol=1e-6)
