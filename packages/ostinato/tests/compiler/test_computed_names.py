"""Attributes whose names a step computes: seen while it is recorded, and guarded."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from zoo.playing import counting, loop

D = torch.float64
INIT, XS = torch.randn(3, 4, dtype=D), torch.randn(9, 3, 4, dtype=D)


class Surrogate(torch.autograd.Function):
    """A spike with another function's gradient, whose backward pass is in Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(ctx.slope * x), None


class Neuron:
    """Reads its parameters by name, as packages of spiking neurons do."""

    def __init__(self) -> None:
        self.alpha, self.beta, self.names, self.log = 2.0, 0.9, ("alpha",), list[Any]()

    def __getattr__(self, name: str) -> Any:
        if name == "scale":
            return 0.5
        raise AttributeError(name)

    def step(self, h: Tensor, x: Tensor) -> Any:
        (slope,) = [getattr(self, name) for name in self.names]
        h = h * getattr(self, "be" + "ta") + x
        spike = Surrogate.apply(h - 0.1 * hasattr(self, "thres" + "hold"), slope)
        return h - spike * getattr(self, "sca" + "le", 1.0), spike


def outcome(how: Any, step: Any) -> list[Tensor]:
    init, xs = INIT.clone().requires_grad_(), XS.clone().requires_grad_()
    h, ys = how(step, init, xs)
    return [h, ys, *torch.autograd.grad((h * h).sum() + ys.sum(), (init, xs))]


def test_they_are_guarded() -> None:
    neuron = Neuron()
    for change in ("", "alpha = 3.0", "beta = 0.5", "threshold = 1", "names = ('beta',)"):
        exec(f"neuron.{change}" if change else "")
        torch.testing.assert_close(outcome(ostinato.scan, neuron.step), outcome(loop, neuron.step))
        with counting(neuron.step) as calls:
            outcome(ostinato.scan, neuron.step)
        assert calls == [0], change


def test_what_is_changed_under_such_a_name_is_a_side_effect() -> None:
    objects = SimpleNamespace(inner=SimpleNamespace(log=[]))

    def step(h: Tensor, x: Tensor) -> Tensor:
        getattr(getattr(objects, "in" + "ner"), "lo" + "g").append(1)
        return torch.tanh(h + x)

    with pytest.warns(UserWarning, match="changes what it reaches"):
        for _ in range(2):
            ostinato.scan(step, INIT, XS)
    assert len(objects.inner.log) == 2 * len(XS)


def test_python_has_its_own_functions_again() -> None:
    """Also after an error, and after two threads that record at once."""
    before = builtins.getattr, builtins.hasattr

    def failing(h: Tensor, x: Tensor) -> Tensor:
        raise ZeroDivisionError(getattr(SimpleNamespace(a=1), "a" + ""))

    def record() -> None:
        outcome(ostinato.scan, Neuron().step)
        with pytest.raises(ZeroDivisionError):
            ostinato.scan(failing, INIT, XS)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (builtins.getattr, builtins.hasattr) == before


@pytest.mark.process
def test_torch_compile_that_begins_within_a_step_knows_pythons_functions() -> None:
    """It lists Python's functions when it first traces, here while two are replaced."""
    script = """
        import torch
        from ostinato import scan

        def step(h, x):
            from torch._dynamo import trace_rules
            trace_rules.is_builtin_callable(len)  # as dynamo when it first traces
            return torch.tanh(h + x)

        scan(step, torch.zeros(2, 3), torch.zeros(4, 2, 3))

        @torch.compile(backend="eager", fullgraph=True)
        def later(x):
            return getattr(torch, "sin")(x)

        later(torch.zeros(2))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
