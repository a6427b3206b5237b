"""Recorded steps, kept between calls.

    bucket    all recordings of one code with arguments of one kind
    entry     one set of guards, and the compiled step to play if they hold; entries share it if the
              step did the same operations
    owner     the object that a step is a method of, or closes over. It remembers the entry that
              fitted last, so that twenty modules of one class do not try each other's guards

A step whose guards are opaque, or that varies without end, is *searched*: it is run once a call,
and played from the recording whose operations were the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ostinato.compiler.capture.captured_rows import CapturedRows, parted
from ostinato.compiler.errors import (
    NOT_OF_A_STEP,
    Elsewhere,
    Spared,
    Unexamined,
    Unsupported,
    error_in_short,
)
from ostinato.compiler.inputs import check_tensors, described, modes
from ostinato.compiler.lock import one_at_a_time
from ostinato.compiler.steps import (
    WARN_AFTER,
    code_key,
    count_recording,
    owner_of,
    remedy,
    weak_reference,
)
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.captures import Search
    from ostinato.compiler.capture.guards.observation import Guards, Observation
    from ostinato.compiler.play.step import CompiledStep

ENGINES = ("native", "reference", "eager")
MAX_BUCKETS = 128
# After this many entries, a new value runs in the Python loop if that takes less time than
# recording.
SPARED_AFTER = WARN_AFTER
MAX_ENTRIES = 64  # in a bucket; a step that varies more often is searched


class Found(NamedTuple):
    """How a call runs: a recorded step with its captured tensors, or the Python loop, and why."""

    compiled: CompiledStep | None
    captured: list[Tensor]
    refusal: Unsupported | None = None  # why the step is not compiled
    guards: Guards | None = None
    lifted: Mapping[str, Tensor] | None = None  # path of a Python float → its tensor, captured


class Entry(NamedTuple):
    """The recording of a step under one set of guards, or the refusal."""

    guards: Guards
    positions: list[int]  # of the captured tensors among those that the guards find
    rows: tuple[CapturedRows, ...]  # those of the tensors that have the batch's rows, by position
    described: Any  # the tensors that the guards find, and the leaves of init and xs
    compiled: CompiledStep | None
    refusal: Unsupported | None
    layout: Any = None  # of these tensors and leaves, if the step asks for one

    def fits(self, tensors: list[Any], a: Arguments) -> bool:
        """Whether the recording fits these tensors and leaves."""
        if self.layout is not None and self.layout != _layout(tensors, a):
            return False
        if not self.rows:
            return described(tensors, a) == self.described
        try:
            found = described_with_rows(tensors, self.rows, a)
        except Elsewhere:
            raise
        except Unsupported:  # a tensor has become unsupported
            return False
        return found is not None and found == self.described

    def found(self, tensors: list[Any]) -> Found:
        """The result of the entry for a call.

        Args:
            tensors: the tensors that the guards read in this call, among them the captured ones.
        """
        captured = [tensors[i] for i in self.positions]
        numbers = self.guards.lifted
        lifted = {path: tensors[i] for path, i in numbers.items()} if numbers else None
        return Found(self.compiled, captured, self.refusal, self.guards, lifted)


@dataclass(slots=True)
class Owner:
    """The recordings of the steps of one object.

    Attributes:
        of: a weak reference to it.
        hint: the entry that fitted last.
        searched: whether the step is run once a call, since its guards are opaque.
        refusal: why the Python loop runs if no guards fit: a side effect, or too many recordings.
        known: the trail of a searched step's last run, if that wrote into no memory.
        waited: the number of calls since then that no guards fitted. A call that fits does not
            reset it: a value may be used twice before the next one is new.
    """

    of: Callable[[], Any]
    hint: Entry | None = None
    searched: bool = False
    known: tuple[Any, ...] = ()
    refusal: Unsupported | None = None
    waited: int = 0

    def waiting(self) -> Found | None:
        """The loop, without observing the step; None at calls 1, 2, 4, 8, …"""
        self.waited += 1
        return Found(None, [], self.refusal) if self.waited & (self.waited - 1) else None

    def refuse(self, refusal: Unsupported) -> Found:
        """Remember why the step cannot be compiled, and run this call in the Python loop."""
        if self.refusal is None:
            self.waited = 0
        self.refusal = refusal.bare()
        return Found(None, [], self.refusal)


@dataclass
class Bucket:
    """The recordings of one code with arguments of one kind.

    Attributes:
        owners: the owners by id, which may later be another object's.
        by_operations: the operations of a run of the step → its recording. For a layer's step: the
            description of its weights → the result.
        codes: the code that observed runs found, by id, for the next observation.
        failed: the paths of the guards that failed in this call; "" is a shape.
        lifts: path of a value that changes → whether it is taken as a tensor, if it is a float.
    """

    entries: list[Entry] = field(default_factory=list)
    owners: dict[int, Owner] = field(default_factory=dict)
    by_operations: dict[Any, Any] = field(default_factory=dict)
    codes: dict[int, CodeType] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    lifts: dict[str, bool] = field(default_factory=lambda: {"": False})

    def is_full(self) -> bool:
        return max(len(self.entries), len(self.by_operations)) >= MAX_ENTRIES

    def owner(self, step: Any) -> Owner:
        """The entry of the object that a step belongs to; a new one if there is none."""
        of = owner_of(step)
        known = self.owners.get(id(of))
        if known is None or known.of() is not of:
            known = self.owners[id(of)] = Owner(weak_reference(of))
            _bound(self.owners, 4 * MAX_ENTRIES)
        return known

    def fitting(self, owner: Owner, a: Arguments) -> Found | None:
        """The recording whose guards hold."""
        n_rows = 0 if a.numbers is None else a.n_rows
        for entry in (owner.hint, *self.entries):
            if entry is None:
                continue
            tensors = entry.guards.tensors(a.given, n_rows)
            tensors = None if tensors is None else _as_plain(tensors, a)
            if tensors is not None and entry.fits(tensors, a):
                owner.hint = entry
                return entry.found(tensors)
            self.failed.append(entry.guards.changed if tensors is None else "")
        return None


def _as_plain(tensors: list[Any], a: Arguments) -> list[Any]:
    """The tensors, with stand-ins for those that transforms around the call have wrapped."""
    return tensors if a.stand_ins is None else a.stand_ins.all_plain(tensors)


def _unread(a: Arguments) -> set[int]:
    """The ids of tensors whose values the step may not read; the set grows while it runs."""
    return set() if a.stand_ins is None else a.stand_ins.unread


def _layout(tensors: list[Any], a: Arguments) -> Any:
    """The memory layout of tensors and of the leaves of a call."""
    return [t.stride() for t in (*tensors, *a.leaves, *a.first_x) if isinstance(t, Tensor)]


def described_with_rows(tensors: list[Any], rows: tuple[CapturedRows, ...], a: Arguments) -> Any:
    """What `described` says where some tensors have the batch's rows; None: they have others."""
    shapes = [getattr(tensors[of.position], "shape", ()) for of in rows]
    if any(s[of.axis : of.axis + 1] != (a.n_rows,) for s, of in zip(shapes, rows, strict=True)):
        return None
    fixed, with_rows = parted(tensors, rows)
    first: dict[int, int] = {}
    same = tuple([first.setdefault(id(t), i) for i, t in enumerate(tensors)])
    return described(fixed, a, with_rows), same


_buckets: dict[Any, Bucket] = {}


def engine() -> str:
    """The engine to use: OSTINATO_ENGINE, by default the native engine."""
    name = native.environment("OSTINATO_ENGINE")
    if name is None:
        return "native"
    if name not in ENGINES:
        raise ValueError(f"OSTINATO_ENGINE={name}: wanted one of {', '.join(ENGINES)}")
    return name


def find(a: Arguments) -> Found:
    """The recorded step for these arguments, recorded now if it is new; and what it captures.

    Raises:
        Unsupported: the engine cannot play these tensors with any step; Elsewhere, if that is not
            caused by the step.
    """
    bucket = _bucket(a)
    if a.weights is not None:
        return _with_weights(a, a.weights, bucket)
    owner = bucket.owner(a.given)
    bucket.failed.clear()
    found = None if owner.searched else bucket.fitting(owner, a)
    if found is not None:
        return found
    described([], a)  # raises where these leaves cannot be played
    spared = isinstance(owner.refusal, Spared)
    crowded = bucket.is_full()
    often_new = owner.searched or crowded
    if often_new and (spared or owner.refusal is None):  # a run tells which recording it is
        found = _searched(a, bucket, owner)
    new_shape = "" in bucket.failed and not crowded  # most programs have few
    if found is None and owner.refusal is not None and not (spared and new_shape):
        found = owner.waiting()
    return found or _observed(a, bucket, owner)


def _bucket(a: Arguments) -> Bucket:
    key = (
        code_key(a.given),
        a.carry_spec,
        a.xs_spec,
        a.step is not a.given,
        a.variant,
        a.shared,
        a.answers,
        a.numbers and a.numbers.paths,
        modes(a.stand_ins),
        engine(),
    )
    bucket = _buckets.get(key)
    if bucket is None:
        bucket = _buckets[key] = Bucket()
        _bound(_buckets, MAX_BUCKETS)
    return bucket


def codes_of(step: Any) -> dict[int, CodeType]:
    """The code that ran in calls of the step, by id."""
    code = code_key(step)
    return {at: c for key, of in _buckets.items() if key[0] == code for at, c in of.codes.items()}


def find_with_numbers(a: Arguments) -> Found:
    """Record the step with its numbers unchanged: with tensors it behaves differently."""
    bucket = _bucket(a)
    owner = bucket.owner(a.given)
    bucket.lifts = dict.fromkeys(bucket.lifts, False)
    bucket.entries = [entry for entry in bucket.entries if not entry.guards.lifted]
    owner.hint = None
    return _observed(a, bucket, owner)


def _bound(known: dict[Any, Any], most: int = MAX_ENTRIES) -> None:
    """Forget the oldest entries."""
    while len(known) > most:
        known.pop(next(iter(known)), None)


def forget(code: Any) -> None:
    """Forget the recordings of the steps of this code."""
    for key in [key for key in list(_buckets) if key[0] == code]:
        _buckets.pop(key, None)


def _with_weights(a: Arguments, weights: list[Tensor], bucket: Bucket) -> Found:
    """A layer's step: it names the tensors that it takes, so that nothing has to be guarded."""
    from ostinato.compiler import compile_step

    key = described(weights, a)
    if key not in bucket.by_operations:
        check_tensors(weights)
        try:
            found = Found(compile_step(a, weights, None, engine()), [])
        except Unsupported as refusal:
            found = Found(None, [], refusal.bare())
        bucket.by_operations[key] = found
        _bound(bucket.by_operations)
    return bucket.by_operations[key]._replace(captured=weights)


def _searched(a: Arguments, bucket: Bucket, owner: Owner) -> Found | None:
    """The recording of the operations of a present run; None if they are new."""
    from ostinato.compiler.capture.captures import search_step  # not a part of every start

    try:
        search = search_step(a, owner.known, unread=_unread(a))
    except Elsewhere:
        raise
    except Unsupported as refusal:
        return owner.refuse(refusal)
    compiled = bucket.by_operations.get(search.did)
    if compiled is None or search.unclear or search.keeps_some():
        return None
    owner.known = () if search.must_watch else search.did[0]
    return Found(compiled, search.captured)


def _observed(a: Arguments, bucket: Bucket, owner: Owner) -> Found:
    """Record a step that is new, or that reads other values than before.

    If the Python loop has to run, it must not find the step's side effects: they are undone.
    """
    if not a.examined:
        raise Unexamined("its iterations were not examined in this call")
    with one_at_a_time:  # not a part of every start, and a fork waits for them
        from ostinato.compiler.capture.draws import States
        from ostinato.compiler.capture.guards.observation import Observation
        from ostinato.compiler.capture.guards.reads import as_tensor

    bucket.lifts = dict.fromkeys(bucket.failed, True) | bucket.lifts
    observation = None
    try:
        lifted = {path: as_tensor(0.0) for path, lifts in bucket.lifts.items() if lifts}
        codes, batch = bucket.codes, None
        if a.numbers is not None:
            codes, batch = {**codes, **a.numbers.codes}, (a.numbers.paths, a.n_rows)
        observation = Observation(a.given, codes, lifted, a.places, batch)
        try:
            found = _recorded(a, bucket, observation)
        except Unsupported as refusal:
            if observation.lifts or isinstance(refusal, Elsewhere):
                raise
            found = None, None, refusal.bare()  # the frames of the refusal would hold tensors
        observation.snapshots.check()
        return _kept(a, bucket, owner, observation, *found)
    except BaseException as error:
        if observation is not None:
            observation.snapshots.put_back()
            if observation.lifts and isinstance(error, Exception):
                return find_with_numbers(a)
        if isinstance(error, Unsupported) and not isinstance(error, Elsewhere):
            return owner.refuse(error)
        if not isinstance(error, Exception) or isinstance(error, (Elsewhere, *NOT_OF_A_STEP)):
            raise
        states = States()
        try:
            a.flat(a.init_leaves, a.first_x)  # a mistake in it is raised here, as by the loop
        finally:
            states.put_back()
        if observation is not None:  # the Python loop will repeat the side effects of this run
            observation.snapshots.put_back()
        why = f"the step fails while it is watched ({error_in_short(error)})"
        return owner.refuse(Unsupported(why))


def _recorded(
    a: Arguments, bucket: Bucket, observation: Observation
) -> tuple[Search | None, CompiledStep | None, Unsupported | None]:
    """Run the step, and record it unless it did what it did before.

    Returns the run and the recording; and why the Python loop runs the next calls that no guards
    fit.

    Raises:
        Unsupported: this call runs in the Python loop, too.
    """
    with one_at_a_time:  # a fork waits for these, too
        from ostinato.compiler import compile_step
        from ostinato.compiler.capture.captures import search_step

    began = time.perf_counter()
    with observation:
        unread = _unread(a)
        unread.update(id(lift.tensor) for lift in observation.lifts)
        search = search_step(a, unread=unread)
        reached = {id(t) for t in _as_plain(observation.walk.tensors, a)}
        if any(id(t) in reached for t in a.leaves):
            search = search_step(a, reached=reached, unread=unread)
        observation.read, observation.in_context = search.read, search.in_context
        check_tensors(search.captured)
    one_step = time.perf_counter() - began
    observation.snapshots.check()
    observation.renew()
    if search.keeps_some():
        raise Unsupported(
            "the step keeps a tensor that it made, in a cache, say; compute it before, or let the "
            "carry hold it"
        )
    compiled, why = bucket.by_operations.get(search.did), None
    if compiled is None or search.unclear:
        new = bucket.failed[-1] if bucket.failed else "what it does"
        counts = a.numbers is None or bucket.entries  # not one of some that are tried at first
        if counts and bucket.failed:
            count_recording(a.given, new)
        generators = search.generators.values()
        compiled = compile_step(a, search.captured, observation, engine(), generators)
        if counts and not bucket.failed:  # a refused step is tried again though nothing changed
            count_recording(a.given, new)
        compiled.y_shapes = search.y_shapes
        crowded = bucket.is_full()
        many = len(bucket.entries) >= SPARED_AFTER or crowded
        if not (search.unclear or compiled.planner.recording.runs_python_backward):
            bucket.by_operations[search.did] = compiled
            _bound(bucket.by_operations)
        lasts = a.ragged.n_steps * one_step > time.perf_counter() - began  # in the loop
        if many and not lasts and ("" not in bucket.failed or crowded):
            why = Spared(
                f"it was recorded {MAX_ENTRIES if crowded else SPARED_AFTER} times, and "
                f"{new or 'a shape'} is new again: the Python loop is faster than a recording. "
                f"{remedy(new)}"
            )
    return search, compiled, why


def _kept(
    a: Arguments,
    bucket: Bucket,
    owner: Owner,
    observation: Observation,
    search: Search | None,
    compiled: CompiledStep | None,
    why: Unsupported | None,
) -> Found:
    """Keep a recording, or its refusal, under its guards."""
    if observation.lifts and observation.tells_numbers_apart():
        raise Unsupported("the step distinguishes numbers from tensors")
    backward = () if compiled is None else compiled.planner.recording.backward_code
    guards, tensors = observation.guards(backward)
    tensors = _as_plain(tensors, a)
    bucket.codes |= guards.codes
    captured = [] if search is None else search.captured
    at = {id(t): i for i, t in enumerate(tensors)}
    if any(id(t) not in at for t in captured):
        guards.opaque = guards.opaque or "no path leads to a tensor that it takes from outside"
    owner.searched = guards.opaque is not None
    if owner.searched:
        if observation.lifts:
            raise Unsupported("a search of the step distinguishes numbers")
        if search is not None and search.did not in bucket.by_operations:
            compiled = None
            why = Unsupported(
                "the step hands torch an object that is no plain number, or has a backward pass in "
                "Python (a custom autograd.Function, or hooks), of which a change would not be "
                f"seen: {guards.opaque}"
            )
    if compiled is None:
        observation.snapshots.put_back()
    if why is None:
        owner.refusal = None
    elif compiled is not None or owner.searched:
        owner.refuse(why)
    refusal = why if compiled is None else None
    if owner.searched:
        return Found(compiled, captured, refusal)
    positions = [at[id(t)] for t in captured]
    per_row = () if compiled is None else compiled.planner.recording.per_row
    rows = tuple([of._replace(position=positions[of.position]) for of in per_row])
    kinds = described_with_rows(tensors, rows, a) if rows else described(tensors, a)
    layout = _layout(tensors, a) if search is not None and search.asks_layout else None
    entry = Entry(guards, positions, rows, kinds, compiled, refusal, layout)
    if len(bucket.entries) < MAX_ENTRIES:
        bucket.entries.insert(0, entry)
    return entry.found(tensors)
