"""One run of the step that represents many iterations.

A `Step` is what `scan` is given: it puts the state together, runs the body on it, and takes apart
what the body left: new state, values appended, elements written. It compares what the body did with
its `LoopPlan`, which says how a call finds the inputs and what becomes of the outputs.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.errors import Unsupported
from ostinato.loops.iteration import elements
from ostinato.loops.iteration.attributes import ABSENT
from ostinato.loops.iteration.calls import Calls
from ostinato.loops.iteration.carry import State
from ostinato.loops.iteration.emitted import JOINING, READ, Fresh, WholeList, fresh_of
from ostinato.loops.iteration.frame import ANOTHER_NAME, OTHER_INDEX, Frame
from ostinato.loops.iteration.index import (
    Index,
    Number,
    Questions,
    running,
)
from ostinato.loops.iteration.items import ItemParts, Items
from ostinato.loops.iteration.nostep import MODE_LEFT, Counted, ListRead, Narrowed, NoStep, Stale
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.plan import IN_A_CALL, MOST_IN_PYTHON, LoopPlan, Read
from ostinato.loops.iteration.state import Flat, Maker, Spec, contents_of, part_name, parts_of

CHANGED_LATER = "an iteration appends a list, dict or object that the next one changes"


class Step:
    """The iterations of one call as a step of `scan`: `step(carry, x) -> (carry, outputs)`.

    Attributes:
        names: of the state, for messages.
        seen: the elements that the last iteration in Python read or wrote.
        course: the first iteration that branches as this one.
        n_items: how many of the inputs are the loop's items.
        has_dummy: whether the carry is a tensor that no iteration uses.
        bases, lag_bases: what the elements of the plan's `leaves` and `lags` are elements of.
        fresh: the lists that grow, while the body runs.
        numbers: the numbers of the state, in the last run.
        changes: whether that run has changed a container of the state in place.
        unfit: why that run is not a step, found on the way.
        problem: why it is not a step of a scan.
        frame, calls: while the body runs.
    """

    def __init__(
        self,
        body: types.FunctionType,
        items: Items,
        state: State,
        plan: LoopPlan,
        questions: Questions,
        names: tuple[str, ...],
        seen: dict[Read, tuple[Any, Any]],
        course: int,
    ):
        self.body, self.items, self.state, self.plan = body, items, state, plan
        self.questions, self.seen, self.course = questions, seen, course
        self.names = [*names, *[str(place) for place, _ in state.places]]
        self.n_items = 0
        self.has_dummy = False
        self.bases: list[Any] = []
        self.lag_bases: list[Any] = []
        self.fresh: list[Fresh] = []
        self.numbers: Sequence[Any] = ()
        self.changes, self.unfit = False, ""
        self.problem: Unsupported | None = None
        self.frame: Frame
        self.calls: Calls

    def __call__(self, carry: Any, x: Any) -> Any:
        self.problem = None  # that of another way to record the step
        try:
            return self.run(list(carry), list(x))
        except Unsupported as error:
            self.problem = error
            raise

    def let_go(self) -> None:
        """Hold no tensors any longer.

        Autograd's graph holds the step, and the results of the loop, which are in its lists and
        tensors, hold the graph: Python cannot collect such a cycle.
        """
        of_seen = [base for base, _ in self.seen.values()]
        bases = {id(b): b for b in (*self.bases, *self.lag_bases, *of_seen)}
        known = {number: elements.Known(base) for number, base in bases.items()}
        self.bases = [known[id(base)] for base in self.bases]
        self.lag_bases = [known[id(base)] for base in self.lag_bases]
        self.seen = {read: (known[id(base)], index) for read, (base, index) in self.seen.items()}
        self.state.let_go()

    def element(self, frame: Frame, read: Read, base: Any, parts: Any, index: Any) -> Tensor:
        """The element of a read, which is an input of the step."""
        leaf = self.plan.reads.get(read)
        if leaf is None or self.plan.leaves[leaf][1] != parts:
            raise Stale("it reads other elements than before")
        if not elements.is_same(self.bases[leaf], base):
            raise NoStep("an iteration indexes a tensor that it makes anew by the loop's variable")
        return frame.given[leaf]

    def base_of(self, read: Read, index: Any) -> Any:
        """The element that the last iteration in Python read or wrote at this place in the text.

        Raises:
            Narrowed: it did neither; after another iteration it may be known.
        """
        if not elements.moves(index):
            self.does_not_move()
        if read not in self.seen:
            why = "its iterations read other elements than the first ones"
            begin = self.questions.begin
            if begin - self.course >= MOST_IN_PYTHON:
                raise NoStep(why)
            raise Narrowed(why, begin=begin + 1, end=self.questions.end)
        return self.seen[read][0]

    def whole_rows(self, base: Any, index: Any) -> Any:
        """The index of a write; a tensor in it is the range that the plan found."""
        if not elements.has_tensors(index):
            return index
        return tuple([slice(None) if isinstance(p, Tensor) else p for p in index])

    def follows(self, read: Read, parts: Any, index: Any) -> None:
        """An element that is written; a step with a plan has checked where elements are."""

    def does_not_move(self) -> None:
        """Require an index to be the same number in each iteration as in this run."""
        raise NoStep(OTHER_INDEX)

    def lag(self, frame: Frame, read: Read, base: Any, parts: Any, index: Any) -> Tensor | None:
        """The value that an earlier iteration wrote where this one reads, or None."""
        for i, (of, its_parts, _, _) in enumerate(self.plan.lags):
            if of == read:
                if its_parts != parts or not elements.is_same(self.lag_bases[i], base):
                    raise Stale("it reads other elements than before")
                return frame.lags[i][0]
        return None

    def of_list(self, frame: Frame, read: Read, base: Fresh, parts: Any, index: Any) -> Any:
        """The item of a list that grows by one in each iteration, at the loop's variable."""
        m = next(i for i, f in enumerate(self.fresh) if f is base)
        n = len(base.appended())
        begin = self.questions.begin
        variable = elements.moving(index)
        if not base.is_item(parts):
            raise ListRead(READ)
        back = len(self.state.lists[m]) - begin + n - variable._start
        if back < 1:
            raise NoStep(READ)
        frame.by_index.setdefault(m, []).append((read, n, back))
        return base.item(-back)

    def in_table(self, read: Read, base: Any, parts: Any, index: Any) -> Number:
        """The number of a list or array at the loop's variable."""
        n, places = len(self.items.tables()), [table[:2] for table in self.plan.tables]
        if (read, parts) not in places:
            raise Stale("it reads other numbers than before")
        return Number(("table", n + places.index((read, parts))))

    def past(self, m: int, k: int) -> Any:
        """The k-th last item that a list held before the iteration."""
        frame = self.frame
        items = frame.pasts[m] if m < len(frame.pasts) else []
        if k > len(items):
            raise Stale("it reads other items of a list than before")
        return items[-k]

    def length_before(self, m: int) -> Index:
        """The length of a list before an iteration, of those that append one value to it each."""
        self.frame.by_length.add(m)
        return Index(1, len(self.state.lists[m]) - self.questions.begin)

    def sees_calls(self) -> bool:
        """Whether the body's calls of torch's functions matter."""
        plan = self.plan
        return bool(plan.numbers or plan.called or plan.lookups or plan.joined)

    def selected(self, frame: Frame, function: Any, arguments: Any, named: Any) -> Any:
        """An element that a called function reads, or `x.select(1, t)`; else NotImplemented."""
        name = getattr(function, "__name__", "")
        if arguments and isinstance(arguments[0], Fresh) and function in (torch.stack, *JOINING):
            return self.joined(frame, function, *arguments, **named)
        found = elements.of_call(name, arguments, named)
        if found is None or not elements.moves(found[1]) or elements.has_tensors(found[1]):
            return NotImplemented
        base, index = found
        if elements.grows(index):
            return frame.part(base, index)
        read = frame.numbered(IN_A_CALL)
        self.meets(read, base, index)
        return frame.element(read, base, index)

    def joined(self, frame: Frame, function: Any, of: Fresh, dim: int = 0) -> Tensor:
        """`torch.stack(outs, 1)` of a list that grows by one in each iteration."""
        m = next(i for i, f in enumerate(self.fresh) if f is of)
        items, length = of.appended(), of.length()
        if len(items) > 1:
            raise ListRead(READ)
        is_stack = function is torch.stack
        whole, joined = self.whole_of(frame, m, is_stack, dim)
        for item in items:
            whole = joined.with_item(whole, length - 1, item)
        return joined.tensor(whole, length)

    def whole_of(self, frame: Frame, m: int, is_stack: bool, dim: int) -> tuple[Tensor, WholeList]:
        """The part of the state that holds the items of a list."""
        for whole, joined in zip(frame.wholes, self.plan.joined, strict=True):
            n_axes = whole.dim()
            if joined == WholeList(m, is_stack, dim % n_axes):
                return whole, joined
        raise Stale("it reads another list than before")

    def meets(self, read: Read, base: Any, index: Any) -> None:
        """A read that the text of the loop does not show; the plan says where it is.

        Raises:
            Stale: it is elsewhere, as `x[:, T - 1 - t]` is with another T.
        """
        found = [of for known, _, of in self.plan.called if known == read]
        if [*map(elements.keyed, found)] != [elements.keyed(index)]:
            raise Stale("a function that it calls reads other elements than before")

    def number(self, key: Any, dtype: torch.dtype) -> Tensor:
        """The input with the values of an expression of the loop's variable."""
        try:
            at = self.plan.numbers.index((key, dtype))
        except ValueError:
            raise Stale("it computes other numbers than before") from None
        return self.frame.given[len(self.plan.leaves) + at]

    def run(self, carry: list[Tensor], x: list[Tensor]) -> Any:
        """The new carry and the outputs.

        Raises:
            Stale: the body did something else than the plan says.
            Unsupported: the body is not a step of a scan.
        """
        frame = Frame(self, iter(x[self.n_items :]))
        carry, given = self.whole(carry), carry
        new, outputs, facts = self.once(carry, iter(x[: self.n_items]), frame)
        if facts.done() != self.plan.done():
            raise Stale("it emits other values than before")
        return given if self.has_dummy else self.carried(new), outputs

    def carried(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensors of the state that a scan hands on."""
        return [t for i, t in enumerate(tensors) if i not in self.plan.left]

    def whole(self, carry: list[Tensor]) -> list[Tensor]:
        """All tensors of the state, from those that a scan hands on."""
        found = list(carry)
        for i in self.plan.left:
            found.insert(i, self.state.tensors[i])
        return found

    def once(
        self, carry: list[Tensor], given: Iterator[Tensor], frame: Frame
    ) -> tuple[Any, list[Tensor], LoopPlan]:
        """Run the body: the new carry, the outputs, and the plan of what it did."""
        if self.plan.tensors:
            pairs = zip(carry, self.plan.tensors, strict=False)
            carry = [c.clone() if how == "written" else c for c, how in pairs] + carry[
                len(self.plan.tensors) :
            ]
        versions = [_version(c) for c in carry]
        state, tensors = self.state, iter(carry)
        self.fresh = fresh = [
            fresh_of(of, functools.partial(self.past, m), functools.partial(self.length_before, m))
            for m, of in enumerate(state.lists)
        ]
        self.numbers = [
            Number(("state", k)) if by is None else Index(by, value - by * self.questions.begin)
            for k, (value, by) in enumerate(state.counts)
        ]
        maker = Maker(tensors, iter(fresh), counts=self.numbers)
        carried = [maker.make(s) for s in state.carried.specs]
        placed = [maker.make(s) for s in state.placed.specs]
        n_containers = len(maker.containers)
        held = [(c, contents_of(c)) for c in maker.containers]
        for _ in state.trailing.tensors:  # the step makes them anew
            next(tensors)
        frame.lags = [[next(tensors) for _ in range(lag[3])] for lag in self.plan.lags]
        frame.pasts = [[maker.make(s) for s in specs] for specs, _ in self.plan.pasts]
        frame.wholes = [next(tensors) for _ in self.plan.joined]
        items = list(given)
        item = self.items.symbolic(ItemParts(iter(items)))
        in_turn = item if isinstance(self.items, Grouped) else (item,)
        before = []
        for (place, container), value in zip(state.places, placed, strict=True):
            before.append(container[place.key])
            container[place.key] = value
        frame.held = [*maker.containers, *carry]
        self.frame, self.questions.number = frame, self.number
        running.questions.append(self.questions)
        selected = functools.partial(self.selected, frame)
        self.calls = calls = Calls(selected, [*carry, *items, *frame.given])
        modes = torch.is_grad_enabled(), torch.get_default_dtype()
        try:
            with calls if self.sees_calls() else nullcontext():
                for item in in_turn:
                    out = self.body(frame, item, *carried)
                    carried = out[: len(carried)]
            frame.wholes = self.with_items(frame, fresh)
            placed = [
                c[place.key] if isinstance(c, list) else c.get(place.key, ABSENT)
                for place, c in state.places
            ]
        finally:
            left = torch.is_grad_enabled(), torch.get_default_dtype()
            if left != modes:
                torch.set_grad_enabled(modes[0])
                torch.set_default_dtype(modes[1])
            running.questions.pop()
            del self.frame, self.calls  # they hold tensors
            frame.held = []
            self.fresh = []
            for (place, container), value in zip(state.places, before, strict=True):
                container[place.key] = value
        if left != modes:
            raise NoStep(MODE_LEFT)
        self.changes = any(map(_differ, held))
        before_after = list(zip(carry, versions, strict=True))
        containers = maker.containers[:n_containers]
        found = self.parted(before_after, out, placed, fresh, containers, frame)
        found[1].extend(calls.outside)
        found[2].lookups = len(calls.outside)
        return found

    def parted(
        self,
        carry: list[tuple[Tensor, int]],
        out: tuple[Any, ...],
        placed: list[Any],
        fresh: list[Fresh],
        containers: list[Any],
        frame: Frame,
    ) -> tuple[Any, list[Tensor], LoopPlan]:
        """The results of a run of the body: the new carry, the outputs, and the plan."""
        state, n = self.state, len(self.state.carried.specs)
        new, sums, n_sums = Flat(), [], []
        updates: list[Any] = [None] * len(state.counts)
        for value, spec in zip(out, state.carried.specs, strict=False):
            if spec[0] != "sum":
                new.add(value)
                continue
            new.specs.append(spec)
            for v in value.added:
                if not isinstance(v, Tensor) or v.dim() or v.dtype != spec[1]:
                    raise NoStep("a sum over the iterations changes its shape or type")
            sums += value.added
            n_sums.append(len(value.added))
            value.added = []
        for value in placed:
            new.add(value)
        for name, spec, was in zip(
            self.names, new.specs, (*state.carried.specs, *state.placed.specs), strict=True
        ):
            self.compare(name, spec, was, updates)
        if not all(a is b for a, b in zip(new.lists, fresh, strict=True)):
            raise ListRead("an iteration replaces a list that grows by another list")
        trailing = Flat()
        for value in out[n:]:
            trailing.add(value)
        if trailing.lists:
            raise NoStep(ANOTHER_NAME)
        if len(trailing.tensors) != len(state.trailing.tensors):
            raise NoStep("a value that is read after the loop is not a tensor in every iteration")
        outputs: list[Tensor] = []
        emitted, pasts, items = [], [], Flat()
        for m, f in enumerate(fresh):
            pasts.append(self.moved(frame, m, f, items))
            values = []
            for how, value in f.noted:
                flat = Flat()
                flat.add(value)
                if flat.lists:
                    raise NoStep(ANOTHER_NAME)
                if self.changes and any(a is b for a in flat.containers for b in new.containers):
                    raise NoStep(CHANGED_LATER)
                outputs += flat.tensors
                values.append((how, flat.specs[0]))
            emitted.append(tuple(values))
            f.noted.clear()  # the check for side effects may hold the list itself
        puts = []
        for write, parts, _, _, value in frame.puts:
            if isinstance(value, Tensor):
                outputs.append(value)
            puts.append((write, parts, None if isinstance(value, Tensor) else value))
        outputs += sums
        with torch_private.DisableTorchFunction():  # those who record the step do not see us
            if any(t.retains_grad for t in (*outputs, *new.tensors, *trailing.tensors)):
                raise NoStep("an iteration keeps the gradient of a tensor (retain_grad)")
        kept = tuple(
            "new" if a is not b else "same" if _version(a) == version else "written"
            for (a, version), b in zip(carry, new.tensors, strict=False)
        )
        facts = LoopPlan(
            emitted=emitted,
            puts=puts,
            pasts=pasts,
            trailing=trailing.specs,
            tensors=kept,
            summed=tuple(n_sums),
            updates=tuple(updates),
            by_length=tuple(sorted(frame.by_length)),
            persists=tuple(a is b for a, b in zip(containers, new.containers, strict=True)),
            about=tuple(sorted([(*key, value) for key, value in frame.about.items()], key=repr)),
            asked=tuple(sorted(self.questions.asked.items(), key=repr)),
        )
        written = {write: value for write, _, _, _, value in frame.puts}
        lags: list[Tensor] = []
        for (_, _, write, _), old in zip(self.plan.lags, frame.lags, strict=True):
            if not isinstance(written.get(write), Tensor):
                raise NoStep("an iteration reads elements that not every iteration writes")
            lags += [*old[1:], written[write]]
        return (
            [*new.tensors, *trailing.tensors, *lags, *items.tensors, *frame.wholes],
            outputs,
            facts,
        )

    def with_items(self, frame: Frame, fresh: list[Fresh]) -> list[Tensor]:
        """The lists that are read as one tensor, after the iteration."""
        if any(len(fresh[joined.m].noted) != 1 for joined in self.plan.joined):
            raise ListRead(READ)
        return [
            joined.with_item(whole, fresh[joined.m].length() - 1, *fresh[joined.m].appended())
            for joined, whole in zip(self.plan.joined, frame.wholes, strict=True)
        ]

    def compare(self, name: str, spec: Spec, was: Spec, updates: list[Any]) -> None:
        """Compare a part of the state with what it was; numbers that change give their updates.

        Raises:
            Counted: a number has changed that was not known to.
            NoStep: another part has.
        """
        if was[0] == "count":
            updates[was[1]] = self.next_number(name, was[1], spec)
            return
        if spec == was:
            return
        before, now = parts_of(was), parts_of(spec)
        if before is not None and now is not None and before[:2] == now[:2]:
            for key, of, its in zip(now[1], now[2], before[2], strict=True):
                self.compare(part_name(name, key), of, its, updates)
            return
        why = f"{name} changes its form in each iteration: {_shown(was)}, then {_shown(spec)}"
        raise self.counted(name, was, spec, why) or NoStep(why)

    def counted(self, name: str, was: Spec, spec: Spec, why: str) -> Counted | None:
        """The refusal of a number that has changed."""
        if was[0] not in (int, float):
            return None
        before, begin = (float(was[1]) if was[0] is float else was[1]), self.questions.begin
        if spec[0] == "number":
            after = self.questions.number_at(spec[1], begin)
        elif spec[0] in (int, float):
            after = float(spec[1]) if spec[0] is float else spec[1]
        else:
            return None
        is_whole = type(before) is int and type(after) is int
        return Counted(why, name=name, by=after - before if is_whole else None)

    def next_number(self, name: str, k: int, spec: Spec) -> Any:
        """The next value of a number of the state, as an expression; None if it counts on."""
        by, number = self.state.counts[k][1], self.numbers[k]
        key: Any = spec[1] if spec[0] == "number" else ("constant", None)
        if by is None and spec[0] == "number":
            return key
        if by is not None and key[0] == "index" and key[1] == by:
            now = key[2] - number._start
            if now == by:
                return None
            raise Counted(f"{name} counts by another number", name=name, by=now)
        raise NoStep(f"{name} is a number that changes in a different way in each iteration")

    def moved(self, frame: Frame, m: int, fresh: Fresh, items: Flat) -> Any:
        """The last items of a list after the iteration; their structures, and how it was read."""
        reads = tuple(frame.by_index.get(m, ()))
        old = frame.pasts[m] if m < len(frame.pasts) else []
        if m in frame.by_length and len(fresh.noted) != 1:
            raise NoStep(READ)
        if not old:
            return (), reads
        if (reads and len(fresh.noted) != 1) or not fresh.are_items():
            raise NoStep(READ)
        now = [*old, *fresh.appended()][-len(old) :]
        specs = [items.spec(v) for v in now]
        if specs != [Flat().spec(v) for v in old]:
            raise NoStep("an iteration appends another kind of value than the list held")
        return tuple(specs), reads


def _differ(held: tuple[Any, list[Any]]) -> bool:
    """Whether a container holds other values than it did."""
    now, before = contents_of(held[0]), held[1]
    return len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True))


def _version(t: Tensor) -> int:
    with torch_private.DisableTorchFunction():  # those who record the step do not see us
        return 0 if t.is_inference() else t._version


def _shown(spec: Spec) -> str:
    if spec == "tensor":
        return "a tensor"
    if spec[0] == "grows":
        return "a list"
    if len(spec) == 2 and not isinstance(spec[1], tuple):
        return str(spec[1])
    return f"a {getattr(spec[0], '__name__', spec[0])}"
