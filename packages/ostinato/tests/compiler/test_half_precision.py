"""Under autocast, and with carries of half precision: computed in float32, in the loop's dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ostinato
from zoo.playing import loop
from zoo.steps import Kit

pytestmark = pytest.mark.filterwarnings("error", "ignore:.*was recorded")
B, T, N, H = 4, 7, 5, 8
HALF = (torch.bfloat16, torch.float16)


def _steps(kit: Kit) -> dict[str, tuple[Callable[[Any, Tensor], Any], list[Tensor]]]:
    U, W = kit.weight(N, H), kit.weight(H, H)
    cell, norm = kit.module(nn.GRUCell, N, H), nn.LayerNorm(H)
    group, batch = nn.GroupNorm(2, H), nn.BatchNorm1d(H).eval()

    def returned_as_float(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W).float()

    def with_an_output(h: Tensor, x: Tensor) -> Any:
        new = torch.tanh(x @ U + h @ W)
        return new.float(), (new, new.float().softmax(-1))

    def activated(h: Tensor, x: Tensor) -> Tensor:
        z = x @ U
        return 0.5 * h + (F.elu(z) + F.mish(F.leaky_relu(z)) + F.gelu(z)).float()

    def of_modules(h: Tensor, x: Tensor) -> Tensor:
        return 0.5 * h + cell(norm(x @ U)[:, :N], h).float()

    def normalized(h: Tensor, x: Tensor) -> Any:
        """By modules of which the parameters are float32."""
        z = x @ U
        outputs = norm(z), group(z), batch(z)
        return 0.5 * h + sum(outputs).float(), outputs

    return {
        "returned as float": (returned_as_float, [U, W]),
        "with an output": (with_an_output, [U, W]),
        "activated": (activated, [U]),
        "of modules": (of_modules, [U, *cell.parameters()]),
        "normalized": (normalized, [U, norm.weight, group.weight, batch.weight]),
    }


NAMES = list(_steps(Kit(torch.float32)))


def _outcome(how: Any, step: Any, init: Tensor, xs: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    carry, ys = how(step, init, xs)
    outs = [carry, *(ys if isinstance(ys, tuple) else [ys])]
    total = sum((o.float() * torch.linspace(0.5, 1, o.numel()).view_as(o)).sum() for o in outs)
    return [*outs, *torch.autograd.grad(total, leaves)]


def _assert_near(ours: list[Tensor], exact: list[Tensor], bound: float) -> None:
    for a, b in zip(ours, exact, strict=True):
        assert a.shape == b.shape
        a, b = a.detach().float(), b.detach().float()
        assert float((a - b).abs().max()) <= bound * float(b.abs().max())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", NAMES)
def test_under_autocast(name: str, dtype: torch.dtype) -> None:
    """The loop's dtypes; and nearer to float32 than a rounding of what is returned."""
    kit = Kit(torch.float32)
    step, parameters = _steps(kit)[name]
    init = kit.normal(B, H)
    xs = kit.normal(T, B, N).requires_grad_()
    exact = _outcome(loop, step, init, xs, [*parameters, xs])
    with torch.autocast("cpu", dtype):
        ours = _outcome(ostinato.scan, step, init, xs, [*parameters, xs])
        theirs = _outcome(loop, step, init, xs, [*parameters, xs])
        found = ostinato.explain(step, init, xs)
    assert found.native, found.reason
    assert [t.dtype for t in ours] == [t.dtype for t in theirs]
    _assert_near(ours, exact, 2 * torch.finfo(dtype).eps)
    if name not in ("with an output", "normalized"):  # these return values in half precision
        _assert_near(ours, exact, 1e-4)


@pytest.mark.parametrize("dtype", HALF)
def test_a_carry_of_half_precision(dtype: torch.dtype) -> None:
    kit = Kit(dtype)
    U, W = kit.weight(N, H), kit.weight(H, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W)

    init, xs = kit.normal(B, H).requires_grad_(), kit.normal(T, B, N).requires_grad_()
    ours = _outcome(ostinato.scan, step, init, xs, [U, W, init, xs])
    theirs = _outcome(loop, step, init, xs, [U, W, init, xs])
    assert ostinato.explain(step, init, xs).native
    assert [t.dtype for t in ours] == [t.dtype for t in theirs] == [dtype] * 6
    _assert_near(ours, theirs, 40 * torch.finfo(dtype).eps)  # the loop rounds at every operation


def test_another_dtype_than_the_loop_has_is_no_error() -> None:
    """Autocast computes `prod` in float32, and does not see what is recorded in its place."""
    kit = Kit(torch.float32)
    U = kit.weight(N, H)

    def step(h: Tensor, x: Tensor) -> Any:
        return 0.5 * h, (x @ U).prod(-1)

    init, xs = kit.normal(B, H), kit.normal(T, B, N)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.warns(UserWarning, match="slow Python loop: in a few time steps"):
            ours = ostinato.scan(step, init, xs)[1]
        theirs = loop(step, init, xs)[1]
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
