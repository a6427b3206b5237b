"""Steps made anew for each call: what the one before reached is looked at again, not searched for.

Every kind of change between two of them is noticed: values and gradients are the loop's.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import ostinato
from ostinato.compiler.walk import Walk
from zoo.playing import loop
from zoo.small import D, H, module, outcome, weight


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Model(nn.Module):
    """Its steps are closures over itself, its parts, numbers and tensors."""

    def __init__(self, layers: int = 1):
        super().__init__()
        self.cell, self.norm = module(nn.GRUCell, H, H), module(nn.LayerNorm, H)
        self.rest = nn.ModuleList(module(nn.Linear, H, H) for _ in range(layers))
        self.scale, self.act = 1.0, torch.tanh

    def over_itself(self) -> Any:
        return lambda h, x: self.cell(x, h) * self.scale

    def over_parts(self) -> Any:
        cell, norm, scale = self.cell, self.norm, self.scale
        return lambda h, x: cell(norm(x), h) * scale

    def over_both(self) -> Any:
        cell, act = self.cell, self.act
        return lambda h, x: act(cell(self.norm(x), h)) * self.scale

    def over_tensors(self) -> Any:
        V, W = self.cell.weight_hh[:H], self.rest[0].weight * self.scale
        return lambda h, x: torch.tanh(self.norm(x) @ V + h @ W)

    def with_a_default(self) -> Any:
        return lambda h, x, scale=self.scale: self.cell(x, h) * scale

    def with_a_helper(self) -> Any:
        def squash(a: Tensor) -> Tensor:
            return torch.tanh(a) * self.scale

        return lambda h, x: squash(self.cell(x, h))


KINDS = [name for name in vars(Model) if name.startswith(("over", "with"))]


def changes(m: Model) -> list[Callable[[], Any]]:
    return [
        lambda: None,
        lambda: setattr(m, "scale", 0.5),
        lambda: setattr(m, "act", torch.sigmoid),
        lambda: setattr(m, "cell", module(nn.GRUCell, H, H)),
        lambda: setattr(m, "norm", nn.Identity()),
        lambda: setattr(m.cell, "bias_hh", nn.Parameter(torch.ones(3 * H, dtype=D))),
        lambda: m.cell.weight_ih.requires_grad_(False),
        lambda: m.rest.insert(0, module(nn.Linear, H, H)),
        lambda: m.cell.register_forward_hook(lambda of, given, out: out * 2),
        lambda: setattr(m, "forward", None),
        lambda: setattr(type(m), "scale_of_all", 2.0),
    ]


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")
@pytest.mark.parametrize("kind", KINDS)
def test_changes_between_two_steps(kind):
    m = Model()
    init, xs = torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D)
    for number, change in enumerate(changes(m)):
        change()
        wanted = [p for p in m.parameters() if p.requires_grad]
        for _ in range(2):
            ours, theirs = (
                outcome(how, getattr(m, kind)(), init, xs, wanted) for how in (ostinato.scan, loop)
            )
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b, msg=f"after change {number}")


@pytest.mark.parametrize("kind", ["over_itself", "over_parts", "over_both", "over_tensors"])
def test_the_next_one_is_not_searched(kind, monkeypatch):
    m = Model(layers=20)
    init, xs = torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D)
    visited = []
    visit = Walk.visit_new
    monkeypatch.setattr(Walk, "visit_new", lambda self, of: visited.append(of) or visit(self, of))
    for _ in range(3):
        ostinato.scan(getattr(m, kind)(), init, xs)
    assert visited
    visited.clear()
    ostinato.scan(getattr(m, kind)(), init, xs)
    assert not visited


def test_tensors_that_were_one_and_are_two():
    m = module(nn.Linear, H, H)
    V, W = weight(), weight()

    def made(A: Tensor, B: Tensor) -> Any:
        return lambda h, x: torch.tanh(m(x) + h @ A + x @ B)

    init, xs = torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D)
    for A, B in ((V, V), (V, W), (W, V), (W, W), (V, W.detach()), (V, W)):
        ours, theirs = (
            outcome(how, made(A, B), init, xs, [V, W, *m.parameters()])
            for how in (ostinato.scan, loop)
        )
        torch.testing.assert_close(ours, theirs)


def test_objects_that_were_one_and_are_two():
    one, two = module(nn.Linear, H, H), module(nn.Linear, H, H)

    def made(a: Any, b: Any) -> Any:
        return lambda h, x: torch.tanh(a(x) + b(h))

    init, xs = torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D)
    for a, b in ((one, one), (one, two), (two, one), (two, two), (one, two)):
        ours, theirs = (
            outcome(how, made(a, b), init, xs, [*one.parameters(), *two.parameters()])
            for how in (ostinato.scan, loop)
        )
        torch.testing.assert_close(ours, theirs)


def test_one_code_with_other_globals():
    m = Model()
    init, xs = torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D)
    source = "def make(m):\n    return lambda h, x: torch.tanh(m.cell(x, h)) * scale"
    scopes = [{"torch": torch, "scale": scale} for scale in (1.0, 0.5)]
    code = compile(source, "cell", "exec")
    for scope in scopes:
        exec(code, scope)
    assert scopes[0]["make"](m).__code__ is scopes[1]["make"](m).__code__
    for _ in range(2):
        for scope in scopes:
            ours, theirs = (
                outcome(how, scope["make"](m), init, xs, list(m.cell.parameters()))
                for how in (ostinato.scan, loop)
            )
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_alive(kind):
    """Without the cycle collector: neither the model, nor a part that it no longer has."""

    def play() -> list[Any]:
        m = Model()
        init, xs = torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D)
        for _ in range(3):
            ostinato.scan(getattr(m, kind)(), init, xs)
        cell = StorageWeakRef(m.cell.weight_hh.untyped_storage())
        m.cell = module(nn.GRUCell, H, H)
        ostinato.scan(getattr(m, kind)(), init, xs)
        assert cell.expired()
        memory = [StorageWeakRef(p.untyped_storage()) for p in m.parameters()]
        return [weakref.ref(m), weakref.ref(m.cell)], memory

    gc.collect()
    gc.disable()
    try:
        refs, memory = play()
        assert [ref() for ref in refs] == [None, None]
        assert all(of.expired() for of in memory)
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["a part", "a default"])
def test_nothing_is_kept_alive_that_one_step_had(kind):
    m = Model()

    def step_and_memory() -> Any:
        if kind == "a part":
            cell, norm = m.cell, module(nn.LayerNorm, H)
            return lambda h, x: cell(norm(x), h), norm.weight
        W = weight()
        return lambda h, x, W=W: torch.tanh(m.cell(x, h) @ W), W

    def play() -> Any:
        step, W = step_and_memory()
        for _ in range(3):
            ostinato.scan(step, torch.randn(3, H, dtype=D), torch.randn(4, 3, H, dtype=D))
        return StorageWeakRef(W.untyped_storage())

    gc.collect()
    gc.disable()
    try:
        assert play().expired()
    finally:
        gc.enable()
