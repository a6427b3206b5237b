"""Steps in float32, of sizes around the engine's tiles, of any layout; and steps that are odd."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import ostinato
from zoo.playing import assert_close, assert_native, counting, loop, play
from zoo.small import both, gradients
from zoo.steps import ZOO, Case, Kit, make
from zoo.suites import one_in, sample
from zoo.wild import WILD

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),  # one code at many sizes: meant
]

D = torch.float64


def float_tolerance(case: Case, T: int, B: int, F: int, H: int) -> float:
    """How far float32 may be off, relative to the largest element.

    A value has passed through at most T steps, and each step adds rounding of a few operations (an
    exp or tanh is good to 2.5 ulp, a product of K terms to about √K, with K up to four gates of H
    and, for a weight's gradient, the T·B terms of its sum). These steps do not amplify.
    """
    K = max(F + H, 4 * H, T * B)
    return 16 * torch.finfo(torch.float32).eps * math.sqrt(K) * math.sqrt(T)


@pytest.mark.parametrize("name", one_in(4, sample(100, ZOO)))
def test_float_is_double_but_for_rounding(name):
    F, H = 7, 18  # past one vector of 16 columns, no multiple of anything
    exact, rounded = make(name, D, F, H), make(name, torch.float32, F, H)
    for B, T in [(1, 7), (5, 1), (33, 7)]:
        init, xs = exact.init(B), exact.xs(T, B)
        theirs = play(loop, exact, init, xs)
        ours = play(ostinato.scan, rounded, to_float(init), to_float(xs))
        for (what, a), (_, b) in zip(ours.named(), theirs.named(), strict=True):
            if not b.is_floating_point():
                continue
            assert a.dtype == torch.float32
            error, scale = float((a.double() - b).abs().max()), float(b.abs().max())
            assert error <= float_tolerance(exact, T, B, F, H) * scale, (what, error / scale)
    assert_native(rounded, to_float(init), to_float(xs))


def to_float(tree: Any) -> Any:
    return pytree.tree_map(lambda t: t.float() if t.is_floating_point() else t, tree)


@pytest.mark.parametrize("name", one_in(2, WILD))
def test_a_wild_step_is_right_whoever_plays_it(name):
    """And if the loop plays it, a warning has named the step and the reason."""
    case = WILD[name](Kit(D))
    ostinato.forget(case.step)
    warnings.simplefilter("ignore")
    T = 4
    for B in (3, 1, 20):
        init, xs = case.init(B), case.xs(T, B)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours = play(ostinato.scan, case, init, xs)
        # In double, PyTorch's own hardsigmoid has float32's sixth as its slope.
        coarse = name == "float_inside" or ("sigmoid" in name and "hard" in name)
        relative = 1e-6 if coarse else 1e-11
        assert_close(ours, play(loop, case, init, xs), relative)
        with counting(case.step) as calls:
            again = play(ostinato.scan, case, init, xs)
        assert_close(again, ours, relative)
        if B == 3:  # it is said once
            warned = [str(w.message) for w in caught if "slow Python loop" in str(w.message)]
            assert len(warned) <= 1
            assert warned or calls[0] <= 1, "the loop plays it in silence"
            assert not warned or "step in the slow Python loop: " in warned[0]


@pytest.mark.parametrize("name", ["lstm_chunk", "gru_reset_after", "readout_per_step", "clockwork"])
@pytest.mark.parametrize("F, H", [(8, 8), (1, 1), (16, 64), (13, 66)])
def test_sizes_around_the_tiles(name, F, H):
    """F = H (a gradient of x may be a gradient of h), one column, a full tile, a tile and two."""
    case = make(name, D, F, H)
    for B, T in [(1, 3), (6, 3), (7, 4)]:
        init, xs = case.init(B), case.xs(T, B)
        ours = play(ostinato.scan, case, init, xs)
        assert_close(ours, play(loop, case, init, xs), 1e-12)
    assert_native(case, init, xs)


def test_tensors_of_any_layout():
    """Transposed, strided, expanded: captured, first carry, xs and the gradients that come back."""
    kit = Kit(D, 4, 4)
    A, b = kit.weight(4, 8), kit.weight(1)
    W, V, c, d = A[:, :4], A[:, 4:].t(), b.expand(4), A[1, ::2]

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ V + h @ W + c) * d

    def grads(how: Any, init: Tensor, xs: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        carry, ys = how(step, init, xs)
        total = ys.transpose(0, 2)[::2].sum() + ys[1].sum() + carry.t()[1].sum()
        return [carry, ys, *torch.autograd.grad(total, [A, b, *leaves])]

    row, column = kit.weight(1, 4), kit.weight(4, 3)
    wide, one = kit.weight(4, 3, 10), kit.weight(1, 1, 4)
    for init in (row.expand(3, 4), column.t()):
        for xs in (wide.permute(2, 1, 0)[::2], one.expand(5, 3, 4)):
            leaves = [row if init.stride(0) == 0 else column, wide if xs.stride(0) else one]
            ours, theirs = grads(ostinato.scan, init, xs, leaves), grads(loop, init, xs, leaves)
            for a, b_ in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b_, rtol=1e-12, atol=1e-12)


def test_the_same_tensor_in_several_roles():
    """One tensor as first carry and captured, as two leaves of the carry, as two of xs."""
    kit = Kit(D, 4, 4)
    W, h, xs = kit.weight(4, 4), kit.weight(4, 4), kit.weight(5, 4, 4)

    def step(carry: Any, x: Any) -> Any:
        a, b = carry
        return torch.tanh(x[0] + a @ W), 0.5 * b + a * x[1]

    for init in ((h, h), (W, h), (W, W)):
        both(lambda how, init=init: gradients(how, step, [W, h, xs], init, (xs, xs)))
