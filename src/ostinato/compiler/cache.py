"""Recorded steps, kept between calls.

    bucket     all that is known of one code with arguments of one kind
    entry      one set of guards, and the compiled step that is played where they hold
    compiled   one recording, ready to play; entries share it where the step did the same

A step whose guards are opaque, or that varies without end, is *searched*: it is run once a call,
and played from the recording whose operations were the same.
"""

from __future__ import annotations

import types
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ostinato.compiler.capture.captures import Search, search_step
from ostinato.compiler.capture.guards import Guards, Observation
from ostinato.compiler.errors import (
    NOT_OF_A_STEP,
    Elsewhere,
    SideEffect,
    Unsupported,
    error_in_short,
)
from ostinato.compiler.inputs import check_tensors, described, modes, unplayable
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.play.step import CompiledStep

ENGINES = ("native", "reference", "eager")
MAX_BUCKETS = 128
MAX_ENTRIES = 64  # of a bucket; a step that varies more often is searched
WARN_AFTER = 8  # recordings of one piece of code


class Entry(NamedTuple):
    guards: Guards
    positions: list[int]  # of the captured tensors among those that the guards find
    described: Any  # the tensors that the guards find: dtypes, shapes, which are one and the same
    compiled: CompiledStep | None
    refusal: Unsupported | None  # why there is none


class Found(NamedTuple):
    compiled: CompiledStep | None
    captured: list[Tensor]
    refusal: Unsupported | None = None
    guards: Guards | None = None


@dataclass
class Bucket:
    """What is known of one code with arguments of one kind.

    Attributes:
        hints: the entry that fitted last, by the id of the object that the step is a method of, or
            closes over. Twenty modules of one class then cost as much as one.
        by_operations: what a run of the step did → the recording of it.
        searched: why the step is run once a call, or None.
        refusal: why the loop plays whatever the guards say: a side effect, say.
    """

    entries: list[Entry] = field(default_factory=list)
    hints: dict[int, Entry] = field(default_factory=dict)
    by_operations: dict[Any, CompiledStep] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    searched: str | None = None
    refusal: Unsupported | None = None
    waited: int = 0
    changed: str = ""  # what the last guards that failed were about

    def fitting(self, step: Any) -> Found | None:
        """The entry whose guards hold."""
        owner = _owner(step)
        hint = self.hints.get(owner)
        if hint is not None:
            found = self._try(hint, step)
            if found is not None:
                return found
        for entry in self.entries:
            if entry is not hint:
                found = self._try(entry, step)
                if found is not None:
                    if len(self.hints) > 4 * MAX_ENTRIES:
                        self.hints.clear()
                    self.hints[owner] = entry
                    return found
        return None

    def _try(self, entry: Entry, step: Any) -> Found | None:
        tensors = entry.guards.tensors(step)
        if tensors is None:
            self.changed = entry.guards.changed
            return None
        if described(tensors) != entry.described:
            self.changed = "the shape or dtype of a captured tensor, or whether it wants gradients,"
            return None
        captured = [tensors[i] for i in entry.positions]
        return Found(entry.compiled, captured, entry.refusal, entry.guards)

    def waits(self) -> bool:
        """Whether the loop plays, unseen: a refused step is looked at ever more rarely."""
        if self.refusal is None:
            return False
        self.waited += 1
        return self.waited & (self.waited - 1) != 0

    def refuse(self, refusal: Unsupported) -> Found:
        if self.refusal is None:
            self.waited = 0
        self.refusal = refusal.bare()
        return Found(None, [], self.refusal)


_buckets: dict[Any, Bucket] = {}
_recordings: dict[Any, int] = defaultdict(int)  # by code
_suspected: set[Any] = set()
_warned: set[Any] = set()


def engine() -> str:
    """The way to play: OSTINATO_ENGINE, by default the native engine."""
    name = native.environment("OSTINATO_ENGINE")
    if name is None:
        return "native"
    if name not in ENGINES:
        raise ValueError(f"OSTINATO_ENGINE={name}: wanted one of {', '.join(ENGINES)}")
    return name


def find(a: Arguments) -> Found:
    """The recorded step for these arguments, recorded now if it is new; and what it captures.

    Raises:
        Unsupported: these tensors cannot be played, whatever the step. Where that is not the
            step's doing, Elsewhere.
    """
    leaves = native.described([], a.leaves, a.xs_leaves, int(a.of_layer))
    if leaves is None:
        raise unplayable(a.leaves, a.xs_leaves, int(a.of_layer))
    code = code_key(a.given)
    key = (
        code, leaves, a.carry_spec, a.xs_spec, a.step is a.given, a.variant, modes(), engine()
    )  # fmt: skip
    bucket = _buckets.get(key)
    if bucket is None:
        bucket = _buckets[key] = Bucket()
        while len(_buckets) > MAX_BUCKETS:  # the one that was made first
            _buckets.pop(next(iter(_buckets)), None)
    if a.weights is not None:
        return _with_weights(a, a.weights, bucket)
    found = bucket.fitting(a.given)
    if found is not None:
        return found
    if bucket.waits():
        return Found(None, [], bucket.refusal)
    if bucket.searched is None and len(bucket.entries) >= MAX_ENTRIES:
        bucket.searched = f"{bucket.changed} changes again and again"
    if bucket.searched is not None:
        found = _searched(a, bucket)
        if found is not None:
            return found
    return _observed(a, bucket)


def forget(step: Any) -> None:
    """Record `step` anew at its next call of `scan`.

    Guards notice what the step's own code read. For what they cannot see (docs/semantics.md), say
    so with this.

    Args:
        step: the function, or another one of the same code.

    Example:
        >>> import ctypes, torch, ostinato
        >>> scale = ctypes.c_double(1.0)  # in C: nobody sees it change
        >>> step = lambda h, x: (h + x) * scale.value
        >>> _ = ostinato.scan(step, torch.zeros(2, 3), torch.ones(4, 2, 3))
        >>> scale.value = 0.5
        >>> ostinato.forget(step)
    """
    code = code_key(step)
    for key in [key for key in _buckets if key[0] == code]:
        _buckets.pop(key, None)


def _with_weights(a: Arguments, weights: list[Tensor], bucket: Bucket) -> Found:
    """A layer's step: it says itself which tensors it takes, so nothing has to be guarded."""
    key = described(weights)
    if type(key) is tuple:
        check_tensors(weights)
    compiled = bucket.by_operations.get(key)
    if compiled is None:
        try:
            compiled = bucket.by_operations[key] = _compiled(a, weights, None)
        except Unsupported as refusal:
            return Found(None, [], refusal.bare())
    return Found(compiled, weights)


def _searched(a: Arguments, bucket: Bucket) -> Found | None:
    """The recording of what a run of the step does now; None where it does something new."""
    try:
        search = search_step(a)
    except Elsewhere:
        raise
    except Unsupported as refusal:
        return bucket.refuse(refusal)
    compiled = bucket.by_operations.get(search.did)
    if compiled is None or search.unclear or search.keeps_some():
        return None
    bucket.refusal = None
    return Found(compiled, search.captured)


def _observed(a: Arguments, bucket: Bucket) -> Found:
    """Record a step that is new, or that reads other values than before."""
    search, compiled, why = None, None, None
    try:
        observation = Observation(a.given, bucket.names)
    except Unsupported as refusal:
        return bucket.refuse(refusal)
    try:
        search, compiled = _recorded(a, bucket, observation)
    except Unsupported as refusal:
        why = refusal.bare()  # its frames hold tensors, and this one
    except (*NOT_OF_A_STEP, KeyboardInterrupt):
        observation.snapshots.put_back()
        raise
    except Exception as error:
        observation.snapshots.put_back()
        a.flat(a.init_leaves, a.first_x)  # a mistake in it is raised here, as by the loop
        why = Unsupported(f"the step fails while it is watched ({error_in_short(error)})")
    effects = observation.snapshots.refusal()
    if effects is not None or why is not None:  # the loop plays, and must not find them
        observation.snapshots.put_back()
    if isinstance(why, Elsewhere):
        raise why
    if effects is not None:
        return bucket.refuse(effects)
    guards, tensors = observation.guards()
    bucket.names |= guards.names
    if search is None or compiled is None:
        assert why is not None
        if guards.opaque is not None:
            return bucket.refuse(why)
        bucket.entries.insert(0, Entry(guards, [], described(tensors), None, why))
        return Found(None, [], why)
    return _entered(bucket, guards, tensors, search, compiled)


def _recorded(
    a: Arguments, bucket: Bucket, observation: Observation
) -> tuple[Search, CompiledStep]:
    """Run the step, and record it unless it did what it did before."""
    with observation:
        search = search_step(a)
    effects = observation.snapshots.refusal()
    if effects is not None:
        raise effects
    compiled = bucket.by_operations.get(search.did)
    if search.keeps_some():
        raise Unsupported(
            "the step keeps a tensor that it made, in a cache, say; compute it before, or let the "
            "carry hold it"
        )
    if compiled is None or search.unclear:
        compiled = _compiled(a, search.captured, observation, bucket.changed)
    return search, compiled


def _entered(
    bucket: Bucket, guards: Guards, tensors: list[Tensor], search: Search, compiled: CompiledStep
) -> Found:
    """Keep a recording under its guards, or by its operations alone where these are opaque."""
    at = {id(t): i for i, t in enumerate(tensors)}
    opaque = guards.opaque
    if any(id(t) not in at for t in search.captured):
        opaque = opaque or "no path leads to a tensor that it takes from outside"
    runs_python_backward = compiled.planner.recording.runs_python_backward
    if opaque is not None and (search.unclear or runs_python_backward):
        which = "hands torch an object that is no plain number"
        if runs_python_backward:
            which = "has a backward pass in Python (a custom autograd.Function, or hooks)"
        return bucket.refuse(Unsupported(f"the step {which}, and {opaque}"))
    bucket.refusal = None
    if not search.unclear and not runs_python_backward:
        bucket.by_operations[search.did] = compiled
        while len(bucket.by_operations) > MAX_ENTRIES:
            bucket.by_operations.pop(next(iter(bucket.by_operations)), None)
    captured = search.captured
    if opaque is not None:
        bucket.searched = opaque
        return Found(compiled, captured)
    entry = Entry(guards, [at[id(t)] for t in captured], described(tensors), compiled, None)
    bucket.entries.insert(0, entry)
    return Found(compiled, captured, None, guards)


def _compiled(
    a: Arguments, captured: list[Tensor], observation: Observation | None, changed: str = ""
) -> CompiledStep:
    """Count and compile; changed: what is not as it was at the recording before."""
    from ostinato.compiler import compile_step

    code = code_key(a.given)
    _recordings[code] += 1
    ours = a.weights is not None or str(getattr(a.given, "__module__", "")).startswith("ostinato.")
    if _recordings[code] == WARN_AFTER + 1 and not ours:
        warnings.warn(
            f"{name_of(a.given)} was recorded {WARN_AFTER} times: {changed or 'a shape or dtype'} "
            "changes between calls; pass what changes through xs, or as a tensor",
            stacklevel=10,
        )
    return compile_step(a, captured, observation, engine())


def refuse(step: Any, refusal: Unsupported | None) -> None:
    """Say once per step function why the eager loop plays it."""
    if refusal is None:
        return
    key = code_key(step), refusal.reason
    if isinstance(refusal, SideEffect) and key not in _suspected:
        _suspected.add(key)  # it may happen once, as when a memo is filled: said the next time
        return
    if key in _warned:
        return
    _warned.add(key)
    operation = f" ({refusal.op})" if refusal.op else ""
    warnings.warn(
        f"scan plays {name_of(step)} with the slow loop: {refusal.reason}{operation}. "
        "ostinato.explain(step, init, xs) says more; OSTINATO_ENGINE=eager silences this",
        stacklevel=5,
    )


def code_key(step: Any) -> Any:
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


def _owner(step: Any) -> int:
    """The id of the object that a step is a method of, or closes over: a hint."""
    if isinstance(step, types.MethodType):
        return id(step.__self__)
    if isinstance(step, types.FunctionType) and step.__closure__:
        try:
            return id(step.__closure__[0].cell_contents)
        except ValueError:  # a variable that is not bound yet
            return id(step)
    return id(step)
