"""Programs of convolutions: patches that are the moved image are found, not written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_lowering import codes, programs
from torch import Tensor, nn

from ostinato.compiler.graph.arrays import in_stretches
from ostinato.engine.program import Code, Program

B, C = 9, 3

pytestmark = pytest.mark.filterwarnings("error")


def conv_rnn(monkeypatch, padding: int, image: tuple[int, int], **options: Any) -> list[Program]:
    """h ← tanh(conv(h) + x), on the part of the image that the convolution leaves."""
    conv = nn.Conv2d(C, C, 3, padding=padding, **options)

    def step(h: Tensor, x: Tensor) -> Tensor:
        new = torch.tanh(conv(h))
        lost = [a - b for a, b in zip(h.shape[2:], new.shape[2:], strict=True)]
        return nn.functional.pad(new, (0, lost[1], 0, lost[0])) + x

    init, xs = torch.zeros(B, C, *image), torch.randn(5, B, C, *image)
    return programs(step, init, xs, monkeypatch)


@pytest.mark.parametrize("image", [(4, 5), (8, 8), (3, 17)])
def test_patches_of_an_image_of_the_same_size_are_not_written(monkeypatch, image):
    forward, backward = conv_rnn(monkeypatch, 1, image)
    for program in (forward, backward):
        assert Code.TAKE not in codes(program.instructions)
        products = [program.products[x.weight] for x in program.loop if x.code == Code.PRODUCT]
        assert [p.table >= 0 for p in products] == [True]
    assert codes(backward.after).count(Code.PRODUCT_SUM) == 1
    assert Code.OUTER not in codes(backward.after)


@pytest.mark.parametrize(("taps", "places"), [(8, 1), (8, 15), (1, 20)])
def test_the_gradient_of_a_kernel_is_a_sum_of_outer_products(monkeypatch, taps, places):
    """Where the places fill no stretch of sixteen, or the patches are the image itself."""
    conv, lost = nn.Conv1d(C, C, taps), (0, taps - 1)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return nn.functional.pad(torch.tanh(conv(h)), lost) + x

    size = places + taps - 1
    init, xs = torch.zeros(B, C, size), torch.randn(5, B, C, size)
    _, backward = programs(step, init, xs, monkeypatch)
    found = codes(backward.after)
    assert found.count(Code.OUTER) == places
    assert Code.PRODUCT not in found and Code.PRODUCT_SUM not in found


@pytest.mark.parametrize("options", [{"padding": 0}, {"padding": 2, "dilation": 2, "stride": 2}])
def test_other_patches_are_taken(monkeypatch, options):
    """Sixteen of them do not lie side by side."""
    for program in conv_rnn(monkeypatch, image=(9, 9), **options):
        assert Code.TAKE in codes(program.instructions)
        assert all(p.table < 0 for p in program.products)


def test_sixteen_elements_side_by_side():
    """By hand: rows of 20, moved by one, zeros at the edge; then one out of its place."""
    places = np.arange(40).reshape(2, 20) - 1
    assert in_stretches(places, 20)
    assert in_stretches(np.where(places % 3 == 0, -1, places), 20)
    assert in_stretches(np.full(40, -1), 20)
    places[1, 7] += 1
    assert not in_stretches(places, 20)
    # A row of sixteen ends where the row of the matrix ends.
    assert in_stretches(np.r_[np.arange(20), np.arange(20)], 20)
    assert not in_stretches(np.r_[np.arange(20), np.arange(20)], 40)
