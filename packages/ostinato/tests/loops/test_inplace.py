"""Functions with loops that run natively below a model or a function, by whatever name."""

from __future__ import annotations

import collections
import functools
import inspect as python_inspect
import sys
import types
import warnings
import weakref
from typing import ClassVar

import helpers
import pytest
import torch
from helpers import decoded as renamed
from torch import nn
from torch.utils.checkpoint import checkpoint

import ostinato
from ostinato import compiler
from ostinato.loops.functions import loops_in
from ostinato.loops.iteration.nostep import NoStep
from ostinato.nn import inspect, restore


def run(x, h):
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
    return h


def other(x, h):
    for t in range(x.shape[1]):
        h = torch.sin(x[:, t] + h)
    return h


def applied(function, x, h):
    return function(x, h)


def made(scale):
    def inner(x, h):
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] * scale + h)
        return h

    return inner


def test_a_function_that_is_defined_anew_is_compiled_once(monkeypatch):
    compiled = []
    real = compiler.compile_step
    monkeypatch.setattr(
        compiler, "compile_step", lambda *a: compiled.append(a[0].given) or real(*a)
    )
    x, h = torch.randn(3, 14, 4), torch.zeros(3, 4)
    scale = torch.randn(4)
    for _ in range(3):
        of = made(scale)
        torch.testing.assert_close(ostinato.loop(of)(x, h), of(x, h))
    assert len(compiled) == 1


class Runner:
    def __init__(self, scale):
        self.scale = scale

    def go(self, x, h):
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] * self.scale + h)
        return h


def runner():
    return Runner(0.5)


def wraps_nothing(function):
    def around(*arguments):
        return function(*arguments)

    return around


@functools.singledispatch
def by_type(x, h):
    return x


by_type.register(torch.Tensor, run)
hidden = wraps_nothing(other)
REGISTRY = {"run": run, "other": other, "class": Runner}
FORWARDS = {
    "attribute": lambda self, x, h: self.fn(x, h),
    "partial": lambda self, x, h: self.partial(h=h),
    "registry": lambda self, x, h: REGISTRY[self.name](x, h),
    "table of the class": lambda self, x, h: self.TABLE["run"](x, h),
    "single dispatch": lambda self, x, h: by_type(x, h),
    "decorator without wraps": lambda self, x, h: hidden(x, h),
    "class of a registry": lambda self, x, h: REGISTRY["class"](0.5).go(x, h),
    "made by a function": lambda self, x, h: runner().go(x, h),
    "argument": lambda self, x, h: applied(run, x, h),
    "closure": lambda self, x, h: self.closure(x, h),
    "bound method": lambda self, x, h: self.bound(x, h),
    "object in a list": lambda self, x, h: self.runners[0].go(x, h),
    "choice": lambda self, x, h: (run if self.training else other)(x, h),
    "other name": lambda self, x, h: renamed(torch.tanh, x[:, 0] + h, x.shape[1])[-1],
    "module's attribute": lambda self, x, h: helpers.decoded(torch.tanh, x[:, 0] + h, 14)[-1],
}


class Calling(nn.Module):
    TABLE: ClassVar = {"run": run}

    def __init__(self, x):
        super().__init__()
        self.fn, self.name, self.closure, self.bound = run, "run", made(0.5), Runner(2.0).go
        self.partial, self.runners = functools.partial(run, x), [Runner(0.5)]
        self.w = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x):
        return self.of(x, self.w.expand(len(x), 4))


def calling(function, x):
    return type("Named", (Calling,), {"of": function})(x)


def gradients(model, x):
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [*model.parameters()])]


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(3, 14, 4, dtype=torch.float64)


@pytest.mark.parametrize("how", FORWARDS)
def test_the_called_object_decides_not_its_name(how, x):
    model = calling(FORWARDS[how], x)
    expected = gradients(model, x)
    ostinato.accelerate(model, loops=True)
    for _ in range(2):
        torch.testing.assert_close(gradients(model, x), expected, rtol=1e-10, atol=1e-12)
    (report,) = [r for r in inspect(model) if hasattr(r, "file")]
    assert report.native, report
    restore(model)


def test_functions_are_the_users_own_but_below_the_model(x):
    plain, fast = (calling(FORWARDS["attribute"], x) for _ in range(2))
    text, signature = run.__code__, python_inspect.signature(run)
    ostinato.accelerate(fast, loops=True)
    fast(x)
    assert python_inspect.signature(run) == signature
    assert run.__code__ is not text
    assert (run.__code__.co_flags ^ text.co_flags) & ~python_inspect.CO_NESTED == 0
    assert python_inspect.getsource(run).startswith("def run(x, h)")
    (site,) = vars(fast)["_loops_by_accelerate"]
    site.native = None
    run(x, x[:, 0])
    plain(x)
    assert site.native is None
    fast(x)
    assert site.native
    restore(fast)
    assert run.__code__ is text


def names_in(values):
    return [name for name in values if "x" in name]


class WithOthers(nn.Module):
    def forward(self, x):
        found = [len(name) for name in names_in(["x", "y", "xs"] * 5)]
        return run(x, x[:, 0]) * self.total(found)

    def total(self, numbers):
        n = 0
        for i in numbers:
            n += i
        return n


def test_functions_without_a_loop_over_tensors_get_their_own_code_back(x):
    own = [names_in.__code__, WithOthers.total.__code__, other.__code__]
    model = ostinato.accelerate(WithOthers(), loops=True)
    assert type(model) is WithOthers
    model(x)
    assert [names_in.__code__, WithOthers.total.__code__, other.__code__] == own
    reports = {r.name: r for r in inspect(model)}
    assert reports["run"].native and "total" not in str(reports["others"])
    assert {*reports} == {"run", "others"}


def test_a_loop_that_computes_no_tensor_is_no_scan(x):
    def axes(tensors):
        return [t.ndim for t in tensors]

    fast = ostinato.loop(axes)
    for _ in range(3):
        assert fast([*x.unbind(1)]) == [2] * 14
    (site,) = loops_in(fast)
    assert not site.been_native and "no tensor" in site.reason


class OfShort(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = made(0.5)

    def forward(self, x):
        return self.function(x, x[:, 0])


def test_functions_whose_loops_stay_short_get_their_own_code_back(x):
    model = OfShort()
    own, expected = model.function.__code__, model(x[:, :3])
    ostinato.accelerate(model, loops=True)
    for _ in range(31):
        model(x[:, :3])
    assert model.function.__code__ is not own
    for _ in range(2):
        torch.testing.assert_close(model(x[:, :3]), expected)
    assert model.function.__code__ is own

    model = ostinato.accelerate(OfShort(), loops=True)
    for n in [3, 14, *[3] * 40]:  # a loop that was native may be so again
        model(x[:, :n])
    assert model.function.__code__ is not own


def test_lazy_modules_and_mappings_are_not_asked(x, monkeypatch):
    class Lazy(types.ModuleType):
        def __getattr__(self, name):
            raise ImportError(f"{name} of a module that is not installed")

    class Mapping(collections.OrderedDict):
        def values(self):
            raise AssertionError("its values are imported")

        __iter__ = items = values

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))
    monkeypatch.setitem(sys.modules, "helpers.lazy", Lazy("helpers.lazy"))
    monkeypatch.setattr(helpers, "LAZY", Lazy("lazy"), raising=False)
    monkeypatch.setitem(REGISTRY, "lazy", Mapping(run=run))
    n = len(sys.modules)
    model = calling(lambda self, x, h: REGISTRY["run"](x, h) + helpers.SCALE, x)
    model.table = Mapping()
    ostinato.accelerate(model, loops=True)
    model(x)
    assert [r.native for r in inspect(model) if hasattr(r, "file")] == [True]
    assert [*sys.modules][n:] == []
    restore(model)


def test_modules_of_torchscript_stay_as_they_are(x):
    traced = torch.jit.trace(nn.Tanh(), x)
    assert ostinato.accelerate(traced, loops=True) is traced
    model = calling(lambda self, x, h: self.traced(run(x, h)), x)
    model.traced = traced
    expected = gradients(model, x)
    torch.testing.assert_close(
        gradients(ostinato.accelerate(model, loops=True), x), expected, rtol=1e-10, atol=1e-12
    )
    assert [r.native for r in inspect(model) if hasattr(r, "file")] == [True]


class Decorated(nn.Module):
    @ostinato.loop
    def forward(self, x):
        h = x[:, 0]
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] + h)
        return super().extra_repr(), run(h.unsqueeze(1).expand(-1, 12, -1), h)


def test_functions_given_to_loop_stay_what_they_are(x):
    expected = Decorated()(x)
    given = Decorated.forward.__code__
    model = ostinato.accelerate(Decorated(), loops=True)
    assert Decorated.forward.__code__ is given
    torch.testing.assert_close(model(x)[1], expected[1], rtol=1e-10, atol=1e-12)
    assert {r.name: r.native for r in inspect(model) if hasattr(r, "file")} == {"run": True}


class Nested(nn.Module):
    """An iteration calls a function with a loop, which reads a global name."""

    def forward(self, x):
        h = x[:, 0]
        for t in range(1, x.shape[1]):
            h = x[:, t] + helpers.decoded(torch.tanh, h, 3)[-1]
        return h


def test_steps_know_what_functions_with_loops_read(x, monkeypatch):
    model = ostinato.accelerate(Nested(), loops=True)
    for scale in (1.0, 0.5, 0.25):
        monkeypatch.setattr(helpers, "SCALE", scale)
        torch.testing.assert_close(model(x), Nested()(x), rtol=1e-10, atol=1e-12)
    assert any(r.native for r in inspect(model) if hasattr(r, "file"))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_computes_the_same_again(x, reentrant):
    def forward(self, x, h):
        return checkpoint(run, x, h, use_reentrant=reentrant)

    model = calling(forward, x)
    expected = gradients(model, x) if not reentrant else None
    ostinato.accelerate(model, loops=True)
    for _ in range(2):
        y = model(x)
        y.square().sum().backward()
    if expected is not None:
        torch.testing.assert_close(model.w.grad, 2 * expected[1], rtol=1e-10, atol=1e-12)
    assert [r.native for r in inspect(model) if hasattr(r, "file")] == [True]


SOLVERS = {"steps": Runner}


def solved(function, x, method="steps"):
    solver = SOLVERS[method](0.5)
    return function(solver.go(x, x[:, 0]))


class Field(nn.Module):
    def forward(self, h):
        for _ in range(12):
            h = torch.tanh(h) * 0.5
        return h


@pytest.mark.parametrize("options", [{}, {"calls": True}])
def test_loops_of_the_functions_that_a_function_calls(x, options):
    field = Field()
    expected = solved(field, x)
    fast = ostinato.loop(solved, **options)
    for _ in range(2):
        torch.testing.assert_close(fast(field, x), expected, rtol=1e-10, atol=1e-12)
    assert {s.name: s.native for s in loops_in(fast)} == {"Field.forward": True, "Runner.go": True}
    explained = ostinato.explain(fast, field, x)
    assert explained.native and len(explained.loops) == 2


def both(x, h):
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] + h)
    return other(x, h)


def test_calls_adds_those_to_a_functions_own_loops(x):
    expected = both(x, x[:, 0])
    for calls, names in ((None, {"both"}), (True, {"both", "other"})):
        fast = ostinato.loop(both, calls=calls)
        torch.testing.assert_close(fast(x, x[:, 0]), expected, rtol=1e-10, atol=1e-12)
        assert {s.name for s in loops_in(fast) if s.native} == names


def forms_of_parameters(x, /, h, *more, scale=1.0, **named):
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] * scale + h)
    return h + sum(more) + named.get("add", 0.0)


def test_parameters_of_all_kinds(x):
    def call():
        h = x[:, 0]
        return [
            forms_of_parameters(x, h),
            forms_of_parameters(x, h=h, scale=2.0),
            forms_of_parameters(x, h, 1.0, 2.0, add=3.0, scale=0.5),
        ]

    expected = call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = ostinato.loop(call, calls=True)
        for _ in range(2):
            torch.testing.assert_close(fast(), expected, rtol=1e-10, atol=1e-12)
    assert all(s.native for s in loops_in(fast))


def test_a_function_that_is_set_later_or_given_is_found_as_documented(x):
    def add(x, h):
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] + h)
        return h

    model = calling(lambda self, x, h: self.given(x, h), x)
    ostinato.accelerate(model, loops=True)
    model.given = add
    wanted = model(x)
    assert not [loop for loop in inspect(model) if getattr(loop, "native", None)]
    ostinato.accelerate(model, loops=True)
    torch.testing.assert_close(model(x), wanted)
    assert [loop.native for loop in inspect(model) if hasattr(loop, "native")] == [True]
    restore(model)
    model.given = ostinato.loop(add)
    torch.testing.assert_close(model(x), wanted)
    assert loops_in(model.given)[0].native


def test_the_compiler_of_pytorch_traces_the_users_own_code(x):
    def function(x, h, *more, by=2.0):
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] * scale + h * by)
        return h + sum(more)

    scale, h = torch.randn(4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    wanted = function(x, h, 1.0, by=0.5)
    model = calling(lambda self, x, h: self.closure(x, h), x)
    model.closure = function
    ostinato.accelerate(model, loops=True)
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, h, 1.0, by=0.5), wanted)
    torch.testing.assert_close(function(x, h, 1.0, by=0.5), wanted)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))
    restore(model)


def test_the_compiler_of_pytorch_traces_the_users_own_code_of_a_function_within_another_one(x):
    def stepper(count):
        def steps(h):
            """Steps."""
            nonlocal made
            outputs = [h for _ in range(2)]
            made = made + 1
            for t in range(count):
                h = torch.tanh(x[:, t] + h)
                outputs.append(h)
            return torch.stack(outputs)

        made = 0
        return steps

    h = torch.zeros_like(x[:, 0])
    wanted = stepper(x.shape[1])(h)
    fast = ostinato.loop(stepper)
    steps = fast(x.shape[1])
    assert steps.__doc__ == "Steps."
    torch.testing.assert_close(torch.compile(steps, backend="eager", fullgraph=True)(h), wanted)
    torch.testing.assert_close(steps(h), wanted)
    assert any(loop.native for loop in loops_in(fast))


def test_a_function_without_a_text_keeps_its_code(x):
    names = {"torch": torch}
    exec(compile(python_inspect.getsource(run), "<nowhere>", "exec"), names)
    own = names["run"].__code__
    model = calling(lambda self, x, h: self.closure(x, h), x)
    model.closure = names["run"]
    ostinato.accelerate(model, loops=True)
    assert names["run"].__code__ is own
    restore(model)


def test_sparse_tensors_within_reach_do_not_matter(x):
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.eye(4, dtype=torch.float64).to_sparse_csr()

        def forward(self, x):
            h = x[:, 0]
            for t in range(x.shape[1]):
                h = torch.tanh((self.w @ h.mT).mT + x[:, t])
            return h

    model = Sparse()
    wanted = model(x)
    ostinato.accelerate(model, loops=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(model(x), wanted)
    restore(model)


def test_a_refusal_belongs_to_one_object():
    (site,) = loops_in(ostinato.loop(made(torch.ones(4))))

    def body():
        return owner

    owner = torch.ones(1)
    site.refuse(body, 14, NoStep("it prints", quiet=True), True)
    assert site.waits(body, 14) is False and site.waits(body, 14) is False
    assert [site.waits(body, 14) for _ in range(4)] == [True, False, True, True]
    key = site.keys(body, 14)[0]
    site.refused[key] = weakref.ref(torch.nn.Module()), 2  # an object that had this id before
    assert not any(site.waits(body, 14) for _ in range(4))
