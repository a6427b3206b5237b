"""Rules of shapes and indices where no two sizes are equal, so that none stands for another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from zoo.playing import assert_played_as_by_the_loop
from zoo.steps import Case, Kit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),  # one code with many parts: meant
]

T = 4
Part = Callable[[Tensor, Tensor], Tensor]


def _convolved(
    kit: Kit, places: int, stride: int = 1, dilation: int = 1
) -> tuple[list[Tensor], int, Part]:
    """Four channels in two groups to six, whose gradient has one of three forms."""
    kernel, bias = kit.weight(6, 2, 3), kit.weight(6)

    def part(h: Tensor, x: Tensor) -> Tensor:
        return F.conv1d(h.view(len(h), 4, places), kernel, bias, stride, 1, dilation, 2).flatten(1)

    return [kernel, bias], 4 * places, part


def _embedded(kit: Kit) -> tuple[list[Tensor], int, Part]:
    """The first word gets no gradient."""
    table = kit.weight(3, 5)
    return [table], 5, lambda h, x: F.embedding(x[:, :3].argmax(1), table, padding_idx=0) * h


def _columns(kit: Kit) -> tuple[list[Tensor], int, Part]:
    table = kit.weight(2, 5)
    return [table], 5, lambda h, x: table[:, h.argmax(1)].t() * h.sum(1, True)


def _elements_of_rows(kit: Kit) -> tuple[list[Tensor], int, Part]:
    return [], 6, lambda h, x: h.view(-1, 3, 2)[torch.arange(len(h)), (x[:, 0] > 0).long() * 2]


def _rows_of_pairs(kit: Kit) -> tuple[list[Tensor], int, Part]:
    """A row of the batch is three rows of the product."""
    W = kit.weight(2, 5)
    return [W], 6, lambda h, x: (h.view(-1, 2) @ W).view(len(h), 15)


def _two_batches(kit: Kit) -> tuple[list[Tensor], int, Part]:
    """The axis before the batch is one with it in the product."""
    W = kit.weight(4, 5)
    return [W], 4, lambda h, x: (torch.stack((h, x, h * x)) @ W).sum(0)


STEPS: dict[str, Callable[[Kit], tuple[list[Tensor], int, Part]]] = {
    "a convolution of few places": lambda kit: _convolved(kit, 7),
    "a convolution of stretches": lambda kit: _convolved(kit, 21),
    "a convolution of many places": lambda kit: _convolved(kit, 81, stride=2, dilation=2),
    "an embedding with padding": _embedded,
    "columns of a matrix": _columns,
    "elements of rows": _elements_of_rows,
    "rows of pairs": _rows_of_pairs,
    "two batches": _two_batches,
}


@pytest.mark.parametrize("name", STEPS)
def test_the_loop_and_its_gradients(name: str) -> None:
    kit = Kit(torch.float64)
    parameters, n, part = STEPS[name](kit)

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y = part(h, x)
        return torch.tanh(0.5 * h + x + y.mean(1, True)), y

    case = Case(step, parameters, lambda B: kit.normal(B, n), lambda B: kit.normal(B, n))
    ostinato.forget(step)
    assert ostinato.explain(step, case.init(3), case.xs(T, 3)).native
    assert_played_as_by_the_loop(case, (4, 9), T)
