"""A step is recorded once: what it reaches may change afterwards, and must be noticed.

Each world is a generator. It yields a step, changes something that the step depends on, and yields
it again; after each, values and gradients must be those of the plain loop.
"""

from __future__ import annotations

import collections
import copy
import enum
import functools
import gc
import math
import operator
import sys
import types
import typing
import unittest.mock
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ostinato
from ostinato.compiler.captures import reach
from zoo import small
from zoo.small import Cell, D, H, assert_like_the_loop, module, weight

WORLDS: dict[str, Callable[[], Iterator[Any]]] = {}


def world(make: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    WORLDS[make.__name__] = make
    return make


# ------------------------------------------------------------------------- numbers and flags


@world
def numpy_floats_made_anew():
    """They are floats, but what they answer to == is no bool."""
    W, settings = weight(), {"scale": np.float64(0.5)}

    def step(h, x):
        return torch.tanh(x + h @ W) * settings["scale"]

    yield step, [W]
    settings["scale"] = np.float64(0.5)
    yield step, [W]
    settings["scale"] = np.float64(0.25)
    yield step, [W]


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
def instance_made_inside():
    scale = 1.0

    class Config:
        shift = 0.5

        def __init__(self):
            self.scale = scale

        def __call__(self, a):
            return a * self.scale + self.shift

    def step(h, x):
        config = Config()
        return config(torch.tanh(x + h)) * config.scale

    yield step, []
    Config.shift = 0.25
    yield step, []
    scale = 2.0
    yield step, []


@world
def computed_attribute():
    class Config:
        scale = 1.0

    name, config = "sca" + "le", types.ModuleType("config")
    config.scale = 1.0
    namespace = {"torch": torch, "scale": 1.0}
    exec("def from_globals(h, x): return torch.tanh(x + h) * globals()['scale']", namespace)
    steps = [
        lambda h, x: torch.tanh(x + h) * getattr(Config, name),
        lambda h, x: torch.sigmoid(x + h) * vars(config)["scale"],
        lambda h, x: torch.sin(x + h) * config.__dict__[name],
        namespace["from_globals"],
    ]
    for _ in range(2):
        for step in steps:
            yield step, []
        Config.scale = config.scale = namespace["scale"] = 0.5


@world
def import_inside():
    config = types.ModuleType("a_config_of_these_tests")
    config.scale = 1.0

    def step(h, x):
        from a_config_of_these_tests import scale

        return torch.tanh(x + h) * scale

    sys.modules[config.__name__] = config
    try:
        yield step, []
        config.scale = 0.5
        yield step, []
    finally:
        del sys.modules[config.__name__]


@world
def cached_helper():
    state = {"scale": 1.0}

    @functools.lru_cache
    def scale():
        return state["scale"]

    def step(h, x):
        return torch.tanh(x + h) * scale()

    yield step, []
    state["scale"] = 0.5
    yield step, []
    scale.cache_clear()
    yield step, []


@world
def attribute_of_a_tensor():
    W = torch.randn(H, H, dtype=D).requires_grad_()
    W.scale = 1.0

    def step(h, x):
        return torch.tanh(x + h @ W) * W.scale

    yield step, [W]
    W.scale = 0.5
    yield step, [W]


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
    def tanh(a):
        return torch.tanh(a)

    def sigmoid(a):
        return torch.sigmoid(a)

    squash: Any = tanh

    def step(h, x):
        return squash(x + h)

    for other in (tanh, sigmoid, torch.sin, F.silu, nn.Tanh()):
        squash = other
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


def _truth_values(use: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> Iterator[Any]:
    """From all false on: what the engine reads of them may then be zeros for another reason."""
    everything = torch.zeros(16 * mask.numel(), dtype=torch.bool)
    part = everything[: mask.numel()].view(mask.shape)
    W = weight()

    def step(h, x):
        return torch.tanh(x + use(h @ W, part))

    yield step, [W]
    everything[mask.numel() :] = True  # beside it in memory
    yield step, [W]
    part.copy_(mask)
    yield step, [W]
    part.logical_not_()
    yield step, [W]


for _name, _use in {
    "where": lambda a, m: torch.where(m, a, 0.5),
    "masked_fill": lambda a, m: a.masked_fill(m, 0.5),
    "product": lambda a, m: a * m,
    "and": lambda a, m: torch.where(m & (a > 0), a, -a),
    "not": lambda a, m: torch.where(~m, a, -a) + a.masked_fill(m, 1),
    "converted": lambda a, m: a * m.to(a.dtype) + a * m,
}.items():
    for _mask in (
        torch.tensor(True),
        torch.tensor([True]),
        torch.tensor([True, False, True, True]),
    ):
        WORLDS[f"truth_values_{_name}_{_mask.dim()}{_mask.numel()}"] = functools.partial(
            _truth_values, _use, _mask
        )


@world
def truth_values_of_weights():
    W, gate = weight(), weight(H, H)

    def step(h, x):
        a = torch.where(gate[0] > 0, h @ W, x)
        return torch.tanh(a * (gate > 0)[1] + torch.where(gate.t() > 0, gate, 0.0)[2])

    yield step, [W, gate]
    with torch.no_grad():
        gate.neg_()
    yield step, [W, gate]


# ------------------------------------------------------------- what is alike and not the same


@world
def a_tensor_and_a_number_change_places():
    def make(a, c):
        return lambda h, x: torch.tanh(h * a + x - c)

    W = weight(H)
    for a, c in ((W, 2.0), (2.0, W), (W, 2.0), (W, W)):
        yield make(a, c), [W]


@world
def the_same_function_twice():
    def make(f, g, h):
        return lambda state, x: h(f(x) + g(state))

    def squash(v):
        return torch.tanh(v)

    def gate(v):
        return torch.sigmoid(v)

    for three in ((squash, gate, squash), (squash, gate, gate), (gate, squash, gate)):
        yield make(*three), []


@world
def objects_that_are_equal():
    @dataclass(frozen=True)
    class Equal:
        size: int
        W: Tensor = field(compare=False)

        def step(self, h, x):
            return torch.tanh(h * self.W + x)

        def __call__(self, h, x):
            return torch.tanh(h * self.W + x)

    a, b = Equal(3, weight(H)), Equal(3, weight(H))
    assert a == b and hash(a) == hash(b)
    for one in (a, b, a):
        yield one.step, [one.W]
        yield one, [one.W]


class _Secret:
    def __init__(self):
        self.flag = False


def _searched(make: Callable[[Tensor], Callable[..., Any]]) -> Callable[[], Iterator[Any]]:
    def one() -> Iterator[Any]:
        W, secret = weight(), _Secret()
        choose = make(W)

        def step(h, x):
            # No path leads to what getattr finds: the step is searched.
            return choose(getattr(secret, "flag"), h, x)  # noqa: B009

        for flag in (False, True, False):
            secret.flag = flag
            yield step, [W]

    return one


def _intermediate(flag: bool, p: Tensor, q: Tensor) -> Tensor:
    return p if flag else q


for _name, _make in {
    "order": lambda W: lambda flag, h, x: (
        lambda p, q: (p - q) @ W if flag else (q - p) @ W
    )(torch.tanh(h), torch.sigmoid(x)),
    "choice": lambda W: lambda flag, h, x: _intermediate(flag, torch.tanh(h @ W), torch.tanh(x)),
    "result": lambda W: lambda flag, h, x: (
        lambda p, q: (p, q) if flag else (q, p)
    )(torch.tanh(h @ W), torch.sigmoid(x)),
    "property": lambda W: lambda flag, h, x: torch.tanh(h @ (W.T if flag else W.mT.T) + x),
    "derived": lambda W: lambda flag, h, x: (
        lambda p, q: torch.tanh(h @ (p if flag else q) + x)
    )(W * 0.5, W * 0.25),
}.items():  # fmt: skip
    WORLDS[f"searched_{_name}"] = _searched(_make)


@world
def special_methods():
    class Special:
        def __init__(self, k):
            self.k = k

        def __mul__(self, x):
            return x * self.k

        def __getitem__(self, i):
            return self.k

        def __len__(self):
            return int(self.k)

        def __float__(self):
            return float(self.k)

    class Described:
        def __get__(self, owner, kind):
            return one.k

    class Owner:
        k = Described()

    one, owner = Special(2.0), Owner()
    steps = [
        lambda h, x: torch.tanh(h + one * x),
        lambda h, x: torch.tanh(h + x * one[0]),
        lambda h, x: torch.tanh(h + x * len(one)),
        lambda h, x: torch.tanh(h + x * float(one)),
        lambda h, x: torch.tanh(h + x * owner.k),
    ]
    for k in (2.0, 3.0, 2.0):
        one.k = k
        for step in steps:
            yield step, []


@world
def containers_of_other_kinds():
    class Own(dict):
        pass

    class Listed(list):
        pass

    table, own, listed = collections.OrderedDict(k=2.0), Own(k=2.0), Listed([2.0])
    counts, user, plain = collections.Counter(k=2), collections.UserDict(k=2.0), {"k": 2.0}
    get = plain.get
    steps = [
        lambda h, x: torch.tanh(h + x * table["k"]),
        lambda h, x: torch.tanh(h + x * own["k"]),
        lambda h, x: torch.tanh(h + x * listed[0]),
        lambda h, x: torch.tanh(h + x * counts["k"]),
        lambda h, x: torch.tanh(h + x * user["k"]),
        lambda h, x: torch.tanh(h + x * get("k")),
    ]
    for k in (2.0, 3.0, 2.0):
        for each in (table, own, counts, user, plain):
            each["k"] = k
        listed[0] = k
        for step in steps:
            yield step, []


@world
def forward_of_an_instance():
    linear, m = module(nn.Linear, H, H), Cell()
    before = m.forward

    def step(h, x):
        return torch.tanh(linear(h) + m(h, x))

    yield step, [m.W]
    linear.forward = lambda a: a * 0.5
    yield step, [m.W]
    m.forward = lambda h, x: 2 * before(h, x)
    yield step, [m.W]
    del linear.forward
    yield step, [m.W]


@world
def hooks_of_all_modules():
    linear = module(nn.Linear, H, H)

    def step(h, x):
        return torch.tanh(linear(h) + x)

    yield step, [linear.weight]
    hooks = nn.modules.module
    for hang in (
        lambda: hooks.register_module_forward_hook(lambda m, ins, out: 2 * out),
        lambda: hooks.register_module_full_backward_pre_hook(lambda m, g: (2 * g[0],)),
    ):
        hook = hang()
        try:
            yield step, [linear.weight]
        finally:
            hook.remove()
        yield step, [linear.weight]


@world
def classes_of_classes():
    class Meta(type):
        scale = 1.0

    class Config(metaclass=Meta):
        pass

    class Other:
        factor = 2.0

    class One:
        factor = 1.0

    one = One()
    steps = [
        lambda h, x: torch.tanh(h + x * Config.scale),
        lambda h, x: torch.tanh(h + x * one.factor),
    ]
    for step in steps:
        yield step, []
    Meta.scale, one.__class__ = 0.5, Other
    for step in steps:
        yield step, []


class _Mode(str, enum.Enum):
    A = "a"

    def scale(self):
        return _SCALES[0]


class _Held(enum.Enum):
    VALUES = [1.0]  # noqa: RUF012


_SCALES = [1.0]


@world
def members_of_enumerations():
    steps = [
        lambda h, x: torch.tanh(h + x * _Mode.A.scale()),
        lambda h, x: torch.tanh(h + x * _Held.VALUES.value[0]),
    ]
    for scale in (1.0, 0.5, 1.0):
        _SCALES[0] = _Held.VALUES.value[0] = scale
        for step in steps:
            yield step, []


@world
def methods_that_were_generated():
    @dataclass(order=True, unsafe_hash=True)
    class Config:
        k: float = 1.0

    class Shown:
        k = 1.0

        def __repr__(self):
            return f"R{self.k}"

    one, default, shown = Config(), Config(), Shown()
    table = {Config(1.0): 1.0, Config(2.0): 0.5}
    steps = [
        lambda h, x: torch.tanh(h + x) if one == default else torch.sin(h + x),
        lambda h, x: torch.tanh(h + x) if one <= default else torch.sin(h + x),
        lambda h, x: torch.tanh(h + x * table[one]),
        lambda h, x: torch.tanh(h + x) if repr(one).endswith("k=1.0)") else torch.sin(h + x),
        lambda h, x: torch.tanh(h + x) if str(shown) == "R1.0" else torch.sin(h + x),
    ]
    for k in (1.0, 2.0, 1.0):
        one.k = shown.k = k
        for step in steps:
            yield step, []


@world
def attributes_in_a_pattern():
    class Config:
        pass

    config = Config()
    namespace = {"torch": torch, "Config": Config, "config": config}
    exec(
        "def step(h, x):\n"
        "    match config:\n"
        "        case Config(mode='tanh'):\n"
        "            return torch.tanh(h + x)\n"
        "    return torch.sin(h + x)\n",
        namespace,
    )
    for mode in ("tanh", "sin", "tanh"):
        config.mode = mode
        yield namespace["step"], []


@world
def what_kind_of_method_it_is():
    class C:
        pass

    def last(*a):
        return a[-1] * len(a)

    one = C()
    for kind in (last, staticmethod(last), classmethod(last), last):
        C.act = kind
        yield lambda h, x: torch.tanh(h + one.act(x)), []

    def scaled(self, x):
        return x * self.k

    p, q = types.SimpleNamespace(k=1.0), types.SimpleNamespace(k=0.5)

    def make(f, g):
        def step(h, x):
            return torch.tanh(h + (f(x) if callable(f) else g(x) * 2))

        return step

    yield make(types.MethodType(scaled, p), q), []
    yield make(p, types.MethodType(scaled, q)), []


@world
def a_builtin_that_is_taken_over():
    namespace = {"torch": torch}
    exec("def step(h, x): return torch.tanh(abs(h) + pow(x, 2))", namespace)
    yield namespace["step"], []
    namespace["abs"] = lambda a, b=2: a * b
    yield namespace["step"], []
    namespace["pow"] = namespace.pop("abs")
    yield namespace["step"], []


def _of_a_number(use: Callable[[Any, Tensor, Tensor, Tensor], Tensor], *values: Any) -> Any:
    def one() -> Iterator[Any]:
        W, secret = weight(), _Secret()

        def step(h, x):
            return torch.tanh(use(secret.flag, h @ W, x, W))

        for value in (*values, values[0]):
            secret.flag = value
            yield step, [W]

    return one


class _Index:
    def __init__(self, i: int):
        self.i = i

    def __index__(self) -> int:
        return self.i

    def __repr__(self) -> str:
        return "an index"


for _name, _values, _use in (
    ("zeros", (0.0, -0.0), lambda k, a, x, W: torch.atan2(x * 0, torch.full((H,), k, dtype=D)) + a),
    ("true_and_one", (True, 1), lambda k, a, x, W: a + (~torch.full((H,), k)).to(D) * x),
    ("tuple_and_list", ((0, 1), [0, 1]), lambda k, a, x, W: a + W[k].sum() * x),
    ("objects", (_Index(0), _Index(1)), lambda k, a, x, W: a + W[k] * x),
    ("numpy", (np.int64(0), np.int64(1)), lambda k, a, x, W: a + W[k] * x),
    ("axes", ((0, True), ((0, 1),)), lambda k, a, x, W: a + W.sum(*k).sum(-1).reshape(-1)[0]),
):
    WORLDS[f"searched_{_name}"] = _of_a_number(_use, *_values)


@world
def modules_imported_in_a_step():
    module = types.ModuleType("read_by_a_test")
    module.scale, module.inner = 1.0, types.SimpleNamespace(scale=1.0)

    def whole(h, x):
        import read_by_a_test

        return torch.tanh(h + x * read_by_a_test.scale)

    def part(h, x):
        from read_by_a_test import inner as found

        return torch.tanh(h + x * found.scale)

    with unittest.mock.patch.dict(sys.modules, read_by_a_test=module):
        assert reach(whole).complete and reach(part).complete
        for _ in range(2):
            yield whole, []
            yield part, []
            module.scale, module.inner.scale = 0.5, 2.0
        module.inner = types.SimpleNamespace(scale=3.0)
        yield part, []
        other = sys.modules["read_by_a_test"] = types.ModuleType("read_by_a_test")
        other.scale = 4.0
        yield whole, []


@world
def names_in_strings():
    config, W = types.SimpleNamespace(scale=1.0), weight(H)
    steps = [
        lambda h, x: torch.tanh(h + x * operator.attrgetter("scale")(config)),
        lambda h, x: torch.tanh(h + x * object.__getattribute__(config, "scale")),
        lambda h, x: torch.tanh(h + (2 * x if hasattr(config, "double") else x)),
        lambda h, x: torch.tanh(h + (2 * x if hasattr(W, "double") else x) * W),
    ]
    for step in steps:
        yield step, [W]
    config.scale, config.double, W.double_ = 0.5, True, True
    W.__dict__["double"] = True
    for step in steps:
        yield step, [W]


@world
def what_says_it_is_something_else():
    config = types.SimpleNamespace(scale=1.0)
    m = Cell()
    proxy = weakref.proxy(m)

    @functools.wraps(F.relu)
    def mine(a):
        return F.relu(a) * config.scale

    @functools.singledispatch
    def squash(a):
        return torch.tanh(a)

    steps = [
        lambda h, x: torch.tanh(h + mine(x)),
        lambda h, x: torch.tanh(h + x * proxy.gain),
        lambda h, x: squash(h + x),
    ]
    for step in steps:
        yield step, []
    config.scale = m.gain = 0.5
    squash.register(Tensor, lambda a: torch.sigmoid(a))
    for step in steps:
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
    V, W = weight().requires_grad_(False), weight().requires_grad_(False)
    held = types.SimpleNamespace(W=W)  # reached another way than by a closure

    def step(h, x):
        return torch.tanh(x @ V + h @ W)

    def searched(h, x):
        return torch.tanh(x @ V + h @ held.W)

    for flags in ((False, False), (True, False), (True, True), (False, True), (False, False)):
        V.requires_grad_(flags[0])
        W.requires_grad_(flags[1])
        wanted = [p for p in (V, W) if p.requires_grad]
        yield step, wanted
        yield searched, wanted


# ----------------------------------------------------------------------------------- modules


@world
def attributes_of_a_module():
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
    small.SCALE = 0.5
    try:
        yield m, [m.W]
    finally:
        small.SCALE = 1.0
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
def getattr_of_a_module():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = {"scale": 1.0}

        def __getattr__(self, name):
            if name == "scale":
                return self.__dict__["table"]["scale"]
            return super().__getattr__(name)

        def forward(self, h, x):
            return torch.tanh(x + h) * self.scale

    m = Table()
    yield m, []
    m.table["scale"] = 0.5
    yield m, []


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
def slots_of_classes():
    class Base:
        __slots__ = ("W", "missing")

    class Gain(Base):
        __slots__ = ("__weakref__", "gain")

        def __call__(self, h, x):
            return torch.tanh(x + h @ self.W) * self.gain

    class Other(Gain):
        __slots__ = ()

        def __call__(self, h, x):
            return torch.sigmoid(x + h @ self.W) * self.gain

    class Hiding(Gain):
        """A property of the name of a slot, and attributes beside slots."""

        factor = 1.0

        @property
        def gain(self):
            return Gain.gain.__get__(self) * self.factor

    class Masking(Gain):
        gain = property(lambda self: 1.0)

        def __call__(self, h, x):
            return torch.tanh(x + h @ self.W) * Gain.gain.__get__(self)

    one, hiding, masking = Gain(), Hiding(), Masking()
    one.W, one.gain = weight(), 1.0
    yield one, [one.W]
    one.gain = 0.5
    yield one, [one.W]
    one.W = weight()
    yield one, [one.W]
    one.__class__ = Other
    yield one, [one.W]
    Other.__call__ = Gain.__call__
    yield one, [one.W]
    hiding.W = weight()
    Gain.gain.__set__(hiding, 1.0)
    yield hiding, [hiding.W]
    Gain.gain.__set__(hiding, 0.5)
    yield hiding, [hiding.W]
    hiding.factor = 0.5
    yield hiding, [hiding.W]

    masking.W = weight()
    for gain in (1.0, 0.5):
        Gain.gain.__set__(masking, gain)
        yield masking, [masking.W]

    def by_default(h, x):
        try:
            return torch.tanh(x + h @ one.missing)
        except AttributeError:
            return torch.tanh(x + h)

    yield by_default, []
    one.missing = weight()
    yield by_default, [one.missing]
    del one.missing
    yield by_default, []


@world
def slots_of_the_same_name():
    class A:
        __slots__ = ("gain",)

    class B(A):
        __slots__ = ("gain",)

    one, other = B(), B()
    for held, gain in ((one, 0.5), (other, 0.9)):
        held.gain = 1.0
        A.gain.__set__(held, gain)

    def step(h, x):
        return torch.tanh(x + h) * A.gain.__get__(one)

    yield step, []
    one = other
    yield step, []
    A.gain.__set__(one, 0.1)
    yield step, []


@world
def subclasses_of_torchs_modules():
    """Numbers that PyTorch's own forward reads, and no code of the user's mentions."""

    class Leaky(nn.LeakyReLU):
        pass

    class Calls(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x)

    class Drops(nn.Dropout):
        pass

    class Scheduled(nn.ELU):
        pass

    act = Leaky(0.1)

    def step(h, x):
        return act(x + h)

    for slope in (0.1, 0.9):
        act = Leaky(slope)
        yield step, []
        act.negative_slope = slope / 2
        yield step, []
    Leaky.negative_slope = property(lambda self: 0.3)
    yield step, []
    for eps in (1e-5, 1.0):
        act = Calls(H, eps=eps, dtype=D)
        yield step, [act.weight, act.bias]
    act.normalized_shape = (H,)
    yield step, [act.weight, act.bias]
    act = Scheduled()
    yield step, []
    Scheduled.alpha = property(lambda self: 0.5)
    yield step, []
    act.act = Drops(0.0)
    outer = lambda h, x: torch.tanh(act.act(x + h))  # noqa: E731
    yield outer, []
    act.act.p = 1.0
    yield outer, []


@world
def special_methods_that_turn_up():
    class A:
        def __bool__(self):
            return True

    class B(A):
        pass

    class Stack(nn.ModuleList):
        pass

    class Answers:
        def __init__(self):
            self.yes = True

        def __call__(self, *_):
            return self.yes

    one, stack, answers = B(), Stack([nn.Tanh(), nn.Sigmoid()]), Answers()

    def asks(h, x):
        return torch.tanh(x + h) * (0.5 if one else 0.7)

    def reads(h, x):
        return torch.tanh(x + h) * one.gain

    def stacked(h, x):
        z = x + h
        for layer in stack:
            z = layer(z)
        return z

    yield asks, []
    B.__bool__ = lambda self: False
    yield asks, []
    del B.__bool__
    yield asks, []
    B.__bool__ = answers
    yield asks, []
    answers.yes = False
    yield asks, []
    one.gain = 0.5
    yield reads, []
    B.__getattribute__ = lambda self, name: (
        0.9 if name == "gain" else object.__getattribute__(self, name)
    )
    yield reads, []
    yield stacked, []
    Stack.__iter__ = lambda self: iter([self[1]])
    yield stacked, []


@world
def subclasses_of_partials_and_properties():
    class Scaled(functools.partial):
        def __call__(self, *arguments):
            return super().__call__(*arguments) * self.gain

    class Property(property):
        pass

    def plain(h, x):
        return torch.tanh(x + h)

    def step(h, x):
        return torch.tanh(x + h) * held.gain

    for gain in (0.5, 0.9):
        one = Scaled(plain)
        one.gain = gain
        yield one, []
        one.gain = gain / 2
        yield one, []
    Scaled.__call__ = lambda self, *arguments: plain(*arguments) * 2
    yield one, []
    held = Property(abs)
    for held.gain in (0.5, 0.9):
        yield step, []


@world
def torch_script():
    """The calls inside are not seen, nor what they are given."""

    @torch.jit.script
    def scaled(z, k: float):
        return torch.tanh(z * k)

    held = types.SimpleNamespace(k=1.0, act=torch.jit.script(nn.Tanh()))

    def passes(h, x):
        return scaled(h + x, held.k)

    def acts(h, x):
        return held.act(h + x)

    for held.k in (1.0, 0.4):
        yield passes, []
    yield acts, []
    held.act = torch.jit.script(nn.Sigmoid())
    yield acts, []


@world
def objects_that_answer_in_their_own_way():
    class Raises:
        __slots__ = ("k",)

        def __getattr__(self, name):
            raise ValueError(name)

    class Odd:
        __match_args__ = property(lambda self: ())
        __dataclass_fields__ = 3

    raises, odd = Raises(), Odd()
    compiled = torch.compile(nn.Linear(H, H, dtype=D), backend="eager")

    def step(h, x):
        return torch.tanh(x + h * raises.k * odd.k)

    for raises.k in (1.0, 0.5):
        odd.k = raises.k
        yield step, []
    yield lambda h, x: torch.tanh(x + compiled(h)), list(compiled.parameters())


@world
def minus_zero():
    held = types.SimpleNamespace(zero=0.0)

    def step(h, x):
        return torch.tanh(x + h) + (0.5 if math.copysign(1.0, held.zero) > 0 else 0.25)

    for held.zero in (0.0, -0.0, 0.0):
        yield step, []


@world
def patterns_by_position():
    class Point:
        __match_args__ = ("of",)

    point = Point()

    def step(h, x):
        match point:
            case Point(1):
                return torch.tanh(2 * x + h)
        return torch.tanh(x + h)

    for point.of in (0, 1, 0):
        yield step, []


@world
def who_is_who():
    class A:
        pass

    a, b = A(), A()
    now, known = a, id(a)

    def by_id(h, x):
        return torch.tanh(x + h) * (0.5 if id(now) == known else 0.7)

    def by_dir(h, x):
        return torch.tanh(x + h) * len([name for name in dir(a) if name[0] != "_"])

    for now in (a, b, a):  # noqa: B007
        yield by_id, []
    for name in ("p", "q"):
        setattr(A, name, 1)
        yield by_dir, []


@world
def named_tuples():
    Plain = collections.namedtuple("Plain", "W gain")

    class Squashed(typing.NamedTuple):
        W: Tensor
        gain: float

        def act(self, a):
            return torch.tanh(a) * self.gain

    class WithAttributes(Plain):
        gain_of_its_own = 1.0

    held = types.SimpleNamespace(of=Plain(weight(), 1.0))

    def step(h, x):
        return torch.tanh(x + h @ held.of.W) * held.of.gain

    def acting(h, x):
        return held.of.act(x + h @ held.of.W)

    def of_its_own(h, x):
        return torch.tanh(x + h @ held.of.W) * held.of.gain_of_its_own

    yield step, [held.of.W]
    held.of = held.of._replace(gain=0.5)
    yield step, [held.of.W]
    held.of = Plain(weight(), 0.5)
    yield step, [held.of.W]
    held.of = Squashed(weight(), 0.5)
    yield acting, [held.of.W]
    Squashed.act = lambda self, a: torch.sigmoid(a)
    yield acting, [held.of.W]
    held.of = WithAttributes(weight(), 0.5)
    yield of_its_own, [held.of.W]
    held.of.gain_of_its_own = 0.5
    yield of_its_own, [held.of.W]
    del held.of.gain_of_its_own
    WithAttributes.gain_of_its_own = 2.0
    yield of_its_own, [held.of.W]


@world
def layers_and_cells_of_ours():
    held = types.SimpleNamespace(
        cell=module(ostinato.nn.RNNCell, H, H), layer=module(ostinato.nn.GRU, H, H), scale=1.0
    )

    def inner(h, x):
        return held.layer(x[None], h[None])[0][0] * held.scale

    def by_the_cell(h, x):
        return held.cell(x, h) * held.scale

    def leaves(m):
        return list(m.parameters())

    def all_of_them():
        yield inner, leaves(held.layer)
        yield by_the_cell, leaves(held.cell)
        yield held.cell.step, leaves(held.cell)

    yield from all_of_them()
    held.cell.nonlinearity = "relu"
    held.layer.weight_hh_l0 = nn.Parameter(torch.randn(3 * H, H, dtype=D))
    yield from all_of_them()
    held.cell.bias_hh = nn.Parameter(torch.ones(H, dtype=D))
    held.layer.load_state_dict(module(ostinato.nn.GRU, H, H).state_dict())
    yield from all_of_them()
    held.layer = ostinato.nn.RNN(H, H, nonlinearity="relu").to(D)
    held.scale = 0.5
    yield from all_of_them()
    held.layer.weight_ih_l0.requires_grad_(False)
    yield inner, leaves(held.layer)[1:]
    held.layer.register_forward_hook(lambda m, given, out: (out[0] * 2, out[1]))
    yield inner, leaves(held.layer)[1:]


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
