"""Contexts that a step enters: another one at the next call is seen.

An autocast, hooks on saved tensors and a mode below autograd leave the step's calls as they are,
and change their results.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ostinato
from zoo.playing import loop

W = torch.randn(4, 4, requires_grad=True)
INIT, XS = torch.zeros(3, 4), torch.randn(5, 3, 4)
w = types.SimpleNamespace()


class Scaled(TorchDispatchMode):
    """Below autograd, which does not know it."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out * self.factor if func is torch.ops.aten.mm.default else out


class ScaledAbove(TorchFunctionMode):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out * self.factor if func is torch.matmul else out


class Negated(TorchDispatchMode):
    """One that reads what it does from outside of it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return -out if w.value and func is torch.ops.aten.mm.default else out


def _unpacked(factor: float) -> AbstractContextManager[Any]:
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t * factor)


HALF, BRAIN = torch.float16, torch.bfloat16
# A context of a value, and the values of four calls.
CONTEXTS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "autocast(dtype)": (lambda d: torch.autocast("cpu", d), [BRAIN, HALF, BRAIN, HALF]),
    "autocast(enabled)": (
        lambda on: torch.autocast("cpu", BRAIN, enabled=on),
        [True, False, True, False],
    ),
    "autocast or none": (
        lambda on: torch.autocast("cpu") if on else nullcontext(),
        [False, True, False, True],
    ),
    "hooks on saved tensors": (_unpacked, [1.0, 2.0, 3.0, 2.0]),
    "hooks or none": (
        lambda k: (
            torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: -t)
            if k
            else nullcontext()
        ),
        [0, 1, 0, 1],
    ),
    "a mode below autograd": (Scaled, [1.0, 2.0, 3.0, 2.0]),
    "a mode that reads": (lambda _: Negated(), [0, 1, 0, 1]),
    "a mode above autograd": (ScaledAbove, [1.0, 2.0, 3.0, 2.0]),
    "gradients": (
        lambda on: torch.enable_grad() if on else torch.no_grad(),
        [True, False, True, False],
    ),
    "inference": (torch.inference_mode, [False, True, False, True]),
}


def _entered(h: Tensor, x: Tensor) -> Any:
    with w.context(w.value):
        y = torch.matmul(x, W)
    return torch.tanh(h + x), y


def _made_before(h: Tensor, x: Tensor) -> Any:
    with w.made:
        y = torch.matmul(x, W)
    return torch.tanh(h + x), y


def _searched(h: Tensor, x: Tensor) -> Any:
    with vars(w)["".join(["con", "text"])](vars(w)["".join(["val", "ue"])]):
        y = torch.matmul(x, W)
    return torch.tanh(h + x), y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [_entered, _made_before, _searched])
@pytest.mark.parametrize("name", CONTEXTS)
def test_another_context_is_seen(name: str, step: Any) -> None:
    """The loop rounds every product to half precision, the engine once: 2⁻⁷ of values below 8."""
    w.context, values = CONTEXTS[name]
    ostinato.forget(step)

    def played(how: Any) -> tuple[Tensor, list[Any]]:
        """The outputs, and their gradients, of which some are differentiable themselves."""
        y = how(step, INIT, XS)[1]
        if not y.requires_grad:
            return y, []
        total = y.float().sum()
        return y, [
            torch.autograd.grad(total, W, retain_graph=True, create_graph=again)[0]
            for again in (False, True)
        ]

    for w.value in values:
        w.made = w.context(w.value)
        (ours, d_ours), (theirs, d_theirs) = played(ostinato.scan), played(loop)
        assert ours.dtype is theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.1)
        for a, b in zip(d_ours, d_theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0.2)


def test_the_default_of_an_autocast_within() -> None:
    def step(h: Tensor, x: Tensor) -> Any:
        with torch.autocast("cpu"):
            return torch.tanh(h + x), x @ W

    try:
        for dtype in (BRAIN, HALF, BRAIN):
            torch.set_autocast_dtype("cpu", dtype)
            assert ostinato.scan(step, INIT, XS)[1].dtype is dtype
    finally:
        torch.set_autocast_dtype("cpu", BRAIN)
