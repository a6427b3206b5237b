"""A loop while it runs: some iterations in Python, and then one scan of all the others.

The loop object is the iterator of the rewritten `for`. It pauses after the first iteration; the
code around then asks it to `scan`, with the local names. If that is not possible, the loop goes on
in Python from where it is.
"""

from __future__ import annotations

import threading
import time
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ostinato._explain import Explanation, explained
from ostinato._scan import iterations, scan_iterations
from ostinato.compiler.capture.captures import memory_of
from ostinato.compiler.errors import Mispredicted, SideEffect, Unsupported, error_in_short
from ostinato.compiler.inputs import modes
from ostinato.compiler.steps import owner_of, weak_reference
from ostinato.compiler.torch_compat import top_hooks
from ostinato.loops import elements
from ostinato.loops.attributes import Memory, resolved
from ostinato.loops.emitted import Fresh
from ostinato.loops.frame import MOST_IN_PYTHON, Frame, LoopPlan, Read, State, Step, places_of
from ostinato.loops.index import FEWEST, LONGEST, MOST_COURSES, Sequences, evaluated, running
from ostinato.loops.items import Items, Table, items_of, sequence, table_of
from ostinato.loops.joined import KnownRows
from ostinato.loops.nostep import Counted, ListRead, Narrowed, NoStep, Periodic, Stale, TooSlow
from ostinato.loops.periods import Grouped
from ostinato.loops.probe import probed, share_memory
from ostinato.loops.site import Site
from ostinato.loops.state import UNBOUND, Flat, Maker

MEASURES = True  # whether a scan that gains nothing is given up
_MOST_PLANS = 16
_SLOW_CALLS = 3  # in a row, after which a scan is given up for a while


class LoopRuntime:
    """The object through which the code of one rewritten function reaches its loops."""

    def __init__(self, sites: list[Site]):
        self.sites = sites

    sequence = staticmethod(sequence)
    unbound = UNBOUND

    @staticmethod
    def of(rewritten: list[Any], function: Any) -> Any:
        """The rewritten form of a function or method that is about to be called, if it has one."""
        for new in rewritten:
            if new.__wrapped__ is function:
                return new
            if type(function) is types.MethodType and new.__wrapped__ is function.__func__:
                return types.MethodType(new, function.__self__)
        return function

    @staticmethod
    def rows() -> KnownRows:
        return KnownRows()

    def begin(
        self, number: int, iterable: Any, body: Any, outer: Loop | None,
        rows: KnownRows,
    ) -> Any:  # fmt: skip
        """The loop that begins: one that may become a scan, or not."""
        site = self.sites[number]
        if site.source.stays:
            return Left(site, iterable, outer)
        items = items_of(iterable)
        if items is not None and items.n - site.first >= FEWEST and not running.questions:
            site, groups = _grouped(site, items)
            if not site.refused or not site.waits(body, groups.n):
                return Loop(site, groups, body, outer, rows)
        elif site.native is None and not running.questions:
            kind = type(iterable).__name__
            site.reason = f"it iterates over a {kind}" if items is None else "it is short"
            if items is None:
                site.over_tensors = False
        return Unwatched(site, iterable if items is None else items, outer)


class _Explaining(threading.local):
    """The steps of loops that run as scans, with their sites' ids, while a caller collects them."""

    found: list[tuple[int, Explanation]] | None = None


explaining = _Explaining()


class _Watching(threading.local):
    """The nested loops of a thread that examine an iteration now."""

    def __init__(self) -> None:
        self.loops: weakref.WeakSet[Loop | Left] = weakref.WeakSet()  # a loop may end by an error


_watching = _Watching()


class Unwatched:
    """A loop that runs in Python from its begin to its end."""

    ended = True

    def __init__(self, site: Site, iterable: Any, outer: Any):
        self.site, self.iterable, self.outer = site, iterable, outer

    def __iter__(self) -> Iterator[Any]:
        items = self.iterable
        if isinstance(items, Items):
            return (items.item(j) for j in range(items.n))
        return iter(items)

    slice, len = staticmethod(slice), staticmethod(len)

    @staticmethod
    def number(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def selecting(
        self, number: int, name: str, base: Any, *arguments: Any, **named: Any
    ) -> Any:
        """`base.select(1, t)`, which a loop around may want to see."""
        is_tensor = isinstance(base, Tensor)
        found = elements.of_call(name, (base, *arguments), named) if is_tensor else None
        if found is None:
            return getattr(base, name)(*arguments, **named)
        return self.at(number, *found)

    @staticmethod
    def within(number: Any, of: Any) -> bool:
        return number in of

    def at(self, number: int, base: Any, index: Any) -> Any:
        """`base[index]`, shown to the loops around."""
        return base[index] if self.outer is None else self.outer.at(number, base, index)

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        """`base[index] = value`, shown to the loops around."""
        if self.outer is None:
            base[index] = value
        else:
            self.outer.put(number, value, base, index)


class Left(Unwatched):
    """A loop that is not rewritten; it notices whether it is a loop over tensors."""

    over_tensors = inner_native = False

    def __iter__(self) -> Iterator[Any]:
        # Within an iteration of another loop, the outer loop may become a scan as a whole.
        within = running.questions or any(isinstance(of, Loop) for of in _watching.loops)
        if not within:
            self.site.ran(False, self.site.source.problem, False)
            _watching.loops.add(self)
        for j, item in enumerate(self.iterable):
            self.over_tensors = self.over_tensors or _tensors_in_item(item)
            self.site.over_tensors = self.site.over_tensors or self.over_tensors
            if j == FEWEST - 1 and not within:
                _watching.loops.discard(self)
                if self.over_tensors and not self.inner_native:
                    self.site.warn(NoStep(self.site.source.problem))
            yield item

    def at(self, number: int, base: Any, index: Any) -> Any:
        self.over_tensors = self.over_tensors or isinstance(base, Tensor)
        return super().at(number, base, index)

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        self.over_tensors = self.over_tensors or isinstance(base, Tensor)
        super().put(number, value, base, index)


class Loop(Unwatched):
    """A loop whose iterations may become a scan.

    Attributes:
        j: the iteration that runs next.
        pause: the iteration before which a scan is tried; −1: none.
        stop: the iteration at which the scan ends.
        course: the iteration at which the last scan has ended.
        seen: the elements that the last iteration before the pause read or wrote: read → base and
            index.
    """

    def __init__(
        self, site: Site, items: Items, body: types.FunctionType, outer: Any, rows: KnownRows
    ):
        self.site, self.items, self.body, self.outer, self.rows = site, items, body, outer, rows
        self.body_now = body  # with the names that are bound when a scan is tried
        self.j, self.pause, self.stop, self.ended = 0, site.first, items.n, False
        self.queue: list[Any] = []  # the other items of a group of iterations
        self.seen: dict[Any, tuple[Any, Any]] = {}
        self.firsts: dict[Any, tuple[Any, int | None]] = {}
        self.written: dict[Read, tuple[Any, Any]] = {}
        self.counts: dict[int, int] = {}
        self.watching = False
        self.memory: Memory | None = None
        self.must_look = False
        self.began, self.turns, self.course = 0.0, 0, 0
        self.counted_from: Any = None
        self.probed: LoopPlan | None = None
        self.lasted = float("inf")
        self.inner_native = False

    def __iter__(self) -> Loop:
        return self

    def __next__(self) -> Any:
        j = self.j
        if j == self.pause and not self.queue:
            self.lasted = time.perf_counter() - self.began
            if self.watching:
                _watching.loops.discard(self)
                self.watching = False
            raise StopIteration
        if self.queue:
            return self.queue.pop(0)
        if j >= self.items.n:
            if isinstance(self.items, Grouped) and not self.ended:
                self.queue = self.items.rest()
            self.ended = True
            if self.queue:
                return self.queue.pop(0)
            raise StopIteration
        if self.watching:
            _watching.loops.discard(self)
        self.watching = j == self.pause - 1
        if self.watching:
            self.watch()
        item = self.items.item(j)
        self.j = j + 1
        if isinstance(self.items, Grouped):
            item, *self.queue = item
        return item

    def watch(self) -> None:
        """Observe what the iteration that begins reads and changes."""
        self.seen.clear()
        self.firsts.clear()
        self.written.clear()
        self.counts.clear()
        owner = owner_of(self.body)
        if self.must_look or not self.site.knows(owner):
            self.memory, self.must_look = Memory(self.body), False
            self.site.looked[id(owner)] = weak_reference(owner)
            if len(self.site.looked) > 256:
                self.site.looked.pop(next(iter(self.site.looked)))
        _watching.loops.add(self)
        self.began = time.perf_counter()

    def at(self, number: int, base: Any, index: Any) -> Any:
        if self.watching:
            self.note(number, base, index)
        return super().at(number, base, index)

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        if self.watching:
            index_of_rows = elements.without_ranges(base, index)
            read = self.note(number, base, index_of_rows)
            self.written[read] = base, index_of_rows
        super().put(number, value, base, index)

    def note(self, number: int, base: Any, index: Any) -> Read:
        """Remember an element that an iteration reads or writes."""
        n = self.counts.get(number, 0)
        self.counts[number] = n + 1
        self.seen[number, n] = base, index
        return number, n

    # ------------------------------------------------------------------------ the scan

    def scan(self, names: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run the remaining iterations; the names that they bind, or None: go on in Python."""
        self.pause = -1
        try:
            if self.inner_native:
                raise NoStep("a loop within it runs as a scan", quiet=True)
            self.learn()
            try:
                return self.attempt(names)
            except NoStep as refusal:
                if not self.may_count_otherwise(refusal):
                    raise
                self.site.counted.clear()
                self.stop = self.items.n
                return self.attempt(names)
        except Narrowed as narrowed:
            self.stop = narrowed.end
            if narrowed.begin == self.j:
                return self.scan(names)
            self.pause = narrowed.begin
            if self.j == self.site.first:
                self.site.first = max(self.site.first, min(self.pause, MOST_IN_PYTHON))
        except Periodic as refusal:
            why = self.groups(refusal.period)
            if why is not None:
                self.site.refuse(self.body, self.items.n, why, self.goes_through_tensors())
        except Unsupported as refusal:
            more = isinstance(refusal, SideEffect) and self.j < MOST_IN_PYTHON
            if more:
                self.must_look, self.pause = True, self.j + 1
            else:
                self.site.refuse(self.body, self.items.n, refusal, self.goes_through_tensors())
        finally:
            self.memory = None
        return None

    def may_count_otherwise(self, refusal: NoStep) -> bool:
        """Whether numbers that counted in another call may not count in this one."""
        begin, known = self.j, self.site.offsets
        is_course = isinstance(refusal, Narrowed) and refusal.begin == begin
        if is_course and refusal.end - begin >= FEWEST:  # type: ignore[attr-defined]
            return False
        return self.counted_from is not None and known not in (None, self.counted_from)

    def groups(self, period: int) -> NoStep | None:
        """Take so many iterations as one from here on; or why that cannot be."""
        of = items = self.items
        begin = self.j
        if isinstance(of, Grouped):
            items, begin, period = of.items, of.begin + begin * of.period, period * of.period
        groups = Grouped(items, begin, period)
        if period > LONGEST:
            return NoStep("its iterations branch on the loop's variable")
        if groups.n - 1 < _fewest(groups):
            return NoStep("too few iterations for a scan", quiet=True)
        self.site, self.items = self.site.grouped(period), groups
        self.j, self.pause, self.stop, self.course, self.must_look = 0, 1, groups.n, 0, True
        return None

    def goes_through_tensors(self) -> bool:
        """Whether the loop iterates over tensors, or reads elements of tensors."""
        items = _tensors_in_item(self.items.item(0)) if self.items.n else False
        return items or any(isinstance(base, Tensor) for base, _ in self.seen.values())

    def learn(self) -> None:
        """Record the places that the last iteration changed."""
        if self.memory is None:
            return
        for place in self.memory.changed([base for base, _ in self.written.values()]):
            if place not in self.site.places:
                self.site.places.append(place)

    def attempt(self, names: dict[str, Any]) -> tuple[Any, ...]:
        """Run the remaining iterations by scan.

        Raises:
            Unsupported: that is not possible; nothing has happened.
        """
        source, begin = self.site.source, self.j
        end = self.stop = min(self.stop, self.site.ends.get((self.items.n, begin), self.stop))
        if end - begin < _fewest(self.items):
            raise NoStep("too few iterations for a scan", quiet=True)
        if source.problem:
            raise NoStep(source.problem)
        self.body_now = _with_own_cells(self.body)
        places = places_of(self.body_now, self.site.places)
        stale: list[LoopPlan] = []
        grown = {} if self.site.has_queue else source.grown
        read: NoStep | None = None
        for _ in range(6):
            state = State(names, source, places, self.body_now, self.site.counted, grown)
            key = *state.key(), self.items.kind(), torch.is_grad_enabled()
            self.counted_from = state.counted_from(begin)
            try:
                step, plan = self.step(state, key, stale)
            except Counted as number:
                if self.site.counted.get(number.name, 0) == number.by:
                    raise
                self.site.counted[number.name] = number.by
                if number.by == 0:  # it did in another call
                    del self.site.counted[number.name]
                continue
            except ListRead as error:  # it may be a queue, of one length after each iteration
                if not grown or not state.carried.lists:
                    raise
                grown, read = {}, error
                continue
            except NoStep as error:
                if read is None or isinstance(error, Narrowed):
                    raise
                raise read from None
            try:
                return self.played(step, plan, state)
            except Mispredicted as refusal:
                course = self.course_of(refusal)
                if isinstance(course, Narrowed) or plan in stale:
                    raise course from None
                stale.append(plan)  # one that was seen in this call may know the answers
            except Unsupported as refusal:
                why = step.problem or refusal
                # A plan of another call may read beyond the end of what this one has.
                other = isinstance(why, NoStep) and plan is not self.probed
                other &= not isinstance(why, (Narrowed, TooSlow))
                if not (other or isinstance(why, Stale)):
                    raise why from None
                stale.append(plan)
        raise NoStep("an iteration does something else each time it is examined")

    def course_of(self, refusal: Mispredicted) -> Unsupported:
        """The iterations up to the one that branches in another way; the refusal if they are few.

        The next call of this length tries no more than these at once.
        """
        length = self.stop - self.j
        if refusal.at < max(FEWEST, length / 8) or self.turns >= MOST_COURSES:
            return refusal
        self.turns += 1
        end = self.site.ends[self.items.n, self.j] = self.j + refusal.at
        if len(self.site.ends) > 64:
            self.site.ends.pop(next(iter(self.site.ends)))
        return Narrowed(refusal.reason, begin=self.j, end=end)

    def step(self, state: State, key: Any, stale: list[LoopPlan]) -> tuple[Step, LoopPlan]:
        """The step with a plan that fits this call, or a new one."""
        begin, end = self.j, self.stop
        known = [p for p in self.site.plans.get(key, ()) if p not in stale]
        for plan in sorted(known, key=lambda p: self.items.n not in p.lengths):
            step = self.new_step(state, plan)
            if self.fits(step, plan):
                plan.lengths.add(self.items.n)
                return step, plan
        modes()  # raises if no scan is possible
        step = self.new_step(state, LoopPlan())
        items = [t[0] for t in self.items.tensors(begin, end)]
        made = probed(step, state.tensors, items, self.written)
        made.begins_at(self.starts(state, made))
        made.shares = self.shares(made, state)
        plans = self.site.plans.setdefault(key, [])
        if len(self.site.plans) > _MOST_PLANS:  # a number in the state may differ in each call
            self.site.plans.pop(next(iter(self.site.plans)))
        same = next((p for p in plans if p.facts() == made.facts()), None)
        if same is None:
            plans.insert(0, made)
            del plans[_MOST_PLANS:]
        step.plan = plan = self.probed = same or made
        plan.starts = made.starts
        plan.lengths.add(self.items.n)
        if not self.fits(step, plan):
            why = "its iterations read other elements than the first ones"
            # One more iteration may show what all the others read.
            if begin - self.course < MOST_IN_PYTHON:
                raise Narrowed(why, begin=begin + 1, end=end)
            raise NoStep(why)
        return step, plan

    def new_step(self, state: State, plan: LoopPlan) -> Step:
        """The iterations of the window as a step of a scan."""
        step = Step(self.body_now, self.items, state, plan, self.j, self.stop)
        step.source_names, step.seen = self.site.source.carried, dict(self.seen)
        sequences = Sequences(self.j, [value for value, _ in state.counts])
        sequences.tables = self.items.tables()
        step.questions.sequences = self.sequences = sequences
        return step

    def starts(self, state: State, plan: LoopPlan) -> tuple[Any, ...]:
        """The first numbers of the scan: of the loop's variable, of the state, of lists."""
        lengths = [len(state.lists[m]) for m in plan.by_length]
        return self.j, *self.items.starts(), *[value for value, _ in state.counts], *lengths

    def fits(self, step: Step, plan: LoopPlan) -> bool:
        """Whether a plan's comparisons have the same answers, and its reads exist.

        Raises:
            Narrowed: the answers are the same for fewer iterations.
        """
        if plan.starts and plan.starts != self.starts(step.state, plan):
            return False
        if not (self.has_called(plan) and self.has_tables(step, plan)):
            return False
        if plan.updates:
            self.sequences.extend(plan.updates, self.stop)
        narrowed = None
        for question, answer in plan.asked:
            try:
                if step.questions.answer(*question) is not answer:
                    return False
            except Narrowed as error:
                narrowed = error
                step.questions.begin, step.questions.end = error.begin, error.end
                if step.questions.answer(*question) is not answer:
                    return False
            except NoStep:
                return False
        if narrowed is not None:
            raise Narrowed(narrowed.reason, begin=step.questions.begin, end=step.questions.end)
        step.bases = []
        for read, parts, *_ in (*plan.leaves, *plan.puts):
            if self.first(read, parts)[1] is None:
                return False
        for read, _ in plan.leaves:
            step.bases.append(self.seen[read][0])
        step.lag_bases = []
        for read, parts, write, ago in plan.lags:
            base, first = self.first(read, parts)
            other, last = self.first(write, parts)
            if first is None or last is None or not elements.is_same(base, other):
                return False
            if last - first != ago * elements.step_of(parts):
                return False
            step.lag_bases.append(base)
        for m, (_, reads) in enumerate(plan.pasts):
            for read, n, back in reads:
                _, at = self.first(read, (("index", 1),))
                if at is None or len(step.state.lists[m]) - 1 + n - at != back:
                    return False
        return self.shares(plan, step.state) == plan.shares and all(
            read in self.seen and elements.is_same(self.seen[read][0], step.bases[leaf])
            for read, leaf in plan.reads.items()
        )

    def has_called(self, plan: LoopPlan) -> bool:
        """Whether the tensors are there that called functions index."""
        before = self.j - 1
        for read, path, index in plan.called:
            base = resolved(self.body_now, path)
            if not isinstance(base, Tensor):
                return False
            at = elements.at_iteration(index, lambda key: evaluated(key, before, self.sequences))
            self.seen[read] = base, at
        if plan.called:
            self.firsts.clear()
        return True

    def has_tables(self, step: Step, plan: LoopPlan) -> bool:
        """Whether the lists of numbers that a plan reads are there; they are then at hand."""
        tables = self.sequences.tables = self.items.tables()
        for read, parts, kind in plan.tables:
            base, first = self.first(read, parts)
            values = None if first is None or isinstance(base, Tensor) else table_of(base)
            if not values or type(values[0]) is not kind:
                return False
            tables.append(self.table(values, parts, first))
        return True

    def table(self, values: Any, parts: Any, first: Any) -> Table:
        """The numbers of a list, from the one that the last iteration in Python read."""
        key, before, sequences = elements.gathered(parts), self.j - 1, self.sequences
        if key is not None:
            return Table(values, lambda j: evaluated(key, j, sequences))
        by = elements.step_of(parts)
        return Table(values, lambda j: first + by * (j - before))

    def shares(self, plan: LoopPlan, state: State) -> tuple[int, ...]:
        """For each tensor that a step reads or writes, the first one with the same memory.

        Empty if nothing is written in place: then nothing depends on it.
        """
        if not plan.puts and "written" not in plan.tensors:
            return ()
        reads = [*plan.leaves, *plan.lags, *plan.puts]
        tensors = [*state.tensors, *[self.seen[r[0]][0] for r in reads if r[0] in self.seen]]
        memories = [memory_of(t) if isinstance(t, Tensor) else id(t) for t in tensors]
        return tuple(map(memories.index, memories))

    def first(self, read: Read, parts: Any) -> tuple[Any, int | None]:
        """The base and index that the last iteration in Python read there, or None."""
        key = read, parts
        found = self.firsts.get(key)
        if found is None:
            base, index = self.seen.get(read, (None, None))
            found = base, None if index is None else elements.place(parts, index)
            self.firsts[key] = found
        return found

    def behind(self, plan: LoopPlan, state: State) -> list[Tensor]:
        """Results of earlier iterations that the first ones of the scan read."""
        found: list[Tensor] = []
        for read, parts, _, ago in plan.lags:
            base, at = self.first(read, parts)
            assert at is not None
            window = elements.WindowOf(base, parts, at + elements.step_of(parts), ago)
            found += window.read().clone().unbind(0)  # the base is written afterwards
        flat = Flat()
        for (specs, _), items in zip(plan.pasts, state.lists, strict=True):
            last = items[max(len(items) - len(specs), 0) :] if specs else []
            if [flat.spec(v) for v in last] != [*specs]:
                raise Stale("a list holds other values than before")
        return [*found, *flat.tensors]

    def window(self, read: Any, parts: Any) -> elements.WindowOf:
        """The elements of the scan, from the one that the last iteration in Python read."""
        base, value = self.first(read, parts)
        assert value is not None
        n, key = self.stop - self.j, elements.gathered(parts)
        if key is not None:
            numbers = [evaluated(key, j, self.sequences) for j in range(self.j, self.stop)]
            return elements.WindowOf(base, parts, 0, n, numbers)
        return elements.WindowOf(base, parts, value + elements.step_of(parts), n)

    def played(self, step: Step, plan: LoopPlan, state: State) -> tuple[Any, ...]:
        """Run the window by scan, and leave the results of its iterations."""
        begin, end = self.j, self.stop
        size = end - begin, *[t.shape[:1] for t in state.tensors[:1]]
        if plan.slow.get(size, 0) >= _SLOW_CALLS:
            plan.slow.pop(size)
            raise TooSlow("the engine gains nothing here", quiet=True)
        started = time.perf_counter()
        items = self.items.tensors(begin, end)
        step.n_items = len(items)
        xs = [*items, *self.elements_of(plan)]
        for key, dtype in plan.numbers:
            xs.append(self.numbers_of(key, dtype))
        # The backward pass must not read what is changed in place afterwards.
        how = zip(state.tensors, [*plan.tensors, *["new"] * len(state.tensors)], strict=False)
        carry = step.carried([t.clone() if h == "written" else t for t, h in how])
        carry += self.behind(plan, state)
        carry, step.has_dummy, xs = _with_dummies(carry, xs, end - begin)
        kept_in = [(container, place.key) for place, container in state.places]
        targets = [self.window(read, parts) for read, parts, _ in plan.puts]
        if any(target.piece not in (None, 1) for target in targets):
            raise NoStep("an iteration writes several elements")
        both = zip(state.tensors, plan.tensors, strict=False)
        written = [t for t, how in both if how == "written"]
        written += [target.base for target in targets if isinstance(target.base, Tensor)]
        memories = set(map(memory_of, written)) - {None}
        if not memories.isdisjoint(map(memory_of, items)):
            raise NoStep("an iteration writes into what the loop iterates over")
        try:
            with _without_lists(state):
                arguments = iterations(step, self.body_now, plan, kept_in, carry, xs)
                if explaining.found is not None:
                    site = self.site.whole or self.site
                    explaining.found.append((id(site), explained(arguments)))
                finals, ys = scan_iterations(arguments, memories)
        except Unsupported:
            raise
        except Exception as error:  # the loop in Python will raise it where it belongs
            if type(error).__module__ == "torch.utils.checkpoint":  # it ends a recomputation
                raise
            error.__traceback__ = None
            raise NoStep(f"an iteration fails as a step ({error_in_short(error)})") from None
        lasted = time.perf_counter() - started
        plan.calls += 1
        if plan.calls > 1 and MEASURES and top_hooks(False) is None:
            factor = 2.0 if torch.is_grad_enabled() else 1.1
            is_slow = lasted > factor * self.lasted * (end - begin)
            plan.slow[size] = plan.slow.get(size, 0) + 1 if is_slow else 0
            if len(plan.slow) > 64:
                plan.slow.pop(next(iter(plan.slow)))
        finals = step.whole(finals)[: len(state.tensors)]
        names = self.finish(plan, state, targets, finals, list(ys))
        step.let_go()
        self.site.ran(True, "")
        self.site.in_a_row = 0
        self.site.offsets = state.counted_from(begin)
        self.site.has_queue = bool(self.site.source.grown) and not state.list_names
        if self.site.refused:
            for key in self.site._keys(self.body, self.items.n):
                self.site.refused.pop(key, None)
        for outer in _watching.loops:
            outer.inner_native = True
        self.j = self.course = end
        if self.items.n - end > FEWEST:  # another branch: one iteration shows what it does
            self.pause, self.stop = end + 1, self.items.n
        return names

    def elements_of(self, plan: LoopPlan) -> list[Tensor]:
        """The elements that the step reads, `[n, …]`."""
        found = []
        written = [self.seen[read][0] for read, _, _ in plan.puts]
        for read, parts in plan.leaves:
            base, at = self.first(read, parts)
            value = elements.part_at(base, parts, (at or 0) + 1, self.stop - self.j)
            if value is None:
                value = self.window(read, parts).read()
            if any(share_memory(base, other) for other in written):
                value = value.clone()  # it is written afterwards, and the backward pass reads it
            found.append(value)
        return found

    def finish(
        self, plan: LoopPlan, state: State, targets: list[elements.WindowOf],
        finals: list[Tensor], ys: list[Tensor],
    ) -> tuple[Any, ...]:  # fmt: skip
        """Give names, places, lists and tensors the values that the iterations would have left."""
        old = state.tensors
        n = len(plan.tensors)
        for i, how in enumerate(plan.tensors):
            if how == "written":
                old[i].copy_(finals[i])
            if how != "new":
                finals[i] = old[i]
        rest = iter(ys)
        for grown, name, emitted in zip(state.lists, state.list_names, plan.emitted, strict=True):
            self.extend(grown, name, emitted, rest)
        for target, (_, _, key) in zip(targets, plan.puts, strict=True):
            target.write(next(rest) if key is None else self.numbers_of(key, target.base.dtype))
        sums = []
        for (total, in_place), n_added in zip(state.summed, plan.summed, strict=True):
            for _ in range(n_added):
                added = next(rest).sum(0)
                total = total.add_(added) if in_place else total + added
            sums.append(total)
        tensors, lists, of_sums = iter(finals[:n]), iter(state.lists), iter(sums)
        counts = [
            value + by * (self.stop - self.j) if by is not None else self.sequences.values[k][-1]
            for k, (value, by) in enumerate(state.counts)
        ]
        kept = iter(state.containers), iter(plan.persists)
        maker = Maker(tensors, lists, *kept, counts=counts)
        carried = [
            next(of_sums) if s[0] == "sum" else maker.make(s) for s in state.carried.specs
        ]
        for (place, container), spec in zip(state.places, state.placed.specs, strict=True):
            container[place.key] = maker.make(spec)
        last = Maker(iter(finals[n:]), iter(()))
        trailing = [self.last(last, spec) for spec in plan.trailing]
        return (*carried, *trailing)

    def numbers_of(self, key: Any, dtype: torch.dtype) -> Tensor:
        """What an expression of the loop's variable is in each iteration of the scan."""
        numbers = [evaluated(key, j, self.sequences) for j in range(self.j, self.stop)]
        return torch.tensor(numbers, dtype=dtype)

    def last(self, maker: Maker, spec: Any) -> Any:
        return maker.make(_at(spec, self.stop - 1, self.sequences))

    def extend(
        self, target: list[Any], name: str | None, emitted: tuple[Any, ...], ys: Iterator[Tensor]
    ) -> None:
        """Append the values of each iteration, in order; name: that of the list, or None."""
        if emitted in ((("append", "tensor"),), (("insert", "tensor"),)):
            is_last = self.stop == self.items.n and emitted[0][0] == "append"
            is_last &= not isinstance(self.items, Grouped)  # after which a rest may come
            lazy = is_last and name in self.site.source.joined
            self.rows.add(target, next(ys), emitted[0][0] == "insert", lazy)
            return
        parts = [[next(ys) for _ in range(_tensors_in(spec))] for _, spec in emitted]
        alike = {(part.shape, part.dtype, part.requires_grad) for of in parts for part in of}
        if {*emitted} == {("append", "tensor")} and len(alike) == 1:
            whole = torch.stack([part for (part,) in parts], 1).flatten(0, 1)
            self.rows.add(target, whole, False, False)
            return
        appended: list[list[Any]] = []
        inserted: list[list[Any]] = []
        for (how, spec), of in zip(emitted, parts, strict=True):
            rows = [part.unbind(0) for part in of]
            column = [
                Maker(iter([r[j - self.j] for r in rows]), iter(())).make(
                    _at(spec, j, self.sequences)
                )
                for j in range(self.j, self.stop)
            ]
            (appended if how == "append" else inserted).append(column)
        target += [v for values in zip(*appended, strict=True) for v in values]
        target[:0] = [v for values in zip(*inserted, strict=True) for v in values][::-1]


def _fewest(items: Items) -> int:
    """The iterations, or groups of these, of the shortest scan that gains something."""
    return max(2, -(-FEWEST // items.period)) if isinstance(items, Grouped) else FEWEST


def _grouped(site: Site, items: Items) -> tuple[Site, Items]:
    """The loop as one of groups of iterations, where its branches are known to repeat."""
    if site.period and site.of_groups is not None:
        groups = Grouped(items, 0, site.period)
        if groups.n - site.of_groups.first >= _fewest(groups):
            return site.of_groups, groups
    return site, items


def _with_own_cells(body: types.FunctionType) -> types.FunctionType:
    """The iteration with its free names as they are bound now.

    The function around may bind them anew, to what the loop has made (`x = torch.stack(outs)`).
    """
    cells = []
    for cell in body.__closure__ or ():
        try:
            cells.append(types.CellType(cell.cell_contents))
        except ValueError:  # not bound
            cells.append(types.CellType())
    return types.FunctionType(
        body.__code__, body.__globals__, body.__name__, None, tuple(cells) or None
    )


def _tensors_in_item(item: Any) -> bool:
    if isinstance(item, tuple):
        return any(map(_tensors_in_item, item))
    return isinstance(item, Tensor)


@contextmanager
def _without_lists(state: State) -> Iterator[None]:
    """A context in which lists that grow are empty: guards need not know their contents."""
    swapped = [(c, p.key, c[p.key]) for p, c in state.places if p.grows]
    for container, key, of in swapped:
        if type(of) is list:
            container[key] = Fresh()
    try:
        yield
    finally:
        for container, key, of in swapped:
            container[key] = of


def _with_dummies(
    carry: list[Tensor], xs: list[Tensor], n: int
) -> tuple[list[Tensor], bool, list[Tensor]]:
    """Carry and xs, neither empty, and no tensor twice."""
    if not carry and not xs:
        raise NoStep("its iterations take no tensor", quiet=True)
    seen: set[int] = set()
    with torch.enable_grad() if torch.is_grad_enabled() else torch.no_grad():
        distinct = []
        for t in carry:
            distinct.append(t.view_as(t) if id(t) in seen else t)
            seen.add(id(t))
    if not carry:
        like = next((x for x in xs if x.dim() > 1), xs[0])
        rows = like.shape[1] if like.dim() > 1 else 1
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return [torch.zeros(rows, 1, dtype=dtype)], True, xs
    if not xs:
        like = next((c for c in carry if c.dim()), carry[0])
        rows = like.shape[0] if like.dim() else 1
        xs = [torch.zeros((), dtype=like.dtype).expand(n, rows, 1)]
    return distinct, False, xs


def _at(spec: Any, j: int, sequences: Sequences) -> Any:
    """A structure with the loop's variable as it is in iteration j."""
    if spec == "tensor":
        return spec
    if spec[0] == "number":
        value = evaluated(spec[1], j, sequences)
        return type(value), repr(value) if isinstance(value, float) else value
    if len(spec) > 1 and isinstance(spec[-1], tuple) and spec[0] not in (torch.Size,):
        return (*spec[:-1], tuple([_at(s, j, sequences) for s in spec[-1]]))
    return spec


def _tensors_in(spec: Any) -> int:
    if spec == "tensor":
        return 1
    if spec[0] == "number":
        return 0
    if len(spec) > 1 and isinstance(spec[-1], tuple) and spec[0] not in (torch.Size,):
        return sum(map(_tensors_in, spec[-1]))
    if len(spec) == 4:
        return sum(map(_tensors_in, spec[2]))
    return 0


__all__ = ["Flat", "Frame", "KnownRows", "Loop", "LoopRuntime", "Site"]
