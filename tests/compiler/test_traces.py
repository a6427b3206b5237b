"""What running a step leaves behind: the search and the recording of it must leave nothing.

A step that keeps what it computes, or changes what it reaches, is played by the loop: values,
gradients and what is left in Python are the loop's, from the first call on.
"""

import array
import collections
import contextvars
import functools
import gc
import importlib
import itertools
import queue
import random
import sys
import threading
import types
import unittest.mock
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import ostinato
from ostinato.compiler import containers
from zoo.playing import loop
from zoo.small import D, H, weight

B, T = 3, 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def given():
    return torch.randn(B, H, dtype=D), torch.randn(T, B, H, dtype=D)


class Positive(nn.Module):
    def forward(self, t):
        return nn.functional.softplus(t)


class Leaky(nn.Module):
    """A number and a matrix, parametrized."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(H, H, dtype=D)
        self.tau = nn.Parameter(torch.tensor(0.5, dtype=D))
        parametrize.register_parametrization(self, "tau", Positive())
        nn.utils.parametrizations.weight_norm(self.inner)

    def forward(self, h, x):
        return h + (torch.tanh(x + self.inner(h)) - h) / (1 + self.tau)


@pytest.mark.filterwarnings("error")  # it is played by the engine
def test_cached_parametrizations():
    model, (init, xs) = Leaky(), given()
    for _ in range(3):
        found = []
        for how in (loop, ostinato.scan):
            with parametrize.cached():
                last, _ = how(model, init, xs)
            found.append((last, *torch.autograd.grad(last.square().sum(), model.parameters())))
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.25)
    assert ostinato.explain(model, init, xs).native


class Keeps(nn.Module):
    """A cell that keeps something. `before` is called before each sequence."""

    def __init__(self):
        super().__init__()
        self.U, self.W = nn.Parameter(weight()), nn.Parameter(weight())
        self.before()

    def before(self):
        pass


class Matrix(Keeps):
    def before(self):
        self.memo = None

    def forward(self, h, x):
        if self.memo is None:
            self.memo = self.U / self.U.norm()
        return torch.tanh(x + h @ self.memo)


class Scalar(Matrix):
    def forward(self, h, x):
        if self.memo is None:
            self.memo = self.U.norm()
        return torch.tanh(x + h @ self.W / self.memo)


class InADict(Keeps):
    def before(self):
        self.memo = {}

    def forward(self, h, x):
        if "W" not in self.memo:
            self.memo["W"] = self.U @ self.W
        return torch.tanh(x + h @ self.memo["W"])


class Cached(Keeps):
    """In a cache that no walk sees."""

    def before(self):
        self.product.cache_clear()

    @functools.lru_cache  # noqa: B019 (as people write it)
    def product(self):
        return self.U @ self.W

    def forward(self, h, x):
        return torch.tanh(x + h @ self.product())


class Running(Keeps):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(H, dtype=D))

    def forward(self, h, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return torch.tanh(x - self.mean + h @ self.W)


class Collects(Keeps):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, h, x):
        h = torch.tanh(x + h @ self.W)
        self.seen.append(h.detach())
        return h


class Counts(Keeps):
    n = 0

    def forward(self, h, x):
        self.n += 1
        return torch.tanh(x + h @ self.W) / self.n


class Empties(Keeps):
    def before(self):
        self.scales, self.named = [1.0, 2.0, 3.0, 4.0, 5.0], collections.OrderedDict(a=1.0)

    def forward(self, h, x):
        self.named.clear()
        return torch.tanh(x + h @ self.W) * self.scales.pop(0)


class Penalised(Keeps):
    """Pruning hooks leave a weight in the module, which a loss may use."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(H, H, dtype=D)
        prune.l1_unstructured(self.inner, "weight", 0.4)

    def forward(self, h, x):
        return torch.tanh(x + self.inner(h))


class Dropped(Keeps):
    """One mask a sequence, drawn at its first step."""

    def before(self):
        self.mask = None

    def forward(self, h, x):
        if self.mask is None:
            self.mask = torch.rand_like(h).round()
        return torch.tanh(x + h * self.mask @ self.W)


KEEPING = (
    Matrix, Scalar, InADict, Cached, Running, Collects, Counts, Empties, Penalised, Dropped,
)  # fmt: skip


def _twice(kind):
    state = torch.get_rng_state()
    first = kind()
    torch.set_rng_state(state)
    return first, kind()


def state_of(model):
    plain = {k: v for k, v in vars(model).items() if not k.startswith("_")}
    return {**plain, **model.state_dict()}


@pytest.mark.parametrize("kind", KEEPING)
def test_a_step_that_keeps_something(kind):
    init, xs = given()
    theirs, ours = _twice(kind)
    for _ in range(3):
        found = []
        for how, model in ((loop, theirs), (ostinato.scan, ours)):
            torch.manual_seed(1)
            model.before()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "scan plays .* with the slow loop")
                warnings.filterwarnings("ignore", ".* was recorded")
                last, ys = how(model, init, xs)
            penalty = 0.1 * model.inner.weight.square().sum() if kind is Penalised else 0
            loss = last.square().sum() + penalty
            grads = torch.autograd.grad(loss, model.parameters(), allow_unused=True)
            found.append((last, ys, grads, state_of(model), torch.get_rng_state()))
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(1.5).add_(0.1)
        torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:scan plays")
def test_what_a_closure_or_a_global_holds(monkeypatch):
    n, W, (init, xs) = 0, weight(), given()
    monkeypatch.setitem(globals(), "in_the_module", 0)

    def step(h, x):
        nonlocal n
        global in_the_module
        n, in_the_module = n + 1, in_the_module + 1
        return torch.tanh(x + h @ W)

    ostinato.scan(step, init, xs)
    assert n == T and globals()["in_the_module"] == T


def test_a_step_that_keeps_nothing_is_not_refused():
    """Though what it made is freed by the collector of cycles alone."""
    W, (init, xs) = weight(), given()

    def step(h, x):
        made = [torch.tanh(x + h @ W)]
        made.append(made)
        return made[0]

    gc.disable()
    try:
        assert ostinato.explain(step, init, xs).native
    finally:
        gc.enable()


def test_nothing_stays_alive():
    W, (init, xs) = weight(), given()
    made = weakref.WeakSet()
    find = ostinato.compiler.capture.captures.CaptureSearch.keeps_some

    def keeps_some(search):
        made.update(search.alive[2:])
        return find(search)

    def step(h, x):
        return torch.tanh(x + h @ W) + h

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ostinato.compiler.capture.captures.CaptureSearch, "keeps_some", keeps_some)
        ostinato.scan(step, init, xs)
    assert set(made) == {W}


CELLS = {
    "tolist": lambda t: t.tolist()[0],
    "numpy": lambda t: float(t.numpy()[0]),
    "asarray": lambda t: float(np.asarray(t).sum()),
    "float64": lambda t: float(np.float64(t[0])),
    "norm": lambda t: float(np.linalg.norm(t.detach().numpy())),
    "equal": lambda t: 2.0 if torch.equal(t, torch.zeros_like(t)) else 1.0,
    "allclose": lambda t: 2.0 if torch.allclose(t, torch.zeros_like(t)) else 1.0,
    "how many": lambda t: float(t[t > 0.5].numel()),
    "nonzero": lambda t: float(len((t > 0.5).nonzero())),
    "text": lambda t: float(f"{t.sum():.3f}"),
    "contains": lambda t: 2.0 if 0.0 in t else 1.0,
    "data_ptr": lambda t: float(np.ctypeslib.as_array(t.numpy()).max()),
    "version": lambda t: float(t._version % 7),
    "grad": lambda t: 0.5 if t.grad is None else float(t.grad.sum()),
}


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("name", CELLS)
def test_values_that_leave_a_tensor(name):
    read, W, (init, xs) = CELLS[name], weight(), given()
    t = torch.tensor([0.25, 0.75], dtype=D)

    def step(h, x):
        return torch.tanh(x + h @ W * read(t))

    for value in (0.25, 0.0, 0.9):
        t.fill_(value)
        t.grad = torch.full_like(t, value)
        for ours, theirs in zip(ostinato.scan(step, init, xs), loop(step, init, xs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:scan plays")
def test_a_mask_of_columns():
    W, (init, xs) = weight(), given()
    mask = torch.ones(H, dtype=torch.bool)

    def step(h, x):
        return torch.tanh(x + (h @ W[:, mask]).sum(1, keepdim=True))

    for off in ((0,), (1,), (0, 2), ()):
        mask[:] = True
        mask[list(off)] = False
        grads = [
            torch.autograd.grad(how(step, init, xs)[0].sum(), W)[0] for how in (ostinato.scan, loop)
        ]
        torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_a_parameter_and_a_plain_tensor():
    init, xs = given()

    def step(h, x):
        return torch.tanh(x + h @ W) if isinstance(W, nn.Parameter) else torch.sin(x + h @ W)

    for W in (weight(), weight().detach().requires_grad_(), weight()):  # noqa: B007
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_random_numbers_of_other_generators(draw):
    init, xs = given()
    for i in range(8):
        W = weight()
        code = (
            "def step(h, x):\n return torch.tanh(x + h @ W) if draw() < 0.8 else torch.sin(h @ W)"
        )
        world = {"torch": torch, "W": W, "draw": draw}
        exec(code, world)  # a step of its own, new to scan
        for _ in range(2):
            found = []
            for how in (loop, ostinato.scan):
                random.seed(i)
                np.random.seed(i)
                found.append((*how(world["step"], init, xs), draw()))
            torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_other_threads_that_draw_go_on():
    """Numbers that another thread draws while a step is recorded are not drawn again."""
    W, (init, xs) = weight(), given()

    def step(h, x):
        other = threading.Thread(target=torch.rand, args=(3,))
        other.start()
        other.join()
        return torch.tanh(x + h @ W)

    before = torch.get_rng_state()
    assert ostinato.explain(step, init, xs).native
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_errors_of_signal_handlers_reach_the_caller(at):
    """A TimeoutError, say, wherever a step runs while it is recorded."""
    W, (init, xs) = weight(), given()
    calls = contextvars.ContextVar("calls", default=0)

    def step(h, x):
        calls.set(calls.get() + 1)  # as a signal would, unseen
        if calls.get() == at:
            raise TimeoutError
        return torch.tanh(x + h @ W) * at  # a recording of its own

    with pytest.raises(TimeoutError):
        for _ in range(3):  # it may be searched at each call
            ostinato.scan(step, init, xs)
    torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))
    assert ostinato.explain(step, init, xs).native


# ------------------------------------------------------------------ what a run of the step changes


class Slotted:
    __slots__ = ("n",)


class Attributes(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Bumped:
    total = 0

    def __init__(self):
        self.n = 0

    def bump(self):
        self.__dict__["n"] += 1
        return self.n

    def bump_all(self):
        Bumped.total += 1
        return Bumped.total


def _counted(container, key):
    """A number at a key, counted up; and how to read it afterwards."""

    def count():
        container[key] += 1
        return float(container[key])

    return count, lambda: container[key]


def _of_list():
    made = []
    append = made.append
    return lambda: append(1) or float(len(made)), lambda: made


def _of_set():
    made = set()
    return lambda: made.add(len(made)) or float(len(made)), lambda: made


def _of_deque():
    made = collections.deque([0], maxlen=3)
    return lambda: made.append(made[-1] + 1) or float(sum(made)), lambda: list(made)


def _of_an_attribute(made):
    made.n = 0

    def count():
        made.n += 1
        return float(made.n)

    return count, lambda: made.n


def _of_setattr():
    made = types.SimpleNamespace(n=0)
    return lambda: setattr(made, "n", made.n + 1) or float(made.n), lambda: made.n


def _of_a_class():
    made, Bumped.total = Bumped(), 0
    return lambda: float(made.bump_all()), lambda: Bumped.total


def _of_a_dict():
    made = Bumped()
    return lambda: float(made.bump()), lambda: made.n


def _of_a_queue():
    made = queue.Queue()
    return lambda: made.put(1) or float(made.qsize()), made.qsize


def _of_a_scheduler():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    made = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.step()

    def count():
        made.step()
        return made.get_last_lr()[0]

    return count, lambda: (made.last_epoch, optimizer.param_groups[0]["lr"])


def _of_a_generator():
    def numbers():
        value = 1.0
        while True:
            value *= 0.9
            yield value

    made = numbers()
    return lambda: next(made), lambda: next(made)


def _of_an_iterator():
    made = itertools.chain(itertools.repeat(1.0, 7), itertools.repeat(0.5))
    return lambda: next(made), lambda: next(made)


def _of_random(kind):
    def make():
        made = kind(0)
        return lambda: float(made.random()), lambda: float(made.random())

    return make


def _of_the_attributes_as_a_whole():
    class Own:
        pass

    made = Own()
    made.n = 0

    def count():
        made.__dict__ = {"n": made.n + 1}
        return float(made.n)

    return count, lambda: made.n


def _of_the_class_of_an_object():
    class Odd:
        n = 1.0

    class Even:
        n = 2.0

    made = Odd()

    def count():
        made.__class__ = Even if type(made) is Odd else Odd
        return made.n

    return count, lambda: type(made).__name__


def _of_a_function():
    def made(n=0):
        return float(n)

    def count():
        made.__defaults__ = (made.__defaults__[0] + 1,)
        return made()

    return count, made


def _of_a_size():
    made = np.zeros(1)

    def count():
        made.resize(len(made) + 1, refcheck=False)
        return float(len(made))

    return count, lambda: len(made)


def _of_objects_in_an_array():
    made = np.empty(2, object)
    made[:] = [0, []]

    def count():
        made[1].append(1)
        made[0] += 1
        return float(made[0])

    return count, lambda: (made[0], len(made[1]))


def _of_a_remembered_value():
    log = []

    @functools.lru_cache(None)
    def made(n):
        log.append(n)
        return float(n)

    return lambda: made(4), lambda: log


CHANGING = {
    "the attributes as a whole": _of_the_attributes_as_a_whole,
    "the class of an object": _of_the_class_of_an_object,
    "defaults": _of_a_function,
    "size": _of_a_size,
    "objects in an array": _of_objects_in_an_array,
    "lru_cache": _of_a_remembered_value,
    "memoryview": lambda: _counted(memoryview(bytearray(2)), 0),
    "dict": lambda: _counted({"n": 0}, "n"),
    "Counter": lambda: _counted(collections.Counter(), "n"),
    "defaultdict": lambda: _counted(collections.defaultdict(int), "n"),
    "OrderedDict": lambda: _counted(collections.OrderedDict(n=0, m=1), "n"),
    "UserDict": lambda: _counted(collections.UserDict(n=0), "n"),
    "ChainMap": lambda: _counted(collections.ChainMap({"n": 0}), "n"),
    "AttrDict": lambda: _counted(Attributes(n=0), "n"),
    "list": lambda: _counted([0], 0),
    "numpy": lambda: _counted(np.zeros(2, int), 0),
    "array": lambda: _counted(array.array("l", [0, 1]), 0),
    "bytearray": lambda: _counted(bytearray(2), 0),
    "a list's method": _of_list,
    "set": _of_set,
    "deque": _of_deque,
    "slots": lambda: _of_an_attribute(Slotted()),
    "setattr": _of_setattr,
    "class": _of_a_class,
    "__dict__": _of_a_dict,
    "thread": lambda: _of_an_attribute(threading.local()),
    "tensor": lambda: _of_an_attribute(torch.zeros(1)),
    "queue": _of_a_queue,
    "scheduler": _of_a_scheduler,
    "generator": _of_a_generator,
    "iterator": _of_an_iterator,
    "random.Random": _of_random(random.Random),
    "RandomState": _of_random(np.random.RandomState),
    "Generator": _of_random(np.random.default_rng),
}


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize("by_a_hook", [False, True])
@pytest.mark.parametrize("name", CHANGING)
def test_what_a_step_changes_is_as_the_loop_leaves_it(name, by_a_hook):
    W, (init, xs) = weight(), given()
    found = []
    for how in (loop, ostinato.scan):
        count, state = CHANGING[name]()
        inner = nn.Identity()
        if by_a_hook:
            inner.register_forward_hook(lambda m, given, out, count=count: out / (1 + count()))

        def step(h, x, count=count, inner=inner):
            h = inner(torch.tanh(x + h @ W))
            return h if by_a_hook else h / (1 + count())

        if how is ostinato.scan:
            ostinato.explain(step, init, xs)
        found.append([[how(step, init, xs)[0] for _ in range(3)], state()])
    assert found[1][1] == found[0][1]
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:scan plays")
def test_what_hooks_on_gradients_collect():
    W, (init, xs) = weight(), given()
    seen = []

    def step(h, x):
        p = h @ W
        if p.requires_grad:
            p.register_hook(lambda g: seen.append(g.shape))
        return torch.tanh(p + x)

    for _ in range(2):
        seen.clear()
        ostinato.scan(step, init, xs)[1].sum().backward()
        assert seen == [(B, H)] * T


def test_hooks_on_what_a_step_computes():
    """Without a guard for calls in which no gradient is wanted."""
    W, (init, xs) = weight(), given()

    def clipped(h, x):
        p = h @ W
        p.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return torch.tanh(p + x)

    def retained(h, x):
        p = h @ W
        p.retain_grad()
        return torch.tanh(p + x)

    def checked(h, x):
        p = torch.tanh(h @ W + x)
        assert p.requires_grad
        return p

    for step in (clipped, retained, checked):
        grads = [
            torch.autograd.grad(how(step, init, xs)[1].square().sum(), W)
            for how in (ostinato.scan, loop)
        ]
        torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)


@pytest.mark.filterwarnings("error")
def test_labels_of_the_profiler():
    W, (init, xs) = weight(), given()

    def step(h, x):
        with torch.profiler.record_function("cell"):
            return torch.tanh(x + h @ W)

    torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))
    assert ostinato.explain(step, init, xs).native


def test_captured_tensors_are_freed_with_the_step():
    init, xs = given()
    alive = []
    gc.disable()
    try:
        for _ in range(5):
            W = torch.randn(H, H, dtype=D)

            def step(h, x, W=W):
                return torch.tanh(x + h @ W)

            def closure(h, x, W=W, step=step):
                return step(h, x)

            ostinato.scan(closure, init, xs)
            ostinato.scan(step, init, xs)
            alive.append(weakref.ref(W))
            del W, step, closure
        assert not any(ref() is not None for ref in alive)
    finally:
        gc.enable()


def test_a_parameter_without_a_shape():
    cell, (init, xs) = nn.LazyLinear(H, dtype=D), given()

    def step(h, x):
        return torch.tanh(x + cell(h))

    with pytest.warns(UserWarning, match="no shape yet"):
        first = ostinato.scan(step, init, xs)
    torch.testing.assert_close(first, loop(step, init, xs))
    torch.testing.assert_close(ostinato.scan(step, init, xs), first)
    assert ostinato.explain(step, init, xs).native


class Unwilling:
    """Nothing that Python asks of every object can be asked of it."""

    __hash__ = None

    def __getattr__(self, name):
        raise KeyError(name)

    def __eq__(self, other):
        raise ValueError

    def __len__(self):
        raise ValueError

    def __bool__(self):
        raise ValueError

    def __iter__(self):
        raise ValueError


def _nested():
    outermost = inner = {}
    for _ in range(500):
        inner["in"] = inner = {}
    return outermost


def _in_itself():
    made = []
    made.append(made)
    return made


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize(
    "make", [Unwilling, _nested, _in_itself, unittest.mock.Mock, lambda: list(range(10**5))]
)
def test_objects_that_are_hard_to_look_at(make):
    W, (init, xs), it = weight(), given(), make()

    def step(h, x):
        assert it is not None
        return torch.tanh(x + h @ W)

    for _ in range(2):
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


class Once(nn.Module):
    """Does something else at its first step, which only names that no walk sees tell."""

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self):
        self.__dict__.pop("begun", None)

    def forward(self, h, x):
        if not hasattr(self, "begun"):
            self.begun, h = True, h * 0
        return torch.tanh(x + h)


class OnceBySetattr(Once):
    def forward(self, h, x):
        if getattr(self, "begun", None) is None:
            setattr(self, "begun", True)  # noqa: B010
            h = h * 0
        return torch.tanh(x + h)


class OnceInASet(Once):
    def reset(self):
        self.done = set()

    def forward(self, h, x):
        if "it" not in self.done:
            self.done.add("it")
            h = h * 0
        return torch.tanh(x + h)


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize("kind", [Once, OnceBySetattr, OnceInASet])
def test_what_is_done_once(kind):
    init, xs = given()
    for _ in range(3):  # instances: the code is known from the second on
        ours, theirs = kind(), kind()
        for again in (False, False, True, False, True, True):
            if again:
                ours.reset()
                theirs.reset()
            for a, b in zip(ostinato.scan(ours, init, xs), loop(theirs, init, xs), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
            assert vars(ours).keys() == vars(theirs).keys()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.calls, self.losses = nn.Linear(H, H, dtype=D), 0, []

    def step(self, h, x):
        return torch.tanh(x + self.inner(h))

    def forward(self, init, xs):
        self.calls += 1
        self.losses.append(1.0)
        return ostinato.scan(self.step, init, xs)[1]


def test_what_changes_beside_a_step_is_not_recorded_for_ever(monkeypatch):
    """Its module's forward counts calls, which the step does not use."""
    recorded = []
    record = ostinato.compiler.cache._recorded
    monkeypatch.setattr(
        ostinato.compiler.cache, "_recorded", lambda *a: recorded.append(1) or record(*a)
    )
    model, (init, xs) = Model(), given()
    for scale in (1.0, 2.0):
        with torch.no_grad():
            model.inner.weight.mul_(scale)
        for _ in range(10):
            expected = loop(model.step, init, xs)[1]
            torch.testing.assert_close(model(init, xs), expected, rtol=1e-12, atol=1e-12)
    assert len(recorded) <= 5
    model.inner = nn.Linear(H, H, dtype=D)
    torch.testing.assert_close(model(init, xs), loop(model.step, init, xs)[1])


def test_attributes_replaced_as_a_whole():
    class Scaled:
        def __init__(self):
            self.k = 1.0

        def __call__(self, h, x):
            return torch.tanh(h * self.k + x)

    step, (init, xs) = Scaled(), given()
    for attributes in ({"k": 1.0}, {"k": 0.5}, {"k": 2.0}):
        step.__dict__ = attributes
        for _ in range(2):
            torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


class Evasive(nn.Module):
    """Its missing attributes are a KeyError."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(H, H, dtype=D)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise KeyError(name) from None

    def forward(self, h, x):
        return torch.tanh(x + self.inner(h))


@pytest.mark.filterwarnings("ignore:scan plays")
def test_a_step_without_the_attributes_of_functions():
    step, (init, xs) = Evasive(), given()
    torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))
    mock = unittest.mock.Mock(spec=nn.Linear)
    torch.testing.assert_close(
        ostinato.scan(lambda h, x: h + x if mock else h, init, xs),
        loop(lambda h, x: h + x, init, xs),
    )


# -------------------------------------------- what was pure may change something at a later call


class Gained(nn.Module):
    """No path leads to all that it reaches, but it changes nothing."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(H, H, dtype=D)

    def forward(self, h, x):
        return torch.tanh(self.inner(x) * getattr(self, "gain", 1.0) + h)


class Logs(Gained):
    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, h, x):
        self.n += 1
        return super().forward(h, x) * (1 + 0.1 * self.n)


class OfTheClass(Gained):
    n = 0

    def forward(self, h, x):
        type(self).n += 1
        return super().forward(h, x) * (1 + 0.1 * type(self).n)


class Around:
    def __init__(self, model):
        self.model = model

    def step(self, h, x):
        return self.model(h, x)


def assert_twins(ours, theirs, state):
    """`ours` and `theirs` give steps of two models that are alike; for four calls."""
    init, xs = given()
    for _ in range(4):
        for a, b in zip(ostinato.scan(ours(), init, xs), loop(theirs(), init, xs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert state[0]() == state[1]()


def _twins(kind):
    ours, theirs = _twice(kind)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
def test_a_hook_hung_on_a_step_that_was_pure():
    ours, theirs = _twins(Gained)
    counts = [[], []]
    states = [lambda: len(counts[0]), lambda: len(counts[1])]
    assert_twins(lambda: ours, lambda: theirs, states)
    for model, seen in zip((ours, theirs), counts, strict=True):
        model.inner.register_forward_hook(lambda m, i, o, seen=seen: seen.append(1))
    assert_twins(lambda: ours, lambda: theirs, states)


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize("one_object", [False, True])
def test_one_code_around_models_that_change_something_and_others(one_object):
    wraps = Around(None), Around(None)
    for kind in (Gained, Logs, Gained, Logs):
        models = _twins(kind)
        for wrap, model in zip(wraps, models, strict=True):
            wrap.model = model
        steps = [
            (lambda w=w: w.step) if one_object else (lambda m=m: Around(m).step)
            for w, m in zip(wraps, models, strict=True)
        ]
        assert_twins(*steps, [lambda m=m: getattr(m, "n", 0) for m in models])
        partials = [lambda m=m: functools.partial(type(m).forward, m) for m in models]
        assert_twins(*partials, [lambda m=m: getattr(m, "n", 0) for m in models])


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
def test_attributes_of_a_modules_class():
    ours = OfTheClass()
    init, xs = given()
    for _ in range(3):
        found = []
        for how in (loop, ostinato.scan):
            OfTheClass.n = 0
            found.append((*how(ours, init, xs), torch.tensor(OfTheClass.n)))
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


class Dispatches(nn.Module):
    """By names that no code mentions."""

    def __init__(self):
        super().__init__()
        self.mode, self.log, self.helper_a = "train", [], Bumped()

    def step(self, h, x):
        return getattr(self, "step_" + self.mode)(h, x)

    def step_train(self, h, x):
        self.log.append(getattr(self, "helper_" + "a").bump())
        return torch.tanh(x * len(self.log) + h)


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
def test_names_that_are_computed():
    ours, theirs = Dispatches(), Dispatches()
    assert_twins(
        lambda: ours.step, lambda: theirs.step, [lambda m=m: m.log for m in (ours, theirs)]
    )


class Places:
    """A place where a function may lie that a step calls, by a name that no code mentions."""

    __slots__ = ("__dict__", "__weakref__", "in_a_slot")

    class Own(dict):
        pass

    class Listed(list):
        pass

    def __init__(self, name: str | None = None):
        self.in_a_list, self.in_a_tuple = [torch.tanh], (torch.tanh,)
        self.in_a_listed = self.Listed([torch.tanh])
        self.in_a_dict, self.in_its_own = {"f": torch.tanh}, self.Own(f=torch.tanh)
        self.in_a_deque = collections.deque([torch.tanh])
        self.in_a_set = {torch.tanh}
        self.as_default = collections.defaultdict(lambda: torch.tanh, f=torch.tanh)
        self.in_an_attribute = torch.tanh
        setattr(self, "_".join(["in", "a", "slot"]), torch.tanh)
        self.in_a_space = types.SimpleNamespace(f=torch.tanh)
        self.in_a_partial = functools.partial(lambda f, a: f(a), torch.tanh)
        self.kept = Kept()
        self.by_a_reference = weakref.ref(self.kept)
        for other in [] if name is None else {*vars(self), "in_a_slot"} - {name, "kept"}:
            delattr(self, other)

    def put(self, name: str, f: Any) -> None:
        held = getattr(self, name)
        if name in ("in_a_list", "in_a_listed", "in_a_deque"):
            held[0] = f
        elif name in ("in_a_dict", "in_its_own", "as_default"):
            held["f"] = f
        elif name == "in_a_set":
            held.clear()
            held.add(f)
        elif name == "in_a_space":
            held.f = f
        elif name == "by_a_reference":
            self.kept.f = f
        elif name == "in_a_tuple":
            self.in_a_tuple = (f,)
        elif name == "in_a_partial":
            self.in_a_partial = functools.partial(held.func, f)
        else:
            setattr(self, name, f)

    def call(self, name: str, a: Tensor) -> Tensor:
        held = getattr(self, name)
        if name in ("in_a_list", "in_a_listed", "in_a_deque", "in_a_tuple"):
            held = held[0]
        elif name in ("in_a_dict", "in_its_own", "as_default"):
            held = held["f"]
        elif name == "in_a_set":
            (held,) = held
        elif name in ("in_a_space", "by_a_reference"):
            held = (held() if name == "by_a_reference" else held).f
        return held(a)


class Kept:
    f = staticmethod(torch.tanh)


PLACES = [name for name in (*vars(Places()), "in_a_slot") if name != "kept"]


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize("name", PLACES)
def test_a_searched_step_that_changes_something_after_all(name):
    """It was pure, and what it reaches is watched; a function is replaced by one that counts."""
    W, counted = given()[0].new_ones(H, H).requires_grad_(), []

    def counts(a: Tensor) -> Tensor:
        counted.append(1)
        return torch.tanh(a)

    init, xs = given()
    places = Places(name)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return places.call(name, x + h @ W)

    step.__code__ = step.__code__.replace(co_name=name)  # what is known of the others is not of it
    for f, wanted in ((None, 0), (counts, len(xs)), (torch.tanh, 0), (counts, len(xs))):
        if f is not None:
            places.put(name, f)
        for _ in range(4):
            counted.clear()
            got = torch.autograd.grad(ostinato.scan(step, init, xs)[1].sum(), W)[0]
            assert len(counted) == wanted
            theirs = torch.autograd.grad(loop(step, init, xs)[1].sum(), W)[0]
            torch.testing.assert_close(got, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize("name", ["captured", "x", "h"])
@pytest.mark.parametrize(
    "change",
    [
        lambda z: z[0].add_(1),
        lambda z: z.detach().add_(1),
        lambda z: z.data.__setitem__(0, 1),
        lambda z: z.view(-1)[0].mul_(2),
        lambda z: z.T.__iadd__(1),
        lambda z: z.unbind(0)[1].zero_(),
        lambda z: nn.functional.relu(z, inplace=True),
        lambda z: nn.functional.elu(z[1:], 1.0, True),
        lambda z: torch.neg(z, out=z[:]),
        lambda z: torch._foreach_add_([z[:1]], 1.0),
    ],
)
def test_changes_in_place_through_a_view(name, change):
    W = weight()
    found = []
    for how in (loop, ostinato.scan):
        torch.manual_seed(1)
        (h, xs), captured = given(), torch.randn(B, H, dtype=D)

        def step(h, x, captured=captured):
            y = torch.tanh(x + h @ W)
            with torch.no_grad():
                change({"captured": captured, "x": x, "h": h}[name])
            return y

        found.append([(*how(step, h, xs), h.clone(), xs.clone(), captured.clone())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_changes_in_place_of_its_own():
    W, (init, xs) = weight(), given()

    def step(h, x):
        y = x + h @ W
        y[:, 0].mul_(2)
        z = nn.functional.relu(y.clone(), inplace=True)
        return torch.tanh(y + z)

    for _ in range(2):
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize("lengths", [False, True])
def test_a_step_that_changes_something_at_some_batch_sizes(lengths):
    W, seen = weight(), []

    def step(h, x):
        if len(x) == 1:
            seen.append(float(torch.rand(())))
        return torch.tanh(x + h @ W)

    for rows in (B, 1, 1, B, 2, 1):
        states = []
        for how in (loop, ostinato.scan):
            torch.manual_seed(0)
            seen.clear()
            init, xs = torch.zeros(rows, H, dtype=D), torch.randn(T, rows, H, dtype=D)
            more = {"lengths": [T] * rows} if lengths and how is ostinato.scan else {}
            how(step, init, xs, **more)
            states.append((list(seen), torch.rand(()).item()))
        assert states[1] == states[0]


class Meta(type):
    flag = False


def _elsewhere(kind):
    """Something that is not seen, or of which a change is not; and what changes it."""
    if kind == "bytes":
        made = bytearray(1)
        return lambda: made[0] == 1, lambda: made.__setitem__(0, 1)
    if kind == "numpy":
        made = np.zeros(2)
        return lambda: made[0] == 1, lambda: made.__setitem__(0, 1)
    if kind == "a long list":
        made = [0] * 5000
        return lambda: made[-1] == 1, lambda: made.__setitem__(-1, 1)
    if kind == "a view of a dict":
        made = {"a": 0}
        values = made.values()
        return lambda: 1 in values, lambda: made.update(a=1)
    if kind == "a tensor's attribute":
        made = torch.zeros(1)
        return lambda: hasattr(made, "flag"), lambda: setattr(made, "flag", 1)
    if kind == "globals":
        return lambda: globals()["FLAG"], lambda: globals().update(FLAG=True)
    if kind == "a metaclass":
        made = Meta("Made", (), {})
        return lambda: made.flag, lambda: setattr(Meta, "flag", True)
    if kind == "an object":
        made = types.SimpleNamespace()
        return lambda: hasattr(made, "flag"), lambda: setattr(made, "flag", 1)
    made = types.SimpleNamespace(of=range(1))
    return lambda: 1 in made.of, lambda: setattr(made, "of", range(2))


FLAG = False


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize(
    "kind",
    ["bytes", "numpy", "a long list", "a view of a dict", "a tensor's attribute", "globals",
     "a metaclass", "an object", "a range"],
)  # fmt: skip
def test_a_step_that_changes_something_later_for_reasons_not_seen(kind, monkeypatch):
    monkeypatch.setattr(Meta, "flag", False)
    monkeypatch.setitem(globals(), "FLAG", False)
    W, (init, xs), seen = weight(), given(), []
    asks, change = _elsewhere(kind)

    def step(h, x):
        if asks():
            seen.append(1)
        return torch.tanh(x + h @ W)

    step.__code__ = step.__code__.replace(co_name=kind)
    for changed in (False, True):
        if changed:
            change()
        for _ in range(5):
            seen.clear()
            ostinato.scan(step, init, xs)
            assert len(seen) == T * changed


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize(
    "normalise",
    [
        lambda z, m, v: torch.batch_norm(z, None, None, m, v, True, 0.1, 1e-5, False),
        lambda z, m, v: nn.functional.batch_norm(z, m, v, training=True),
        lambda z, m, v: nn.functional.instance_norm(z[:, :, None].repeat(1, 1, 2), m, v)[..., 0],
        lambda z, m, v: z + torch.batch_norm_update_stats(z, m, v, 0.1)[0],
    ],
)
def test_running_statistics(normalise):
    W, (init, xs), found = weight(), given(), []
    for how in (loop, ostinato.scan):
        m, v = torch.zeros(H, dtype=D), torch.ones(H, dtype=D)
        how(lambda h, x, m=m, v=v: torch.tanh(normalise(h @ W + x, m, v)), init, xs)
        found.append((m, v))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.filterwarnings("ignore:scan plays")
def test_a_backward_pass_in_a_step():
    init, xs = given()
    for _ in range(2):
        found = []
        for how in (loop, ostinato.scan):
            W = torch.ones(H, H, dtype=D, requires_grad=True)

            def step(h, x, W=W):
                W.square().sum().backward()
                return torch.tanh(h + x)

            how(step, init, xs)
            found.append(W.grad)
        torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore:scan plays", "ignore:.* was recorded")
@pytest.mark.parametrize("size", [None, 64])
@pytest.mark.parametrize("changes", [False, True])
def test_values_remembered_by_lru_cache(size, changes):
    found = []
    for how in (loop, ostinato.scan):
        log = []

        @functools.lru_cache(size)
        def of(rows, log=log):
            log.append(rows)
            return [float(torch.rand(())), 1.0]

        def step(h, x, of=of):
            values = of(len(x))
            if changes:
                values.append(1.0)
            return torch.tanh(h + x * sum(values))

        torch.manual_seed(0)
        lasts = []
        for rows in (3, 2, 4, 3, 5, 2):
            init, xs = torch.zeros(rows, H, dtype=D), torch.ones(T, rows, H, dtype=D)
            lasts.append(how(step, init, xs)[0])
        found.append((lasts, log))
    assert found[0][1] == found[1][1]
    torch.testing.assert_close(found[0][0], found[1][0])


@pytest.mark.filterwarnings("ignore:scan plays")
def test_a_step_that_reaches_too_much_is_soon_left_alone(monkeypatch):
    class Chain:
        def __init__(self, rest):
            self.rest = [rest]

    chain = None
    for _ in range(30):
        chain = Chain(chain)
    monkeypatch.setattr("ostinato.compiler.walk.MOST_OBJECTS", 50)
    init, xs = given()
    step = lambda h, x: torch.tanh(h + x) * (1.0 if getattr(chain, "rest") else 0.0)  # noqa: B009, E731
    seen = []
    monkeypatch.setattr(
        "ostinato.compiler.containers._ContainerWalk.visit",
        lambda self, value, visit=containers._ContainerWalk.visit: (
            seen.append(1) or visit(self, value)
        ),
    )
    for i in range(10):
        assert torch.equal(ostinato.scan(step, init, xs)[1], loop(step, init, xs)[1])
        if i == 4:
            seen.clear()
    assert not seen


@pytest.mark.filterwarnings("error")
def test_tensors_that_hold_each_other():
    W, V, (init, xs) = weight(), weight(), given()
    W.partner, V.partner = V, W

    def step(h, x):
        return torch.tanh(h @ W + x @ W.T)

    def hidden(h, x):
        return torch.tanh(h @ getattr(V, "T") + x)  # noqa: B009

    for of in (step, hidden):
        for _ in range(2):
            torch.testing.assert_close(ostinato.scan(of, init, xs), loop(of, init, xs))


COUNTER = "counters_of_a_test"


def _in_the_module():
    import counters_of_a_test

    counters_of_a_test.n += 1
    return counters_of_a_test.n


def _by_its_function():
    import counters_of_a_test as c

    return c.count()


def _from_it():
    from counters_of_a_test import log

    log.append(1)
    return len(log)


def _below_it():
    import counters_of_a_test.below as b

    b.n += 1
    return b.n


def _from_it_below():
    from counters_of_a_test import below

    below.n += 1
    return below.n


def _by_its_name():
    module = importlib.import_module("counters_of_a_test")
    module.n += 1
    return module.n


def _among_all():
    module = sys.modules["counters_of_a_test"]
    module.n += 1
    return module.n


@pytest.mark.filterwarnings("ignore:scan plays")
@pytest.mark.parametrize(
    "count",
    [
        _in_the_module,
        _by_its_function,
        _from_it,
        _below_it,
        _from_it_below,
        _by_its_name,
        _among_all,
    ],
)
@pytest.mark.parametrize("matters", [False, True])
def test_a_module_that_the_step_imports(count, matters, monkeypatch):
    module, below = types.ModuleType(COUNTER), types.ModuleType(f"{COUNTER}.below")
    monkeypatch.setitem(sys.modules, COUNTER, module)
    monkeypatch.setitem(sys.modules, below.__name__, below)
    source = "n, log = 0, []\ndef count():\n    global n\n    n += 1\n    return n"

    def step(h, x):
        n = count()
        return torch.tanh(h + x / (n if matters else 1))

    found = []
    init, xs = given()
    for how in (loop, ostinato.scan):
        exec(source, vars(module))
        module.below, below.n = below, 0
        for _ in range(3):
            found.append((how(step, init, xs)[1], module.n, len(module.log), below.n))
    for ours, theirs in zip(found[3:], found[:3], strict=True):
        assert ours[1:] == theirs[1:]
        assert torch.equal(ours[0], theirs[0])


def test_a_module_that_the_step_imports_first(tmp_path, monkeypatch):
    """What is done when it is loaded is done once: here it enters itself somewhere, and counts."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "entered_in_a_test.py").write_text("functions = {}")
    (tmp_path / "loaded_in_a_test.py").write_text(
        "import torch\nfrom entered_in_a_test import functions\nfunctions['f'] = torch.tanh\n"
        "n = 0\ndef count():\n    global n\n    n += 1\n    return n"
    )
    entered = importlib.import_module("entered_in_a_test")

    def plain(h, x):
        import loaded_in_a_test  # noqa: F401

        return entered.functions["f"](h + x)

    def counts(h, x):
        import loaded_in_a_test

        return torch.tanh(h + x) / loaded_in_a_test.count()

    init, xs = given()
    found = []
    for step in (plain, counts):
        for how in (loop, ostinato.scan):
            sys.modules.pop("loaded_in_a_test", None)
            entered.functions.clear()
            for _ in range(3):
                found.append((how(step, init, xs)[1], sys.modules["loaded_in_a_test"].n))
            assert list(entered.functions) == ["f"]
        torch.testing.assert_close(found[-3:], found[-6:-3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ostinato.explain(plain, init, xs).native


def test_a_module_that_is_never_there():
    def step(h, x):
        try:
            import never_there_in_a_test

            return never_there_in_a_test.f(h + x)
        except ImportError:
            return torch.tanh(h + x)

    init, xs = given()
    for _ in range(3):
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))
    assert ostinato.explain(step, init, xs).native


def test_an_import_in_a_long_function():
    """Of names beyond the 256th an index takes two instructions."""
    names = [f"number_{i}" for i in range(300)]
    uses = "".join(f"    n = {name}\n" for name in names)
    scope = {"torch": torch, **dict.fromkeys(names, 1)}
    exec(f"def step(h, x):\n{uses}    import math\n    return torch.tanh(h + x) / math.pi", scope)
    init, xs = given()
    torch.testing.assert_close(
        ostinato.scan(scope["step"], init, xs), loop(scope["step"], init, xs)
    )
