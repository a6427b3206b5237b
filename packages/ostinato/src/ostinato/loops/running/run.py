"""A loop while it runs: some iterations in Python, and then one scan of all the others.

The loop object is the iterator of the rewritten `for`. It pauses after the first iteration; the
code around then asks it to `scan`, with the local names. If that is not possible, the loop goes on
in Python from where it is.
"""

from __future__ import annotations

import operator
import threading
import time
import types
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato._explain import Explanation, explained
from ostinato._scan import iterations, scan_iterations
from ostinato.compiler.capture.captures import memory_of
from ostinato.compiler.capture.draws import States
from ostinato.compiler.capture.wrapped import outermost
from ostinato.compiler.errors import (
    Mispredicted,
    SideEffect,
    Transformed,
    Unexamined,
    Unsupported,
    error_in_short,
)
from ostinato.compiler.inputs import modes
from ostinato.compiler.steps import owner_of, weak_reference
from ostinato.compiler.torch_private import top_hooks
from ostinato.loops.iteration import elements
from ostinato.loops.iteration.attributes import Memory, reaches_state
from ostinato.loops.iteration.carry import State, places_of
from ostinato.loops.iteration.emitted import Fresh
from ostinato.loops.iteration.index import (
    BRANCH,
    FEWEST,
    LONGEST,
    MOST_BRANCHES,
    SHORTEST,
    Sequences,
)
from ostinato.loops.iteration.items import Items
from ostinato.loops.iteration.nostep import (
    MODE_LEFT,
    Counted,
    ListRead,
    Narrowed,
    NoStep,
    Periodic,
    Stale,
    Timed,
    TooSlow,
)
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.plan import MOST_IN_PYTHON, LoopPlan, Read
from ostinato.loops.iteration.probe import probed, share_memory
from ostinato.loops.iteration.step import Step
from ostinato.loops.running import pace as paces
from ostinato.loops.running.finish import LoopResults
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.pace import LoopPace, Trial, nodes_of
from ostinato.loops.running.site import MOST_PLANS, Site
from ostinato.loops.running.unwatched import holds_tensors, tensors_in_item, watching


class _Explaining(threading.local):
    """The steps of loops that run as scans, with their sites' ids, while a caller collects them."""

    found: list[tuple[int, Explanation]] | None = None


explaining = _Explaining()


class Loop(LoopResults):
    """A loop whose iterations may become a scan.

    Attributes:
        pause: the iteration before which a scan is tried; −1: none.
        course: the iteration from which on the present branches hold, or the end of the last scan.
        unrolled: whether loops within the observed iteration stayed in Python.
        refusal: why this loop is no scan, until it is known whether a loop within it is one.
    """

    def __init__(
        self, site: Site, items: Items, body: types.FunctionType, outer: Any, rows: KnownRows
    ):
        self.site, self.items, self.body, self.outer, self.rows = site, items, body, outer, rows
        self.body_now = body  # with the names that are bound when a scan is tried
        self.j, self.pause, self.stop = 0, site.first, items.n
        self.with_gradients = torch.is_grad_enabled()
        self.iterator, self.left = iter(items), 0  # left: the other items of a group of iterations
        self.seen: dict[Any, tuple[Any, Any]] = {}
        self.firsts: dict[Any, tuple[Any, int | None]] = {}
        self.written: dict[Read, tuple[Any, Any]] = {}
        self.counts: dict[int, int] = {}
        if site.ahead is not None and self.may_begin_ahead():
            self.pause = 0

    ended = watching = must_look = inner_native = unrolled = False
    memory: Memory | None = None
    began, lasted = 0.0, float("inf")
    turns = course = 0
    refusal: Unsupported | None = None
    counted_from: Any = None
    probed: LoopPlan | None = None
    trial: Trial | None = None

    def __iter__(self) -> Loop:
        return self

    def __next__(self) -> Any:
        if self.left:
            self.left -= 1
        else:
            self.unwatch()
            if self.j == self.pause:
                now = time.perf_counter()
                if self.j:
                    self.lasted = now - self.began
                self.began = now
                raise StopIteration
            if self.j == self.pause - 1 and self.trial is None:
                self.watch()
            elif self.refusal is not None:
                watching.loops.add(self)
                self.watching = True
            self.j, self.left = self.j + 1, self.items.period - 1
        try:
            return next(self.iterator)
        except StopIteration:
            self.unwatch()
            self.ended = True
            raise

    def unwatch(self) -> None:
        """End the watch over PyTorch's functions, if there is one."""
        if self.watching:
            watching.loops.discard(self)
            self.watching = False
            if self.refusal is not None and not self.inner_native:
                self.site.warn(self.refusal)
            self.refusal = None

    def unrolls(self, n: int) -> bool:
        """Whether a loop of n iterations within the observed one stays in Python for now, since
        this loop may become a scan with them unrolled: it has state, and more iterations."""
        has_state = self.site.source.has_state() or bool(self.site.places)
        found = self.refusal is None and has_state and n <= self.stop - self.j
        self.unrolled |= found
        return found

    def watch(self) -> None:
        """Observe what the iteration that begins reads and changes."""
        self.seen.clear()
        self.firsts.clear()
        self.written.clear()
        self.counts.clear()
        self.unrolled = False
        owner = owner_of(self.body)
        if self.must_look or not self.site.knows(owner):
            self.memory, self.must_look = Memory(self.body), False
            self.site.looked[id(owner)] = weak_reference(owner)
        watching.loops.add(self)
        self.watching, self.began = True, time.perf_counter()

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
        if not self.j:
            return self.ahead(names)
        self.pause = -1
        if self.trial is not None:
            self.trial.end(names, self.j, self.lasted)
            self.trial = None
            return None
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
            if narrowed.reason == BRANCH:
                self.course = narrowed.begin
            self.pause = narrowed.begin
            if self.j == self.site.first:
                self.site.first = max(self.site.first, min(self.pause, MOST_IN_PYTHON))
        except Periodic as refusal:
            why = self.groups(refusal.period)
            if why is not None:
                self.refuse(why, names)
        except Timed:
            self.pause, self.began = min(self.stop, self.items.n - 1), time.perf_counter()
        except Unsupported as refusal:
            more = isinstance(refusal, SideEffect) and self.j - self.course < MOST_IN_PYTHON
            if more:
                self.must_look, self.pause = True, self.j + 1
            else:
                self.refuse(refusal, names)
        finally:
            self.memory = None
        return None

    def may_begin_ahead(self) -> bool:
        """Whether no iteration needs to run in Python.

        A checkpoint, which has hooks, must find the same graph when it computes again.
        """
        site = self.site
        is_first = site.first == 1 and self.items.period == 1 and not watching.loops
        looked = site.knows(owner_of(self.body)) or not reaches_state(self.body)
        return is_first and looked and top_hooks(False) is None

    def ahead(self, names: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run all iterations by scan, as those of an earlier call after its first one.

        The state before the loop must be like the state between iterations. Plans, guards and
        recordings are found, or made, as after an iteration in Python.
        """
        self.pause, before = self.site.first, self.items.before()
        for read in self.site.ahead or ():
            if read[0] in self.site.source.plain:
                name, index = self.site.source.plain[read[0]]
                self.seen[read] = names.get(name), elements.with_item(index, before)
        try:
            return self.attempt(names)
        except Timed:
            pass  # the first iteration is measured, too
        except Unsupported:  # a call with an iteration in Python finds out why
            self.site.ahead, self.site.all_alike = None, False
        self.stop = self.items.n
        return None

    def refuse(self, refusal: Unsupported, names: dict[str, Any]) -> None:
        """Go on in Python. The warning waits for one iteration if loops within stayed in Python:
        one of these may be a scan now."""
        through_tensors = self.goes_through_tensors(names)
        if not self.site.refuse(self.body, self.items.n, refusal, through_tensors):
            return
        if self.unrolled:
            self.refusal = refusal
        else:
            self.site.warn(refusal)

    def may_count_otherwise(self, refusal: NoStep) -> bool:
        """Whether numbers that counted in another call may not count in this one."""
        begin, known = self.j, self.site.offsets
        if isinstance(refusal, TooSlow):
            return False
        is_course = isinstance(refusal, Narrowed) and refusal.begin == begin
        if is_course and refusal.end - begin >= FEWEST:  # type: ignore[attr-defined]
            return False
        return self.counted_from is not None and known not in (None, self.counted_from)

    def groups(self, period: int) -> NoStep | None:
        """Take so many iterations as one from here on; or why that cannot be."""
        of = items = self.items
        begin = self.j
        if isinstance(of, Grouped):
            items, begin, period = of.items, of.first + begin * of.period, period * of.period
        groups = Grouped(items, begin, period)
        if period > LONGEST:
            return NoStep("its iterations branch on the loop's variable")
        if groups.n - 1 < fewest(groups):
            return NoStep("too few iterations for a scan", quiet=True)
        self.site, self.items = self.site.grouped(period), groups
        self.j, self.pause, self.stop, self.course, self.must_look = 0, 1, groups.n, 0, True
        return None

    def goes_through_tensors(self, names: dict[str, Any]) -> bool:
        """Whether the loop iterates over tensors, or reads elements of tensors; if the user gave
        its function, whether it has tensors as state, too."""
        items = tensors_in_item(next(iter(self.items), None))
        of_state = self.site.given and holds_tensors(names, self.site.source.carried)
        return items or of_state or any(isinstance(base, Tensor) for base, _ in self.seen.values())

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
        known = self.site.ends.get((self.items.n, begin), self.stop)
        end = self.stop = min(self.stop, known, self.items.n)
        if end - begin < (SHORTEST if self.site.heavy else fewest(self.items)):
            raise NoStep("too few iterations for a scan", quiet=True)
        if source.problem:
            raise NoStep(source.problem)
        if torch.is_grad_enabled() is not self.with_gradients:
            raise NoStep(MODE_LEFT)
        self.body_now = _with_own_cells(self.body)
        places = places_of(self.body_now, self.site.places)
        stale: list[LoopPlan] = []
        grown = not self.site.has_queue
        read: NoStep | None = None
        self.probed = None
        anew = False
        for _ in range(6):
            state = State(names, source, places, self.body_now, self.site.counted, grown)
            key = *state.key(), self.items.kind(), torch.is_grad_enabled()
            self.counted_from = state.counted_from(begin)
            try:
                step, plan = self.step(state, key, stale, anew)
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
                grown, read = False, error
                continue
            except NoStep as error:
                if read is None or isinstance(error, Narrowed):
                    raise
                raise read from None
            try:
                return self.played(step, plan, state)
            except Unexamined:
                anew = True
            except Mispredicted as refusal:
                course = self.course_of(refusal)
                if isinstance(course, Narrowed) or plan in stale:
                    raise course from None
                stale.append(plan)  # one that was seen in this call may know the answers
            except Unsupported as refusal:
                # No name outlives this clause: its traceback would keep the call's tensors.
                if not self.tries_another(step.problem or refusal, plan):
                    raise _with_shapes(step.problem or refusal, names, source.carried) from None
                stale.append(plan)
        raise NoStep("an iteration does something else each time it is examined")

    def tries_another(self, why: Exception, plan: LoopPlan) -> bool:
        """Whether another plan may do what this one refused: one that was made in another call
        may read beyond the end of what this call has."""
        other = isinstance(why, NoStep) and plan is not self.probed
        return isinstance(why, Stale) or (other and not isinstance(why, (Narrowed, TooSlow)))

    def course_of(self, refusal: Mispredicted) -> Unsupported:
        """The iterations up to the one that branches in another way; the refusal if they are few.

        The next call of this length tries no more than these at once.
        """
        length = self.stop - self.j
        if refusal.at < max(FEWEST, length / 8) or self.turns >= MOST_BRANCHES:
            return refusal
        self.turns += 1
        end = self.site.ends[self.items.n, self.j] = self.j + refusal.at
        return Narrowed(refusal.reason, begin=self.j, end=end)

    def step(
        self, state: State, key: Any, stale: list[LoopPlan], anew: bool
    ) -> tuple[Step, LoopPlan]:
        """The step with a plan that fits this call, or a new one; anew: with a new one."""
        begin, end = self.j, self.stop
        known = [p for p in self.site.plans.get(key, ()) if p not in stale and not anew]
        for plan in sorted(known, key=lambda p: self.items.n not in p.lengths):
            step = self.new_step(state, plan)
            if self.fits(step, plan):
                plan.lengths.add(self.items.n)
                return step, plan
        with suppress(Transformed):  # which scan plays
            modes()  # raises if no scan is possible
        step = self.new_step(state, LoopPlan())
        items = [t[0] for t in self.items.tensors(begin, end)]
        made = probed(step, state.tensors, items, self.written)
        made.begins_at(self.starts(state, made))
        made.shares = self.shares(made, state)
        plans = self.site.plans.setdefault(key, [])
        same = next((p for p in plans if p.facts() == made.facts()), None)
        if same is None:
            plans.insert(0, made)
            del plans[MOST_PLANS:]
        step.plan = plan = self.probed = same or made
        plan.starts, plan.called = made.starts, made.called
        # What depends on what is only seen where there are gradients.
        plan.passed = tuple(map(operator.or_, plan.passed, made.passed))
        plan.ends = plan.ends | made.ends
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
        step.course = self.course
        sequences = Sequences(self.j, [value for value, _ in state.counts])
        sequences.tables = self.items.tables()
        step.questions.sequences = self.sequences = sequences
        return step

    def played(self, step: Step, plan: LoopPlan, state: State) -> tuple[Any, ...]:
        """Run the window by scan, and leave the results of its iterations."""
        begin, end = self.j, self.stop
        pace = self.pace_of(plan, state)
        items = self.items.tensors(begin, end)
        step.n_items = len(items)
        xs = [*items, *self.elements_of(plan)]
        for key, dtype in plan.numbers:
            xs.append(self.numbers_of(key, dtype))
        both = zip(state.tensors, plan.tensors, strict=False)
        written = [t for t, how in both if how == "written"]
        # The backward pass must not read what is changed in place afterwards.
        carry = [t.clone() if any(t is w for w in written) else t for t in state.tensors]
        carry = [*step.carried(carry), *self.behind(plan, state)]
        carry, step.has_dummy, xs = _with_dummies(carry, xs, end - begin)
        kept_in = [(container, place.key) for place, container in state.places]
        targets = [self.window(read, parts) for read, parts, _ in plan.puts]
        if any(target.piece is not None and abs(target.step) < target.piece for target in targets):
            raise NoStep("the elements that iterations write overlap")
        written += [target.base for target in targets if isinstance(target.base, Tensor)]
        memories = {memory_of(t) for t in written} - {None}
        self.check_iterated(memories, [*state.changing(), *[target.base for target in targets]])
        grown = [(c, p.key, c[p.key]) for p, c in state.places if p.grows]
        for container, key, of in grown:  # guards need not know their contents
            container[key] = Fresh() if type(of) is list else of
        random = States()
        try:
            examined = plan is self.probed
            arguments = iterations(step, self.body_now, plan, kept_in, carry, xs, examined)
            if explaining.found is not None:
                if not examined:
                    raise Unexamined("to explain it")
                site = self.site.whole or self.site
                explaining.found.append((id(site), explained(arguments)))
            finals, ys = scan_iterations(arguments, memories)
        except Unsupported:
            random.put_back()
            raise
        except Exception as error:  # the loop in Python will raise it where it belongs
            if type(error).__module__ == "torch.utils.checkpoint":  # it ends a recomputation
                raise
            error.__traceback__ = None
            random.put_back()
            raise NoStep(f"an iteration fails as a step ({error_in_short(error)})") from None
        finally:
            for container, key, of in grown:
                container[key] = of
        lasted = (time.perf_counter() - self.began) / (end - begin)
        plan.calls += 1
        if plan.calls > 1 and top_hooks(False) is None:
            shown = self.site.whole or self.site
            if self.j or shown.times is None:
                shown.times = self.lasted, lasted
            else:  # no first iteration ran in Python
                shown.times = shown.times[0], lasted
            self.shows_ahead(plan)
        if pace is not None and pace.measures_scan():
            pace.scan.add(lasted)
            before, after = nodes_of(state.tensors), nodes_of([*finals, *ys])
            pace.scan.add_backward(before, after, end - begin)
        beyond = map(outermost, ys[-plan.lookups :]) if plan.lookups else ()
        if any(bool(y.any()) for y in beyond):  # in any of the rows that vmap maps over
            random.put_back()
            raise NoStep("an iteration looks up an element beyond the end")
        finals = step.whole(finals)[: len(state.tensors)]
        names = self.finish(plan, state, targets, finals, list(ys))
        if torch.is_grad_enabled():
            step.let_go()
        self.site.ran(True, "")
        self.site.in_a_row = 0
        self.site.offsets = state.counted_from(begin)
        self.site.has_queue = self.site.source.has_lists() and not state.list_names
        if self.site.refused:
            for key in self.site._keys(self.body, self.items.n):
                self.site.refused.pop(key, None)
        if len(watching.loops):
            for outer in watching.loops:
                outer.inner_native = True
        self.j = self.course = end
        self.iterator = self.items.begin(end)
        if self.items.n - end > FEWEST:  # another branch: one iteration shows what it does
            self.pause, self.stop = end + 1, self.items.n
        return names

    def shows_ahead(self, plan: LoopPlan) -> None:
        """Let later calls begin with the scan; not if they would change the user's own state."""
        if self.site.all_alike and "written" not in plan.tensors and not plan.hands_out:
            known = self.site.ahead or set()
            self.site.ahead = known | {*plan.reads} | {write for write, _, _ in plan.puts}

    def pace_of(self, plan: LoopPlan, state: State) -> LoopPace | None:
        """The times of such a call; None if it must not be measured.

        Raises:
            TooSlow: the scan gains nothing.
            Timed: the iterations run in Python, to be measured.
        """
        # A checkpoint, which has hooks, must find the same graph when it computes again.
        if not paces.MEASURES or top_hooks(False) is not None or explaining.found is not None:
            return None
        # One number with and without a first iteration in Python, for lengths like 32, too.
        n, numel = self.stop - max(self.j, 1), sum([t.numel() for t in state.tensors])
        pace = plan.paces.setdefault((n.bit_length(), numel.bit_length()), LoopPace())
        if pace.is_slow(torch.is_grad_enabled()):
            raise TooSlow("the engine gains nothing here", quiet=True)
        if not self.j and not pace.is_decided():
            raise Timed("its first iteration is measured", quiet=True)
        if pace.measures_python(self.lasted):
            carried, places = self.site.source.carried, state.places

            def values(names: dict[str, Any]) -> list[Any]:
                named = [names.get(name) for name in carried]
                return tree.leaves([*named, *[of[place.key] for place, of in places]])

            self.trial = Trial(pace, self.j, nodes_of(state.tensors), values)
            raise Timed("its iterations are measured in Python", quiet=True)
        return pace

    def check_iterated(self, memories: set[Any], changing: list[Any]) -> None:
        """Refuse iterations that may change what the loop goes through.

        Args:
            memories: of the tensors that they write.
            changing: the lists, dicts and objects that they may change.
        """
        ids = {id(of) for of in changing if not isinstance(of, Tensor)}
        if (memories or ids) and any(
            memory_of(of) in memories if isinstance(of, Tensor) else id(of) in ids
            for of in self.items.held()
        ):
            raise NoStep("an iteration changes what the loop iterates over")

    def elements_of(self, plan: LoopPlan) -> list[Tensor]:
        """The elements that the step reads, `[n, …]`."""
        found = []
        written = [self.seen[read][0] for read, _, _ in plan.puts]
        for read, parts in plan.leaves:
            base, at = self.first(read, parts)
            value = elements.part_at(base, parts, (at or 0) + 1, self.stop - self.j)
            if value is None:
                value = self.window(read, parts).read()
            if written and any(share_memory(base, other) for other in written):
                value = value.clone()  # it is written afterwards, and the backward pass reads it
            found.append(value)
        return found


def fewest(items: Items) -> int:
    """The iterations, or groups of these, of the shortest scan that gains something."""
    return max(2, -(-FEWEST // items.period)) if isinstance(items, Grouped) else FEWEST


def _with_shapes(why: Unsupported, names: dict[str, Any], carried: Iterable[str]) -> Unsupported:
    """A refusal that speaks of the batch, with the shapes of the state if these have several."""
    shapes = {n: [*v.shape] for n in carried if isinstance(v := names.get(n), Tensor)}
    if "batch" in why.reason and len({tuple(shape[:1]) for shape in shapes.values()}) > 1:
        why.reason += f"; {', '.join(f'{name} is {shape}' for name, shape in shapes.items())}"
    return why


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


def _with_dummies(
    carry: list[Tensor], xs: list[Tensor], n: int
) -> tuple[list[Tensor], bool, list[Tensor]]:
    """Carry and xs, neither empty, and no tensor twice."""
    if not carry and not xs:
        raise NoStep("its iterations take no tensor", quiet=True)
    first: dict[int, int] = {}
    again = [first.setdefault(id(t), i) != i for i, t in enumerate(carry)]
    distinct = [t.view_as(t) if is_known else t for t, is_known in zip(carry, again, strict=True)]
    if not carry:
        like = next((x for x in xs if x.dim() > 1), xs[0])
        rows = like.shape[1] if like.dim() > 1 else 1
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return [torch.zeros(rows, 1, dtype=dtype)], True, xs
    if not xs:
        xs = [torch.zeros((), dtype=carry[0].dtype).expand(n, _n_rows(carry), 1)]
    return distinct, False, xs


def _n_rows(carry: list[Tensor]) -> int:
    """The size of the batch: the first axis of all tensors, or the second of some of them."""
    sizes = [t.shape[:2] for t in carry if t.dim()]
    if not sizes:
        return 1
    first = sizes[0][0]
    return next((n for n in (first, *sizes[0]) if all(n in of for of in sizes)), first)
