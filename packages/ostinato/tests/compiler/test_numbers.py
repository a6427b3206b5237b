"""Python floats that a step reads and that change: taken as tensors from their second value on."""

from __future__ import annotations

import functools
import math
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ostinato
from ostinato import compiler
from ostinato.compiler import cache
from zoo.playing import counting, loop
from zoo.small import gradients

D = torch.float64
H = 6
VALUES = [0.5, 0.625, 0.75, 0.875, 1.125, 0.5, 1.25, 1.375, 1.5, 1.625, 1.75, 2.0]
W = nn.Parameter(torch.randn(H, H, dtype=D, generator=torch.Generator().manual_seed(0)) * 0.4)
gain = 1.0
TABLE = {v: 1 - v / 4 for v in VALUES if v not in VALUES[:2]}


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W, self.scale, self.options = W, 1.0, {"gain": 1.0, "layers": 2}

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h @ self.W * self.scale + x * self.options["gain"])


module = Module()


def of_a_module(value: Any) -> Any:
    module.scale = value
    return module


def in_a_dict(value: float) -> Any:
    module.options["gain"] = value
    return module


def _with(h: Tensor, x: Tensor, temperature: float) -> Tensor:
    return ((h @ W + x) / temperature).softmax(-1)


def _global(h: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(h @ W + x) * gain


def a_global(value: float) -> Any:
    global gain
    gain = value
    return _global


def two_at_once(value: float) -> Any:
    step_size = value / 10
    return lambda h, x: h + step_size * torch.tanh((h @ W + x) / value)


# A step of a value, and the most recordings for twelve values, eleven of them different.
LIFTED: dict[str, tuple[Callable[[float], Any], int]] = {
    "in a closure": (lambda v: lambda h, x: h + v * (torch.tanh(h @ W + x) - (1 - v) * h), 2),
    "two at once": (two_at_once, 3),
    "of a module": (of_a_module, 2),
    "in a dict": (in_a_dict, 3),
    "in a partial": (lambda v: functools.partial(_with, temperature=v), 3),
    "a global": (a_global, 2),
}
NOT: dict[str, Callable[[float], Any]] = {
    "needed as a number": lambda v: lambda h, x: F.softplus(h @ W + x, beta=v),
    "of Python's functions": lambda v: lambda h, x: torch.tanh(h @ W + x) * math.exp(-v),
    "asked about": lambda v: lambda h, x: torch.tanh(h @ W + x) * (2.0 if v > 1 else v),
    "looked up": lambda v: lambda h, x: torch.tanh(h @ W + x) * TABLE.get(v, 1.0),
    "looked up, and a factor": (
        lambda v: lambda h, x: torch.tanh(h @ W + x) * v + {1.25: 2.0}.get(v, 1.0)
    ),
    "distinguished by kind, from a value on": (
        lambda v: lambda h, x: torch.tanh(h @ W + x) * (v if type(v) is float and v > 0.7 else 1.0)
    ),
    "distinguished by kind": (
        lambda v: lambda h, x: torch.tanh(h @ W + x) * (v if isinstance(v, float) else 7.0)
    ),
}


@pytest.fixture
def recordings(monkeypatch: Any) -> list[int]:
    count, whole = [0], compiler.compile_step

    def counted(*arguments: Any) -> Any:
        count[0] += 1
        return whole(*arguments)

    monkeypatch.setattr(compiler, "compile_step", counted)
    return count


def play_all(make: Callable[[float], Any]) -> None:
    random = torch.Generator().manual_seed(1)
    init, xs = (torch.randn(*s, H, dtype=D, generator=random) for s in [(3,), (5, 3)])
    for value in VALUES:
        step = make(value)
        ours = gradients(ostinato.scan, step, [W], init, xs)
        theirs = gradients(loop, step, [W], init, xs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LIFTED)
def test_a_number_that_changes_is_recorded_twice(name, recordings):
    make, most = LIFTED[name]
    ostinato.forget(make(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play_all(make)
    assert recordings[0] <= most


@pytest.mark.parametrize("name", NOT)
def test_a_number_that_must_be_one_is_recorded_for_each_value(name, recordings):
    """And nothing of the attempt stays: the step finds floats."""
    make = NOT[name]
    ostinato.forget(make(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        play_all(make)
    assert 2 < recordings[0] <= len(VALUES) + 1  # an attempt to lift it
    assert type(module.scale) is type(module.options["gain"]) is type(gain) is float


def test_the_loop_plays_what_is_recorded_again_and_again(monkeypatch, recordings):
    """Ever more calls from one recording to the next; a value that stays is recorded in the end."""
    monkeypatch.setattr(cache, "SPARED_AFTER", 8)
    h, xs = torch.ones(2, H, dtype=D), torch.ones(1, 2, H, dtype=D)
    make = lambda value: lambda h, x: torch.tanh(h @ W + x) * math.exp(-value)  # noqa: E731

    def play(value: float) -> None:
        step = make(value)
        torch.testing.assert_close(ostinato.scan(step, h, xs), loop(step, h, xs))

    with pytest.warns(UserWarning, match="8 times, and value is new again: the Python loop"):
        for i in range(40):
            play(i / 40)
    assert 9 < recordings[0] <= 1 + 9 + 6  # the attempt to lift it; then at calls 1, 2, 4, … 32
    for _ in range(40):
        play(2.0)
    before = recordings[0]
    play(2.0)
    with counting(make(2.0)) as calls:
        play(2.0)
    assert recordings[0] == before and calls == [1]  # the loop's of this test


@pytest.mark.parametrize("reads", ["t.value", "vars(t)[''.join(['val', 'ue'])]"])
def test_values_used_twice_are_spared_too(reads, monkeypatch, recordings):
    """Where guards see them, and where the step is searched."""
    monkeypatch.setattr(cache, "SPARED_AFTER", 4)
    monkeypatch.setattr(cache, "MAX_ENTRIES", 4)
    h, xs = torch.ones(2, H, dtype=D), torch.ones(1, 2, H, dtype=D)
    t = types.SimpleNamespace()
    step = eval(
        f"lambda h, x: torch.nn.functional.softplus(h + x, beta={reads})", globals() | {"t": t}
    )
    for i in range(30):
        t.value = 1.0 + i
        for _ in range(2):
            torch.testing.assert_close(ostinato.scan(step, h, xs), loop(step, h, xs))
    # The attempt to lift it, and those before it is spared; then at waits 1, 2, 4, … 32.
    assert recordings[0] <= 1 + 5 + 6
    t.value = 2.0
    for _ in range(70):
        ostinato.scan(step, h, xs)
    with counting(step) as calls:
        ostinato.scan(step, h, xs)
    assert calls == [int("vars" in reads)]


def test_long_sequences_are_recorded_for_each_value(monkeypatch, recordings):
    """Where the loop takes longer than a recording."""
    monkeypatch.setattr(cache, "SPARED_AFTER", 2)

    def slow(value: float) -> Any:
        return lambda h, x: (time.sleep(0.01), torch.tanh(h + x) * math.exp(-value))[1]

    h, xs = torch.ones(2, H, dtype=D), torch.ones(500, 2, H, dtype=D)  # five seconds in the loop
    for i in range(6):
        ostinato.scan(slow(i / 6), h, xs)
    assert recordings[0] >= 6
