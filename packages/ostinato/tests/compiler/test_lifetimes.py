"""What scan remembers keeps nothing alive: weights, inputs, outputs, steps, modules, classes."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import ostinato
from zoo.small import B, D, H, T, module, weight
from zoo.suites import one_in

pytestmark = pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")


def reference(of: Any) -> Callable[[], Any]:
    """Weak; to a tensor's memory, since a reference to the tensor may die before it."""
    if not isinstance(of, Tensor):
        return weakref.ref(of)
    memory = StorageWeakRef(of.untyped_storage())
    return lambda: None if memory.expired() else memory


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = weight()

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ self.W)


class Hides(Weights):
    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ getattr(self, "W"))  # noqa: B009


class Slots:
    __slots__ = ("W", "__weakref__")

    def __init__(self) -> None:
        self.W = weight()

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ self.W)


def local_class(base: Any) -> Any:
    """A class of its own, whose method reads a table in a closure."""
    table = {"V": weight()}

    class Local(base):
        def forward(self, h: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(x @ table["V"] + super().forward(h, x))

    made = Local()
    return made, made, Local, table["V"]


def with_itself(made: Any) -> Any:
    """A cycle: by what the code of the step does not mention."""
    made.shown_to = types.SimpleNamespace(to=[made])
    return made


def recursive() -> Any:
    W = weight()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ W) if True else step(h, x)

    return step, step, W


def over(make: Callable[[Tensor], Any]) -> Callable[[], Any]:
    def made() -> Any:
        W = weight()
        step = make(W)
        return step, step, W

    return made


def held(W: Tensor) -> Any:
    return types.SimpleNamespace(W=W)


# A maker of a step and what must die with it; True if it is in a cycle, which the collector frees.
STEPS: dict[str, tuple[Callable[[], Any], bool]] = {
    "closure": (over(lambda W: lambda h, x: torch.tanh(x + h @ W)), False),
    "default": (over(lambda W: lambda h, x, W=W: torch.tanh(x + h @ W)), False),
    "path": (over(lambda W: (lambda o: lambda h, x: torch.tanh(x + h @ o.W))(held(W))), False),
    "searched": (
        over(lambda W: (lambda o: lambda h, x: torch.tanh(x + h @ getattr(o, "W")))(held(W))),  # noqa: B009
        False,
    ),
    "helper": (over(lambda W: (lambda f: lambda h, x: f(x) + f(h))(lambda a: a @ W)), False),
    "random": (over(lambda W: lambda h, x: torch.tanh(h @ W + torch.randn_like(x))), False),
    "value": (over(lambda W: lambda h, x: torch.tanh(x + h @ W) * float(W.sum() > -9)), False),
    "batch size": (over(lambda W: lambda h, x: x + (h @ W if len(h) != 4 else h)), False),
    "of weights alone": (over(lambda W: lambda h, x: x + h @ torch.cat([W.exp()])), False),
    "counter": (over(lambda W: (lambda o: lambda h, x: (o.append(1), x + h @ W)[1])([])), False),
    "keeps a tensor": (
        over(lambda W: (lambda o: lambda h, x: x + h @ o.setdefault("W", W.detach() * 2))({})),
        False,
    ),
    "recursive": (recursive, True),
    "module": (lambda: (lambda m: (m, m, m.W))(Weights()), False),
    "method": (lambda: (lambda m: (m.forward, m, m.W))(Weights()), False),
    "module, searched": (lambda: (lambda m: (m, m, m.W))(Hides()), False),
    "slots": (lambda: (lambda m: (m, m, m.W))(Slots()), False),
    "class": (lambda: local_class(Weights), True),
    "class, searched": (lambda: local_class(Hides), True),
    "module in itself": (lambda: (lambda m: (m, m, m.W))(with_itself(Weights())), True),
    "method in itself": (lambda: (lambda m: (m.forward, m, m.W))(with_itself(Hides())), True),
}


@pytest.mark.parametrize("name", one_in(3, STEPS))
def test_nothing_outlives_its_last_use(name):
    make, in_a_cycle = STEPS[name]

    def play() -> list[Callable[[], Any]]:
        step, *watched = make()
        init, xs = weight(B, H), weight(T, B, H)
        for _ in range(2):
            carry, ys = ostinato.scan(step, init, xs)
            (ys.sum() + carry.sum()).backward()
        ostinato.scan(step, weight(4, H), weight(T, 4, H))
        ostinato.explain(step, init, xs)
        return [reference(of) for of in (*watched, init, xs, carry, ys)]

    gc.disable()
    try:
        references = play()
        if in_a_cycle:
            gc.collect()
        assert [at for at, ref in enumerate(references) if ref() is not None] == []
    finally:
        gc.enable()


def test_the_checker_can_fail(monkeypatch):
    """On a step that somebody keeps."""
    kept: list[Any] = []
    make = over(lambda W: kept.append(W) or (lambda h, x: torch.tanh(x + h @ W)))
    monkeypatch.setitem(STEPS, "kept", (make, False))
    with pytest.raises(AssertionError, match=r"\[1\]"):
        test_nothing_outlives_its_last_use("kept")


PARTS = {
    "itself": lambda m: lambda h, x: m.cell(x, h),
    "a part": lambda m: (lambda cell: lambda h, x: cell(x, h))(m.cell),
    "a tensor": lambda m: (lambda W: lambda h, x: torch.tanh(x + h @ W[:H]))(m.cell.weight_hh),
    "a default": lambda m: lambda h, x, cell=m.cell: cell(x, h),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_a_model_no_longer_has(name):
    """Its steps are made anew for each call; what one of them had goes with it."""
    model = nn.Module()

    def play() -> Callable[[], Any]:
        model.cell = module(nn.GRUCell, H, H)
        for _ in range(3):
            ostinato.scan(PARTS[name](model), torch.zeros(B, H, dtype=D), weight(T, B, H))
        return reference(model.cell.weight_hh)

    gc.disable()
    try:
        first = play()
        assert first() is not None
        second = play()
        assert first() is None and second() is not None
    finally:
        gc.enable()


def test_what_a_forward_pass_keeps_dies_with_its_outputs():
    W = weight()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ W)

    init, xs = weight(B, H), weight(T, B, H)
    ostinato.scan(step, init, xs)
    gc.disable()
    try:
        given = weight(T, B, H)
        out = ostinato.scan(step, init, given)
        memory = reference(given)
        del given
        assert memory() is not None
        del out
        assert memory() is None
    finally:
        gc.enable()
