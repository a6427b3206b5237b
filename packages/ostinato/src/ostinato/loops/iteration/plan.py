"""`LoopPlan`: the description of a loop's step that later calls reuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ostinato.compiler.steps import Recent
from ostinato.loops.iteration import elements
from ostinato.loops.iteration.emitted import WholeList
from ostinato.loops.iteration.state import Spec

MOST_IN_PYTHON = 4  # iterations before a scan
IN_A_CALL = -1  # the number of all reads outside the source of the loop
Read = tuple[int, int]  # a read's number in the source, and its count of earlier runs


@dataclass(eq=False)
class LoopPlan:
    """The inputs, outputs and state of a step; it holds no tensors.

    Attributes:
        reads: a read of an element → the number of its input.
        called: reads in functions that the body calls: the read, the path to the tensor, the index.
            The index may depend on the length: such a plan is for its lengths alone.
        tables: for each list of numbers: the read, the parts of its index, the type.
        numbers: expressions of the loop's variable that are inputs, and their types.
        leaves: for each input its read, and the parts of the index.
        emitted: for each list the values that a step adds: (append or insert, structure).
        puts: the elements that a step writes: the write, the parts of its index, and the expression
            of the loop's variable if it writes a number.
        lags: reads of elements that an earlier iteration wrote: the read, the parts of its index,
            the write, and the distance in iterations.
        pasts: for each list that iterations append to: the structures of the last items that
            iterations read, and the reads by the loop's variable.
        joined: the lists that the body reads as one tensor, each a part of the state.
        has_prefixes: whether iterations have slices that grow, whose ends are known to exist for
            the lengths of the plan.
        trailing: the structure of the values that are only read after the loop.
        persists: for each container of the state whether it is changed in place.
        updates: for each number of the state its next value; None for a counter.
        summed: for each sum the number of values that a step adds.
        tensors: for each tensor of the state: "new", "same" or "written" (in place).
        left: the tensors of the state of which iterations only write elements; their names keep
            them.
        passed: for each output whether its gradient has a part that is hidden;
            see `between.py`.
        ends: the tensors of the state whose gradient has one.
        hands_out: whether an output is the state before the iteration, or a view of it. That of the
            first iteration is the user's own tensor, which only Python hands out.
        lookups: the number of lookups by an index; see `Calls.outside`.
        about: properties of tensors that iterations write: the write, the name, the value.
        asked: the comparisons of the loop's variable, with their answers.
        shares: the tensors of the step that share memory; see `LoopWindow.shares`.
        starts: the first numbers of the loop and of the state, if facts depend on them.
        by_length: the lists whose length the step depends on.
        lengths: the lengths of the loops that used the plan.
        paces: the magnitudes of length and state → the `LoopPace` of such calls.
        calls: the number of runs.
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
    joined: list[WholeList] = field(default_factory=list)
    has_prefixes: bool = False
    trailing: list[Spec] = field(default_factory=list)
    persists: tuple[bool, ...] = ()
    updates: tuple[Any, ...] = ()
    summed: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()
    left: tuple[int, ...] = ()
    passed: tuple[bool, ...] = ()
    ends: frozenset[int] = frozenset()
    hands_out: bool = False
    lookups: int = 0
    about: tuple[Any, ...] = ()
    asked: tuple[Any, ...] = ()
    shares: tuple[int, ...] = ()
    starts: tuple[Any, ...] = ()
    by_length: tuple[int, ...] = ()
    lengths: set[int] = field(default_factory=set)
    paces: dict[Any, Any] = field(default_factory=lambda: Recent(64))
    calls: int = 0

    def facts(self) -> Any:
        """All facts that outputs depend on."""
        called = [(read, path, elements.keyed(index)) for read, path, index in self.called]
        return (
            self.reads,
            self.leaves,
            called,
            self.tables,
            self.numbers,
            self.lags,
            self.joined,
            self.tensors,
            self.shares,
            self.done(),
        )

    def done(self) -> Any:
        """The facts that each run of the step shows again."""
        return (
            self.emitted,
            self.puts,
            self.trailing,
            self.persists,
            self.pasts,
            self.summed,
            self.updates,
            self.about,
            self.asked,
            self.lookups,
            [how == "new" for how in self.tensors],
        )

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
