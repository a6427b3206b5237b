"""One run of the step that represents many iterations.

A `Step` is the step of the scan: it puts the state together, runs the body on it, and takes its
    results apart: new state, values appended, elements written. It compares what the body did with
    its `LoopPlan`, which says how a call finds the inputs and where the outputs go.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.errors import Unsupported
from ostinato.loops import elements
from ostinato.loops.attributes import ABSENT, Place, resolved, roots
from ostinato.loops.emitted import READ, Added, Fresh
from ostinato.loops.index import (
    Index,
    Number,
    NumbersAsTensors,
    Questions,
    number_of,
    running,
)
from ostinato.loops.items import Given, Items
from ostinato.loops.items import table_of as table_of_numbers
from ostinato.loops.nostep import Counted, ListRead, Narrowed, NoStep, Stale
from ostinato.loops.periods import Grouped
from ostinato.loops.rewrite import LoopSource
from ostinato.loops.state import UNBOUND, Flat, Maker, Spec, part_name, parts_of

HIDDEN = object()  # in place of a tensor that a step does not name
ANOTHER_NAME = "an iteration keeps a list that iterations append to by another name"
OTHER_INDEX = "an iteration computes an index by other means than plain arithmetic"
MOST_IN_PYTHON = 4  # iterations before a scan
IN_A_CALL = -1  # the number of all reads that are not in the text of the loop
Read = tuple[int, int]  # the number of a read in the text, and how often it ran before


@dataclass(eq=False)
class LoopPlan:
    """The inputs, outputs and state of a step; it holds no tensors.

    Attributes:
        reads: a read of an element → the number of its input.
        called: reads in functions that the body calls: the read, the path to the tensor, the index.
        tables: for each list of numbers that is read the read, the parts of its index, the type.
        numbers: expressions of the loop's variable that are inputs, and their types.
        leaves: for each input the read that shows it, and the parts of its index.
        emitted: for each list the values that a step appends: (append or insert, structure).
        puts: the elements that a step writes: the write, the parts of its index, and the expression
            of the loop's variable if it writes a number.
        lags: reads of what an earlier iteration wrote: the read, the parts of its index, the
            write, and how many iterations ago.
        pasts: for each list that iterations append to: the structures of its last items that they
            read, and the reads of it by the loop's variable.
        trailing: the structure of the values that are only read after the loop.
        persists: for each container of the state whether it is changed in place.
        updates: for each number of the state its next value; None for a counter.
        summed: for each sum how many values a step adds.
        tensors: for each tensor of the state: "new", "same" or "written" (in place).
        left: the tensors of the state of which iterations only write elements; they stay.
        asked: the answers of comparisons of the loop's variable.
        shares: which of the tensors that it reads and writes share memory.
        starts: the first numbers of the loop and of the state, where facts depend on these.
        by_length: the lists whose length decides what is done.
        lengths: the lengths of the loops that it was used for.
        slow: length and rows → calls in a row that took longer than the loop in Python.
        calls: how often it ran.
    """

    reads: dict[Read, int] = field(default_factory=dict)
    leaves: list[tuple[Read, elements.Parts]] = field(default_factory=list)
    called: list[tuple[Read, tuple[Any, ...], Any]] = field(default_factory=list)
    tables: list[tuple[Read, elements.Parts, type]] = field(default_factory=list)
    numbers: list[tuple[Any, torch.dtype]] = field(default_factory=list)
    emitted: list[tuple[Any, ...]] = field(default_factory=list)
    puts: list[tuple[Read, elements.Parts, Any]] = field(default_factory=list)
    lags: list[tuple[Read, elements.Parts, Read, int]] = field(default_factory=list)
    pasts: list[tuple[tuple[Spec, ...], Any]] = field(default_factory=list)
    trailing: list[Spec] = field(default_factory=list)
    persists: tuple[bool, ...] = ()
    updates: tuple[Any, ...] = ()
    summed: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()
    left: tuple[int, ...] = ()
    asked: tuple[Any, ...] = ()
    shares: tuple[int, ...] = ()
    starts: tuple[Any, ...] = ()
    by_length: tuple[int, ...] = ()
    lengths: set[int] = field(default_factory=set)
    slow: dict[Any, int] = field(default_factory=dict)
    calls: int = 0

    def facts(self) -> Any:
        """Everything that outputs depend on; hashable."""
        return (
            tuple(self.reads.items()), tuple(self.leaves), tuple(self.tables), tuple(self.numbers),
            tuple(self.emitted), tuple(self.puts), tuple(self.lags), tuple(self.pasts),
            tuple(self.trailing), self.persists,
            self.updates, self.summed, self.tensors, self.asked, self.shares,
        )  # fmt: skip

    def begins_at(self, starts: tuple[Any, ...]) -> None:
        """Record the first numbers, if a fact is an expression of the loop's variable or an answer.

        With another answer the last iteration in Python may have read elsewhere.
        """
        depends = self.asked or self.called or _names_index(self.facts())
        self.starts = starts if depends else ()


def _names_index(fact: Any) -> bool:
    if not isinstance(fact, (tuple, list)):
        return False
    return (len(fact) == 3 and fact[0] == "index") or any(map(_names_index, fact))


class State:
    """The state at the begin of a scan, taken apart.

    Attributes:
        carried, trailing, placed: the values of names and places.
        list_names: for each list that grows its name, if it is one by itself.
        counts: numbers that change from iteration to iteration, and by how much whole ones do.
        summed: scalars that iterations only add to, and whether in place; the summands are outputs.
        places: the places, with the containers that hold them.
        tensors: the tensors of all three, the carry of the scan.
    """

    def __init__(
        self, names: dict[str, Any], source: LoopSource, places: list[tuple[Place, Any]],
        body: types.FunctionType, counted: dict[str, int | None], grown: dict[str, int],
    ):  # fmt: skip
        carried, trailing = source.carried, source.trailing
        for name in trailing:
            if name not in names:
                raise NoStep(f"{name} is not bound after the first iteration")
        count = functools.partial(self.count, counted)
        self.carried, self.placed, self.trailing = Flat(count), Flat(count), Flat()
        self.summed: list[tuple[Tensor, bool]] = []
        self.counts: list[tuple[Any, int | None]] = []
        self.list_names: list[str | None] = []
        for name in carried:
            value = names.get(name, UNBOUND)
            if name in source.summed and isinstance(value, Tensor) and not value.dim():
                self.summed.append((value, source.summed[name]))
                self.carried.specs.append(("sum", value.dtype))
            else:
                n, depth = len(self.carried.lists), grown.get(name)
                self.carried.add(value, depth, name)
                whole = [name if depth == 0 else None]
                self.list_names += whole * (len(self.carried.lists) - n)
        self.places = places
        for place, container in places:
            value = container[place.key] if _has(container, place.key) else ABSENT
            if value is ABSENT:
                raise NoStep(f"{place} does not exist after the first iteration")
            self.placed.add(value, 0 if place.grows else None, str(place))
        self.list_names += [None] * len(self.placed.lists)
        for name in trailing:
            self.trailing.add(names[name])
        self.check_names(body)

    def check_names(self, body: types.FunctionType) -> None:
        """Refuse a list or object with two names: a step has a copy of it for each."""
        held = [*self.containers, *self.lists]
        if not held:
            return
        others = [c for _, c in self.places] + [value for _, value in roots(body)]
        ids = {id(c) for c in held}
        if len(ids) < len(held) or any(id(c) in ids for c in others):
            raise NoStep("two names hold one list, dict or object that iterations may change")

    def count(self, counted: dict[str, int | None], name: str, value: Any) -> Spec | None:
        """Record a number that changes from iteration to iteration; None if it does not."""
        if name not in counted:
            return None
        by = counted[name] if type(value) is int else None
        self.counts.append((value, by))
        return "count", len(self.counts) - 1, by

    def let_go(self) -> None:
        """Hold no tensors any longer, but how many there were."""
        self.summed = []
        for flat in (self.carried, self.placed, self.trailing):
            flat.let_go()

    def counted_from(self, j: int) -> Any:
        """What the whole numbers that count would have been in iteration 0; None without any."""
        return [value - by * j for value, by in self.counts if by is not None] or None

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.carried.tensors, *self.placed.tensors, *self.trailing.tensors]

    @property
    def lists(self) -> list[list[Any]]:
        return [*self.carried.lists, *self.placed.lists]

    @property
    def containers(self) -> list[Any]:
        return [*self.carried.containers, *self.placed.containers]

    def key(self) -> Any:
        """Its structure; hashable."""
        return (
            tuple(self.carried.specs), tuple(self.placed.specs), tuple(p for p, _ in self.places)
        )  # fmt: skip


def _has(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)


class Frame:
    """The object that replaces the loop while its body runs as a step."""

    def __init__(self, step: Step, given: Iterator[Tensor]):
        self.step, self.given = step, list(given)
        self.with_gradients = torch.is_grad_enabled()
        self.counts: dict[int, int] = {}
        self.puts: list[tuple[Read, elements.Parts, Any, Any, Tensor]] = []
        self.lags: list[list[Tensor]] = []
        self.pasts: list[list[Any]] = []
        self.by_index: dict[int, list[Any]] = {}  # list → its reads by the loop's variable
        self.by_length: set[int] = set()  # the lists whose length is asked for

    def numbered(self, number: int) -> Read:
        """A read or write, distinguished from others at the same place in the text."""
        n = self.counts.get(number, 0)
        self.counts[number] = n + 1
        return number, n

    hidden = HIDDEN

    @staticmethod
    def extended(of: Any, by: list[Any], starred: bool) -> Any:
        """`of + by` or `[*of, *by]`, of a list that no other name has."""
        if isinstance(of, Fresh):
            of.extend(by)
            return of
        return [*of, *by] if starred else of + by

    number = staticmethod(number_of)

    @staticmethod
    def within(number: Any, of: Any) -> bool:
        """`number in of`."""
        if isinstance(number, Number) and isinstance(of, (set, frozenset, dict)):
            return any(number == item for item in sorted(of))
        return number in of

    @staticmethod
    def len(of: Any) -> Any:
        return of.length() if isinstance(of, Fresh) else len(of)

    @staticmethod
    def slice(*arguments: Any) -> Any:
        return slice(*arguments)

    def sum(self, in_place: bool, total: Any, value: Any) -> Any:
        """`total += value` or `total + value`, where no iteration reads the total."""
        if isinstance(total, Added):
            total.added.append(self.as_kept(value, in_place))
            return total
        if in_place:
            total += value
            return total
        return total + value

    def as_kept(self, value: Any, in_place: bool) -> Any:
        """A value that goes into a tensor after the scan, in the gradient mode around the loop.

        Raises:
            NoStep: in the present mode, the tensor would have other gradients.
        """
        if torch.is_grad_enabled() == self.with_gradients or not isinstance(value, Tensor):
            return value
        if self.with_gradients and in_place:  # the tensor keeps the gradients that it has
            return value.detach()
        raise NoStep("an iteration turns gradients off or on around a sum or a write")

    def selecting(
        self, number: int, name: str, base: Any, *arguments: Any, **named: Any
    ) -> Any:
        """`base.select(1, t)` or `base.narrow(1, t, 1)`."""
        if base is HIDDEN:
            base = self.step.base_of((number, self.counts.get(number, 0)), Index(1, 0))
        is_tensor = isinstance(base, Tensor)
        found = elements.of_call(name, (base, *arguments), named) if is_tensor else None
        if found is None:
            return getattr(base, name)(*arguments, **named)
        return self.at(number, *found)

    def at(self, number: int, base: Any, index: Any) -> Any:
        """`base[index]`, an input of the step if the index moves with the loop."""
        read = self.numbered(number)
        if base is HIDDEN:
            if not elements.moves(index):
                index = elements.held(index) or index
            base = self.step.base_of(read, index)
        if not elements.moves(index):
            return base[index]
        if elements.has_tensors(index):
            index, rest = elements.split(index)
            return self.element(read, base, index)[rest]
        return self.element(read, base, index)

    def element(self, read: Read, base: Any, index: Any) -> Any:
        """The element at an index that moves with the loop."""
        parts = elements.described(index)
        if isinstance(base, Fresh):
            return self.step.of_list(self, read, base, parts, index)
        if not isinstance(base, Tensor) and table_of_numbers(base) is not None:
            return self.step.in_table(read, base, parts, index)
        for _, of, other, its_index, value in reversed(self.puts):
            if of == parts and _same_index(its_index, index) and elements.is_same(other, base):
                if not isinstance(value, Tensor):
                    raise NoStep("an iteration reads a number that it writes into a tensor")
                return value
        lag = self.step.lag(self, read, base, parts, index)
        return self.step.element(self, read, base, parts, index) if lag is None else lag

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        """`base[index] = value`, an output of the step if the index moves with the loop."""
        write = self.numbered(number)
        if base is HIDDEN:
            base = self.step.base_of(write, index)
            if self.step.unfit:
                return
        if not elements.moves(index):
            base[index] = value
            return
        parts = elements.described(self.step.whole_rows(base, index))
        if elements.gathered(parts) is not None:
            raise NoStep("an iteration writes at a number computed from the loop's variable")
        self.step.follows(write, parts, index)
        if isinstance(base, Tensor) and isinstance(value, (int, float, Number)):
            value = value.key if isinstance(value, Number) else ("constant", value)
            self.puts.append((write, parts, base, index, value))
            return
        if not isinstance(value, Tensor):
            raise NoStep(f"an iteration writes a {type(value).__name__} at the loop's index")
        with torch._C.DisableTorchFunction():  # else it counts as a tensor that the step reads
            dtype = base.dtype if isinstance(base, Tensor) else value.dtype
            is_plain = isinstance(base, Tensor) and not base.requires_grad
        if isinstance(base, Tensor):
            value = self.as_kept(value, is_plain)
        value = value if value.dtype == dtype else value.to(dtype)
        self.puts.append((write, parts, base, index, value))


def _same_index(a: Any, b: Any) -> bool:
    a, b = (i if type(i) is tuple else (i,) for i in (a, b))
    return len(a) == len(b) and all(
        x.key == y.key
        for x, y in zip(a, b, strict=True)
        if type(x) is elements.Index and type(y) is elements.Index
    )


class Step:
    """The iterations of one call as a step of `scan`: `step(carry, x) -> (carry, outputs)`."""

    def __init__(
        self, body: types.FunctionType, items: Items, state: State, plan: LoopPlan, begin: int,
        end: int,
    ):  # fmt: skip
        self.body, self.items, self.state, self.plan = body, items, state, plan
        self.questions = Questions()
        self.questions.begin, self.questions.end = begin, end
        self.n_items = 0
        self.has_dummy = False
        self.bases: list[Any] = []
        self.lag_bases: list[Any] = []
        self.seen: dict[Read, tuple[Any, Any]] = {}
        self.fresh: list[Fresh] = []
        self.problem: Unsupported | None = None

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
            if begin >= MOST_IN_PYTHON:
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
        if len(parts) != 1 or parts[0] != ("index", 1):
            raise ListRead(READ)
        back = len(self.state.lists[m]) - begin + n - variable.start
        if back < 1:
            raise NoStep(READ)
        frame.by_index.setdefault(m, []).append((read, n, back))
        return base[-back]

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

    def has_numbers(self) -> bool:
        return bool(self.plan.numbers or self.plan.called)

    def selected(self, frame: Frame, function: Any, arguments: Any, named: Any) -> Any:
        """An element that a called function reads, or `x.select(1, t)`; else NotImplemented."""
        name = getattr(function, "__name__", "")
        found = elements.of_call(name, arguments, named)
        if found is None or not elements.moves(found[1]) or elements.has_tensors(found[1]):
            return NotImplemented
        base, index = found
        read = frame.numbered(IN_A_CALL)
        self.meets(read, base, index)
        return frame.element(read, base, index)

    def meets(self, read: Read, base: Any, index: Any) -> None:
        """A read that the text of the loop does not show; a step with a plan knows of it."""

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
        plan = self.plan
        same = (
            facts.emitted == plan.emitted and facts.puts == plan.puts
            and facts.trailing == plan.trailing and facts.persists == plan.persists
            and [h == "new" for h in facts.tensors] == [h == "new" for h in plan.tensors]
            and facts.pasts == plan.pasts and facts.summed == plan.summed
            and facts.updates == plan.updates
            and asked(self.questions) == plan.asked
        )  # fmt: skip
        if not same:
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
            Fresh(functools.partial(self.past, m), functools.partial(self.length_before, m))
            for m in range(len(state.lists))
        ]
        self.numbers = [
            Number(("state", k)) if by is None else Index(by, value - by * self.questions.begin)
            for k, (value, by) in enumerate(state.counts)
        ]
        maker = Maker(tensors, iter(fresh), counts=self.numbers)
        carried = [maker.make(s) for s in state.carried.specs]
        placed = [maker.make(s) for s in state.placed.specs]
        n_containers = len(maker.containers)
        for _ in state.trailing.tensors:  # the step makes them anew
            next(tensors)
        frame.lags = [[next(tensors) for _ in range(lag[3])] for lag in self.plan.lags]
        frame.pasts = [[maker.make(s) for s in specs] for specs, _ in self.plan.pasts]
        item = self.items.symbolic(Given(given))
        in_turn = item if isinstance(self.items, Grouped) else (item,)
        before = []
        for (place, container), value in zip(state.places, placed, strict=True):
            before.append(container[place.key])
            container[place.key] = value
        self.frame, self.questions.number = frame, self.number
        running.questions.append(self.questions)
        selected = functools.partial(self.selected, frame)
        numbers = NumbersAsTensors(selected) if self.has_numbers() else nullcontext()
        try:
            with numbers:
                for item in in_turn:
                    out = self.body(frame, item, *carried)
                    carried = out[: len(carried)]
            placed = [container.get(place.key, ABSENT) if isinstance(container, dict)
                      else container[place.key] for place, container in state.places]  # fmt: skip
        finally:
            running.questions.pop()
            del self.frame  # it holds tensors
            self.fresh = []
            for (place, container), value in zip(state.places, before, strict=True):
                container[place.key] = value
        before_after = list(zip(carry, versions, strict=True))
        containers = maker.containers[:n_containers]
        return self.parted(before_after, out, placed, fresh, containers, frame)

    def parted(
        self, carry: list[tuple[Tensor, int]], out: tuple[Any, ...], placed: list[Any],
        fresh: list[Fresh],
        containers: list[Any], frame: Frame,
    ) -> tuple[Any, list[Tensor], LoopPlan]:  # fmt: skip
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
            self.names(), new.specs, (*state.carried.specs, *state.placed.specs), strict=True
        ):
            self.compare(name, spec, was, updates)
        if not all(a is b for a, b in zip(new.lists, fresh, strict=True)):
            raise NoStep("an iteration replaces a list that grows by another list")
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
        with torch._C.DisableTorchFunction():  # those who record the step do not see us
            if any(t.retains_grad for t in (*outputs, *new.tensors, *trailing.tensors)):
                raise NoStep("an iteration keeps the gradient of a tensor (retain_grad)")
        kept = tuple(
            "new" if a is not b else "same" if _version(a) == version else "written"
            for (a, version), b in zip(carry, new.tensors, strict=False)
        )
        facts = LoopPlan(
            emitted=emitted, puts=puts, pasts=pasts, trailing=trailing.specs, tensors=kept,
            summed=tuple(n_sums), updates=tuple(updates), by_length=tuple(sorted(frame.by_length)),
            persists=tuple(a is b for a, b in zip(containers, new.containers, strict=True)),
        )  # fmt: skip
        written = {write: value for write, _, _, _, value in frame.puts}
        lags: list[Tensor] = []
        for (_, _, write, _), old in zip(self.plan.lags, frame.lags, strict=True):
            if not isinstance(written.get(write), Tensor):
                raise NoStep("an iteration reads elements that not every iteration writes")
            lags += [*old[1:], written[write]]
        return [*new.tensors, *trailing.tensors, *lags, *items.tensors], outputs, facts

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
            now = key[2] - number.start
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
        if reads and len(fresh.noted) != 1:
            raise NoStep(READ)
        now = [*old, *fresh.appended()][-len(old) :]
        specs = [items.spec(v) for v in now]
        if specs != [Flat().spec(v) for v in old]:
            raise NoStep("an iteration appends another kind of value than the list held")
        return tuple(specs), reads

    def names(self) -> list[str]:
        return [*self.source_names, *[str(p) for p, _ in self.state.places]]

    numbers: Sequence[Any] = ()
    unfit = ""  # why the run is not a step, found on the way
    source_names: tuple[str, ...] = ()
    frame: Frame  # while the body runs


def asked(questions: Questions) -> tuple[Any, ...]:
    """The comparisons of the loop's variable, with their answers."""
    return tuple(sorted(questions.asked.items(), key=repr))


def _version(t: Tensor) -> int:
    with torch._C.DisableTorchFunction():  # those who record the step do not see us
        return 0 if t.is_inference() else t._version


def _shown(spec: Spec) -> str:
    if spec == "tensor":
        return "a tensor"
    if spec[0] == "grows":
        return "a list"
    if len(spec) == 2 and not isinstance(spec[1], tuple):
        return str(spec[1])
    return f"a {getattr(spec[0], '__name__', spec[0])}"


def places_of(body: types.FunctionType, places: list[Place]) -> list[tuple[Place, Any]]:
    """The places that exist in this call, with their containers."""
    found = [(p, resolved(body, p.path)) for p in places]
    return [(p, c) for p, c in found if isinstance(c, (dict, list)) and _has(c, p.key)]
