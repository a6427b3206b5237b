"""`overhead`: the time of a call of scan without the engine's work, and the time of an import.

Shapes are so small that the engine has next to nothing to do. A stopwatch around functions of the
compiler divides the time into parts: a part is the time spent in its functions, without the parts
called inside them. The engine counts its own time. The bounds are on a run without the stopwatch.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import ostinato
import ostinato._scan as scan_module
from benchmarks import machine
from benchmarks.results import Absent, Bound, Row, Spec, Timing
from ostinato.compiler import cache
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.step import CompiledStep
from ostinato.engine import native

T, B, H = 4, 4, 8
ANEW = "by path, step made anew"
WANTED_US = {"by path": 80.0, "searched": 200.0, ANEW: 100.0}
WANTED_BESIDE_US = 50.0
WANTED_IMPORT_MS, WANTED_HELP_S = 30.0, 0.3

ENGINE, AROUND_ENGINE = "engine", "binding"
# part → its functions; the time of another part called inside them is not counted
PARTS: dict[str, list[tuple[Any, str]]] = {
    "guards, or a run of the step": [(cache.Bucket, "fitting"), (cache, "_searched")],
    "cache key": [(cache, "find")],
    AROUND_ENGINE: [(CompiledStep, "forward"), (CompiledStep, "backward")],
    "structure of the call": [(scan_module, "_scanned")],
    "checks, and torch.compile's guard": [(ostinato, "scan")],
    "autograd": [(ScanCall, "outputs"), (torch.autograd, "grad")],
}


class Stopwatch:
    """Nanoseconds spent in each part, without the parts called inside it."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self._parts: list[str] = []
        self._since = 0

    def watched(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted for `part`."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._parts.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._parts.pop()

        return wrapped

    def _switch(self) -> None:
        """Count the time since the last switch for the innermost active part."""
        now = time.perf_counter_ns()
        if self._parts:
            part = self._parts[-1]
            self.spent[part] = self.spent.get(part, 0) + now - self._since
        self._since = now


@contextmanager
def watching(parts: dict[str, list[tuple[Any, str]]]) -> Iterator[Stopwatch]:
    """A context in which a stopwatch counts the time of all functions of `parts`."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for part, functions in parts.items():
            for owner, name in functions:
                watched = watch.watched(part, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, watched))
        yield watch


def _weights() -> list[torch.Tensor]:
    return [torch.randn(*s, requires_grad=True) for s in ((H, H), (H, H), (H,))]


class _Model(torch.nn.Module):
    """A model whose step is a closure over the model, made anew at each call.

    It also has layers that the step does not use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.U, self.W, self.b = map(torch.nn.Parameter, _weights())
        self.beside = torch.nn.ModuleList(torch.nn.Linear(H, H) for _ in range(4))

    def step(self) -> Callable[..., Any]:
        return lambda h, x: torch.tanh(x @ self.U + h @ self.W + self.b)


def training(kind: str, n_steps: int) -> Callable[[], Any]:
    """A function that makes one forward and backward pass of a small RNN.

    Its step is one that scan has not recorded yet. kind: see `WANTED_US`.
    """
    model = _Model()
    U, W, b = weights = [model.U, model.W, model.b]
    init, xs = torch.zeros(B, H, requires_grad=True), torch.randn(n_steps, B, H)
    d_ys = torch.randn(n_steps, B, H)

    def closure(h: Any, x: Any) -> Any:
        return torch.tanh(x @ U + h @ W + b)

    # What vars() gives cannot be guarded, so this step is searched at every call.
    def opaque(h: Any, x: Any) -> Any:
        return vars(torch)[activation](x @ U + h @ W + b)

    activation = "tanh"
    if kind == ANEW:
        step = model.step
    else:
        step = {"by path": lambda: closure, "searched": lambda: opaque}[kind]

    def run() -> Any:
        _, ys = ostinato.scan(step(), init, xs)
        return torch.autograd.grad(ys, (*weights, init), d_ys)

    return run


class _Nothing(torch.autograd.Function):
    """The cost of autograd alone: a function of the same tensors that returns stored results."""

    made: tuple[Any, ...]  # outputs and gradients

    @staticmethod
    def forward(ctx: Any, *tensors: torch.Tensor) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return _Nothing.made[:2]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        assert ctx.saved_tensors
        return (*_Nothing.made[2:], None)


def nothing() -> Callable[[], Any]:
    """As `training`, for an autograd function that computes nothing."""
    tensors = (*_weights(), torch.zeros(B, H, requires_grad=True))
    xs, d_ys = torch.randn(T, B, H), torch.randn(T, B, H)
    outputs = torch.zeros(T, B, H), torch.zeros(B, H)
    _Nothing.made = (*outputs, *(torch.zeros_like(t) for t in tensors))

    def run() -> Any:
        ys, _ = _Nothing.apply(*tensors, xs)
        return torch.autograd.grad(ys, tensors, d_ys)

    return run


def specs(quick: bool) -> list[Spec]:
    calls = 50 if quick else 2000
    repeats = 2 if quick else 7
    rows = [
        Spec(f"overhead/{kind}", lambda kind=kind: _overhead_row(kind, calls))  # type: ignore[misc]
        for kind in WANTED_US
    ]
    beside = [
        Spec(f"overhead/beside {what}", lambda what=what: _beside_row(what, calls))  # type: ignore[misc]
        for what in BESIDE
    ]
    return [
        *rows,
        *beside,
        Spec("overhead/twenty modules", lambda: _twenty_row(calls)),
        Spec("overhead/import", lambda: _import_row(repeats)),
        Spec("overhead/help", lambda: _help_row(repeats)),
    ]


def beside(what: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One call of scan without gradients: of a plain step, and of one that reads something more."""
    W, init, xs = torch.randn(H, H), torch.zeros(B, H), torch.randn(T, B, H)
    read = BESIDE[what]()

    def plain(h: Any, x: Any) -> Any:
        return torch.tanh(x + h @ W)

    def more(h: Any, x: Any) -> Any:
        return torch.tanh(x + h @ W) * read()

    return lambda: ostinato.scan(plain, init, xs), lambda: ostinato.scan(more, init, xs)


def _logger() -> Callable[[], float]:
    log = logging.getLogger("ostinato.benchmarks")
    log.isEnabledFor(logging.DEBUG)  # it remembers the answer, which would be a side effect

    def read() -> float:
        log.debug("a step")
        return 0.5

    return read


def _namespace() -> Callable[[], float]:
    options = argparse.Namespace(scale=0.5, name="a run")
    return lambda: options.scale


def _column() -> Callable[[], float]:
    import pandas

    table = pandas.DataFrame({"scale": [0.5, 1.0], "name": ["a", "b"]})
    return lambda: float(table["scale"].iloc[0])


BESIDE: dict[str, Callable[[], Callable[[], float]]] = {
    "a logger": _logger,
    "a Namespace": _namespace,
    "a column of a DataFrame": _column,
}


def _beside_row(what: str, calls: int) -> Row:
    title = f"B {B}, T {T}, H {H}, forward: a step that reads {what}, beside one that does not"
    try:
        plain, more = beside(what)
    except ModuleNotFoundError as error:
        absent = Absent("beside it", f"{error.name} is not installed")
        return Row(f"overhead/beside {what}", title, (), (absent,))
    timings = [
        _timing("a plain step", _calls(plain, calls)),
        _timing("beside it", _calls(more, calls)),
    ]
    extra = 1e6 * (timings[1].median_s - timings[0].median_s)
    bound = Bound("more than the plain step", WANTED_BESIDE_US, extra, False, "µs")
    return Row(f"overhead/beside {what}", title, tuple(timings), bounds=(bound,))


class _Numbered(torch.nn.Module):
    """A module that differs from its sisters in attributes that its step reads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.config = number, {"seed": number}
        self.linear = torch.nn.Linear(H, H)

    def forward(self, h: Any, x: Any) -> Any:
        return torch.tanh(self.linear(h) + x) if self.number + self.config["seed"] >= 0 else h


def _twenty_row(calls: int) -> Row:
    """Twenty modules in turn, and one of them: each call."""
    modules = [_Numbered(i) for i in range(20)]
    init, xs = torch.zeros(B, H), torch.randn(T, B, H)
    turn = itertools.cycle(modules)
    with torch.no_grad():
        one = _timing("one module", _calls(lambda: ostinato.scan(modules[0], init, xs), calls))
        all_ = _timing("twenty", _calls(lambda: ostinato.scan(next(turn), init, xs), calls))
    bound = Bound("twenty modules to one", 1.25, all_.median_s / one.median_s, False)
    title = f"B {B}, T {T}, H {H}, forward: twenty modules of one class, different in an attribute"
    return Row("overhead/twenty modules", title, (one, all_), bounds=(bound,))


def _overhead_row(kind: str, calls: int) -> Row:
    # torch's optimizers import it, so every training program has it. scan must then find out
    # whether torch.compile traces the call.
    import torch._dynamo  # noqa: F401

    before = machine.latency_ns()
    totals = {t: _total(kind, t, calls) for t in range(1, T + 1)}
    parts = _parts(kind, calls)
    title = f"B {B}, T 1…{T}, H {H}, tanh RNN, forward + backward, captured tensors {kind}"
    timings = [_timing(f"all but the engine, T {t}", ns) for t, ns in totals.items()]
    timings += [_timing(f"part at T {T}: {part}", ns) for part, ns in parts.items()]
    timings.append(
        _timing("beside it: an autograd.Function that computes nothing", _calls(nothing(), calls))
    )
    worst = max(float(np.median(ns)) for ns in totals.values()) / 1e3
    bound = Bound("all but the engine", WANTED_US[kind], worst, False, "µs")
    return Row(
        f"overhead/{kind}",
        title,
        tuple(timings),
        bounds=(bound,),
        latency_ns=(before, machine.latency_ns()),
    )


def _total(kind: str, n_steps: int, calls: int) -> list[int]:
    """Nanoseconds of each call, without those in the engine."""
    found = []
    run = training(kind, n_steps)
    _warm(run)
    for _ in range(calls):
        played, begin = native.engine_ns(), time.perf_counter_ns()
        run()
        found.append(time.perf_counter_ns() - begin - (native.engine_ns() - played))
    return found


def _calls(run: Callable[[], Any], calls: int) -> list[int]:
    """Nanoseconds of each call."""
    _warm(run)
    found = []
    for _ in range(calls):
        begin = time.perf_counter_ns()
        run()
        found.append(time.perf_counter_ns() - begin)
    return found


def _parts(kind: str, calls: int) -> dict[str, list[int]]:
    """Nanoseconds of each call by part."""
    found: dict[str, list[int]] = {part: [] for part in (*PARTS, ENGINE)}
    with watching(PARTS) as watch:
        run = training(kind, T)
        _warm(run)
        for _ in range(calls):
            watch.spent.clear()
            played = native.engine_ns()
            run()
            watch.spent[ENGINE] = native.engine_ns() - played
            watch.spent[AROUND_ENGINE] -= watch.spent[ENGINE]
            for part, times in found.items():
                times.append(watch.spent.get(part, 0))
    return found


def _warm(run: Callable[[], Any]) -> None:
    for _ in range(20):
        run()


def _import_row(repeats: int) -> Row:
    """The time of an import in a fresh process, after torch was imported."""
    code = (
        "import time, torch; begin = time.perf_counter(); import ostinato; ostinato.scan; "
        "print(time.perf_counter() - begin)"
    )
    times = [float(_python("-c", code)) for _ in range(repeats + 1)][1:]
    timing = _timing("import ostinato; ostinato.scan", [int(1e9 * t) for t in times])
    bound = Bound("beyond torch", WANTED_IMPORT_MS, 1e3 * timing.median_s, False, "ms")
    return Row("overhead/import", "in a fresh process, after torch", (timing,), bounds=(bound,))


def _help_row(repeats: int) -> Row:
    """The time of a whole process that prints the help."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter_ns()
        _python("-m", "ostinato_learn.cli", "--help")
        times.append(time.perf_counter_ns() - begin)
    timing = _timing("ostinato --help", times[1:])
    bound = Bound("the whole process", WANTED_HELP_S, timing.median_s, False, "s")
    return Row("overhead/help", "a fresh process from start to end", (timing,), bounds=(bound,))


def _python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _timing(name: str, nanoseconds: list[int]) -> Timing:
    q1, middle, q3 = (np.percentile(nanoseconds, [25, 50, 75]) / 1e9).tolist()
    return Timing(name, middle, q1, q3, len(nanoseconds))
