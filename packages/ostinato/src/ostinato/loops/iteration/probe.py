"""The first examination of a step: the body runs once more, on copies, without visible effects.

The run shows which elements the body reads, what it emits and what it changes in place. It is
stopped before it writes into memory that was there before, prints, or opens a file.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler import torch_private
from ostinato.compiler.capture.captures import _written, memory_of
from ostinato.compiler.capture.draws import States
from ostinato.compiler.capture.guards.observation import Observation
from ostinato.compiler.capture.wrapped import is_wrapped
from ostinato.compiler.errors import Unsupported, error_in_short
from ostinato.compiler.lock import one_at_a_time
from ostinato.compiler.torch_compat import among_ours, undisturbed
from ostinato.loops.iteration import elements
from ostinato.loops.iteration.attributes import path_to
from ostinato.loops.iteration.between import passed_on
from ostinato.loops.iteration.emitted import READ, WholeList
from ostinato.loops.iteration.frame import OTHER_INDEX, Frame
from ostinato.loops.iteration.index import Number
from ostinato.loops.iteration.items import NumberTable, table_of
from ostinato.loops.iteration.nostep import ListRead, Narrowed, NoStep
from ostinato.loops.iteration.plan import LoopPlan, Read
from ostinato.loops.iteration.state import Flat, Maker
from ostinato.loops.iteration.step import Step

MOST_CALLS = 5_000  # operations of an iteration; recording 1,000 takes more than a second
_MOST_AGO = 32  # iterations whose writes are handed on


class _OwnMemory(torch_private.TorchDispatchMode):
    """The memory that the run allocates or reads; it writes only into what it allocated.

    The random generators that it draws from are restored.
    """

    def __init__(self, made: list[Tensor]):
        super().__init__()
        self.states = States()
        self.made = {memory_of(t) for t in made}
        self.read: set[int | None] = set()
        self.alive: list[Tensor] = []
        self.n_calls = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.states.put_back()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.n_calls += 1
        if self.n_calls > MOST_CALLS:
            raise NoStep(f"an iteration has more than {MOST_CALLS:,} operations")
        if kwargs.get("generator") is not None:
            self.states.meet(kwargs["generator"])
        if func._schema.is_mutable:
            for t in _tensors(_written(func, args, kwargs)):
                if memory_of(t) not in self.made:
                    raise NoStep("an iteration changes a tensor in place that comes from outside")
        given = {memory_of(t) for t in _tensors((args, kwargs))}
        self.read |= given - self.made
        out = func(*args, **kwargs)
        for t in _tensors(out):
            memory = memory_of(t)
            if memory not in given:
                self.made.add(memory)
                self.alive.append(t)  # so that no other gets its address
        return out


class _TypeQuestions:
    """Finds functions that are given the loop's variable, and may ask for its `type(…)`.

    The answer would be the class of an expression. `isinstance` and the like know better.
    """

    def __init__(self, body: types.FunctionType):
        self.body, self.found = body.__code__, ""  # in the body the frame answers

    def __enter__(self) -> None:
        self.before = sys.getprofile()
        sys.setprofile(self)

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self.before)

    def __call__(self, frame: types.FrameType, event: Any, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and "type" in code.co_names and code is not self.body:
            is_ours = str(frame.f_globals.get("__name__")).startswith("ostinato.")
            if not is_ours and any(issubclass(type(v), Number) for v in frame.f_locals.values()):
                self.found = code.co_name
        if callable(self.before):
            self.before(frame, event, argument)


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in tree.leaves(value) if isinstance(t, Tensor)]


class _Probe(Step):
    """A step that finds its elements, and makes the plan.

    Attributes:
        written: the elements that the iteration before wrote.
        memory: what the run allocates.
        firsts, lags_first: the first places of the elements, and of those that were written before.
        given: the elements; values: numbers, as tensors.
    """

    def __init__(self, of: Step, written: dict[Read, tuple[Any, Any]], memory: _OwnMemory):
        super().__init__(
            of.body, of.items, of.state, LoopPlan(), of.questions, (), of.seen, of.course
        )
        self.names, self.written, self.memory = of.names, written, memory
        self.firsts: list[int] = []
        self.lags_first: list[int] = []
        self.given: list[Tensor] = []
        self.values: list[Tensor] = []

    def element(self, frame: Frame, read: Read, base: Any, parts: Any, index: Any) -> Tensor:
        with torch_private.disable_current_modes(), torch_private.DisableTorchFunction():
            begin, end = self.questions.begin, self.questions.end
            key = elements.gathered(parts)
            if key is None:
                first = elements.moving(index)._at(begin)
                self.follows(read, parts, index)
                window = elements.WindowOf(base, parts, first, end - begin)
            else:
                first = 0
                numbers = [self.questions.number_at(key, begin)]
                window = elements.WindowOf(base, parts, first, 1, numbers)
            value = window.read()[0]
            value = _copy(value)
        plan = self.plan
        for leaf, (_, its_parts) in enumerate(plan.leaves):
            same_place = its_parts == parts and self.firsts[leaf] == first
            if same_place and elements.is_same(self.bases[leaf], base):
                plan.reads[read] = leaf
                return self.given[leaf]
        plan.reads[read] = len(plan.leaves)
        plan.leaves.append((read, parts))
        self.firsts.append(first)
        self.bases.append(base)
        self.given.append(value)
        self.keep([value])
        return value

    def meets(self, read: Read, base: Any, index: Any) -> None:
        """Note where a tensor is that a called function indexes, so that later calls find it."""
        with torch_private.disable_current_modes():
            path = path_to(self.body, base)
        if path is None:
            raise NoStep("a function that an iteration calls indexes a tensor that it computes")
        before = self.questions.begin - 1
        at = elements.at_iteration(index, lambda key: self.questions.number_at(key, before))
        self.plan.called.append((read, path, index))
        self.seen[read] = base, at

    def in_table(self, read: Read, base: Any, parts: Any, index: Any) -> Number:
        """The number of a list or array at the loop's variable."""
        if elements.gathered(parts) is None:
            self.follows(read, parts, index)
        n, key = len(self.items.tables()), elements.moving(index)._key
        table = NumberTable(table_of(base) or (), lambda j: self.questions.number_at(key, j))
        self.plan.tables.append((read, parts, type(table[self.questions.begin])))
        self.questions.sequences.tables.append(table)
        return Number(("table", n + len(self.plan.tables) - 1))

    def follows(self, read: Read, parts: Any, index: Any) -> None:
        """Check that an element comes after the one of the last iteration in Python.

        It does not after `x[max(t - 1, 0)]` at t = 0: one iteration more shows where elements are.
        """
        if not elements.step_of(parts):  # a number, of which the end of the run says if it moves
            return
        if read not in self.seen:
            raise NoStep("an iteration reads an element that no iteration before it has read")
        begin, before = self.questions.begin, elements.place(parts, self.seen[read][1])
        if before is None or elements.moving(index)._at(begin) != before + elements.step_of(parts):
            why = "its iterations read other elements than the first ones"
            raise Narrowed(why, begin=begin + 1, end=self.questions.end)

    def whole_rows(self, base: Any, index: Any) -> Any:
        """The index of a write, with all rows instead of a range."""
        with torch_private.disable_current_modes():
            return elements.without_ranges(base, index)

    def does_not_move(self) -> None:
        """Record the index; that its number changes may be found only after the run."""
        self.unfit = OTHER_INDEX

    def lag(self, frame: Frame, read: Read, base: Any, parts: Any, index: Any) -> Tensor | None:
        """What an earlier iteration wrote where this one reads; None where none did."""
        if elements.gathered(parts) is not None:  # for a written tensor it is refused in the end
            return None
        before, step = self.questions.begin - 1, elements.step_of(parts)
        if not step:
            return None
        for write, (other, its_index) in self.written.items():
            at = elements.place(parts, its_index) if elements.is_same(base, other) else None
            if at is None:
                continue
            ago, rest = divmod(at - elements.moving(index)._at(before), step)
            if rest or ago < 1:
                continue  # that element was not written, or not yet
            if ago > _MOST_AGO:
                raise NoStep(f"an iteration reads what was written {ago} iterations ago")
            self.plan.lags.append((read, parts, write, ago))
            self.lag_bases.append(base)
            self.lags_first.append(elements.moving(index)._at(before + 1))
            with torch_private.disable_current_modes(), torch_private.DisableTorchFunction():
                window = elements.WindowOf(base, parts, self.lags_first[-1], ago)
                values = [_copy(v) for v in window.read().unbind(0)]
            self.keep(values)
            frame.lags.append(values)
            return values[0]
        return None

    def past(self, m: int, k: int) -> Any:
        """The k-th last item that a list held before the iteration."""
        frame = self.frame
        items = self.state.lists[m]
        if k > len(items):  # outs[-k:] has fewer at first
            begin, end = self.questions.begin + k - len(items), self.questions.end
            why = "an iteration reads an item of a list that it does not have yet"
            raise Narrowed(why, begin=begin, end=end)
        while len(frame.pasts) <= m:
            frame.pasts.append([])
        if k > len(frame.pasts[m]):
            flat = Flat()
            specs = [flat.spec(item) for item in items[-k:]]
            with torch_private.disable_current_modes():
                values = [_copy(t) for t in flat.tensors]
            self.keep(values)
            maker = Maker(iter(values), iter(()))
            known = frame.pasts[m]
            made = [maker.make(s) for s in specs]
            frame.pasts[m] = [*made[: k - len(known)], *known]
        return frame.pasts[m][-k]

    def whole_of(self, frame: Frame, m: int, is_stack: bool, dim: int) -> tuple[Tensor, WholeList]:
        items = self.state.lists[m][:]
        if not items or not isinstance(items[0], Tensor):
            raise ListRead(READ)
        joined = WholeList(m, is_stack, dim % (items[0].dim() + is_stack))
        if joined not in self.plan.joined:
            with torch_private.disable_current_modes(), torch_private.DisableTorchFunction():
                n = self.questions.end - self.questions.begin
                whole = _copy(joined.room(items, n))
            self.keep([whole])
            frame.wholes.append(whole)
            self.plan.joined.append(joined)
        return frame.wholes[self.plan.joined.index(joined)], joined

    def keep(self, values: list[Tensor]) -> None:
        """Count tensors as allocated by the run."""
        self.calls.meet(values)
        self.memory.made |= {memory_of(v) for v in values}
        self.memory.alive += values

    def sees_calls(self) -> bool:
        return True

    def number(self, key: Any, dtype: torch.dtype) -> Tensor:
        """The input with the values of an expression of the loop's variable."""
        if (key, dtype) not in self.plan.numbers:
            self.plan.numbers.append((key, dtype))
            number = self.questions.number_at(key, self.questions.begin)
            with torch_private.disable_current_modes():
                self.values.append(torch.tensor(number, dtype=dtype))
            self.keep(self.values[-1:])
        return self.values[self.plan.numbers.index((key, dtype))]


@undisturbed(Tensor.detach)
@among_ours()
def probed(
    step: Step, carry: list[Tensor], x: list[Tensor], written: dict[Read, tuple[Any, Any]]
) -> LoopPlan:
    """Run the body of a step once, and say what it does.

    The user's hooks on saved tensors, such as those of checkpointing, do not see the run.

    Args:
        written: the writes of elements that the iteration before did: tensor and index.
        carry: the state.
        x: the items of the first iteration of the window.

    Raises:
        Unsupported: the iterations are not steps of a scan.
    """
    copies = [_copy(t) for t in (*carry, *x)]
    versions = [t._version if not t.is_inference() else 0 for t in copies]
    probe = _Probe(step, written, _OwnMemory(copies))
    n = len(carry)
    frame = Frame(probe, iter(()))
    questions = _TypeQuestions(step.body)
    observation = Observation(
        step.body, places=[(container, place.key) for place, container in step.state.places]
    )
    try:
        with _unseen(), questions, observation, probe.memory:
            new, outputs, plan = probe.once(copies[:n], iter(copies[n:]), frame)
        if probe.unfit:
            raise NoStep(probe.unfit)
        if questions.found:
            raise NoStep(f"{questions.found} may ask for the type of the loop's variable")
        observation.snapshots.check()
    except BaseException as error:
        observation.snapshots.put_back()
        if isinstance(error, Unsupported) or not isinstance(error, Exception):
            raise
        error.__traceback__ = None
        raise NoStep(f"an iteration fails as a step ({error_in_short(error)})") from None
    if not new and not outputs:
        raise NoStep("its iterations compute no tensor", quiet=True)
    plan.reads, plan.leaves = probe.plan.reads, probe.plan.leaves
    plan.numbers, plan.lags = probe.plan.numbers, probe.plan.lags
    plan.tables, plan.called = probe.plan.tables, probe.plan.called
    plan.joined, plan.has_prefixes = probe.plan.joined, frame.has_prefixes
    given = [*copies[n:], *probe.given]
    if any(
        not t.is_inference() and t._version != v
        for t, v in zip(given, [*versions[n:], *[0] * len(probe.given)], strict=True)
    ):
        raise NoStep("an iteration changes an element of the sequence in place")
    _check_memory(plan, copies[:n], carry, frame, probe, outputs)
    plan.passed, plan.ends = passed_on(copies[:n], given, outputs, new, plan.tensors)
    plan.hands_out = not {*map(memory_of, outputs)}.isdisjoint(map(memory_of, copies[:n]))
    bases = {memory_of(base) for _, _, base, _, _ in frame.puts if isinstance(base, Tensor)}
    plan.left = tuple(
        [i for i, how in enumerate(plan.tensors) if how == "same" and memory_of(copies[i]) in bases]
    )
    return plan


def _check_memory(
    plan: LoopPlan,
    copies: list[Tensor],
    carry: list[Tensor],
    frame: Frame,
    probe: _Probe,
    outputs: list[Tensor],
) -> None:
    """Refuse a tensor in two places if one of them is changed in place."""
    written = [i for i, how in enumerate(plan.tensors) if how == "written"]
    memories = [memory_of(copies[i]) for i in written]
    if any(memory_of(t) in memories for t in outputs):
        raise NoStep("an iteration emits a tensor that the next one changes in place")
    outside = {memory_of(carry[i]) for i in written}
    others = [memory_of(t) for i, t in enumerate(carry) if i not in written]
    bases = {memory_of(base) for _, _, base, _, _ in frame.puts if isinstance(base, Tensor)}
    if bases & {*memories}:
        raise NoStep("an iteration changes a tensor in place whose elements iterations write")
    read = {memory_of(base) for base in probe.bases if isinstance(base, Tensor)}
    if len(outside) < len(written) or outside & {*others, *probe.memory.read, *read, *bases}:
        raise NoStep("an iteration changes a tensor in place that it also reads by another name")
    if bases & probe.memory.read or bases & {memory_of(t) for t in carry}:
        raise NoStep("an iteration reads a tensor whose elements iterations write")
    _check_elements(plan, frame, probe)


def _check_elements(plan: LoopPlan, frame: Frame, probe: _Probe) -> None:
    """Refuse a read of elements that another kind of write may have changed."""
    begin = probe.questions.begin
    reads = [
        (base, parts, first)
        for base, (_, parts), first in zip(probe.bases, plan.leaves, probe.firsts, strict=True)
    ]
    behind = [
        (base, lag[1], first)
        for base, lag, first in zip(probe.lag_bases, plan.lags, probe.lags_first, strict=True)
    ]
    for _, parts, base, index, _ in frame.puts:
        at = elements.moving(index)._at(begin)
        for other, its_parts, first in (*reads, *behind):
            if not share_memory(base, other) or elements.are_apart(parts, its_parts):
                continue
            is_behind = (at - first) * elements.step_of(parts) > 0
            known = elements.is_same(base, other) and parts == its_parts
            if not known or is_behind is not any(other is b for b, _, _ in behind):
                raise NoStep("an iteration reads elements of a tensor that iterations write")


def share_memory(a: Any, b: Any) -> bool:
    """Whether two tensors share memory, or two lists are the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return memory_of(a) == memory_of(b)
    return a is b


def _copy(t: Tensor) -> Tensor:
    """A copy that may be changed in place."""
    with torch.no_grad():
        copy = t.detach().clone()
    if not t.requires_grad:
        return copy
    with torch.enable_grad():
        if is_wrapped(t):  # transforms of torch.func let nobody make a leaf of their graph
            return t.clone()
        return copy.requires_grad_().clone()


@contextmanager
def _unseen() -> Iterator[None]:
    """A context in which nothing is printed, logged or opened."""
    with one_at_a_time:  # these belong to all threads
        out, err, opened = sys.stdout, sys.stderr, builtins.open
        factory = logging.getLogRecordFactory()
        thread = threading.get_ident()

        def stops(function: Any, why: str) -> Any:
            def stopping(*arguments: Any, **named: Any) -> Any:
                if threading.get_ident() == thread:
                    raise NoStep(f"an iteration {why}")
                return function(*arguments, **named)

            return stopping

        class Mute:
            def __init__(self, of: Any):
                self.of = of
                self.write = stops(of.write, "prints") if of is not None else None

            def __getattr__(self, name: str) -> Any:
                return getattr(self.of, name)

        sys.stdout, sys.stderr = Mute(out), Mute(err)
        builtins.open = stops(opened, "opens a file")
        logging.setLogRecordFactory(stops(factory, "writes to a log"))
        try:
            yield
        finally:
            sys.stdout, sys.stderr, builtins.open = out, err, opened
            logging.setLogRecordFactory(factory)
