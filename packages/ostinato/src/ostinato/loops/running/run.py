"""A loop while it runs: some iterations in Python, and then one scan of all the others.

The loop object is the iterator of the rewritten `for`. It pauses after the first iteration; the
code around then asks it to `scan`, with the local names. If that is not possible, the loop goes on
in Python from where it is.
"""

from __future__ import annotations

import time
import types
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.errors import SideEffect, Unsupported
from ostinato.compiler.steps import owner_of, weak_reference
from ostinato.compiler.torch_private import top_hooks
from ostinato.loops.iteration import elements
from ostinato.loops.iteration.attributes import Memory, reaches_state
from ostinato.loops.iteration.index import BRANCH, FEWEST, LONGEST, SHORTEST
from ostinato.loops.iteration.items import Items
from ostinato.loops.iteration.nostep import MODE_LEFT, Narrowed, NoStep, Periodic
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.plan import MOST_IN_PYTHON, Read
from ostinato.loops.running.attempt import Attempt
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.pace import Choice, Trial
from ostinato.loops.running.site import Site
from ostinato.loops.running.unwatched import Unwatched, holds_tensors, tensors_in_item, watching
from ostinato.loops.running.window import LoopWindow


class Loop(Unwatched):
    """A loop whose iterations may become a scan.

    Attributes:
        outer: the loop around it, or None.
        rows: the lists whose items are also known as one tensor.
        j: the iteration that runs next.
        pause: the iteration before which a scan is tried; −1: none.
        stop: the iteration at which the scan ends.
        left: the other items of a group of iterations.
        seen, written, counts: the elements that the watched iteration reads or writes, those of
            them that it writes, and how many at each place of the text.
        memory: what that iteration may change.
        must_look: whether the next one is to be looked at for what it changes.
        began, lasted: when an iteration or a scan began; the seconds of the last iteration.
        course: the iteration from which on the present branches hold, or the end of the last scan.
        turns: how many scans have ended where a branch on values turned.
        counted_from: what the numbers that count would be in iteration 0.
        unrolled: whether loops within the observed iteration stayed in Python.
        inner_native: whether one of these has run as a scan.
        refusal: why this loop is no scan, until it is known whether a loop within it is one.
        trial: the iterations that run in Python for their time.
    """

    def __init__(
        self, site: Site, items: Items, body: types.FunctionType, outer: Any, rows: KnownRows
    ):
        self.site, self.items, self.body, self.outer, self.rows = site, items, body, outer, rows
        self.j, self.pause, self.stop = 0, site.first, items.n
        self.with_gradients = torch.is_grad_enabled()
        self.iterator, self.left = iter(items), 0
        self.seen: dict[Any, tuple[Any, Any]] = {}
        self.written: dict[Read, tuple[Any, Any]] = {}
        self.counts: dict[int, int] = {}
        self.ended = self.watching = self.must_look = self.inner_native = self.unrolled = False
        self.memory: Memory | None = None
        self.began, self.lasted = 0.0, float("inf")
        self.turns = self.course = 0
        self.counted_from: Any = None
        self.refusal: Unsupported | None = None
        self.trial: Trial | None = None
        if site.ahead is not None and self.may_begin_ahead():
            self.pause = 0

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
                ran = self.attempt(names)
            except NoStep as refusal:
                if not self.may_count_otherwise(refusal):
                    raise
                self.site.counted.clear()
                self.stop = self.items.n
                ran = self.attempt(names)
            if not isinstance(ran, Choice):
                return ran
            if ran is Choice.PYTHON:
                why = NoStep("the engine gains nothing here", quiet=True)
                self.refuse(why, names, too_slow=True)
            else:
                self.pause, self.began = min(self.stop, self.items.n - 1), time.perf_counter()
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
            few = self.groups(refusal.period)
            if few is not None:
                self.refuse(few, names)
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
            ran = self.attempt(names)
        except Unsupported:  # a call with an iteration in Python finds out why
            ran = Choice.PYTHON
        if not isinstance(ran, Choice):
            return ran
        if ran is Choice.PYTHON:
            self.site.ahead, self.site.all_alike = None, False
        self.stop = self.items.n
        return None

    def refuse(self, refusal: Unsupported, names: dict[str, Any], too_slow: bool = False) -> None:
        """Go on in Python. The warning waits for one iteration if loops within stayed in Python:
        one of these may be a scan now."""
        through_tensors = self.goes_through_tensors(names)
        if not self.site.refuse(self.body, self.items.n, refusal, through_tensors, too_slow):
            return
        if self.unrolled:
            self.refusal = refusal
        else:
            self.site.warn(refusal)

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

    def may_count_otherwise(self, refusal: NoStep) -> bool:
        """Whether numbers that counted in another call may not count in this one."""
        begin, known = self.j, self.site.offsets
        is_course = isinstance(refusal, Narrowed) and refusal.begin == begin
        if is_course and refusal.end - begin >= FEWEST:  # type: ignore[attr-defined]
            return False
        return self.counted_from is not None and known not in (None, self.counted_from)

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

    def attempt(self, names: dict[str, Any]) -> tuple[Any, ...] | Choice:
        """Run the remaining iterations by scan, or say why Python is to run them.

        Raises:
            Unsupported: they are no scan; nothing has happened.
        """
        begin, n = self.j, self.items.n
        self.stop = min(self.stop, self.site.ends.get((n, begin), self.stop), n)
        if self.stop - begin < (SHORTEST if self.site.heavy else fewest(self.items)):
            raise NoStep("too few iterations for a scan", quiet=True)
        if self.site.source.problem:
            raise NoStep(self.site.source.problem)
        if torch.is_grad_enabled() is not self.with_gradients:
            raise NoStep(MODE_LEFT)
        body = _with_own_cells(self.body)
        window = LoopWindow(
            begin, self.stop, self.items, body, self.seen, self.written, self.course
        )
        attempt = Attempt(self.site, window, self.rows, self.began, self.lasted, self.turns)
        try:
            found = attempt.run(names)
        finally:
            self.counted_from, self.turns = attempt.counted_from, attempt.turns
            self.trial = attempt.trial
        if isinstance(found, Choice):
            return found
        for outer in watching.loops if len(watching.loops) else ():
            outer.inner_native = True
        self.j = self.course = self.stop
        self.iterator = self.items.begin(self.stop)
        if n - self.stop > FEWEST:  # another branch: one iteration shows what it does
            self.pause, self.stop = self.stop + 1, n
        return found


def fewest(items: Items) -> int:
    """The iterations, or groups of these, of the shortest scan that gains something."""
    return max(2, -(-FEWEST // items.period)) if isinstance(items, Grouped) else FEWEST


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
