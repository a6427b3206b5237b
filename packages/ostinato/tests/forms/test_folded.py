"""States `[B]`: a batch of rows of one column is played as one row, where no row reads another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato.arguments import checked
from ostinato.forms import compiled, shared
from zoo.playing import loop
from zoo.small import assert_same, gradients

T = 20
P = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 0.7, 1.5)]
OF_ROWS = torch.rand(300, dtype=torch.float64, requires_grad=True)
K = torch.rand(3, dtype=torch.float64, requires_grad=True)
W = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)


def tank(S: Tensor, x: Any) -> Any:
    rain, heat, _ = x
    q = P[0].to(S) * S**1.5 / (1 + S)
    S = torch.relu(S + rain - q - heat * torch.tanh(S * P[1].to(S)))
    return S, torch.where(P[2].to(S) < S, q, -q)


def of_each_row(S: Tensor, x: Any) -> Any:
    return S * OF_ROWS[: len(S)].to(S).sigmoid() + x[0], S


def of_parts(S: Tensor, x: Any) -> Any:
    """Parameters in a vector, and several numbers for each row in one tensor."""
    rain, heat = x[2].unbind(1)
    q = K.to(S)[0] * S * torch.sigmoid(rain)
    S = S + rain - q - K.to(S)[1] * torch.tanh(heat * S) + x[2][:, 1]
    return S, q


def beside(S: Tensor, x: Any) -> Any:
    return torch.tanh(S[:, None] * W.to(S) + x[0][:, None]).mean(1), S


def given(B: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[Tensor, ...]]:
    init = torch.rand(B, dtype=dtype).requires_grad_()
    shapes = (T, B), (T, B), (T, B, 2)
    return init, tuple([torch.rand(*shape, dtype=dtype).requires_grad_() for shape in shapes])


def is_folded(step: Any, init: Tensor, xs: Any) -> bool:
    of = compiled(checked(step, init, xs, 0, False)).arguments.shared
    return of is not None and of.alone


@pytest.mark.parametrize("step", [tank, of_each_row, of_parts, beside])
def test_it_is_the_loop(step: Callable[..., Any]) -> None:
    """For each of several sizes; of many not every one is recorded anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = (64, 3, 2, 257, 5, 6, 7, 8, 9, 11, 12)
        for i, B in enumerate(sizes[:4] if step is of_each_row else sizes):
            init, xs = given(B)
            ours, theirs = (
                gradients(how, step, [*P, OF_ROWS, W, K, *xs], init, xs)
                for how in (ostinato.scan, loop)
            )
            assert_same(ours, theirs)
            assert ostinato.explain(step, init, xs).native
            if i < 4:
                assert is_folded(step, init, xs) == (step is not beside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_are_those_of_rows(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    ostinato.forget(tank)
    init, xs = given(130, dtype)
    found = []
    for folds in (True, False):
        if not folds:
            monkeypatch.setattr(shared, "_may_be_columns", lambda a: False)
        assert is_folded(tank, init, xs) == folds
        S, ys = ostinato.scan(tank, init, xs)
        found.append([S, ys, *torch.autograd.grad(ys.sum() + S.sum(), init)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
