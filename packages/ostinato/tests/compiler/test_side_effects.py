"""What a step changes beside computing: scan leaves it as the loop does, from the first call on.

Recording runs a step a few extra times; none of it may be left. A row of EFFECTS is what a step
over a world `w` (zoo/small.py) does at each of its runs, its result, and an expression of what is
left. Three calls of it give the values and gradients of the loop and leave what the loop leaves.
"""

from __future__ import annotations

import array
import collections
import copy
import functools
import gc
import os
import random
import sys
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils import _pytree as pytree

import ostinato
from zoo.objects import raising
from zoo.playing import counting, loop
from zoo.small import B, D, H, T, World, assert_like_the_loop, given, module, outcome, weight

pytestmark = pytest.mark.filterwarnings("ignore:scan plays", "ignore:.*was recorded")

USUAL = "torch.tanh(x + h @ w.W)"
# name: what each run of the step does, what it returns, what is left of it.
EFFECTS: dict[str, tuple[str, str, str]] = {
    "counter": ("w.n += 1", f"{USUAL} / w.n", "w.n"),
    "counter without use": ("w.n += 1", USUAL, "w.n"),
    "counter of a class": ("w.Base.n += 1", f"{USUAL} / w.Base.n", "w.Base.n, w.Thing.n"),
    "counter of its class": ("type(w.thing).n += 1", f"{USUAL} / w.thing.n",
        "w.Base.n, w.Thing.n"),
    "counter in a method": ("n = w.thing.count()", f"{USUAL} / n", "w.thing.n"),
    "counter beside what raises": ("w.config.hard is None\nn = w.thing.count()", f"{USUAL} / n",
        "w.thing.n"),
    "counter in __dict__": ("vars(w)['n'] += 1", f"{USUAL} / w.n", "w.n"),
    "counter by setattr": ("setattr(w, 'n', w.n + 1)", f"{USUAL} / w.n", "w.n"),
    "counter in a module": ("w.config.k += 1", f"{USUAL} / w.config.k", "w.config.k"),
    "counter in an imported module": ("import config_of_a_test as c\nc.k += 1", f"{USUAL} / c.k",
        "w.config.k"),
    "counter of a submodule": ("w.stack[1].negative_slope /= 2", "w.stack(x + h)",
        "w.stack[1].negative_slope"),
    "cell of a closure": ("k = w.count()", f"{USUAL} / k", "w.count.__closure__[0].cell_contents"),
    "global": ("global n\nn += 1", f"{USUAL} / n", "w.scope['n']"),
    "new global": ("global made\nmade = 1.0", USUAL, "w.scope['made']"),
    "entry of a dict": ("w.table[len(w.table)] = 1.0", f"{USUAL} / len(w.table)", "w.table"),
    "counter in a dict": ("w.table['n'] = w.table.get('n', 0) + 1", f"{USUAL} / w.table['n']",
        "w.table"),
    "defaultdict": ("w.counts['n'] += 1", f"{USUAL} / w.counts['n']", "w.counts"),
    "Counter": ("w.counter['n'] += 1", f"{USUAL} / w.counter['n']", "w.counter"),
    "subclass of dict": ("w.attributes.n += 1", f"{USUAL} / w.attributes.n",
        "dict(w.attributes)"),
    "OrderedDict": ("w.ordered.move_to_end('a')\nw.ordered['a'] += 1", f"{USUAL} / w.ordered['a']",
        "list(w.ordered.items())"),
    "list": ("w.log.append(1.0)", f"{USUAL} / len(w.log)", "w.log"),
    "set": ("w.seen.add(len(w.seen))", f"{USUAL} / len(w.seen)", "sorted(w.seen)"),
    "deque": ("w.last.append(len(w.last))", f"{USUAL} / (1 + w.last[-1])", "list(w.last)"),
    "array": ("w.array[0] += 1", f"{USUAL} / float(w.array[0])", "w.array.tolist()"),
    "list, emptied": ("k = w.listed.pop(0)", f"{USUAL} * k", "w.listed"),
    "list within": ("w.table['in']['k'].append(1)", USUAL, "w.table"),
    "list of states": ("w.log.append(h.detach())", USUAL, "torch.stack(w.log)"),
    "list of outputs": (f"y = {USUAL}\nw.log.append(y)", "y", "torch.stack(w.log)"),
    "attribute of a tensor": ("w.W.n = getattr(w.W, 'n', 0) + 1", f"{USUAL} / w.W.n", "w.W.n"),
    "buffer": ("w.cell.shift = 0.9 * w.cell.shift + 0.1 * x.mean(0)", "w.cell(h, x)",
        "w.cell.shift"),
    "last state": ("w.memo = h * 1", USUAL, "w.memo"),
    "last input": ("w.memo = x", USUAL, "w.memo"),
    "cached tensor": ("if w.memo is None: w.memo = w.V / w.V.norm()",
        "torch.tanh(x + h @ w.memo)", "w.memo"),
    "cached scalar": ("if w.memo is None: w.memo = w.V.norm()", f"{USUAL} / w.memo", "w.memo"),
    "cached in a dict": ("if 'W' not in w.table: w.table['W'] = w.V @ w.W",
        "torch.tanh(x + h @ w.table['W'])", "w.table['W']"),
    "cached by functools": ("", "torch.tanh(x + h @ w.product())", "w.product()"),
    "cached number": ("if w.memo is None: w.memo = float(w.n + 2)", f"{USUAL} * w.memo", "w.memo"),
    "mask drawn once": ("if w.memo is None: w.memo = torch.rand_like(h).round()",
        "torch.tanh(x + h * w.memo @ w.W)", "w.memo"),
    "done once, by hasattr": ("if not hasattr(w, 'begun'): w.begun, h = True, h * 0", USUAL,
        "w.begun"),
    "done once, by a flag": ("if w.flag: w.flag, h = False, h * 0", USUAL, "w.flag"),
    "done once, in a dict": ("if 'begun' not in w.table: w.table['begun'], h = 1, h * 0", USUAL,
        "w.table"),
    "method of a computed name": ("n = getattr(w.thing, 'co' + 'unt')()", f"{USUAL} / n",
        "w.thing.n"),
    "scheduler": ("w.scheduler.step()", f"{USUAL} * w.scheduler.get_last_lr()[0]",
        "w.scheduler.last_epoch, w.scheduler.optimizer.param_groups[0]['lr']"),
    "hook that counts": ("", "torch.tanh(x + w.counted(h))", "w.n"),
    "hook that collects": ("", "torch.tanh(x + w.collected(h))", "w.log"),
    "pruned": ("", "torch.tanh(x + w.pruned(h))", "w.pruned.weight"),
    "torch's random numbers": ("k = float(torch.rand(()))", f"{USUAL} * k",
        "torch.get_rng_state()"),
    "Python's random numbers": ("k = random.random()", f"{USUAL} * k", "random.getstate()"),
    "NumPy's random numbers": ("k = np.random.rand()", f"{USUAL} * k",
        "np.random.get_state()[1:]"),
    "numbers for a choice": ("k = random.random() < 0.5", f"{USUAL} if k else x - h",
        "random.getstate()"),
}  # fmt: skip


class Attributes(dict[str, Any]):
    """As configurations often are."""

    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


def counter() -> Callable[[], int]:
    n = 0

    def count() -> int:
        nonlocal n
        n += 1
        return n

    return count


def world_of(body: str, result: str) -> tuple[World, Any]:
    """The same world and step each time."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    w = World()
    w.attributes = Attributes(n=0)
    w.config.hard = raising("__class__")
    w.counts, w.counter = collections.defaultdict(int), collections.Counter()
    w.seen, w.last, w.array = set(), collections.deque(maxlen=3), np.zeros(2)
    w.listed = [1.0 + i / 8 for i in range(4 * T)]
    w.ordered = collections.OrderedDict(a=1, b=2)
    w.counted, w.collected, w.pruned = (module(nn.Linear, H, H) for _ in range(3))
    w.counted.register_forward_hook(lambda *_: setattr(w, "n", w.n + 1))
    w.collected.register_forward_hook(lambda m, ins, out: w.log.append(float(out.sum())))
    prune.l1_unstructured(w.pruned, "weight", 0.4)
    optimizer = torch.optim.SGD([weight()], 1.0)
    w.scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.step()
    w.product, w.count = functools.lru_cache(lambda: w.V @ w.W), counter()
    w.scope |= {"random": random, "np": np, "D": D}
    return w, w.function(f"{body or 'pass'}\nreturn {result}")


def played(how: Any, row: tuple[str, str, str], calls: int = 3) -> list[Any]:
    """Values, gradients and what is left, after each of some calls."""
    body, result, left = row
    w, step = world_of(body, result)
    leaves, found = w.leaves(), []
    sys.modules["config_of_a_test"] = w.config
    if how is not loop:  # explain leaves nothing, and says why the loop plays
        before = w.n, len(w.log), w.memo
        said = ostinato.explain(step, *given())
        assert not said.native and len(said.reason) > 20
        assert (w.n, len(w.log), w.memo) == before
    for i in range(calls):
        w.memo, w.table = None, {k: v for k, v in w.table.items() if k != "W"}  # a new sequence
        w.product.cache_clear()
        got = outcome(how, step, *given(i), leaves)
        state = eval(left, {"torch": torch, "random": random, "np": np, "w": w})
        found.append((got, copy.deepcopy(pytree.tree_map_only(Tensor, Tensor.detach, state))))
    del sys.modules["config_of_a_test"]
    return found


@pytest.mark.parametrize("name", EFFECTS)
def test_what_a_step_changes_is_as_the_loop_leaves_it(name):
    ours, theirs = played(ostinato.scan, EFFECTS[name]), played(loop, EFFECTS[name])
    assert_alike(ours, theirs)


def assert_alike(ours: Any, theirs: Any) -> None:
    for a, b in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        else:
            assert type(a) is type(b) and np.array_equal(a, b), (a, b)


def test_the_checker_can_fail():
    """On one run too many, one too few, and a last state that is another."""
    row = EFFECTS["counter without use"]
    right = played(loop, row)

    def once_more(step: Any, init: Tensor, xs: Tensor) -> Any:
        with torch.no_grad():
            step(init, xs[0])
        return loop(step, init, xs)

    for wrong in (played(once_more, row), played(loop, ("", *row[1:])), played(loop, row, 2)):
        with pytest.raises((AssertionError, ValueError)):
            assert_alike(wrong, right)


@pytest.mark.parametrize("where", ["scope", "config"])
def test_what_another_thread_changes_beside_a_step(where):
    """While the step is recorded, of the namespace that it reads, a name that it does not read."""
    w = World()
    d = {"scope": w.scope, "config": vars(w.config)}[where]
    d["beside"], step = 0, w.function("return torch.tanh(x + h) * gain * w.config.gain")
    w.scope["gain"] = w.config.gain = 0.5
    run = torch.tanh

    def tanh(t: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: d.update(beside=d["beside"] + 1, another=1.0))
        thread.start()
        thread.join()
        return run(t)

    with mock.patch.object(torch, "tanh", tanh):
        found = ostinato.explain(step, *given())
    assert found.native, found.reason
    assert d["beside"] > 0 and d["another"] == 1.0


class Drawing(np.random.Generator):
    """A class of the user's own."""


def test_a_generator_of_a_class_of_its_own():
    left = []
    for how in (loop, ostinato.scan):
        generator = Drawing(np.random.PCG64(0))

        def step(h: Tensor, x: Tensor, generator: Any = generator) -> Tensor:
            return torch.tanh(x + h) * generator.random()

        left.append((how(step, *given())[1], torch.tensor(generator.random())))
    torch.testing.assert_close(left[1], left[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "generator", [torch.Generator(), np.random.default_rng(), np.random.RandomState(0)]
)
def test_a_generator_that_is_not_drawn_from(generator):
    w = types.SimpleNamespace(generator=generator)
    step = lambda h, x: torch.tanh(x + h) if w.generator is not None else h  # noqa: E731
    found = ostinato.explain(step, *given())
    assert found.native, found.reason


@pytest.mark.filterwarnings("error")  # it is played by the engine
def test_cached_parametrizations():
    class Positive(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return nn.functional.softplus(t)

    w = World()
    w.linear.tau = nn.Parameter(torch.tensor(0.5, dtype=D))
    parametrize.register_parametrization(w.linear, "tau", Positive())
    nn.utils.parametrizations.weight_norm(w.linear)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return h + (torch.tanh(x + w.linear(h)) - h) / (1 + w.linear.tau)

    leaves = list(w.linear.parameters())
    for _ in range(3):
        found = []
        for how in (loop, ostinato.scan):
            with parametrize.cached():
                found.append(outcome(how, step, *given(), leaves))
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            for p in leaves:
                p.add_(0.25)
    assert ostinato.explain(step, *given()).native


# --------------------------------------------------- what was pure, and changes something later


def assert_twins(step: Callable[[World], Any], ours: World, theirs: World, left: Any) -> None:
    """A step over two worlds that are alike; for four calls."""
    for i in range(4):
        torch.testing.assert_close(
            ostinato.scan(step(ours), *given(i)),
            loop(step(theirs), *given(i)),
            rtol=1e-12,
            atol=1e-12,
        )
        assert left(ours) == left(theirs)


def twins() -> tuple[World, World]:
    worlds = []
    for _ in range(2):
        torch.manual_seed(0)
        worlds.append(World())
    return worlds[0], worlds[1]


PLACES = {
    "an attribute": ("w.act(x + h)", "w.act = f"),
    "a list": ("w.listed[0](x + h)", "w.listed = [f]"),
    "a dict": ("w.table['f'](x + h)", "w.table['f'] = f"),
    "a partial": ("w.act(x + h)", "w.act = functools.partial(lambda f, a: f(a), f)"),
    "a method": ("w.thing.act(x + h)", "w.Thing.act = lambda self, a: f(a)"),
    "a module": (
        "w.stack(x + h)",
        "w.stack[1] = type('F', (nn.Module,), {'forward': lambda s, a: f(a)})()",
    ),
    "a hook": (
        "torch.tanh(w.linear(x) + h)",
        "w.linear._forward_hooks.clear(); w.linear.register_forward_hook(lambda m, i, o: f(o))",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_function_is_replaced_by_one_that_counts(name):
    expression, put = PLACES[name]
    worlds = twins()

    def replace(by: str) -> None:
        for w in worlds:

            def counted(a: Tensor, w: World = w) -> Tensor:
                w.n += 1
                return torch.tanh(a) / w.n

            f = {"sin": torch.sin, "counted": counted}[by]
            exec(put, {**globals(), "w": w, "f": f})

    make = eval(f"lambda w: lambda h, x: {expression}", globals())
    replace("sin")
    steps = [make(w) for w in worlds]
    for by in ("sin", "counted", "sin", "counted"):
        replace(by)
        assert_twins(lambda w: steps[worlds.index(w)], *worlds, lambda w: w.n)
    assert worlds[0].n > 0


@pytest.mark.parametrize("one_object", [False, True])
def test_one_code_around_models_that_change_something_and_others(one_object):
    class Counts(nn.Module):
        def __init__(self, by: int) -> None:
            super().__init__()
            self.inner, self.n, self.by = module(nn.Linear, H, H), 0, by

        def forward(self, h: Tensor, x: Tensor) -> Tensor:
            if self.by:
                self.n += self.by
            return torch.tanh(self.inner(x) + h) * (1 + 0.1 * self.n)

    worlds = twins()
    steps: dict[int, Any] = {}
    for by in (0, 1, 0, 1):
        for w in worlds:
            torch.manual_seed(1)
            w.cell = Counts(by)

        def around(w: World) -> Any:
            made = lambda h, x: w.cell(h, x)  # noqa: E731
            return steps.setdefault(id(w), made) if one_object else made

        assert_twins(around, *worlds, lambda w: w.cell.n)
        assert_twins(
            lambda w: functools.partial(Counts.forward, w.cell), *worlds, lambda w: w.cell.n
        )


@pytest.mark.parametrize("lengths", [False, True])
def test_a_step_that_changes_something_at_some_batch_sizes(lengths):
    seen: list[float] = []

    def step(h: Tensor, x: Tensor) -> Tensor:
        if len(x) == 1:
            seen.append(float(torch.rand(())))
        return torch.tanh(x + h)

    for rows in (B, 1, 1, B, 2, 1):
        states = []
        for how in (loop, ostinato.scan):
            torch.manual_seed(0)
            seen.clear()
            init, xs = torch.zeros(rows, H, dtype=D), torch.randn(T, rows, H, dtype=D)
            more = {"lengths": [T] * rows} if lengths and how is ostinato.scan else {}
            ys = how(step, init, xs, **more)[1]
            states.append((list(seen), torch.rand(()).item(), ys))
        torch.testing.assert_close(states[1], states[0], rtol=1e-12, atol=1e-12)


# ----------------------------------------------------------------- what is no side effect, or ours


class Trained(nn.Module):
    """Its forward counts calls and collects losses, which the step does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.losses = module(nn.Linear, H, H), 0, []

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x + self.inner(h))

    def forward(self, init: Tensor, xs: Tensor) -> Tensor:
        self.calls += 1
        self.losses.append(1.0)
        return ostinato.scan(self.step, init, xs)[1]


@pytest.mark.filterwarnings("error")
def test_what_changes_beside_a_step_is_not_recorded_for_ever():
    model = Trained()
    for scale in (1.0, 2.0):
        with torch.no_grad():
            model.inner.weight.mul_(scale)
        for i in range(10):
            with counting(model.step) as calls:
                ours = model(*given())
            assert i == 0 or calls[0] == 0
            torch.testing.assert_close(ours, loop(model.step, *given())[1], rtol=1e-12, atol=1e-12)
    model.inner = module(nn.Linear, H, H)
    torch.testing.assert_close(model(*given()), loop(model.step, *given())[1])


def test_recording_leaves_the_random_states_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    ostinato.scan(lambda h, x: torch.tanh(x + h) * 0.75, *given())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_a_searched_step_that_begins_to_draw():
    """The search that finds it out leaves no mark in the random state: scan draws as the loop."""
    w = types.SimpleNamespace(drops=False)

    def step(h: Tensor, x: Tensor) -> Tensor:
        p = 0.5 if vars(w)["".join(["dro", "ps"])] else 0.0  # no guard sees it
        return torch.dropout(torch.tanh(x + h), p, train=p > 0)

    ostinato.scan(step, *given())
    assert ostinato.explain(step, *given()).native
    w.drops = True
    left = []
    for how in (ostinato.scan, loop):
        torch.manual_seed(0)
        left.append((how(step, *given())[1], torch.rand(())))
    torch.testing.assert_close(left[0][0], left[1][0], rtol=1e-12, atol=1e-12)
    assert torch.equal(left[0][1], left[1][1])


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_errors_of_signal_handlers_reach_the_caller(at):
    """A TimeoutError, say, at whichever run of the step while it is recorded."""
    W, calls = weight(), array.array("i", [0])

    def step(h: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1  # as a signal would, unseen
        if calls[0] == at:
            raise TimeoutError
        return torch.tanh(x + h @ W) * at  # a recording of its own

    with pytest.raises(TimeoutError):
        for _ in range(3):  # it may be searched at each call
            ostinato.scan(step, *given())
    assert_like_the_loop(step, [W])
    assert ostinato.explain(step, *given()).native


def test_a_mistake_in_a_step_is_the_users_own_error():
    """It is raised once, and what the first run left is put back before the loop's."""
    calls: list[int] = []

    def step(h: Tensor, x: Tensor) -> Tensor:
        calls.append(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ostinato.scan(step, *given())
    assert len(calls) == 1


# What steps do that looks like a side effect, and what they return.
PURE: dict[str, tuple[str, str]] = {
    "a cycle, which the collector alone frees": (f"made = [{USUAL}]\nmade.append(made)", "made[0]"),
    "a label of the profiler": (f"with torch.profiler.record_function('cell'): y = {USUAL}", "y"),
    "state that hangs in an attribute while a module runs": (
        "w.memo = h * 2\ny = w.cell(w.memo, x)\nw.memo = None",
        "y",
    ),
    "a list of it that the step makes and drops": (
        "w.memo = {'of': [h * 2]}\ny = w.cell(w.memo['of'][0], x)\nw.memo = None",
        "y",
    ),
    "a warning, which Python notes among the globals": ("warnings.warn('of the step')", USUAL),
    "parameters replaced for a while": (
        "",
        "torch.func.functional_call(w.cell, {'W': w.V}, (h, x))",
    ),
}


@pytest.mark.parametrize("name", PURE)
def test_what_is_no_side_effect(name):
    w, step = world_of(*PURE[name])
    w.scope["warnings"], parameters = warnings, list(w.cell.parameters())
    gc.disable()
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("default")
            found = ostinato.explain(step, *given())
            for _ in range(2):
                assert_like_the_loop(step, w.leaves())
    finally:
        gc.enable()
    assert found.native, found.reason
    assert all(p is q for p, q in zip(w.cell.parameters(), parameters, strict=True))
    assert ("__warningregistry__" in w.scope) == ("warnings.warn" in PURE[name][0])


def test_an_iterator_named_in_a_helper():
    """The step catches all errors, and must not catch that it is refused."""
    W, numbers = weight(), iter(range(1, 1000))

    def helper(h: Tensor) -> Tensor:
        return h * next(numbers)

    def step(h: Tensor, x: Tensor) -> Tensor:
        try:
            return torch.tanh(helper(h) + x @ W)
        except Exception:
            return h

    for how in (ostinato.scan, ostinato.scan):
        how(step, *given())
    assert next(numbers) == 2 * T + 1


def test_an_effect_behind_many_functions():
    w = types.SimpleNamespace(n=0)
    scope: dict[str, Any] = {"w": w}
    for i in range(40):
        exec(f"def f{i}(a): return a + {i}", scope)
    exec("def last(a):\n    w.n += 1\n    return a", scope)
    calls = "".join(f"f{i}(" for i in range(40))
    exec(f"def step(h, x): return last(h + x + 0 * {calls}h{')' * 40})", scope)
    for call in range(1, 4):
        ostinato.scan(scope["step"], *given())
        assert w.n == T * call


@pytest.mark.parametrize(
    ("name", "native"), [("TORCHINDUCTOR_CACHE_DIR", True), ("A_VARIABLE", False)]
)
def test_a_variable_of_the_environment_is_an_effect_unless_it_is_pytorchs(
    name: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's compiler sets its own when it is first imported, which may be within a step."""
    monkeypatch.setenv(name, "")

    def step(h: Tensor, x: Tensor) -> Tensor:
        os.environ[name] += "a"
        return torch.tanh(h + x)

    assert ostinato.explain(step, torch.zeros(2, 3), torch.zeros(4, 2, 3)).native is native
