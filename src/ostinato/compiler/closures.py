"""Steps that a model makes anew for each call: closures over itself, or over parts of it.

What such a function reaches is what the one before it reached, but for its own cells. That is
remembered with one of the objects that it is a closure over, and must not keep any of them alive.
"""

from __future__ import annotations

import types
from typing import Any
from weakref import ref

from torch import Tensor

from ostinato.compiler.memory import REMEMBERED, Memory, memory_with
from ostinato.compiler.walk import Reach, is_constant, is_fixed


class _Pattern:
    """What a function reached.

    Attributes:
        scope: its globals.
        owners: the objects that it is a closure over.
        own: of each watch of the function itself: its index, how it is read, of which cell or, with
            None, of the function; which key, and what is there, or the index of the owner there.
        found: without these.
    """

    def __init__(self, f: types.FunctionType, owners: list[Any], found: Reach, memory: Memory):
        def forget(_: Any) -> None:
            memory.reach = None

        self.scope, self.owners = f.__globals__, [ref(owner, forget) for owner in owners]
        cells = {id(cell): i for i, cell in enumerate(f.__closure__ or ())}
        index = {id(owner): i for i, owner in enumerate(owners)}
        watches: list[Any] = list(found.watches)
        self.own: list[tuple[int, int, int | None, Any, Any, int | None]] = []
        for i, (how, container, key, value) in enumerate(watches):
            if id(container) in cells or (isinstance(container, ref) and container() is f):
                owner = index.get(id(value))
                value = None if owner is not None else value
                self.own.append((i, how, cells.get(id(container)), key, value, owner))
                watches[i] = None
        self.found = Reach([], found.constants, watches, found.names)

    def of(self, f: types.FunctionType, owners: list[Any]) -> Reach | None:
        """What a function of the same code reaches, to be compared with what is there."""
        same = len(owners) == len(self.owners) and all(
            known() is owner for known, owner in zip(self.owners, owners, strict=True)
        )
        if not same or self.scope is not f.__globals__:
            return None
        watches, itself, cells = self.found.watches.copy(), ref(f), f.__closure__ or ()
        for i, how, cell, key, value, owner in self.own:
            container = itself if cell is None else cells[cell]
            watches[i] = how, container, key, value if owner is None else owners[owner]
        found = Reach([], self.found.constants, watches, self.found.names)
        found.__dict__["signature"] = self.found.signature  # the constants are hashed once
        return found


def as_one_before(step: Any) -> Reach | None:
    """What the step reaches if it is like one before it; for comparison with what is there."""
    owners = _closed_over(step)
    for owner in owners:
        pattern = memory_with(owner, step.__code__).reach
        if pattern is not None:
            return pattern.of(step, owners)
    return None


def leave_to_next(step: Any, found: Reach, again: set[int]) -> None:
    """Remember what a step reaches. again: ids of what leads back to itself."""
    owners = _closed_over(step)
    free = [owner for owner in owners if id(owner) not in again]
    if free and found.complete:
        memory = memory_with(free[0], step.__code__)
        memory.reach = _Pattern(step, owners, found, memory)


def _closed_over(step: Any) -> list[Any]:
    """The objects, beside numbers and tensors, that a plain function is a closure over.

    None where it has anything else of its own.
    """
    if not isinstance(step, types.FunctionType) or not step.__dict__.keys() <= {REMEMBERED}:
        return []
    if step.__defaults__ is not None or step.__kwdefaults__ is not None:
        return []
    found: dict[int, Any] = {}
    for cell in step.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not yet bound
            return []
        if isinstance(value, (Tensor, types.BuiltinFunctionType)) or is_constant(value):
            continue
        if isinstance(value, types.FunctionType) or not type(value).__weakrefoffset__:
            return []
        if not is_fixed(value):
            found[id(value)] = value
    return list(found.values())
