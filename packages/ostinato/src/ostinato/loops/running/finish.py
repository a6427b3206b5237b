"""The end of a scan: the results of its iterations in names, lists, tensors and attributes."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ostinato.loops.iteration import elements
from ostinato.loops.iteration.between import watch
from ostinato.loops.iteration.carry import State
from ostinato.loops.iteration.emitted import Growing, tensors_in
from ostinato.loops.iteration.index import Sequences, evaluated
from ostinato.loops.iteration.periods import Grouped
from ostinato.loops.iteration.plan import LoopPlan
from ostinato.loops.iteration.state import Maker
from ostinato.loops.running.joined import KnownRows
from ostinato.loops.running.window import LoopWindow


@dataclass
class LoopResults:
    """The results of a window, which are stored where iterations in Python would have.

    Attributes:
        rows: the lists whose items are also known as one tensor.
        joined: the names of lists that are read by torch.stack or torch.cat alone.
    """

    window: LoopWindow
    rows: KnownRows
    joined: Container[str]

    def store(
        self,
        plan: LoopPlan,
        state: State,
        targets: list[elements.WindowOf],
        finals: list[Tensor],
        ys: list[Tensor],
    ) -> tuple[Any, ...]:
        """Set names, places, lists and tensors to the values after the iterations of the scan."""
        window, old = self.window, state.tensors
        n = len(plan.tensors)
        for i, how in enumerate(plan.tensors):
            if how == "written":
                old[i].copy_(finals[i])
            if how != "new":
                finals[i] = old[i]
        rest, passed, scanned = iter(ys), iter(plan.passed), [*finals, *ys]
        watch([finals[i] for i in plan.ends if i < len(finals)], scanned)
        for grown, name, emitted in zip(state.lists, state.list_names, plan.emitted, strict=True):
            of_list = [next(passed) for _, spec in emitted for _ in range(tensors_in(spec))]
            # The gradients of its items have a part that a scan does not show.
            results = scanned if any(of_list) else []
            self.extend(grown, name, emitted, rest, results)
        into_lists = []
        for target, (_, _, key) in zip(targets, plan.puts, strict=True):
            values = next(rest) if key is None else window.numbers(key, target.base.dtype)
            is_hidden = key is None and next(passed)
            if isinstance(target.base, Tensor):
                target.write(values)
            else:
                into_lists.append((target, values.unbind(0)))
                watch(into_lists[-1][1], scanned if is_hidden else [])
        for i in range(window.n) if into_lists else ():  # in turn: a dict keeps order
            for target, rows in into_lists:
                target.base[target.numbers[i]] = rows[i]
        sums = []
        for (total, in_place), n_added in zip(state.summed, plan.summed, strict=True):
            for _ in range(n_added):
                added = next(rest).sum(0)
                total = total.add_(added) if in_place else total + added
            sums.append(total)
        lists: Iterator[Any] = iter(
            [of.whole() if isinstance(of, Growing) else of for of in state.lists]
        )
        tensors, of_sums = iter(finals[:n]), iter(sums)
        counts = [
            value + by * window.n if by is not None else window.sequences.values[k][-1]
            for k, (value, by) in enumerate(state.counts)
        ]
        kept = iter(state.containers), iter(plan.persists)
        maker = Maker(tensors, lists, *kept, counts=counts)
        carried = [next(of_sums) if s[0] == "sum" else maker.make(s) for s in state.carried.specs]
        for (place, container), spec in zip(state.places, state.placed.specs, strict=True):
            container[place.key] = maker.make(spec)
        last = Maker(iter(finals[n:]), iter(()))
        end = window.end - 1
        trailing = [last.make(_at(spec, end, window.sequences)) for spec in plan.trailing]
        return (*carried, *trailing)

    def extend(
        self,
        target: list[Any],
        name: str | None,
        emitted: tuple[Any, ...],
        ys: Iterator[Tensor],
        results: list[Tensor],
    ) -> None:
        """Append the values of each iteration, in order.

        Args:
            name: of the list, or None.
            results: those of the scan, if the items are to be watched; see `between.watch`.
        """
        window = self.window
        if isinstance(target, Growing):
            target.add([(how, next(ys)) for how, _ in emitted])
            return
        if emitted in ((("append", "tensor"),), (("insert", "tensor"),)):
            is_last = window.end == window.items.n and emitted[0][0] == "append"
            is_last &= not isinstance(window.items, Grouped)  # iterations may follow the last group
            lazy = is_last and name in self.joined
            self.rows.add(target, next(ys), emitted[0][0] == "insert", lazy, results)
            return
        parts = [[next(ys) for _ in range(tensors_in(spec))] for _, spec in emitted]
        alike = {(part.shape, part.dtype, part.requires_grad) for of in parts for part in of}
        if {*emitted} == {("append", "tensor")} and len(alike) == 1:
            whole = torch.stack([part for (part,) in parts], 1).flatten(0, 1)
            self.rows.add(target, whole, False, False, results)
            return
        appended: list[list[Any]] = []
        inserted: list[list[Any]] = []
        for (how, spec), of in zip(emitted, parts, strict=True):
            rows = [part.unbind(0) for part in of]
            watch([row for part in rows for row in part], results)
            column = [
                Maker(iter([r[j - window.begin] for r in rows]), iter(())).make(
                    _at(spec, j, window.sequences)
                )
                for j in range(window.begin, window.end)
            ]
            (appended if how == "append" else inserted).append(column)
        target += [v for values in zip(*appended, strict=True) for v in values]
        target[:0] = [v for values in zip(*inserted, strict=True) for v in values][::-1]


def _at(spec: Any, j: int, sequences: Sequences) -> Any:
    """A structure whose expressions of the loop's variable have their values of iteration j."""
    if spec == "tensor":
        return spec
    if spec[0] == "number":
        value = evaluated(spec[1], j, sequences)
        return type(value), repr(value) if isinstance(value, float) else value
    if len(spec) > 1 and isinstance(spec[-1], tuple) and spec[0] not in (torch.Size,):
        return (*spec[:-1], tuple([_at(s, j, sequences) for s in spec[-1]]))
    return spec
