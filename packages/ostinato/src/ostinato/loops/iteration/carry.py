"""The state at the begin of a scan, taken apart."""

from __future__ import annotations

import functools
import types
from typing import Any

from torch import Tensor

from ostinato.compiler.capture.guards.slots import Slots
from ostinato.loops.iteration.attributes import ABSENT, Place, resolved, roots
from ostinato.loops.iteration.emitted import Growing, as_growing
from ostinato.loops.iteration.nostep import NoStep
from ostinato.loops.iteration.state import UNBOUND, Flat, Spec
from ostinato.loops.text.rewrite import LoopSource


class State:
    """The state at the begin of a scan, taken apart.

    Attributes:
        carried, trailing, placed: the values of names and places.
        list_names: the name of each list that grows; None if the list is part of another value.
        counts: numbers that change from iteration to iteration, with the change of whole numbers.
        summed: scalars that iterations only add to, and whether in place; the summands are outputs.
        places: the places, with the containers that hold them.
        tensors: the tensors of all three, the carry of the scan.
        lists, containers: those of names and places; see `Flat`.
    """

    def __init__(
        self,
        names: dict[str, Any],
        source: LoopSource,
        places: list[tuple[Place, Any]],
        body: types.FunctionType,
        counted: dict[str, int | None],
        grown: bool,
    ):
        carried, trailing = source.carried, source.trailing
        for name in trailing:
            if name not in names:
                raise NoStep(f"{name} is not bound after the first iteration")
        self.counts: list[tuple[Any, int | None]] = []
        count = functools.partial(_count, self.counts, counted)
        self.carried, self.placed, self.trailing = Flat(count), Flat(count), Flat()
        self.summed: list[tuple[Tensor, bool]] = []
        self.list_names: list[str | None] = []
        for name in carried:
            value = names.get(name, UNBOUND)
            if name in source.summed and isinstance(value, Tensor) and not value.dim():
                self.summed.append((value, source.summed[name]))
                self.carried.specs.append(("sum", value.dtype))
            else:
                n, depth = len(self.carried.lists), source.grown.get(name) if grown else None
                if grown and name in source.longer:
                    value = as_growing(value, source.longer[name])
                self.carried.add(value, depth, name)
                whole = [name if depth == 0 else None]
                self.list_names += whole * (len(self.carried.lists) - n)
        self.places = places
        for place, container in places:
            value = container[place.key] if _has(container, place.key) else ABSENT
            if value is ABSENT:
                raise NoStep(f"{place} does not exist after the first iteration")
            self.placed.add(value, 0 if place.grows else None, place)
        self.list_names += [None] * len(self.placed.lists)
        for name in trailing:
            self.trailing.add(names[name])
        flats = self.carried, self.placed, self.trailing
        self.tensors = [t for flat in flats for t in flat.tensors]
        self.lists: list[Any] = [*self.carried.lists, *self.placed.lists]
        self.containers = [*self.carried.containers, *self.placed.containers]
        self.check_names(body)

    def check_names(self, body: types.FunctionType) -> None:
        """Raise NoStep if a list or object has two names: a step would have a copy for each."""
        held = [*self.containers, *self.lists]
        if not held:
            return
        others = [c for _, c in self.places] + [value for _, value in roots(body)]
        ids = set(map(id, held))
        if len(ids) < len(held) or not ids.isdisjoint(map(id, others)):
            raise NoStep("two names hold one list, dict or object that iterations may change")

    def changing(self) -> list[Any]:
        """The lists, dicts and objects that iterations may change."""
        return [*self.containers, *self.lists, *[container for _, container in self.places]]

    def let_go(self) -> None:
        """Release the values, but keep their number."""
        self.summed, self.containers = [], []
        self.tensors = [None] * len(self.tensors)  # type: ignore[list-item]
        self.lists = [
            of.let_go() if isinstance(of, Growing) else range(len(of)) for of in self.lists
        ]
        for flat in (self.carried, self.placed, self.trailing):
            flat.let_go()

    def counted_from(self, j: int) -> Any:
        """The values of the counting whole numbers, taken back to iteration 0; None without any."""
        return [value - by * j for value, by in self.counts if by is not None] or None

    def key(self) -> Any:
        """Its structure; hashable."""
        return (
            tuple(self.carried.specs),
            tuple(self.placed.specs),
            tuple(p for p, _ in self.places),
        )


def _count(
    counts: list[tuple[Any, int | None]], counted: dict[str, int | None], name: Any, value: Any
) -> Spec | None:
    """Record a number that changes from iteration to iteration; None if it does not."""
    if not counted or str(name) not in counted:
        return None
    by = counted[str(name)] if type(value) is int else None
    counts.append((value, by))
    return "count", len(counts) - 1, type(value) if by is None else by


def _has(container: Any, key: Any) -> bool:
    return key < len(container) if isinstance(container, list) else key in container


def places_of(body: types.FunctionType, places: list[Place]) -> list[tuple[Place, Any]]:
    """The places that exist in this call, with their containers."""
    found = [(p, resolved(body, p.path)) for p in places]
    return [(p, c) for p, c in found if isinstance(c, (dict, list, Slots)) and _has(c, p.key)]
