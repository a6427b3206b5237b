"""Values of captured tensors that a step reads as numbers: guarded, as a Python number would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from zoo.playing import loop
from zoo.small import B, D, H, T, assert_same, gradients, inputs


class Neuron(nn.Module):
    """As packages of spiking neurons write it: flags in buffers, a state that may be None."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(H, H, dtype=D) / 2)
        self.threshold = nn.Parameter(torch.tensor(0.5, dtype=D))
        self.register_buffer("reset", torch.tensor(1))
        self.register_buffer("delays", torch.tensor([1.0, 2.0]))

    def forward(self, h: Tensor, x: Tensor) -> Any:
        if h == None or self.W == None:  # noqa: E711 (as snntorch asks)
            raise ValueError
        h = torch.tanh(x + h @ self.W)
        if self.reset == 1:
            h = h - self.threshold
        elif (self.reset + 1).eq(3):
            h = h * float(self.delays[1]) * self.delays.tolist()[0]
        return h, (h if self.reset.bool() else -h)


def test_flags_in_buffers_are_guarded() -> None:
    neuron = Neuron()
    _, init, xs = inputs()
    for value in (1, 2, 0, 1):
        neuron.reset.fill_(value)
        neuron.delays.mul_(1.5)
        assert ostinato.explain(neuron, init, xs).native
        theirs = gradients(loop, neuron, list(neuron.parameters()), init, xs)
        assert_same(gradients(ostinato.scan, neuron, list(neuron.parameters()), init, xs), theirs)


CAPTURED = torch.tensor([0.5, -1.0], dtype=D)


def _written(h: Tensor, x: Tensor) -> Tensor:
    flags = CAPTURED.clone()
    flags[0] = x.sum().detach()
    return h + x if flags[0] > 0 else h - x


# What depends on an argument, or may, is still refused; a value that was read in spite of it
# would be wrong at the next step.
OF_ARGUMENTS: list[Callable[[Tensor, Tensor], Tensor]] = [
    _written,
    lambda h, x: h + x if (CAPTURED.sum() * h.sum()) > 0 else h - x,
    lambda h, x: h + x * (x * CAPTURED[0]).sum().item(),
    lambda h, x: h + x if torch.full((), float(CAPTURED[0])).add_(x.sum()) > 0 else h,
]


@pytest.mark.parametrize("row", range(len(OF_ARGUMENTS)))
def test_no_value_of_an_argument_is_read(row: int) -> None:
    init, xs = torch.ones(B, H, dtype=D), torch.ones(T, B, H, dtype=D)
    found = ostinato.explain(OF_ARGUMENTS[row], init, xs)
    assert "Python value" in found.reason
