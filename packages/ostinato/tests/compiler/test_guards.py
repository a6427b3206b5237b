"""What a recorded run read may change between calls, and must be noticed.

A row of the tables is a step, as an expression of `h`, `x` and a world `w` (zoo/small.py), and
statements. The first prepares the world; each of the others changes what the step reads. After
each, values and gradients are the loop's: of the step as it was, and of one made anew each call.
"""

# ruff: noqa: F401 (the rows, which are strings, use these names)

from __future__ import annotations

import collections
import enum
import functools
import math
import operator
import sys
import types
import typing
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ostinato
from zoo.objects import HARD, beside
from zoo.playing import counting, loop
from zoo.small import Cell, D, H, World, assert_like_the_loop, given, module, weight
from zoo.suites import one_in

pytestmark = pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")


def over(k: Any) -> Any:
    return lambda h, x: torch.tanh(x + h) * k


def squashed(act: Any) -> Any:
    return lambda h, x: act(x + h)


def decorated(step: Any, scale: float) -> Any:
    @functools.wraps(step)
    def wrapper(h: Tensor, x: Tensor) -> Tensor:
        return step(h, x) * scale

    return wrapper


def with_defaults(w: World) -> Any:
    return lambda h, x, k=w.k, *, shift=w.n: torch.tanh(x + h @ w.W) * k + shift


def joined(f: Any, g: Any) -> Any:
    """Over two parts, which may be one, by a helper that is made with it."""

    def parts(h: Tensor, x: Tensor) -> Tensor:
        return f(x) + 2 * g(h) if isinstance(f, nn.Module) else x @ f + 2 * h @ g

    return lambda h, x: torch.tanh(parts(h, x))


def scaled(h: Tensor, x: Tensor, W: Tensor, k: float) -> Tensor:
    return torch.tanh(x + h @ W) * k


def of_a_class_in_a_closure(w: World) -> Any:
    """The step makes an object, whose class reads a number from a closure."""

    class Made:
        shift = 0.5

        def __init__(self) -> None:
            self.k = w.k

        def __call__(self, a: Tensor) -> Tensor:
            return a * self.k + self.shift

    w.Made = getattr(w, "Made", Made)  # one class, also where the step is made anew
    return lambda h, x: w.Made()(torch.tanh(x + h))


def by_a_pattern(w: World) -> Any:
    def step(h: Tensor, x: Tensor) -> Tensor:
        match w.inner:
            case types.SimpleNamespace(k=1.0):
                return torch.tanh(h + x)
        return torch.sin(h + x)

    return step


def family() -> tuple[Any, type, type]:
    """An object whose method calls that of its class's base, and this one its own base's."""

    class First:
        def core(self, h: Tensor) -> Tensor:
            return h * 0.5

    class Second(First):
        pass

    class Third(Second):
        def core(self, h: Tensor) -> Tensor:
            return super().core(h) + h

    return Third(), First, Second


def dispatched(w: World) -> Any:
    @functools.singledispatch
    def act(a: Any) -> Any:
        return a

    act.register(Tensor, lambda a: torch.tanh(a) * w.k)
    return act


class Kind(enum.Enum):
    TANH, SIGMOID = 1, 2


class Squash(typing.NamedTuple):
    W: Tensor
    k: float

    def act(self, a: Tensor) -> Tensor:
        return torch.tanh(a @ self.W) * self.k


class Equal:
    """All of them are equal. A step, and with one as a method."""

    def __init__(self, W: Tensor, k: float):
        self.W, self.k = W, k

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 0

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + h @ self.W) * self.k

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        return self(h, x)


NUMBERS: dict[str, tuple[Any, ...]] = {
    "attribute": ("torch.tanh(x + h @ w.W) * w.k", "", "w.k = 0.5", "w.k = 2", "w.k = 0.5",
        "w.k = nn.Parameter(torch.tensor(0.75, dtype=D))"),
    "deep attribute": ("torch.tanh(x + h) * w.inner.deep.k", "",
        "w.inner.deep.k = 0.5", "w.inner.deep = w.config; w.config.k = 2.0"),
    "attributes as a whole": ("torch.tanh(x + h) * w.thing.k", "",
        "w.thing.__dict__ = {'k': 0.5}", "w.thing.__dict__ = {'k': 2.0}"),
    "list": ("torch.tanh(x + h) * w.listed[1]", "",
        "w.listed[1] = 0.5", "w.listed.insert(0, 7.0)", "w.listed = [0.0, 4.0]"),
    "length": ("torch.tanh(x + h) * len(w.listed)", "", "w.listed.append(1.0)"),
    "dict": ("torch.tanh(x + h) * w.table['k']", "", "w.table['k'] = 0.5", "w.table = {'k': 3.0}"),
    "nested": ("torch.tanh(x + h) * w.table['in']['k'][0] * w.table['pair'][1]", "",
        "w.table['in']['k'][0] = 0.5", "w.table['pair'] = (1.0, 0.25)",
        "w.table['in'] = {'k': [2]}"),
    "keys": ("torch.tanh(x + h) * (2 if 'new' in w.table else 1)", "",
        "w.table['new'] = 0", "del w.table['new']"),
    "keys that are pairs": ("torch.tanh(x + h) * w.table[0, 1]",
        "w.table = {(0, 1): 2.0, (1, 0): w.b}", "w.table[0, 1] = 0.5", "w.table = {(0, 1): 4.0}"),
    "list of another class": ("torch.tanh(x + h) * w.listed[0]", "w.listed = [1.0, w.b]",
        "w.listed = type('L', (list,), {'__getitem__': lambda s, i: 0.5})([1.0, w.b])"),
    "sum of a list": ("torch.tanh(x + h) * sum(w.table['in']['k'])", "",
        "w.table['in']['k'].append(2.0)"),
    "global": (lambda w: w.function("return torch.tanh(x + h @ w.W) * k"), "",
        "w.scope['k'] = 0.5"),
    "global that comes and goes": (
        lambda w: w.function("try: return torch.tanh(x + h) * new\nexcept NameError: return x + h"),
        "", "w.scope['new'] = 0.5", "del w.scope['new']"),
    "Python module": ("torch.tanh(x + h) * w.config.k", "", "w.config.k = 0.5"),
    "class attribute": ("torch.tanh(x + h) * w.Thing.k", "",
        "w.Base.k = 0.5", "w.Thing.k = 2.0", "del w.Thing.k"),
    "closure": (lambda w: over(w.k), "", *(
        f"w.k = w.last.__closure__[0].cell_contents = {k}"
        for k in ("0.5", "2", "weight(H)", "0.25", "np.float64(0.75)"))),
    "defaults": (with_defaults, "",
        "w.k = 0.5; w.last.__defaults__ = (0.5,)", "w.n = w.last.__kwdefaults__['shift'] = 1",
        "w.n = 2; w.last.__kwdefaults__ = {'shift': 2}"),
    "method of a class": (lambda w: w.Thing.scaled,
        "w.Thing.scaled = classmethod(lambda cls, h, x: torch.tanh(x + h) * cls.k)",
        "w.Thing.k = 0.5", "w.Base.k = 2.0; del w.Thing.k"),
    "partial of a partial": (lambda w: functools.partial(functools.partial(scaled, W=w.W), k=w.k),
        "", "w.k = 0.5; w.last = None"),
    "partial": (lambda w: functools.partial(scaled, W=w.W, k=w.k), "",
        "w.k = w.last.keywords['k'] = 0.5", "w.W = w.last.keywords['W'] = weight()"),
    "decorated": (lambda w: decorated(over(w.k), w.inner.k), "",
        "w.k = 0.5; w.last = None", "w.inner.k = 0.25; w.last = None"),
    "string": ("torch.tanh(x + h) if w.mode == 'tanh' else torch.sigmoid(x + h)", "",
        "w.mode = 'sigmoid'", "w.mode = 'ta' + 'nh'"),
    "flag": ("torch.tanh(x + h) if w.flag else x - h", "", "w.flag = False"),
    "nothing": ("torch.tanh(x + h) * (w.maybe or 1.0)", "", "w.maybe = 0.5", "w.maybe = None"),
    "type": ("torch.tanh(x + h) * (2 if type(w.k) is int else 1)", "",
        "w.k = 1", "w.k = True", "w.k = 1"),
    "minus zero": ("(x + h) * math.copysign(0.5, w.k)", "w.k = 0.0", "w.k = -0.0", "w.k = 0.0"),
    "not a number": ("torch.tanh(x + h) * (0.5 if w.k != w.k else w.k)",
        "w.k = float('nan')", "w.k = 2.0", "w.k = float('nan')"),
    "enumeration": ("torch.tanh(x + h) if w.mode is Kind.TANH else torch.sigmoid(x + h)",
        "w.mode = Kind.TANH", "w.mode = Kind.SIGMOID"),
    "slice": ("torch.tanh(h + x[:, w.part].sum(1, keepdim=True))",
        "w.part = slice(0, 2)", "w.part = slice(1, 4)"),
    "NumPy number": ("torch.tanh(x + h) * float(w.k)",
        "w.k = np.float64(0.5)", "w.k = np.float64(0.25)"),
    "named tuple": ("w.inner.act(x + h)", "w.inner = Squash(w.W, 1.0)",
        "w.inner = w.inner._replace(k=0.5)", "w.inner = Squash(w.V, 0.5)"),
    "attribute of a function": ("torch.tanh(x + h) * w.act.k",
        "w.act = lambda a: a; w.act.k = 1.0", "w.act.k = 0.5"),
}  # fmt: skip

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "function": ("w.act(x + h)", "", "w.act = torch.sigmoid", "w.act = F.silu",
        "w.act = nn.Softplus()", "w.act = lambda a: a * 0.5", "w.act = lambda a: a * 0.25"),
    "function in a closure": (lambda w: squashed(w.act), "",
        "w.act = w.last.__closure__[0].cell_contents = torch.sin"),
    "code": ("w.act(x + h)", "w.act = lambda a: a * 2",
        "w.act.__code__ = (lambda a: a * 3).__code__"),
    "method": ("w.thing.act(x + h)", "",
        "w.Base.act = lambda self, a: a * 2", "w.Thing.act = lambda self, a: a * 3",
        "w.thing.act = lambda a: a * 4", "del w.thing.act", "del w.Thing.act"),
    "kinds of method": ("w.thing.f(x)", "w.Thing.f = lambda *a: a[-1] * len(a)",
        "w.Thing.f = staticmethod(lambda *a: a[-1] * len(a))",
        "w.Thing.f = classmethod(lambda *a: 3 * a[-1] * len(a))"),
    "static method": ("w.thing.still(x + h)", "", "w.Thing.still = staticmethod(torch.sigmoid)"),
    "property": ("torch.tanh(x + h) * w.thing.double", "",
        "w.thing.k = 0.5", "w.Thing.double = property(lambda self: 7.0)"),
    "call": ("w.thing(x + h)", "", "w.Base.k = 0.5",
        "w.Thing.__call__ = lambda self, a: a * self.k"),
    "attribute before a class's": ("torch.tanh(x + h) * w.thing.k", "",
        "w.Thing.k = 0.5", "w.thing.k = 0.25", "del w.thing.k", "del w.Thing.k"),
    "class of an object": ("w.thing.act(x + h)", "",
        "w.thing.__class__ = type('Other', (w.Thing,), dict(act=lambda self, a: 2 * a))"),
    "equal objects": (lambda w: w.thing, "w.thing = Equal(w.W, 1.0)",
        "w.thing = Equal(w.V, 1.0); w.last = None", "w.thing = Equal(w.V, 0.5); w.last = None"),
    "methods of equal objects": (lambda w: w.thing.step, "w.thing = Equal(w.W, 1.0)",
        "w.thing = Equal(w.V, 1.0); w.last = None", "w.thing.k = 0.5"),
    "the same function twice": ("w.act(w.inner.f(x) + w.inner.g(h))",
        "w.inner.f, w.inner.g, w.act = torch.tanh, torch.sigmoid, torch.tanh",
        "w.act = torch.sigmoid", "w.inner.f, w.inner.g = torch.sigmoid, torch.tanh"),
    "a tensor and a number change places": ("torch.tanh(h * w.inner.p + x - w.k)",
        "w.inner.p, w.k = w.b, 2.0", "w.inner.p, w.k = 2.0, w.b", "w.k = w.inner.p = w.b"),
}  # fmt: skip

MODULES: dict[str, tuple[Any, ...]] = {
    "attributes of a module": (lambda w: w.cell, "", "w.cell.eval()", "w.cell.train()",
        "w.cell.config.scale = 0.5", "w.cell._scales[0] = 0.5", "w.cell.gain = 0.5",
        "del w.cell.gain", "w.cell.listed[0] = torch.full((H,), 3.0, dtype=D)",
        "w.cell.shift = torch.ones(H, dtype=D)", "w.cell.shift = torch.ones(1, dtype=D) * 2",
        "w.cell.W = weight()", "w.cell.W.data = torch.randn(H, H, dtype=D)"),
    "method of a module": (lambda w: w.cell.forward, "", "w.cell.gain = 0.5", "w.cell.eval()"),
    "modules within": (lambda w: w.cell, "", "w.cell.act = nn.Sigmoid()",
        "w.cell.act = nn.LeakyReLU(0.1)", "w.cell.act.negative_slope = 0.5",
        "w.cell.act = nn.Sequential(nn.Linear(H, H), nn.Tanh()).to(D)",
        "w.cell.act[1] = nn.Softplus(beta=2)", "w.cell.act[1].beta = 0.5",
        "w.cell.act.append(nn.Linear(H, H).to(D))", "w.cell.act.insert(0, nn.Sigmoid())",
        "w.cell.act.pop(0)"),
    "dropout": ("torch.tanh(w.cell.drop(x) + h)", "w.cell.eval()",
        "w.cell.drop.train(); w.cell.drop.p = 1.0", "w.cell.eval()"),
    "class of a module": (lambda w: w.cell, "w.cell = type('Own', (Cell,), {})()",
        "type(w.cell).gain = 0.5", "type(w.cell).squash = lambda self, a: torch.sin(a)",
        "w.cell.squash = lambda a: torch.sigmoid(a)", "del w.cell.squash",
        "type(w.cell).forward = lambda self, h, x: torch.tanh(h @ self.W) + x"),
    "forward of an instance": ("torch.tanh(w.linear(h) + x)", "",
        "w.linear.forward = lambda a: a * 0.5", "del w.linear.forward"),
    "subclasses of PyTorch's": ("w.act(x + h)", "w.act = type('Leaky', (nn.LeakyReLU,), {})(0.1)",
        "w.act.negative_slope = 0.9", "w.act = type('Norm', (nn.LayerNorm,), {})(H, 1e-5, dtype=D)",
        "w.act.eps = 1.0"),
    "forward hooks": ("torch.tanh(x + w.linear(h))", "",
        "w.hook = w.linear.register_forward_hook(lambda m, args, out: 0.5 * out)",
        "w.hook.remove()",
        "w.hook = w.linear.register_forward_pre_hook(lambda m, args: (args[0] * 2,))",
        "w.hook.remove()"),
    "a hook's number": ("w.stack(x + h)",
        "w.hook = w.stack[1].register_forward_hook(lambda m, args, out: w.k * out)", "w.k = 0.5",
        "w.hook.remove()"),
    "state loaded": ("torch.tanh(w.linear(h) + x)", "",
        "w.linear.load_state_dict(nn.Linear(H, H).state_dict())"),
    "cells of ours": (lambda w: w.cell.step, "w.cell = ostinato.nn.RNNCell(H, H).to(D)",
        "w.cell.nonlinearity = 'relu'; w.last = None",
        "w.cell.bias_hh = nn.Parameter(torch.ones(H, dtype=D))"),
}  # fmt: skip

TENSORS: dict[str, tuple[Any, ...]] = {
    "tensor replaced": ("torch.tanh(x + h @ w.W) + w.b", "", "w.W = weight()", "w.b = weight(1)",
        "w.b = weight(1, H)", "w.b = torch.ones((), dtype=D)", "w.W = w.W.detach()",
        "w.W = weight() * 0.5", "w.W = w.V"),
    "tensors in a list": (
        "functools.reduce(lambda h, W: torch.tanh(x + h @ W), w.weights, h)", "",
        "w.weights[0] = weight()", "w.weights.append(weight())", "w.weights.reverse()",
        "del w.weights[:2]"),
    "tensor in a closure": (lambda w: over(w.b), "",
        "w.b = w.last.__closure__[0].cell_contents = weight(H)",
        "w.b = w.last.__closure__[0].cell_contents = weight(H).detach()"),
    "tied and untied": ("torch.tanh(x @ w.V + h @ w.W)", "",
        "w.V = w.W", "w.V = weight()", "w.W, w.V = w.V, w.W", "w.W = w.V", "w.W = w.V.detach()"),
    "parameters tied": ("torch.tanh(w.linear(x) + w.stack[0](h))", "",
        "w.stack[0].weight = w.linear.weight", "w.stack[0] = w.linear",
        "w.stack[0] = nn.Linear(H, H).to(D)"),
    "frozen and thawed": ("torch.tanh(x @ w.V + h @ w.inner.W)", "",
        "w.V.requires_grad_(False)", "w.inner.W.requires_grad_(False)", "w.V.requires_grad_()",
        "w.inner.W.requires_grad_()"),
    "tensors in a closure": (lambda w: joined(w.V, w.W), "", *(
        f"{change}; w.last = None" for change in (
            "w.V = w.W", "w.V = weight()", "w.W, w.V = w.V, w.W", "w.W = w.V.detach()"))),
    "modules in a closure": (lambda w: joined(w.linear, w.stack[0]), "", *(
        f"{change}; w.last = None" for change in (
            "w.stack[0] = w.linear", "w.linear = nn.Linear(H, H).to(D)",
            "w.linear.requires_grad_(False)", "w.linear.weight.requires_grad_()",
            "w.linear = w.stack[1]"))),
    "a module frozen": ("torch.tanh(x + w.stack(h))", "",
        "w.stack.requires_grad_(False)", "w.stack[0].bias.requires_grad_()"),
    "a parameter or not": (
        "(torch.tanh if isinstance(w.W, nn.Parameter) else torch.sin)(x + h @ w.W)", "",
        "w.W = w.W.detach().requires_grad_()"),
}  # fmt: skip

# Attributes that are absent when the step is recorded, and come; and methods that super() finds.
COMING: dict[str, tuple[Any, ...]] = {
    "submodule, by getattr": (
        "(lambda f: torch.tanh(x + h) if f is None else f(x + h))(getattr(w.linear, 'norm', None))",
        "", "w.linear.norm = nn.Softplus()"),
    "buffer, by hasattr": ("torch.tanh(x + h) * (2 if hasattr(w.linear, 'scale') else 1)", "",
        "w.linear.register_buffer('scale', torch.ones(1))"),
    "of a class": ("torch.tanh(x + h) * getattr(w.thing, 'gain', 1.0)", "", "w.Base.gain = 0.5"),
    "of a Python module": ("torch.tanh(x + h) * getattr(w.config, 'gain', 1.0)", "",
        "w.config.gain = 0.5"),
    "of a function": ("torch.tanh(x + h) * getattr(w.act, 'gain', 1.0)", "w.act = lambda a: a",
        "w.act.gain = 0.5"),
    "by an exception": (lambda w: w.function(
        "try: return torch.tanh(x + h) * w.inner.gain\nexcept AttributeError: return x + h"), "",
        "w.inner.gain = 0.5"),
    "by any exception": (lambda w: w.function(
        "try: return torch.tanh(x + h) * w.inner.gain\nexcept: return x + h"), "",
        "w.inner.gain = 0.5"),
    "sentinel": ("torch.tanh(x + h) if w.mode is w.tokens[0] else x + h",
        "w.tokens = [object(), object()]; w.mode = w.tokens[1]", "w.mode = w.tokens[0]"),
    "dotted name": ("torch.tanh(x + h) * operator.attrgetter('inner.deep.k')(w)", "",
        "w.inner.deep.k = 0.5"),
    "super()": (lambda w: lambda h, x: torch.tanh(x + w.last_of_line.core(h)),
        "w.last_of_line, w.First, w.Second = family()",
        "w.First.core = lambda self, h: h * 0.25", "w.Second.core = lambda self, h: h * 3"),
    "function that is not called": ("torch.tanh(x + h) * w.act.gain",
        "w.act = lambda a: a; w.act.gain = 1.0", "w.act.gain = 0.5"),
}  # fmt: skip

# Python need not show these reads: such a step may be run once a call.
SEARCHED: dict[str, tuple[Any, ...]] = {
    "dispatched by type": ("w.act(x + h)", "w.act = dispatched(w)", "w.k = 0.5"),
    "computed name": ("torch.tanh(x + h @ w.W) * getattr(w, ''.join(['k']))", "",
        "w.k = 0.5", "w.k = 2.0", "w.k = 0.5"),
    "cell of ours": ("w.cell(x, h) * vars(w)[''.join(['k'])]",
        "w.cell = ostinato.nn.RNNCell(H, H).to(D)", "w.k = 0.5", "w.cell.nonlinearity = 'relu'"),
    "names in strings": (
        "torch.tanh(x + h) * operator.attrgetter('k')(w.inner) * getattr(w.thing, 'k')"
        " * (2 if hasattr(w.inner, 'new') else 1)", "",
        "w.inner.k = 0.5", "w.thing.k = 0.25", "w.inner.new = 1"),
    "attribute of a tensor": ("torch.tanh(x + h @ w.W) * w.W.k", "w.W.k = 1.0", "w.W.k = 0.5"),
    "attribute that a tensor gains": (
        "torch.tanh(h + (2 * x if hasattr(w.W, 'marked') else x))", "", "w.W.marked = 1"),
    "globals()": (lambda w: w.function("return torch.tanh(x + h) * globals()['k']"), "",
        "w.scope['k'] = 0.5"),
    "module imported inside": (
        lambda w: w.function("import config_of_a_test as c\nreturn torch.tanh(x + h) * c.k"),
        "sys.modules['config_of_a_test'] = w.config", "w.config.k = 0.5"),
    "name imported inside": (
        lambda w: w.function("from config_of_a_test import k\nreturn torch.tanh(x + h) * k"),
        "sys.modules['config_of_a_test'] = w.config", "w.config.k = 0.5"),
    "vars of a module": ("torch.tanh(x + h) * vars(w.config)[''.join('k')]", "",
        "w.config.k = 0.5", "w.config.k = 1.0"),
    "method of a dict": (lambda w: lambda h, x, get=w.table.get: torch.tanh(x + h) * get("k", 3.0),
        "", "w.table['k'] = 0.5", "del w.table['k']"),
    "other mappings": ("torch.tanh(x + h) * w.table['k']",
        "w.table = collections.OrderedDict(k=2.0)",
        "w.table['k'] = 3.0", "w.table = collections.UserDict(k=2.0)", "w.table['k'] = 4.0",
        "w.table = collections.defaultdict(float, k=5.0)", "w.table['k'] = 6.0",
        "w.table = type('Own', (dict,), {})(k=7.0)", "w.table['k'] = 8.0"),
    "long list": ("torch.tanh(x + h) * w.listed[-1]", "w.listed = [1.0] * 5000",
        "w.listed[-1] = 0.5"),
    "name or another": ("torch.tanh(x + h) * getattr(w, w.maybe or 'k')", "w.gain = 3.0",
        "w.maybe = 'gain'"),
    "NumPy integer": ("torch.tanh(x + h) * int(w.k)", "w.k = np.int64(2)", "w.k = np.int64(3)"),
    "special methods": ("torch.tanh(x + h) * w.thing['k'] * len(w.thing) * float(w.thing)",
        "w.Thing.__getitem__ = lambda self, i: self.k; w.Thing.__len__ = lambda self: int(self.k);"
        "w.Thing.__float__ = lambda self: self.k", "w.thing.k = 2.0"),
    "descriptor": ("torch.tanh(x + h) * w.thing.described",
        "w.Thing.described = type('D', (), dict(__get__=lambda self, owner, kind: owner.k))()",
        "w.thing.k = 0.5"),
    "generated methods": ("torch.tanh(x + h) if w.inner == w.maybe else torch.sin(x + h)",
        "import dataclasses; C = dataclasses.make_dataclass('C', ['k']); "
        "w.inner, w.maybe = C(1), C(1)",
        "w.inner.k = 2"),
    "two objects or one": ("torch.tanh(x + h) * (1 + (w.inner is w.maybe))",
        "w.inner, w.maybe = types.SimpleNamespace(), types.SimpleNamespace()",
        "w.maybe = w.inner", "w.maybe = types.SimpleNamespace()"),
    "object made inside": (of_a_class_in_a_closure, "", "w.Made.shift = 0.25", "w.k = 0.5"),
    "pattern": (by_a_pattern, "", "w.inner.k = 2.0", "w.inner.k = 1.0"),
    "own __getattr__": ("torch.tanh(x + h) * w.thing.made_up",
        "w.Thing.__getattr__ = lambda self, name: self.__dict__['hidden']; w.thing.hidden = 2.0",
        "w.thing.hidden = 0.5"),
    "parametrization": (lambda w: w.cell, "w.cell.eval()",
        "nn.utils.parametrizations.weight_norm(w.cell, 'W'); w.last = None",
        "w.cell.parametrizations.W.original0.data.mul_(2)",
        "nn.utils.parametrize.remove_parametrizations(w.cell, 'W'); w.last = None"),
    "set": ("torch.tanh(x + h) if 'on' in w.memo else x - h",
        "w.memo = {'on'}", "w.memo.clear()", "w.memo.add('on')"),
    "slots": ("torch.tanh(x + h @ w.thing.W) * w.thing.k",
        "w.thing = type('S', (), dict(__slots__=('W', 'k')))(); w.thing.W, w.thing.k = w.W, 1.0",
        "w.thing.k = 0.5", "w.thing.W = w.V"),
    "hooks of all modules": ("torch.tanh(x + w.linear(h))", "",
        "w.hook = nn.modules.module.register_module_forward_hook(lambda m, args, out: 2 * out)",
        "w.hook.remove()"),
    "array": ("torch.tanh(x + h) * float(w.memo[1])", "w.memo = np.ones(3)", "w.memo[1] = 0.5"),
    "cached function": ("torch.tanh(x + h) * w.memo()",
        "w.memo = functools.lru_cache(lambda: w.k)", "w.k = 0.5; w.memo.cache_clear()"),
    "weak reference": ("torch.tanh(x + h) * w.memo().k",
        "w.memo = weakref.ref(w.thing)", "w.thing.k = 0.5"),
    "deque": ("torch.tanh(x + h) * w.memo[0]",
        "w.memo = collections.deque([1.0, 2.0])", "w.memo.rotate()"),
    "range": ("torch.tanh(x + h) * (2 if 3 in w.memo else 1)", "w.memo = range(3)",
        "w.memo = range(4)"),
    "order of operations": (
        "(lambda p, q: p - q if vars(w)['fl' + 'ag'] else q - p)(torch.tanh(h), x @ w.W)", "",
        "w.flag = False", "w.flag = True"),
    "order of outputs": (
        "(lambda p, q: (p, q) if vars(w)['fl' + 'ag'] else (q, p))(torch.tanh(h @ w.W), x)", "",
        "w.flag = False", "w.flag = True"),
    "transposed or not": ("torch.tanh(h @ (w.W.T if vars(w)['fl' + 'ag'] else w.W.mT.T) + x)",
        "", "w.flag = False", "w.flag = True"),
    "one derived weight or another": (
        "(lambda p, q: x + h @ (p if vars(w)['fl' + 'ag'] else q))(w.W * 0.5, w.W * 0.25)", "",
        "w.flag = False", "w.flag = True"),
    "list in an enumeration": ("torch.tanh(x + h) * w.mode.value[0]",
        "w.mode = enum.Enum('E', {'A': [1.0]}).A", "w.mode.value[0] = 0.5"),
    "dispatched function": ("w.act(x + h)",
        "w.act = functools.singledispatch(lambda a: torch.tanh(a))",
        "w.act.register(Tensor, lambda a: torch.sigmoid(a))"),
    "function that says it is another": ("w.act(x + h)",
        "w.act = functools.wraps(F.relu)(lambda a: F.relu(a) * w.k)", "w.k = 0.5"),
    "one intermediate or another": (
        "(lambda p, q: p if vars(w)['fl' + 'ag'] else q)(torch.tanh(h @ w.W), torch.tanh(x))",
        "", "w.flag = False", "w.flag = True"),
}  # fmt: skip

# What these do with it is for the loop.
LOOPED: dict[str, tuple[Any, ...]] = {
    "subclass of float": ("torch.tanh(x + h) * w.k", "w.k = type('F', (float,), {})(0.5)",
        "w.k = type(w.k)(0.25)"),
    "dtype": ("(x + h).to(w.mode).to(D)", "w.mode = torch.float32", "w.mode = torch.float16"),
    "indices": ("torch.tanh(h + x[:, w.listed])", "w.listed = [0, 1, 1, 2]", "w.listed[1] = 3"),
    "hooks on all gradients": ("torch.tanh(x + w.linear(h))", "",
        "w.hook = nn.modules.module.register_module_full_backward_pre_hook("
        "lambda m, outs: (2 * outs[0],))", "w.hook.remove()"),
    "hooks on gradients": ("torch.tanh(x + w.linear(h))", "",
        "w.hook = w.linear.register_full_backward_hook(lambda m, ins, outs: (ins[0] * 2,))",
        "w.hook.remove()",
        "w.hook = w.linear.register_full_backward_pre_hook(lambda m, outs: (outs[0] * 2,))"),
    "layers of ours": ("w.layer(x[None], h[None])[0][0] * w.k",
        "w.layer = ostinato.nn.GRU(H, H).to(D)",
        "w.layer.weight_hh_l0 = nn.Parameter(weight(3 * H, H))", "w.k = 0.5",
        "w.layer = ostinato.nn.RNN(H, H, nonlinearity='relu').to(D)",
        "w.layer.weight_ih_l0.requires_grad_(False)",
        "w.layer.register_forward_hook(lambda m, given, out: (out[0] * 2, out[1]))"),
    "values that steer": (
        "torch.tanh(x + h[:, w.at] * w.mask) * w.size.item()"
        " if w.size > 0 else h[:, int(w.row)][:, None] + x",
        "w.size, w.at = torch.ones(1, dtype=D), torch.tensor([0, 1, 1, 3]); "
        "w.mask, w.row = torch.tensor([True, False, True, True]), torch.tensor(0)",
        "w.size.fill_(0.5)", "w.at.fill_(2)", "w.mask.fill_(False)", "w.size.neg_()",
        "w.row.add_(2)"),
    "the first carry": ("torch.tanh(x + h @ w.W) + w.first",
        "w.first = torch.randn(3, H, dtype=D)", "w.first = w.W[:3].detach()"),
    "tensor of numbers": ("h * torch.tensor([w.k] + [1.0] * (H - 1), dtype=D) + x", "",
        "w.k = 0.5", "w.k = 0.75", "w.k = 0.125"),
    "tensor of a tensor's number": ("h * torch.tensor([w.memo] + [1.0] * (H - 1), dtype=D) + x",
        "w.memo = torch.tensor(0.5, dtype=D)", "w.memo.fill_(0.25)", "w.memo.fill_(0.75)"),
    "tensor of an array": ("torch.tanh(x + h) * torch.from_numpy(w.memo)",
        "w.memo = np.ones(H)", "w.memo[1] = 0.5"),
    "True for 1": ("x + h * (~torch.full((H,), vars(w)[''.join('k')])).to(D)",
        "w.k = True", "w.k = 1", "w.k = True"),
    "a list for a tuple": ("h + w.W[vars(w)[''.join('k')]].sum() * x",
        "w.k = (0, 1)", "w.k = [0, 1]", "w.k = (0, 1)"),
    "an index of its own": ("h + w.W[vars(w)[''.join('k')]] * x",
        "w.k = type('I', (), dict(__index__=lambda self: self.i))(); w.k.i = 0", "w.k.i = 1"),
}  # fmt: skip

CHANGES = {**NUMBERS, **FUNCTIONS, **MODULES, **TENSORS, **COMING, **SEARCHED, **LOOPED}


def maker(step: Any) -> Any:
    """A row's step as a function of the world: the world is in its closure."""
    return eval(f"lambda w: lambda h, x: {step}", globals()) if isinstance(step, str) else step


def assert_noticed(row: tuple[Any, ...], anew: bool, most_runs: float) -> None:
    """And once played a step is run no more than `most_runs` times a call."""
    torch.manual_seed(0)
    make, w, before = maker(row[0]), World(), None
    try:
        for change in row[1:]:
            exec(change, {**globals(), "w": w})
            for _ in range(2):  # as found, and as remembered
                w.last = make(w) if anew or w.last is None else w.last
                now = assert_like_the_loop(w.last, w.leaves(), f"after {change}")
            assert before is None or not _same(now, before), f"{change} changes nothing here"
            before = now
            step = make(w) if anew else w.last
            assert runs(step) <= most_runs, f"after {change} it is run again at each call"
    finally:
        sys.modules.pop("config_of_a_test", None)
        if hasattr(w, "hook"):
            w.hook.remove()


def runs(step: Any) -> int:
    """How often a call runs the step in Python: T times if the loop plays."""
    with counting(step) as calls:
        ostinato.scan(step, *(t.requires_grad_() for t in given()))
    return calls[0]


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        p.shape == q.shape and torch.allclose(p, q) for p, q in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", one_in(2, CHANGES))
def test_a_change_is_noticed(name):
    most = math.inf if name in LOOPED else name in SEARCHED
    for anew in (False, True):
        assert_noticed(CHANGES[name], anew, most)


def test_steps_made_again_where_others_lay():
    """What is remembered of a step that has gone says nothing of what took its place in memory."""
    for i in range(12):
        W, k = weight(), 1.0 + i % 3
        step = lambda h, x, W=W, k=k: torch.tanh(x + h @ W) * k  # noqa: E731
        assert_like_the_loop(step, [W])
        assert_like_the_loop(over(W.detach()[0] * k), [])
        del step, W  # so that ids are used again


def test_the_checker_can_fail(monkeypatch):
    """On a change that is not noticed, one that changes nothing, and a step that the loop plays."""
    row = ("torch.tanh(x + h @ w.W) * w.k", "", "w.k = 0.5")
    with pytest.raises(AssertionError, match="changes nothing here"):
        assert_noticed((row[0], "", "w.flag = False"), False, 0)
    with monkeypatch.context() as patch:
        patch.setenv("OSTINATO_ENGINE", "eager")
        with pytest.raises(AssertionError, match="it is run again"):
            assert_noticed(row, False, 0)

    def blind(step: Any, *given: Tensor) -> Any:
        w = step.__closure__[0].cell_contents
        k, w.k = w.k, 1.0
        found = ostinato.scan(step, *given)
        w.k = k
        return found

    monkeypatch.setattr("zoo.small.scan", blind)
    with pytest.raises(AssertionError, match=r"after w\.k = 0\.5"):
        assert_noticed(row, False, 0)


# ---------------------------------------------------------------------- what is not run again


def test_values_weights_and_sizes_of_a_recorded_step_may_change():
    torch.manual_seed(0)
    w = World()
    optimizer = torch.optim.SGD(w.cell.parameters(), 0.1)
    assert_like_the_loop(w.cell, w.leaves())
    ostinato.scan(w.cell, torch.randn(4, H, dtype=D), torch.randn(2, 4, H, dtype=D))
    with counting(w.cell) as calls:
        for n_steps in (1, 2, 9):
            optimizer.zero_grad()
            xs = torch.randn(n_steps, 3, H, dtype=D, requires_grad=True)
            ostinato.scan(w.cell, xs[0], xs)[1].square().sum().backward()
            optimizer.step()
            ostinato.scan(w.cell, torch.randn(4, H, dtype=D), torch.randn(n_steps, 4, H, dtype=D))
    assert calls[0] == 0
    assert_like_the_loop(w.cell, w.leaves())


ATTRIBUTES = {
    "a number": ("torch.tanh(x + h @ w.W) * w.k", "w.k = 0.05 * i"),
    "an entry of a dict": (
        "torch.tanh(x + h @ w.W) * w.table['seed']",
        "w.table['seed'] = 0.05 * i",
    ),
    "a string": ("torch.tanh(x + h @ w.W) / len(w.mode)", "w.mode = 'layer' + 'a' * i"),
    "what the step does not use": ("(w.layer_id, torch.tanh(x + h @ w.W))[1]", "w.layer_id = i"),
    "a module's": (lambda w: w.cell, "w.cell.gain = 0.05 * i; w.cell.eval()"),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_twenty_modules_that_differ_in_an_attribute(name):
    """After a first round none is run again, and each gives the loop's result."""
    step, difference = ATTRIBUTES[name]
    steps, make = [], maker(step)
    for i in range(20):
        w = World()
        exec(difference, {"w": w, "i": i + 1})
        steps.append((make(w), w))
    for step, w in steps:
        assert_like_the_loop(step, w.leaves())
    assert [runs(step) for step, _ in steps] == [0] * 20
    for step, w in steps:
        assert_like_the_loop(step, w.leaves())


def test_twenty_epochs():
    """An entry that counts on between calls, and comes back."""
    w = World()
    step = maker("torch.tanh(x + h @ w.W) / (1 + w.table['epoch'])")(w)
    for _ in range(2):
        for w.table["epoch"] in range(20):
            assert_like_the_loop(step, w.leaves(), f"epoch {w.table['epoch']}")
    for w.table["epoch"] in range(20):
        assert runs(step) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", ["logger", "ArgumentParser", "table", "scaler", "counter"])
@pytest.mark.parametrize("where", ["beside it in a module", "in a closure", "read"])
def test_what_lies_beside_a_step_costs_nothing(what, where):
    """It is played natively, and after the first call not run again."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.beside = module(nn.Linear, H, H), beside(what)

        def forward(self, h: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(x + self.inner(h))

    model, it = Model(), beside(what)
    reads = {
        "logger": lambda it: it.isEnabledFor(10) + 1.0,
        "ArgumentParser": lambda it: it.args.rate,
        "table": lambda it: len(it["a"]) / 2,
        "scaler": lambda it: it.n_samples_seen_ / 2,
        "counter": lambda it: it.calls + 0.5,
    }[what]
    step = {
        "beside it in a module": model,
        "in a closure": lambda h, x: torch.tanh(x + model.inner(h)) if it is not None else h,
        "read": lambda h, x: torch.tanh(x + model.inner(h)) * float(reads(it)),
    }[where]
    assert_like_the_loop(step, list(model.parameters()))
    for _ in range(6):
        assert runs(step) == 0
        if what == "counter" and where != "read":  # what the training loop does, not the step
            model.beside.calls += 1
            model.beside.losses.append(0.5)
    assert_like_the_loop(step, list(model.parameters()))
    assert ostinato.explain(step, *given()).native


# ------------------------------------------------------------------------- what is hard to look at


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HARD)
def test_objects_that_are_hard_to_look_at(name):
    """Beside a step and read by it: an exception while looking never leaves scan."""
    it, w = HARD[name](), World()
    leaves = w.leaves()
    w.inner.it, w.listed = it, [it]
    k = getattr(it, "k", 0.5) if name.startswith("_") and name != "__getattr__" else 0.5
    for step in (
        lambda h, x: torch.tanh(x + h @ w.W) if it is not None else x,
        lambda h, x: torch.tanh(x + h @ w.W) * k if w.inner.it is not None else x,
        lambda h, x: torch.tanh(x + h @ w.W) if w.listed[0] is not None else x,
    ):
        for _ in range(3):
            assert_like_the_loop(step, leaves, name)


def test_tensors_that_hold_each_other():
    w = World()
    w.W.partner, w.V.partner = w.V, w.W
    for _ in range(2):
        assert_like_the_loop(maker("torch.tanh(h @ w.W + x @ w.V.partner)")(w), w.leaves())


def test_a_parameter_without_a_shape():
    cell = nn.LazyLinear(H, dtype=D)

    def step(h, x):
        return torch.tanh(x + cell(h))

    with pytest.warns(UserWarning, match="no shape yet"):
        first = ostinato.scan(step, *given())
    torch.testing.assert_close(first, loop(step, *given()))
    assert_like_the_loop(step, list(cell.parameters()))
    assert ostinato.explain(step, *given()).native


# ----------------------------------------------------------------------- what the user can say


def test_a_step_that_is_forgotten_is_recorded_anew():
    w = World()
    steps = [maker("torch.tanh(x + h @ w.W) * w.k")(w), w.cell, w.cell.forward]
    for step in steps:
        assert_like_the_loop(step, w.leaves())
        assert runs(step) == 0
        ostinato.forget(step)
        assert runs(step) > 0
        assert runs(step) == 0
        assert_like_the_loop(step, w.leaves())
    ostinato.forget(lambda h, x: h)  # of a step that was never recorded there is nothing to forget


def test_check_compares_each_call_with_the_loop(monkeypatch):
    """OSTINATO_CHECK=1 is read at each call; it finds a value that no guard sees."""
    w = World()
    step = maker("torch.tanh(x + h @ w.W) * w.k")(w)
    monkeypatch.setenv("OSTINATO_CHECK", "1")
    for _ in range(3):
        assert_like_the_loop(step, w.leaves())
        w.k /= 2  # noticed, so nothing differs
    monkeypatch.delenv("OSTINATO_CHECK")
    torch.set_num_threads(1)
    before = ostinato.scan(of_the_threads, *given())[1]
    torch.set_num_threads(2)
    assert torch.equal(ostinato.scan(of_the_threads, *given())[1], before)  # no guard can see it
    monkeypatch.setenv("OSTINATO_CHECK", "1")
    with pytest.raises(RuntimeError, match="OSTINATO_CHECK"):
        ostinato.scan(of_the_threads, *given())
    ostinato.forget(of_the_threads)
    torch.testing.assert_close(
        ostinato.scan(of_the_threads, *given()), loop(of_the_threads, *given())
    )


def of_the_threads(h: Tensor, x: Tensor) -> Tensor:
    """It reads a number that lies in PyTorch's C++."""
    return torch.tanh(x + h) * torch.get_num_threads()


def test_recording_again_and_again_is_said_once():
    """After eight recordings a warning names what to do about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(20):
            ostinato.scan(lambda h, x, scale=float(i): torch.tanh(x + h) * scale, *given())
    said = [str(w.message) for w in caught if "recorded" in str(w.message)]
    assert len(said) == 1
    assert "Pass the changing value" in said[0]


def test_steps_of_many_kinds_are_forgotten_in_time():
    """The cache is bounded: after very many steps, what comes again is right."""
    w, steps = World(), []
    for i in range(140):
        steps.append(w.function(f"return torch.tanh(x + h) * {i}.0"))
        ostinato.scan(steps[-1], *given())
    for step in (steps[0], steps[-1]):
        assert_like_the_loop(step, [])


# ------------------------------------------------------------------- modes, and other globals


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# A question that a step asks of PyTorch, and modes in which the answers differ.
MODES: dict[str, tuple[Any, list[Any]]] = {
    "gradients": (lambda h: torch.is_grad_enabled(), [torch.no_grad, torch.enable_grad]),
    "inference": (
        lambda h: torch.is_inference_mode_enabled(),
        [torch.inference_mode, torch.no_grad, torch.enable_grad],
    ),
    "inference of a tensor": (Tensor.is_inference, [torch.inference_mode, torch.no_grad]),
    "dtype": (
        lambda h: torch.full((), 0.1).dtype is D,
        [lambda: default_dtype(torch.float32), lambda: default_dtype(D)],
    ),
    "device": (
        lambda h: torch.ones(H).is_cpu,
        [lambda: torch.device("cpu"), lambda: torch.device("meta")],
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_modes_of_pytorch_that_a_step_reads(name):
    (asks, modes), W, (init, xs) = MODES[name], weight(), given()

    def step(h: Tensor, x: Tensor) -> Tensor:
        h = torch.tanh(h @ W + x)
        return h if asks(h) else h / 2

    for mode in modes * 2:
        with mode():
            for _ in range(2):
                ours, theirs = (how(step, init, xs) for how in (ostinato.scan, loop))
                assert [t.requires_grad for t in ours] == [t.requires_grad for t in theirs]
                torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_one_code_with_other_globals():
    w = World()
    source = "def make(w):\n    return lambda h, x: torch.tanh(w.cell(h, x)) * k"
    code = compile(source, "of", "exec")
    scopes = [{"torch": torch, "k": k} for k in (1.0, 0.5)]
    for scope in scopes:
        exec(code, scope)
    assert scopes[0]["make"](w).__code__ is scopes[1]["make"](w).__code__
    for _ in range(2):
        for scope in scopes:
            assert_like_the_loop(scope["make"](w), w.leaves())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("of", "asks"),
    [
        ("x", "{}.stride() == ({}.shape[1], 1)"),
        ("h", "{}.is_contiguous()"),
        ("W", "{}.is_contiguous()"),
        ("W.t()", "{}.stride() == ({}.shape[1], 1)"),
    ],
)
def test_how_a_tensor_lies_in_memory(of: str, asks: str) -> None:
    """Another layout than that of the recorded call is seen."""
    H, B, T, held = 4, 3, 5, types.SimpleNamespace()
    scope = {"torch": torch, "held": held}
    question = asks.replace("{}", of).replace("W", "held.W")
    code = f"lambda h, x: torch.tanh(h @ held.W + x) * (1.0 if {question} else 2.0)"
    step = eval(code, scope)
    for turned in (False, True, False, True):
        random = torch.Generator().manual_seed(0)
        init, xs, held.W = (torch.randn(*s, generator=random) for s in [(H, B), (T, H, B), (H, H)])
        init, xs = init.t(), xs.transpose(1, 2)
        if not turned:
            init, xs = init.contiguous(), xs.contiguous()
        held.W = held.W.t() if turned else held.W.t().contiguous()
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))
