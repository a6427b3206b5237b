"""Recorded steps between calls: what is recorded again, what is forgotten, what is kept alive."""

from __future__ import annotations

import gc
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small import Cell, D, H, assert_like_the_loop, weight
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import ostinato
from playing import counting


@pytest.mark.filterwarnings("error")
def test_other_values_do_not_record_again():
    torch.manual_seed(0)
    m = Cell()
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    ostinato.scan(m, init, xs)
    with counting(m) as calls:
        for _ in range(12):
            optimizer.zero_grad()
            ostinato.scan(m, init, xs)[1].square().sum().backward()
            optimizer.step()
    assert calls[0] == 0
    assert_like_the_loop(m, [m.W])


@pytest.mark.filterwarnings("error")
def test_other_batches_and_times_do_not_record_again():
    torch.manual_seed(0)
    m = Cell()
    for B in (3, 4):
        ostinato.scan(m, torch.randn(B, H, dtype=D), torch.randn(5, B, H, dtype=D))
    for B, T in [(3, 1), (4, 2), (3, 9)]:
        with counting(m) as calls:
            ostinato.scan(m, torch.randn(B, H, dtype=D), torch.randn(T, B, H, dtype=D))
        assert calls[0] == 0


@pytest.mark.filterwarnings("error")
def test_a_closure_made_anew_with_other_weights_does_not_record_again():
    torch.manual_seed(0)

    def make(W: Tensor) -> Any:
        return lambda h, x: torch.tanh(x + h @ W)

    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    ostinato.scan(make(weight()), init, xs)
    for _ in range(12):
        step = make(weight())
        with counting(step) as calls:
            ostinato.scan(step, init, xs)
        assert calls[0] == 0


def test_recording_again_and_again_is_said_once():
    """A number that changes between calls makes every call slow: after eight, a warning."""
    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(20):
            ostinato.scan(lambda h, x, scale=float(i): torch.tanh(x + h) * scale, init, xs)
    said = [str(w.message) for w in caught if "recorded" in str(w.message)]
    assert len(said) == 1
    assert "pass what changes" in said[0]


def test_steps_of_many_kinds_are_forgotten_in_time():
    """The cache is bounded: after very many steps, what comes again is right."""
    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    steps = []
    for i in range(140):
        namespace = {"torch": torch}
        exec(f"def step(h, x): return torch.tanh(x + h) * {i}.0", namespace)
        steps.append(namespace["step"])
        ostinato.scan(steps[-1], init, xs)
    for step in (steps[0], steps[-1]):
        assert_like_the_loop(step, [])


def test_nothing_is_kept_alive():
    """Neither weights, inputs, outputs, steps nor modules outlive their last use."""

    class Loose(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = weight()
            self.own = lambda a: torch.tanh(a) + 0 * self.W[0]  # a cycle through the module

        def forward(self, h, x):
            return self.own(x + h @ self.W)

    def closure(W: Tensor) -> Any:
        def step(h, x):
            return torch.tanh(x + h @ W) if True else step(h, x)  # a cycle through the function

        return step

    def searched(W: Tensor) -> Any:
        held = types.SimpleNamespace(W=W)
        return lambda h, x: torch.tanh(x + h @ held.W)

    def watch() -> dict[str, Any]:
        watched: dict[str, Any] = {}
        for make in (closure, searched):
            W = weight()
            step = make(W)
            init, xs = weight(3, H), weight(5, 3, H)
            carry, ys = ostinato.scan(step, init, xs)
            ys.sum().backward()
            watched[f"{make.__name__}: step"] = weakref.ref(step)
            for name, t in {"W": W, "init": init, "xs": xs, "carry": carry, "ys": ys}.items():
                watched[f"{make.__name__}: {name}"] = memory_of(t)
        m = Loose()
        ostinato.scan(m, torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D))
        return watched | {"module": weakref.ref(m), "module: W": memory_of(m.W)}

    watched = watch()
    gc.collect()
    assert [name for name, ref in watched.items() if ref() is not None] == []


def memory_of(t: Tensor) -> Callable[[], Any]:
    """Like a weak reference to a tensor's memory (one to the tensor dies before its memory)."""
    ref = StorageWeakRef(t.untyped_storage())
    return lambda: None if ref.expired() else ref


def test_a_tape_dies_with_its_graph():
    """What a forward pass keeps goes when its outputs go, without the cycle collector."""
    W = weight()

    def step(h, x):
        return torch.tanh(x + h @ W)

    init, xs = weight(3, H), weight(5, 3, H)
    ostinato.scan(step, init, xs)
    gc.collect()
    gc.disable()
    try:
        given = weight(5, 3, H)
        out = ostinato.scan(step, init, given)
        memory = memory_of(given)
        del given
        assert memory() is not None
        del out
        assert memory() is None
    finally:
        gc.enable()
