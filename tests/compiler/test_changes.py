"""A step is recorded once: what it reaches may change afterwards, and must be noticed.

Each world is a generator. It yields a step, changes something that the step depends on, and yields
it again; after each, values and gradients must be those of the plain loop.
"""

from __future__ import annotations

import copy
import enum
import functools
import gc
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import ostinato
from steps import counting, loop

D = torch.float64
H = 4
WORLDS: dict[str, Callable[[], Iterator[Any]]] = {}


def world(make: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    WORLDS[make.__name__] = make
    return make


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape or (H, H), dtype=D) / 2)


def module(kind: Callable[..., Any], *args: Any) -> Any:
    return kind(*args).to(D)


def outcome(how: Any, step: Any, init: Tensor, xs: Tensor, leaves: list[Tensor]) -> list[Any]:
    init, xs = init.clone().requires_grad_(), xs.clone().requires_grad_()
    carry, ys = how(step, init, xs)
    outs = [*pytree.tree_leaves(carry), *pytree.tree_leaves(ys)]
    if not torch.is_grad_enabled():
        return outs
    total = sum((o * o).sum() for o in outs)
    grads = torch.autograd.grad(total, [init, xs, *leaves], allow_unused=True)
    zeros = [torch.zeros_like(t) for t in (init, xs, *leaves)]
    return outs + [z if g is None else g for g, z in zip(grads, zeros, strict=True)]


def assert_like_the_loop(step: Any, leaves: list[Tensor], when: str = "") -> None:
    init, xs = torch.randn(3, H, dtype=D), torch.randn(5, 3, H, dtype=D)
    theirs = outcome(loop, step, init, xs, leaves)
    ours = outcome(ostinato.scan, step, init, xs, leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11), f"{when}: {(a - b).abs().max()}"


# ------------------------------------------------------------------------- numbers and flags


@world
def closure_number():
    W, scale = weight(), 1.0

    def step(h, x):
        return torch.tanh(x + h @ W) * scale

    yield step, [W]
    scale = 0.5
    yield step, [W]
    scale = 1  # equal, but of another type, as 1.0 was
    yield step, [W]
    scale = True
    yield step, [W]
    scale = torch.tensor([0.5, 1, 2, 3], dtype=D)
    yield step, [W]
    scale = 3.0
    yield step, [W]


@world
def global_number():
    W = weight()
    namespace = {"torch": torch, "W": W, "scale": 1.0}
    exec("def step(h, x): return torch.tanh(x + h @ W) * scale", namespace)
    yield namespace["step"], [W]
    namespace["scale"] = 0.5
    yield namespace["step"], [W]
    namespace["W"] = weight()
    yield namespace["step"], [namespace["W"]]


@world
def builtin_that_becomes_global():
    namespace = {"torch": torch}
    exec("def step(h, x): return torch.tanh(x + h) * abs(-0.5)", namespace)
    yield namespace["step"], []
    namespace["abs"] = lambda value: 2.0
    yield namespace["step"], []


@world
def number_in_a_python_module():
    config = types.ModuleType("config")
    config.scale = 1.0

    def step(h, x):
        return torch.tanh(x + h) * config.scale

    yield step, []
    config.scale = 0.5
    yield step, []


@world
def class_attribute():
    class Config:
        scale = 1.0

    def step(h, x):
        return torch.tanh(x + h) * Config.scale

    yield step, []
    Config.scale = 0.5
    yield step, []


@world
def attribute_of_the_function():
    def step(h, x):
        return torch.tanh(x + h) * step.scale

    step.scale = 1.0
    yield step, []
    step.scale = 0.5
    yield step, []


@world
def default_arguments():
    W = weight()

    def step(h, x, scale=1.0, *, shift=0.0):
        return torch.tanh(x + h @ W) * scale + shift

    yield step, [W]
    step.__defaults__ = (0.5,)
    yield step, [W]
    step.__kwdefaults__["shift"] = 0.25
    yield step, [W]
    step.__kwdefaults__ = {"shift": 0.125}
    yield step, [W]


@world
def code_of_the_function():
    W = weight()

    def step(h, x):
        return torch.tanh(x + h @ W)

    def other(h, x):
        return torch.sigmoid(x + h @ W)

    yield step, [W]
    step.__code__ = other.__code__
    yield step, [W]


@world
def containers():
    numbers, nested, flags = [1.0], {"a": [{"b": (1.0, 0.5)}]}, {"on"}

    def step(h, x):
        a = torch.tanh(x + h) * numbers[0] * nested["a"][0]["b"][1]
        return a if "on" in flags else -a

    yield step, []
    numbers[0] = 0.5
    yield step, []
    nested["a"][0]["b"] = (1.0, 0.25)
    yield step, []
    nested["a"].insert(0, {"b": (0.0, 2.0)})
    yield step, []
    flags.clear()
    yield step, []


@world
def indices_and_slices():
    columns, part = [0, 2], slice(0, 2)

    def step(h, x):
        return torch.tanh(torch.cat([x[:, columns], h[:, part]], 1))

    yield step, []
    columns[1] = 3
    yield step, []
    part = slice(1, 3)
    yield step, []
    part = slice(1, 4, 2)
    yield step, []


@world
def enumeration():
    Kind = enum.Enum("Kind", "TANH SIGMOID")
    kind = Kind.TANH

    def step(h, x):
        return torch.tanh(x + h) if kind is Kind.TANH else torch.sigmoid(x + h)

    yield step, []
    kind = Kind.SIGMOID
    yield step, []


@world
def numpy_numbers():
    scale = torch.ones(1, dtype=D).numpy()[0]
    many = torch.ones(H, dtype=D).numpy()

    def step(h, x):
        return torch.tanh(x + h) * float(scale) * torch.from_numpy(many)

    yield step, []
    scale = scale * 0.5
    yield step, []
    many[1] = 3.0
    yield step, []


@world
def plain_object():
    @dataclass
    class Parameters:
        W: Tensor
        scale: float

        @property
        def scaled(self):
            return self.W * self.scale

    p = Parameters(weight(), 1.0)

    def step(h, x):
        return torch.tanh(x + h @ p.scaled)

    yield step, [p.W]
    p.scale = 0.5
    yield step, [p.W]
    p.W = weight()
    yield step, [p.W]


@world
def slots():
    class Held:
        __slots__ = ("W", "scale")

    held = Held()
    held.W, held.scale = weight(), 1.0

    def step(h, x):
        return torch.tanh(x + h @ held.W) * held.scale

    yield step, [held.W]
    held.scale = 0.5
    yield step, [held.W]


@world
def partial():
    V, W = weight(), weight()
    p = functools.partial(lambda h, x, W, scale: torch.tanh(x + h @ W) * scale, W=W, scale=1.0)
    yield p, [W]
    p.keywords["scale"] = 0.5
    yield p, [W]
    p.keywords["W"] = V
    yield p, [V]
    yield functools.partial(p.func, W=W, scale=0.25), [W]


@world
def helper_function():
    def squash(a):
        return torch.tanh(a)

    def step(h, x):
        return squash(x + h)

    yield step, []

    def squash(a):
        return torch.sigmoid(a)

    yield step, []
    squash = torch.sin
    yield step, []
    squash = F.silu
    yield step, []
    squash = nn.Tanh()
    yield step, []


@world
def closures_made_again():
    for i in range(12):
        W, scale = weight(), 1.0 + i % 3

        def step(h, x, W=W, scale=scale):
            return torch.tanh(x + h @ W) * scale

        yield step, [W]
        yield (lambda h, x: torch.tanh(x + h @ W) * scale), [W]  # noqa: B023
        del step
        gc.collect()  # so that ids are used again


@world
def decorated():
    def decorate(step, scale):
        def wrapper(h, x):
            return step(h, x) * scale

        return wrapper

    yield decorate(lambda h, x: torch.tanh(x + h), 1.0), []
    yield decorate(lambda h, x: torch.sigmoid(x + h), 1.0), []
    yield decorate(lambda h, x: torch.sigmoid(x + h), 0.5), []

    def wrapped(step, scale):
        return functools.wraps(step)(decorate(step, scale))

    def step(h, x):
        return torch.tanh(x + h)

    yield wrapped(step, 1.0), []
    yield wrapped(step, 0.5), []
    yield step, []


@world
def grad_mode():
    def step(h, x):
        return torch.tanh(x + h) if torch.is_grad_enabled() else torch.sigmoid(x + h)

    yield step, []
    with torch.no_grad():
        yield step, []
    yield step, []


@world
def default_dtype():
    def step(h, x):
        return torch.tanh(x + h) * torch.full((H,), 0.1)

    yield step, []
    torch.set_default_dtype(D)
    try:
        yield step, []
    finally:
        torch.set_default_dtype(torch.float32)
    yield step, []


# ---------------------------------------------------------------------------- captured tensors


@world
def values_that_steer():
    """Numbers read out of captured tensors, which change in place."""
    scale, row, index = torch.ones(1, dtype=D), torch.tensor(0), torch.tensor([0, 1, 1, 3])
    mask = torch.tensor([True, False, True, True])

    def step(h, x):
        a = torch.tanh(x + h[:, index] * mask)
        return a * scale.item() if scale > 0 else a[:, int(row)][:, None] + a

    yield step, []
    scale.fill_(0.5)
    yield step, []
    index.fill_(2)
    yield step, []
    mask.fill_(False)
    yield step, []
    scale.neg_()
    yield step, []
    row.add_(2)
    yield step, []


@world
def another_tensor():
    Ws = [weight(), weight()]
    b = weight(H)

    def step(h, x):
        for W in Ws:
            h = torch.tanh(x + h @ W)
        return h + b

    yield step, [*Ws, b]
    Ws[0] = weight()
    yield step, [*Ws, b]
    Ws.append(weight())
    yield step, [*Ws, b]
    Ws.reverse()
    yield step, [*Ws, b]
    del Ws[:2]
    yield step, [*Ws, b]
    b = weight(1)
    yield step, [*Ws, b]
    b = weight(1, H)
    yield step, [*Ws, b]
    b = weight(3, H)  # a row for each row of the batch
    yield step, [*Ws, b]
    b = torch.ones((), dtype=D)
    yield step, Ws


@world
def tied_and_untied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.A = weight()
            self.B = self.A

        def forward(self, h, x):
            return torch.tanh(x @ self.B + h @ self.A)

    m = Tied()
    yield m, [m.A]
    m.B = weight()
    yield m, [m.A, m.B]
    m.A = weight()
    yield m, [m.A, m.B]
    m.A = m.B
    yield m, [m.A]
    A, B = weight(), weight()
    pair = [A, A]

    def step(h, x):
        return torch.tanh(x @ pair[0] + h @ pair[1])

    yield step, [A, B]
    pair[1] = B
    yield step, [A, B]
    pair[0] = B
    yield step, [A, B]


@world
def becomes_the_first_carry():
    """Captured, and at times the very tensor that init is."""
    W, init = weight(), [torch.randn(3, H, dtype=D)]

    def step(h, x):
        return torch.tanh(x + h @ W) + init[0]

    yield step, [W]
    init[0] = W[:3].detach()
    yield step, [W]


@world
def requires_grad_flags():
    V, W = weight(), weight()

    def step(h, x):
        return torch.tanh(x @ V + h @ W)

    yield step, [V, W]
    W.requires_grad_(False)
    yield step, [V]
    V.requires_grad_(False)
    yield step, []
    W.requires_grad_(True)
    yield step, [W]


# ----------------------------------------------------------------------------------- modules


class Cell(nn.Module):
    gain = 1.0

    def __init__(self):
        super().__init__()
        self.W = weight()
        self.act: Any = nn.Tanh()
        self.drop = nn.Dropout(0.5)
        self.config = types.SimpleNamespace(scale=1.0)
        self._scales = [1.0]
        self.listed = [torch.ones(H, dtype=D)]
        self.register_buffer("shift", torch.zeros(H, dtype=D))

    def squash(self, a):
        return self.act(a) * SCALE

    def forward(self, h, x):
        a = self.squash(x + h @ self.W + self.shift) * self.config.scale * self._scales[0]
        return a * self.gain * self.listed[0] * (1 if self.training else 0.5)


SCALE = 1.0


@world
def attributes_of_a_module():
    global SCALE
    m = Cell()
    yield m, [m.W]
    m.eval()
    yield m, [m.W]
    m.train()
    yield m, [m.W]
    m.config.scale = 0.5
    yield m, [m.W]
    m._scales[0] = 0.5
    yield m, [m.W]
    m.gain = 0.5
    yield m, [m.W]
    del m.gain
    yield m, [m.W]
    SCALE = 0.5
    try:
        yield m, [m.W]
    finally:
        SCALE = 1.0
    m.listed[0] = torch.randn(H, dtype=D)
    yield m, [m.W]
    m.shift = torch.randn(H, dtype=D)
    yield m, [m.W]
    m.shift = torch.randn(1, dtype=D)
    yield m, [m.W]
    m.W = weight()
    yield m, [m.W]
    m.W.data = torch.randn(H, H, dtype=D)
    yield m, [m.W]


@world
def class_of_a_module():
    class Own(Cell):
        pass

    m = Own()
    yield m, [m.W]
    Own.gain = 0.5
    yield m, [m.W]
    m.squash = lambda a: torch.sigmoid(a)
    yield m, [m.W]
    del m.squash
    yield m, [m.W]
    Own.squash = lambda self, a: torch.sin(a)
    yield m, [m.W]
    Own.forward = lambda self, h, x: torch.tanh(h @ self.W) + x
    yield m, [m.W]


@world
def modules_within():
    m = Cell().eval()
    yield m, [m.W]
    m.act = nn.Sigmoid()
    yield m, [m.W]
    m.act = nn.LeakyReLU(0.1)
    yield m, [m.W]
    m.act.negative_slope = 0.5
    yield m, [m.W]
    m.act = nn.Sequential(nn.Linear(H, H), nn.Tanh()).to(D)
    yield m, list(m.parameters())
    m.act[1] = nn.Softplus(beta=2)
    yield m, list(m.parameters())
    m.act[1].beta = 0.5
    yield m, list(m.parameters())
    m.act.append(nn.Linear(H, H).to(D))
    yield m, list(m.parameters())
    m.act.insert(0, nn.ReLU())
    yield m, list(m.parameters())
    m.act.pop(0)
    yield m, list(m.parameters())


@world
def hooks_of_a_module():
    linear = module(nn.Linear, H, H)

    def step(h, x):
        return torch.tanh(x + linear(h))

    yield step, list(linear.parameters())
    handle = linear.register_forward_hook(lambda module, args, out: 0.5 * out)
    yield step, list(linear.parameters())
    handle.remove()
    yield step, list(linear.parameters())
    handle = linear.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    yield step, list(linear.parameters())
    handle.remove()
    handle = linear.register_full_backward_hook(lambda m, d_in, d_out: (d_in[0] * 2,))
    yield step, list(linear.parameters())
    handle.remove()
    yield step, list(linear.parameters())


@world
def parametrizations():
    cell = Cell().eval()
    yield cell, list(cell.parameters())
    nn.utils.parametrizations.weight_norm(cell, "W")
    yield cell, list(cell.parameters())
    with torch.no_grad():
        cell.parametrizations.W.original0.mul_(2)
    yield cell, list(cell.parameters())
    nn.utils.parametrize.remove_parametrizations(cell, "W")
    yield cell, list(cell.parameters())


@world
def copies():
    m = Cell()
    yield m, [m.W]
    other = copy.deepcopy(m)
    with torch.no_grad():
        other.W.mul_(-2)
    yield other, [other.W]
    yield m, [m.W]
    m.load_state_dict(other.state_dict())
    yield m, [m.W]


@world
def methods():
    m = Cell()
    yield m.forward, [m.W]
    m.gain = 0.5
    yield m.forward, [m.W]
    step = m.forward
    m.gain = 0.25
    yield step, [m.W]
    other = Cell()
    yield other.forward, [other.W]


@pytest.mark.filterwarnings("ignore:.*slow loop", "ignore:.*was recorded")
@pytest.mark.parametrize("name", WORLDS)
def test_a_change_is_noticed(name):
    torch.manual_seed(0)
    for i, (step, leaves) in enumerate(WORLDS[name]()):
        for _ in range(2):  # as found, and as remembered
            assert_like_the_loop(step, leaves, f"after change {i}")


# ----------------------------------------------------------------- what must not record again


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
