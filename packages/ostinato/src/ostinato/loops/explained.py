"""How the loops of a function or a model run."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ostinato._explain import Explanation, explained
from ostinato.arguments import Arguments, checked
from ostinato.eager import Step, Tree
from ostinato.loops.functions import loops_in
from ostinato.loops.inplace import Caller
from ostinato.loops.iteration.attributes import Memory
from ostinato.loops.modules import callers_of
from ostinato.loops.reach import reached
from ostinato.loops.running.attempt import explaining
from ostinato.loops.running.site import Site
from ostinato.loops.scanned import scanned


@dataclass(frozen=True)
class LoopReport:
    """How one loop ran the last time.

    Attributes:
        name: the name of its function.
        file, line: its place.
        text: its header, "for t in range(T)" for instance.
        native: whether its iterations ran as a scan; None if it did not run.
        reason: why it ran in Python, or "".
        times: the seconds of the first iteration, in Python, and of each of the others, native,
            forward and at the last call. The first one has the cost of being watched, so that the
            gain is smaller than their quotient. None where they were not measured.
    """

    name: str
    file: str
    line: int
    text: str
    native: bool | None
    reason: str
    times: tuple[float, float] | None = None

    def __str__(self) -> str:
        state = "not run yet" if self.native is None else "native"
        if self.native and self.times is not None:
            first, others = [1e6 * t for t in self.times]
            state = f"native, {others:.3g} µs an iteration; the first one, in Python, {first:.3g}"
        if self.native is False or (self.reason and not self.native):
            state = f"in Python: {self.reason}"
        return f"{self.name}, {self.file}:{self.line} `{self.text}`: {state}"


def report(site: Site) -> LoopReport:
    """The report of one loop."""
    return LoopReport(
        site.name,
        site.file,
        site.source.line,
        site.source.text,
        site.native,
        site.reason,
        site.times,
    )


@dataclass(frozen=True)
class OtherLoops:
    """What is not listed of the functions with loops that a model may call.

    Attributes:
        n_loops: loops that ran, but not over tensors, or did not run in a function that was called.
        n_functions: functions with loops that were not called.
    """

    n_loops: int
    n_functions: int
    name: str = "others"

    def __str__(self) -> str:
        return (
            f"not listed: {self.n_loops} loops that did not run over tensors, "
            f"{self.n_functions} functions with loops that were not called"
        )


def reports(callers: list[Caller]) -> list[LoopReport | OtherLoops]:
    """The loops over tensors that ran, and a count of the others."""
    redirects = {redirect: None for caller in callers for redirect in caller.redirects}
    sites = [site for redirect in redirects for site in redirect.sites]
    ran = [site for site in sites if site.native is not None and site.over_tensors]
    by_place = sorted(ran, key=lambda s: (s.file, s.source.line))
    found: list[LoopReport | OtherLoops] = [report(site) for site in by_place]
    waiting = sum(redirect.form is None and not redirect.settled for redirect in redirects)
    if waiting or len(sites) > len(ran):
        found.append(OtherLoops(len(sites) - len(ran), waiting))
    return found


@dataclass(frozen=True)
class LoopsExplanation:
    """How the loops of a call ran.

    Attributes:
        loops: each loop, with the explanation of its step; None where it ran in Python.
    """

    loops: tuple[tuple[LoopReport, Explanation | None], ...]

    @property
    def native(self) -> bool:
        """Whether every loop ran as a scan."""
        return all(loop.native for loop, _ in self.loops)

    @property
    def reason(self) -> str:
        """Why loops ran in Python, or ""."""
        return "; ".join(loop.reason for loop, _ in self.loops if loop.reason)

    def __str__(self) -> str:
        return "\n".join(
            str(loop) if step is None else f"{loop}\n{step}" for loop, step in self.loops
        )


def explain(
    step: Callable[..., Any], *arguments: Any, **named: Any
) -> Explanation | LoopsExplanation:
    """Explain how `scan` runs a step, or the loops of a function: natively, or why not.

    A step is recorded and verified as at its first call of `scan`: its first time steps run in
    the engine and in the Python loop; the whole sequence is not computed. A step that keeps state
    in attributes runs over the whole sequence once, and what it changed is put back. A function
    made by `ostinato.loop`, a model whose code calls such functions, or a model after
    `accelerate(model, loops=True)` is called once with the arguments.

    Args:
        step: a step, followed by `init` and `xs` as for `scan`, and `dim=`, `memory=`,
            `truncate=`; or a function with loops, or a model, followed by its arguments.

    Returns:
        An `Explanation`, or one for each loop; to be printed or read by attribute.

    Raises:
        TypeError: the function or model has no loop known to ostinato; or as `scan`, or as the
            function.
        ValueError: as `scan`, or as the function.

    Example:
        >>> import torch, ostinato
        >>> W = torch.randn(8, 8)
        >>> def step(h, x):
        ...     return torch.tanh(x + h @ W)
        >>> e = ostinato.explain(step, torch.zeros(4, 8), torch.randn(20, 4, 8))
        >>> e.native, e.loop_products, e.loop_ops
        (True, (Product(depth=8, width=8),), ('copy', 'tanh'))
    """
    is_step = _is_call_of_scan(arguments, named)
    holders = _with_loops(step, is_step)
    if not holders:
        if not is_step:
            name = getattr(step, "__qualname__", type(step).__name__)
            if _is_decorated(step):
                raise TypeError(
                    f"explain: {name} has no `for` loop over time that ostinato can run "
                    "(`while` loops stay in Python)"
                )
            raise TypeError(
                f"explain: no loop of {name} is known to ostinato: decorate the function with "
                "@ostinato.loop, or call accelerate(model, loops=True) before; for a step: "
                "explain(step, init, xs)"
            )
        return _of_step(step, *arguments, **named)
    with steps_of_loops() as steps:
        step(*arguments, **named)
    found = dict(steps)
    sites = {id(s): s for holder in holders for s in loops_in(holder)}.values()
    by_place = sorted(sites, key=lambda s: (s.file, s.source.line))
    return LoopsExplanation(tuple([(report(s), found.get(id(s))) for s in by_place]))


def _of_step(
    step: Step,
    init: Tree,
    xs: Tree,
    *,
    dim: int = 0,
    memory: int | str | None = None,
    truncate: int | None = None,
) -> Explanation:
    a = checked(step, init, xs, dim, False, memory=memory, truncate=truncate)
    return explained(a, _with_state)


def _with_state(a: Arguments) -> Explanation | None:
    """How the loop of a step with state in attributes runs. It is computed once, and undone."""
    from ostinato.compiler.capture.guards.observation import Observation

    step = a.given
    holding: Any = lambda: step  # noqa: E731  a function from which the search begins
    reached = [t for _, _, t, _ in Memory(holding).versions.values()]
    may_change = [t for t in reached if not (t.is_leaf and t.requires_grad)]
    copies = [(t, t._version, t.detach().clone()) for t in may_change]
    observation = Observation(step, places=a.places)
    try:
        with observation, torch.no_grad():  # it saves what the step can change
            a.flat(a.init_leaves, a.first_x)
        observation.snapshots.put_back()
        with steps_of_loops() as found:
            scanned(a)
    finally:
        observation.snapshots.put_back()
        for t, version, content in copies:
            if t._version != version:
                t.detach().copy_(content)
    return next((of for _, of in reversed(found) if of.native), None)


@contextmanager
def steps_of_loops() -> Iterator[list[tuple[int, Explanation]]]:
    """Collect (id of the `Site`, `Explanation`) of each loop that runs as a scan inside."""
    before, explaining.found = explaining.found, []
    try:
        yield explaining.found
    finally:
        explaining.found = before


def _is_call_of_scan(arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether these are arguments of a step: `init` and `xs`, and the options of scan."""
    of_scan = {"init", "xs"} & named.keys()
    options = {"dim", "memory", "truncate"}
    return len(arguments) + len(of_scan) == 2 and named.keys() <= of_scan | options


def _is_decorated(function: Any) -> bool:
    """Whether a function, or the forward of a module, was given to `ostinato.loop`."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, torch.nn.Module):
        function = function.forward
    return hasattr(function, "__ostinato_loops__")


def _with_loops(function: Any, is_step: bool) -> list[Any]:
    """The functions with loops known to us that a call runs, and the callers of such functions.

    If it may be a step, since the call looks like `explain(step, init, xs)`, these are not what
    the function calls.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        of_module = isinstance(function.__self__, torch.nn.Module) and not is_step
        if not of_module or hasattr(function, "__ostinato_loops__"):
            function = function.__func__
        else:
            function = function.__self__
    if loops_in(function) or isinstance(getattr(function, "__ostinato_loops__", None), Caller):
        return [function]
    if is_step and not isinstance(function, torch.nn.Module):
        return []
    callers = callers_of(function) if isinstance(function, torch.nn.Module) else []
    return [*[c for c in callers if c.redirects], *[f for f in reached([function]) if loops_in(f)]]
