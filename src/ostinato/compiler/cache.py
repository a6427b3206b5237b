"""Recorded steps, kept between calls."""

from __future__ import annotations

import itertools
import types
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.capture.captures import search_captured
from ostinato.compiler.captures import reach
from ostinato.compiler.errors import NOT_OF_A_STEP, Elsewhere, Unsupported, error_in_short
from ostinato.compiler.play.step import Player
from ostinato.compiler.purity import changes_of, purity_of
from ostinato.compiler.torch_compat import default_devices, is_searching, transformed
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.recording import Recording
    from ostinato.compiler.traces import Traces
    from ostinato.compiler.walk import Reach

ENGINES = ("native", "reference", "eager")
MAX_ENTRIES = 128
WARN_AFTER = 8  # recordings of one piece of code
# After so many it is searched each time it is new: what changes may be nothing that the step uses.
SEARCH_AFTER = 3


def engine() -> str:
    """The way to play: OSTINATO_ENGINE, by default the native engine."""
    name = native.environment("OSTINATO_ENGINE")
    if name is None:
        return "native"
    if name not in ENGINES:
        raise ValueError(f"OSTINATO_ENGINE={name}: wanted one of {', '.join(ENGINES)}")
    return name


@dataclass
class Entry:
    """A recorded step, or why it cannot be played."""

    player: Player | None
    positions: list[int] | None  # of the captured tensors among those reached; None: search
    refusal: Unsupported | None = None
    small: Recording | None = None  # on three rows, to compare other batch sizes with
    # batch size → None where it was compared with the eager loop, or why the loop must play it
    verified: dict[int, Unsupported | None] = field(default_factory=dict)
    used: int = 0  # at which use of the cache, last


# Attributes of a tensor that change where nothing is set: by a backward pass, or in place.
_HISTORY = {"grad", "_grad", "_version"}
_entries: dict[Any, Entry] = {}
_uses = itertools.count(1)
_recordings: dict[Any, int] = defaultdict(int)
_warned: set[Any] = set()


def find(a: Arguments, engine_name: str) -> tuple[Entry, list[Tensor]]:
    """The recorded step for these arguments, recorded now if it is new; and what it captures.

    Raises:
        Unsupported: these tensors cannot be played, whatever the step. Where that is not the
            step's doing, Elsewhere.
    """
    modes = _modes()
    reached = reach(a.given)
    captured = reached.tensors if reached.complete else []
    metas: Any = None
    described = native.described(captured, a.leaves, a.xs_leaves, int(a.of_layer))
    if described is None:
        described, metas = _unusual(captured, a)
    inputs = described, a.carry_spec, a.xs_spec, a.step is a.given, modes, engine_name
    key: Any = None
    if reached.complete:
        key = reached.signature, metas, inputs
        entry = _entries.get(key)
        if entry is not None and entry.refusal is not None:
            entry.used = next(_uses)
            return entry, []
        if entry is not None and entry.positions is not None:
            entry.used = next(_uses)
            captured = [captured[i] for i in entry.positions]
            if metas is not None:
                check_tensors(captured)
            return entry, captured
    code = _code(a.given)
    purity = purity_of(code)
    if purity.waits():
        return Entry(None, None, purity.why), []
    from ostinato.compiler.traces import Traces  # and numpy.random: not a part of every start

    try:
        world = purity.suspects(a.given, inputs)
    except Unsupported as refusal:
        purity.is_not(refusal.bare())
        return Entry(None, None, purity.why), []
    if world is not None and purity.first_sees(world.found.missing):
        missing = ", ".join(sorted(world.found.missing)[:3])
        raise Elsewhere(
            f"the step may be the first to import {missing}, which cannot be undone: import it "
            "before, or look at a later call"
        )
    traces = Traces(None if world is None else world.containers)
    try:
        entry, captured = _searched(a, code, reached, key, inputs, engine_name, traces)
    except Unsupported:
        traces.put_back()
        raise
    if entry.refusal is not None:  # the loop plays, and must not find a trace of the search
        traces.put_back()
    elif world is not None and not reached.complete:
        purity.is_so(a.given, world, inputs)
    return entry, captured


def _searched(
    a: Arguments,
    code: Any,
    reached: Reach,
    key: Any,
    inputs: Any,
    engine_name: str,
    traces: Traces,
) -> tuple[Entry, list[Tensor]]:
    """As `find`, for a step that is new, or reaches what cannot be watched (no key)."""
    entry: Entry
    try:
        search, result = search_captured(a.step, a.init, a.first_x())
    except NOT_OF_A_STEP:
        raise
    except Exception as error:
        if isinstance(error, Unsupported):
            entry = Entry(None, None, error.bare())
        else:
            traces.put_back()
            a.step(a.init, a.first_x())  # a mistake in it is raised here, as by the loop
            reason = f"the step fails while it is watched ({error_in_short(error)})"
            entry = Entry(None, None, Unsupported(reason))
        if key is not None:
            _keep(key, entry)
        return entry, []
    a.check(result)
    search.finish(result)
    del result
    captured = search.captured
    check_tensors(captured)
    positions: list[int] | None = None
    if reached.complete:
        at = {id(t): i for i, t in enumerate(reached.tensors)}
        if all(id(t) in at for t in captured):
            positions = [at[id(t)] for t in captured]
    if positions is None and search.unclear:
        unclear = Unsupported(
            "it hands torch an object that is no plain number, and no path leads to all that it "
            "reaches: a change there would not be seen"
        )
        return Entry(None, None, unclear), []
    changes = changes_of(traces)
    if search.changed():
        changes = Unsupported("the step changes its carry, its input or a captured tensor in place")
    if changes is not None:  # by another thread, perhaps: no word on the next time
        purity_of(code).is_not(changes)
        return Entry(None, None, changes), []
    purity_of(code).why = None
    # What it did, where what it reaches does not say all, or says more than it uses.
    did: Any = None
    if positions is None or (_recordings[code] >= SEARCH_AFTER and not search.unclear):
        did = ("searched", code, tuple(search.trail)), _metas(captured), inputs
        known = _entries.get(did)
        if known is not None:
            known.used = next(_uses)
            return known, captured
    if search.keeps_some():
        kept = Unsupported(
            "the step keeps a tensor that it made, in a cache, say; compute it before, or let the "
            "carry hold it"
        )
        entry = Entry(None, None, kept)
    else:
        entry = _recorded(a, captured, engine_name, positions, reached)
        changes = changes_of(traces)  # in the backward pass
        if changes is not None:
            entry = Entry(None, None, changes)
    if positions is not None:
        _keep(key, entry)
    if did is not None and not (entry.small and entry.small.runs_python_backward):
        _keep(did, entry)
    return entry, captured


def _modes() -> Any:
    """The modes that a recording depends on.

    Raises:
        Elsewhere: the eager loop must play, whatever the step and the tensors are.
    """
    reason = native.unavailable()
    if reason is not None:
        raise Elsewhere(reason)
    usual = None if is_searching() else native.modes()
    if usual is not None:
        return usual
    reason = transformed()
    if reason is not None:
        raise Elsewhere(reason)
    return (
        torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(), default_devices(),
    )  # fmt: skip


def _unusual(captured: list[Tensor], a: Arguments) -> tuple[bytes, Any]:
    """What a recording depends on of leaves, and of captured tensors that are no plain ones.

    Raises:
        Unsupported: init or xs cannot be played, whatever the step; see `find`.
    """
    axis = int(a.of_layer)
    described = native.described([], a.leaves, a.xs_leaves, axis)
    if described is None:
        raise _unplayable(a.leaves, a.xs_leaves, axis)
    return described, _metas(captured)


def _unplayable(init: list[Tensor], xs: list[Tensor], axis: int) -> Unsupported:
    """Why these leaves cannot be played; the rows of init lie along `axis`."""
    try:
        check_tensors([*init, *xs])
    except Elsewhere as reason:
        return reason
    n_rows = {leaf.shape[axis] if leaf.dim() > axis else None for leaf in init}
    if None in n_rows or len(n_rows) > 1:
        return Unsupported("a leaf of init without the batch as its first axis")
    if n_rows == {0}:
        return Elsewhere("there are no rows")
    if any(x.dim() < 2 or x.shape[1] not in n_rows for x in xs):
        return Unsupported("a leaf of xs without the batch as its first axis beside time")
    return Elsewhere("a tensor is of a kind that the engine does not know")


def _keep(key: Any, entry: Entry) -> None:
    entry.used = next(_uses)
    _entries[key] = entry
    while len(_entries) > MAX_ENTRIES:
        oldest = min(list(_entries.items()), key=lambda item: item[1].used)  # others may add some
        _entries.pop(oldest[0], None)


def _recorded(
    a: Arguments,
    captured: list[Tensor],
    engine_name: str,
    positions: list[int] | None,
    reached: Reach,
) -> Entry:
    # And with it the compiler: not a part of every start.
    from ostinato.compiler.capture.record import record
    from ostinato.compiler.plan import Planner

    code = _code(a.given)
    _recordings[code] += 1
    module = str(getattr(a.given, "__module__", None))
    if _recordings[code] == WARN_AFTER + 1 and not module.startswith("ostinato."):
        warnings.warn(
            f"{name_of(a.given)} was recorded {WARN_AFTER} times: a shape, a constant, a flag that "
            "it uses or which tensors want gradients changes between calls; pass what changes "
            "through xs, or as a tensor",
            stacklevel=8,
        )
    try:
        dtype = a.init_leaves[0].dtype
        if dtype not in (torch.float32, torch.float64):
            raise Unsupported(f"the carry is {dtype}; the engine plays float32 and float64")
        outside = {id(t) for t in reached.tensors}
        recording, small = record(a.step, a.init, a.first_x(), captured, a.split, outside)
        if recording.runs_python_backward:
            of_python = "its backward pass runs Python code (a custom autograd.Function, or hooks)"
            if positions is None:
                raise Unsupported(
                    f"{of_python}, and no path leads to all that the step reaches: a change there "
                    "would not be seen"
                )
            if not _HISTORY.isdisjoint(reached.names):
                raise Unsupported(
                    f"{of_python}, and what the step reaches reads .grad or ._version: read them "
                    "before the scan"
                )
        if torch.is_inference_mode_enabled() and "is_inference_mode_enabled" in reached.names:
            raise Unsupported(
                "the step asks for inference mode, in which nothing is recorded: use torch.no_grad"
            )
        if any(0 in shape for shape in recording.shapes):
            raise Unsupported("a tensor in it is empty, where the engine has nothing to play")
        planner = Planner(recording, dtype)
        planner.check()
        return Entry(Player(planner, dtype, engine_name), positions, None, small)
    except Unsupported as refusal:
        return Entry(None, positions, refusal.bare())


def refuse(step: Any, refusal: Unsupported | None) -> None:
    """Say once per step function why the eager loop plays it."""
    key = _code(step), None if refusal is None else refusal.reason
    if key in _warned or refusal is None:
        return
    _warned.add(key)
    operation = f" ({refusal.op})" if refusal.op else ""
    warnings.warn(
        f"scan plays {name_of(step)} with the slow loop: {refusal.reason}{operation}. "
        "ostinato.explain(step, init, xs) says more; OSTINATO_ENGINE=eager silences this",
        stacklevel=5,
    )


def _code(step: Any) -> Any:
    """What stays the same when a closure, a method or a class is made anew; keeps none alive."""
    step = _unwrapped(step)
    if isinstance(step, types.MethodType):
        step = step.__func__
    if isinstance(step, types.FunctionType):
        return step.__code__
    return type(step).__module__, type(step).__qualname__


def name_of(step: Any) -> str:
    step = _unwrapped(step)
    if isinstance(step, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return step.__qualname__
    return type(step).__name__


def _unwrapped(step: Any) -> Any:
    while isinstance(step, types.FunctionType) and "__wrapped__" in vars(step):
        step = vars(step)["__wrapped__"]
    return step


def _metas(tensors: list[Tensor]) -> Any:
    """As `native.described`, of any tensors, and which of them are one and the same."""
    first: dict[int, int] = {}
    return tuple(
        [
            (type(t), t.shape, t.dtype, t.device, t.requires_grad, first.setdefault(id(t), i))
            for i, t in enumerate(tensors)
        ]
    )


def check_tensors(tensors: Sequence[Any]) -> None:
    """Raise Elsewhere if these tensors need the eager loop, whatever the step."""
    for t in tensors:
        if type(t) is not Tensor and type(t) is not torch.nn.Parameter:
            raise Elsewhere(f"a {type(t).__name__} is not a plain tensor")
        if not t.is_cpu:
            raise Elsewhere(f"a tensor is on {t.device}")
        if t.layout is not torch.strided:
            raise Elsewhere(f"a tensor has the layout {t.layout}")
        if torch._C._functorch.is_functorch_wrapped_tensor(t):
            raise Elsewhere("a tensor comes from inside a torch.func transform that has ended")
        if t.is_neg():
            raise Elsewhere("a tensor has other signs than its memory, as .conj().imag has")
