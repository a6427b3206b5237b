"""What running a step leaves behind: the search and the recording of it must leave nothing.

A step that keeps what it computes, or changes what it reaches, is played by the loop: values,
gradients and what is left in Python are the loop's, from the first call on.
"""

import collections
import contextvars
import functools
import gc
import random
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
from small import D, H, weight
from torch import nn
from torch.nn.utils import parametrize, prune

import ostinato
from playing import loop

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
    find = ostinato.compiler.search.CaptureSearch.finish

    def finish(search, result):
        made.update(search.alive[2:])
        find(search, result)

    def step(h, x):
        return torch.tanh(x + h @ W) + h

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ostinato.compiler.search.CaptureSearch, "finish", finish)
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
