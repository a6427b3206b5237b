"""The iterations for which one scan is tried: whether a plan fits them, and what they read."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.captures import memory_of
from ostinato.loops.iteration import elements
from ostinato.loops.iteration.attributes import resolved
from ostinato.loops.iteration.carry import State
from ostinato.loops.iteration.frame import property_of
from ostinato.loops.iteration.index import Questions, Sequences, evaluated
from ostinato.loops.iteration.items import Items, NumberTable, table_of
from ostinato.loops.iteration.nostep import Narrowed, NoStep, Stale
from ostinato.loops.iteration.plan import LoopPlan, Read
from ostinato.loops.iteration.probe import share_memory
from ostinato.loops.iteration.state import Flat
from ostinato.loops.iteration.step import Step


class LoopWindow:
    """The iterations of a loop that one scan shall run.

    Attributes:
        begin: the first one, before which the loop has paused.
        end: the one after the last.
        items: what the loop goes through.
        body: an iteration, with the free names as they are bound now.
        seen: the elements that the last iteration in Python read or wrote: read → base and index.
        written: those of them that it wrote.
        course: the iteration from which on the present branches hold, or the end of the last scan.
        firsts: reads and parts of an index → the result of `first`.
        sequences: the numbers of the state and of lists.
    """

    def __init__(
        self,
        begin: int,
        end: int,
        items: Items,
        body: types.FunctionType,
        seen: dict[Any, tuple[Any, Any]],
        written: dict[Read, tuple[Any, Any]],
        course: int,
    ):
        self.begin, self.end, self.items, self.body = begin, end, items, body
        self.seen, self.written, self.course = seen, written, course
        self.firsts: dict[Any, tuple[Any, int | None]] = {}
        self.sequences = Sequences(begin, ())

    @property
    def n(self) -> int:
        return self.end - self.begin

    def step(self, state: State, plan: LoopPlan, names: tuple[str, ...]) -> Step:
        """The iterations as a step of a scan.

        Args:
            names: of the state, for messages.
        """
        self.sequences = Sequences(self.begin, [value for value, _ in state.counts])
        self.sequences.tables = self.items.tables()
        questions = Questions(self.begin, self.end, self.sequences)
        return Step(
            self.body, self.items, state, plan, questions, names, dict(self.seen), self.course
        )

    def starts(self, state: State, plan: LoopPlan) -> tuple[Any, ...]:
        """The first numbers of the scan: of the loop's variable, of the state, of lists."""
        lengths = [len(state.lists[m]) for m in plan.by_length]
        return self.begin, *self.items.starts(), *[value for value, _ in state.counts], *lengths

    def fits(self, step: Step, plan: LoopPlan) -> bool:
        """Whether a plan's comparisons have the same answers, and its reads exist.

        Raises:
            Narrowed: the answers are the same for fewer iterations.
        """
        if plan.starts and plan.starts != self.starts(step.state, plan):
            return False
        if not (self.has_called(plan) and self.has_tables(plan)):
            return False
        for write, name, value in plan.about:
            base = self.seen.get(write, (None, None))[0]
            if not isinstance(base, Tensor) or property_of(base, name) != value:
                return False
        if plan.updates:
            self.sequences.extend(plan.updates, self.end)
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
        """Whether the tensors that called functions index exist; their elements go to `seen`."""
        if (plan.called or plan.has_prefixes) and self.items.n not in plan.lengths:
            return False
        before = self.begin - 1
        for read, path, index in plan.called:
            base = resolved(self.body, path)
            if not isinstance(base, Tensor):
                return False
            at = elements.at_iteration(index, lambda key: evaluated(key, before, self.sequences))
            self.seen[read] = base, at
        if plan.called:
            self.firsts.clear()
        return True

    def has_tables(self, plan: LoopPlan) -> bool:
        """Whether the lists of numbers that a plan reads exist; stores them in `sequences`."""
        tables = self.sequences.tables = self.items.tables()
        for read, parts, kind in plan.tables:
            base, first = self.first(read, parts)
            values = None if first is None or isinstance(base, Tensor) else table_of(base)
            if not values or type(values[0]) is not kind:
                return False
            tables.append(self.table(values, parts, first))
        return True

    def table(self, values: Any, parts: Any, first: Any) -> NumberTable:
        """The numbers of a list, counted from the one that the last iteration in Python read."""
        key, before, sequences = elements.gathered(parts), self.begin - 1, self.sequences
        if key is not None:
            return NumberTable(values, lambda j: evaluated(key, j, sequences))
        by = elements.step_of(parts)
        return NumberTable(values, lambda j: first + by * (j - before))

    def shares(self, plan: LoopPlan, state: State) -> tuple[int, ...]:
        """For each tensor that a step reads or writes, the first one with the same memory.

        Empty if the step writes no tensor in place: shared memory then has no effect.
        """
        if not plan.puts and "written" not in plan.tensors:
            return ()
        reads = [*plan.leaves, *plan.lags, *plan.puts]
        tensors = [*state.tensors, *[self.seen[r[0]][0] for r in reads if r[0] in self.seen]]
        memories = [memory_of(t) if isinstance(t, Tensor) else id(t) for t in tensors]
        return tuple(map(memories.index, memories))

    def first(self, read: Read, parts: Any) -> tuple[Any, int | None]:
        """The base and index of a read in the last iteration in Python; None for no index."""
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
            found += window.read().clone().unbind(0)  # cloned: the scan writes the base
        flat = Flat()
        for (specs, _), items in zip(plan.pasts, state.lists, strict=True):
            last = items[max(len(items) - len(specs), 0) :]
            if specs and [flat.spec(v) for v in last] != [*specs]:
                raise Stale("a list holds other values than before")
        wholes = [joined.room(state.lists[joined.m][:], self.n) for joined in plan.joined]
        return [*found, *flat.tensors, *wholes]

    def elements(self, read: Any, parts: Any) -> elements.WindowOf:
        """The elements that the scan reads, after the one of the last iteration in Python."""
        base, value = self.first(read, parts)
        assert value is not None
        key = elements.gathered(parts)
        if key is not None:
            return elements.WindowOf(base, parts, 0, self.n, self.values(key))
        return elements.WindowOf(base, parts, value + elements.step_of(parts), self.n)

    def values(self, key: Any) -> list[Any]:
        """An expression of the loop's variable in each iteration."""
        return [evaluated(key, j, self.sequences) for j in range(self.begin, self.end)]

    def numbers(self, key: Any, dtype: torch.dtype) -> Tensor:
        """The same as a tensor, `[n]`."""
        return torch.tensor(self.values(key), dtype=dtype)

    def given(self, plan: LoopPlan) -> list[Tensor]:
        """The elements and numbers that the step takes beside the loop's items, `[n, …]`."""
        found = []
        written = [self.seen[read][0] for read, _, _ in plan.puts]
        for read, parts in plan.leaves:
            base, at = self.first(read, parts)
            value = elements.part_at(base, parts, (at or 0) + 1, self.n)
            if value is None:
                value = self.elements(read, parts).read()
            if written and any(share_memory(base, other) for other in written):
                value = value.clone()  # it is written afterwards, and the backward pass reads it
            found.append(value)
        return [*found, *[self.numbers(key, dtype) for key, dtype in plan.numbers]]
