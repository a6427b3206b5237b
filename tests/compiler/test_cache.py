"""Recorded steps between calls: what is recorded again, what is forgotten, what is kept alive."""

from __future__ import annotations

import collections
import copy
import gc
import pickle
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import ostinato
from ostinato.compiler import captures
from zoo.playing import counting
from zoo.small import Cell, D, H, assert_like_the_loop, weight


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


@pytest.mark.filterwarnings("ignore:scan plays")
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

    class Leads(nn.Module):
        """To itself by what its code does not mention: as what it is shown to may hold it."""

        def __init__(self):
            super().__init__()
            self.W, self.shown_to = weight(), types.SimpleNamespace(to=[self])

        def forward(self, h, x):
            return torch.tanh(x + h @ self.W)

    class Hides(Leads):
        def forward(self, h, x):
            return torch.tanh(x + h @ getattr(self, "W"))  # noqa: B009

    class Slots:
        __slots__ = ("W", "__weakref__", "own")

        def __init__(self):
            self.W, self.own = weight(), self

        def __call__(self, h, x):
            return torch.tanh(x + h @ self.W)

    def by_path(W: Tensor) -> Any:
        held = types.SimpleNamespace(W=W)
        return lambda h, x: torch.tanh(x + h @ held.W)

    def searched(W: Tensor) -> Any:
        held = types.SimpleNamespace(W=W)
        return lambda h, x: torch.tanh(x + h @ getattr(held, "W"))  # noqa: B009

    def random(W: Tensor) -> Any:
        return lambda h, x: torch.tanh(x + h @ W + torch.randn(H, dtype=D))

    def a_value(W: Tensor) -> Any:
        return lambda h, x: torch.tanh(x + h @ W) * (1.0 if W.sum().item() > -1e9 else 0.0)

    def once_only(W: Tensor) -> Any:
        """With as many rows as were recorded alone."""
        return lambda h, x: torch.tanh(x + (h @ W if len(h) != 4 else h))

    def watch() -> dict[str, Any]:
        watched: dict[str, Any] = {}
        for make in (closure, by_path, searched, random, a_value, once_only):
            W = weight()
            step = make(W)
            init, xs = weight(3, H), weight(5, 3, H)
            carry, ys = ostinato.scan(step, init, xs)
            ys.sum().backward()
            ostinato.scan(step, weight(4, H), weight(5, 4, H))
            watched[f"{make.__name__}: step"] = weakref.ref(step)
            for name, t in {"W": W, "init": init, "xs": xs, "carry": carry, "ys": ys}.items():
                watched[f"{make.__name__}: {name}"] = memory_of(t)
        for kind in (Loose, Leads, Hides, Slots):
            m = kind()
            for step in (m, m.__call__):
                for _ in range(2):
                    ostinato.scan(step, torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D))
            watched[kind.__name__] = weakref.ref(m)
            watched[f"{kind.__name__}: W"] = memory_of(m.W)
        return watched

    watched = watch()
    gc.collect()  # some are in cycles of their own
    assert [name for name, ref in watched.items() if ref() is not None] == []


def memory_of(t: Tensor) -> Callable[[], Any]:
    """Like a weak reference to a tensor's memory (one to the tensor dies before its memory)."""
    ref = StorageWeakRef(t.untyped_storage())
    return lambda: None if ref.expired() else ref


@pytest.mark.parametrize("which", ["by path", "searched", "no module"])
def test_classes_are_not_kept_alive(which):
    """Nor what their methods, or a bound method of a dictionary, reach."""

    def make() -> Any:
        table = {"V": weight()}
        get = table.get

        class Local(nn.Module):
            def __init__(self):
                super().__init__()
                self.W = weight()

            def forward(self, h, x):
                return torch.tanh(x @ table["V"] + h @ self.W)

        class Hides(Local):
            def forward(self, h, x):
                return torch.tanh(x @ get("V") + h @ getattr(self, "W"))  # noqa: B009

        class Plain:
            def __init__(self):
                self.W = weight()

            def __call__(self, h, x):
                return torch.tanh(x @ table["V"] + h @ self.W)

        return {"by path": Local, "searched": Hides, "no module": Plain}[which], table["V"]

    def play() -> list[Callable[[], Any]]:
        kind, V = make()
        m = kind()
        for _ in range(3):
            ostinato.scan(m, torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D))
        return [weakref.ref(kind), weakref.ref(m), memory_of(V)]

    refs = play()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


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


def test_a_function_can_be_copied_and_pickled_by_value():
    """What is remembered of it lies in its dictionary, and stays where it is."""
    W = weight()

    def step(h, x):
        return torch.tanh(x + h @ W)

    assert_like_the_loop(step, [W])
    [remembered] = vars(step).values()
    assert pickle.loads(pickle.dumps(remembered)) is copy.deepcopy(remembered) is None
    again = types.FunctionType(step.__code__, step.__globals__, "again", None, step.__closure__)
    for found in (remembered, None):
        vars(again).update(dict.fromkeys(vars(step), found))
        assert_like_the_loop(again, [W])


@pytest.mark.filterwarnings("error")
def test_slots_and_named_tuples_are_found_by_path():
    class Slots:
        __slots__ = ("W", "__weakref__")

        def __init__(self):
            self.W = weight()

        def __call__(self, h, x):
            return torch.tanh(x + h @ self.W)

    Weights = collections.namedtuple("Weights", "W b")
    weights = Weights(weight(), weight(H))

    def step(h, x):
        return torch.tanh(x + h @ weights.W + weights.b)

    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    for found in (Slots(), step):
        ostinato.scan(found, init, xs)
        with counting(found) as calls:
            ostinato.scan(found, init, xs)
        assert calls[0] == 0


def test_what_is_computed_of_weights_alone_is_freed_without_the_collector():
    def play() -> list[Callable[[], Any]]:
        W = weight()

        def step(h, x):
            return torch.tanh(x + h @ torch.cat([W.exp()]))

        for _ in range(3):
            _, ys = ostinato.scan(step, torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D))
            ys.sum().backward()
        return [weakref.ref(step), memory_of(W)]

    gc.disable()
    try:
        refs = play()
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_a_global_of_the_name_of_an_attribute_is_not_what_the_step_reaches():
    """Thousands of objects that it has nothing to do with would be gone through at each call."""
    step = Cell()
    namespace = {"W": [object() for _ in range(10)], "torch": torch}
    exec("def forward(self, h, x): return torch.tanh(x + h @ self.W)", namespace)
    step.forward = types.MethodType(namespace["forward"], step)
    reached = captures.reach(step)
    assert reached.complete
    assert not any(container is namespace["W"] for _, container, _, _ in reached.watches)


def test_the_code_of_our_layers_is_not_gone_through():
    """A step is often made anew with each call, by a model that has layers of ours beside it."""
    model = nn.Module()
    model.layer, model.cell = ostinato.nn.GRU(H, H), nn.GRUCell(H, H)
    reached = captures.reach(lambda h, x: model.cell(x, h))
    assert reached.complete
    assert {id(p) for p in model.parameters()} <= {id(t) for t in reached.tensors}
    codes = [c.co_filename for c in reached.constants if isinstance(c, types.CodeType)]
    assert not [name for name in codes if "ostinato" in name and "tests" not in name]
