"""The containers that a step reaches, watched or not: where a run of it may leave something."""

from __future__ import annotations

import collections
import dis
import functools
import io
import sys
import types
import weakref
from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ostinato.compiler.captures import (
    HIDDEN,
    HOOKS,
    LIMIT,
    Walk,
    has_slots,
    hooks_of_all_modules,
    is_fixed,
    names_of,
)
from ostinato.compiler.graph import Unsupported
from ostinato.compiler.traces import GENERATORS, SLOTS, Names, Slots, kind_of

_MOST_WALKS = 6


# Methods of containers that change them; of torch's functions some have these names, too.
_CHANGE = {
    "append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "add", "discard",
    "setdefault", "sort", "reverse", "appendleft", "extendleft", "popleft", "rotate", "fill", "put",
    "resize", "setattr", "delattr", "__setattr__", "__delattr__", "__setitem__", "__delitem__",
    "__dict__", "vars", "next", "send", "set", "difference_update", "intersection_update",
    "symmetric_difference_update", "move_to_end", "subtract", "step",
}  # fmt: skip


class World:
    """All that a step reaches.

    Attributes:
        containers: see `traces`.
        changes: whether any code in it looks as if it changed something.
        signature: of the constants in it.
    """

    def __init__(self, step: Callable[..., Any], known: World | None = None):
        """known: an earlier one, of the same code: what to look for.

        Raises:
            Unsupported: what a run of the step changes could not be undone.
        """
        self.names: frozenset[str] = known.names if known else frozenset()
        self.hidden: bool = known.hidden if known else False
        for _ in range(_MOST_WALKS):
            walk = _ContainerWalk(self.names, self.hidden)
            try:
                walk.visit(step)
            except RecursionError:
                raise Unsupported("it reaches containers that are nested too deeply") from None
            if walk.names == self.names and walk.hidden == self.hidden:
                break
            self.names, self.hidden = walk.names, walk.hidden
        draws = any(isinstance(c, GENERATORS) for c in walk.containers)
        self.containers, self.changes = walk.containers, walk.changes or draws
        self.signature = walk.found.signature


@functools.lru_cache(maxsize=1024)
def _changes(code: types.CodeType) -> bool:
    """Whether code stores anything but in variables of its own."""
    for i in dis.get_instructions(code):
        stores = i.opname.startswith(("STORE_", "DELETE_"))
        if stores and i.opname.endswith(("_ATTR", "_SUBSCR", "_SLICE", "_GLOBAL")):
            return True
        if i.opname in ("STORE_DEREF", "DELETE_DEREF") and i.argval in code.co_freevars:
            return True
        if i.opname.startswith("INPLACE_") or (i.opname == "BINARY_OP" and i.argrepr[-1:] == "="):
            return True  # of a list, say
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return not _CHANGE.isdisjoint(code.co_names) or any(map(_changes, inner))


class _ContainerWalk(Walk):
    """Goes on behind what is opaque; not into the globals of the standard library."""

    into_the_library = False

    def __init__(self, names: frozenset[str], hidden: bool):
        super().__init__(names)
        self.hidden = self.looks_everywhere = hidden  # by names that no code mentions
        self.containers: list[Any] = []
        self.changes = False

    def look(self, value: Any, how: int, container: Any, key: Any) -> None:
        if isinstance(value, Tensor):
            self.tensor(value)
        super().look(value, how, container, key)

    def tensor(self, value: Tensor) -> None:
        self.containers.append(vars(value))  # attributes hung on it
        if is_lazy(value):
            raise Unsupported("a parameter has no shape yet")

    def visit(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.tensor(value)
            return
        if isinstance(value, types.ModuleType) and value.__name__ in sys.stdlib_module_names:
            return
        if isinstance(value, types.BuiltinFunctionType):  # a method of a list, say
            self.visit(value.__self__)
        super().visit(value)

    def items(self, value: Any) -> None:
        if not isinstance(value, tuple):
            self.containers.append(value)
        super().items(value)

    def visit_new(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self.changes |= _changes(value.__code__)
            self.hidden |= not HIDDEN.isdisjoint(names_of(value.__code__))
            here = Names(value.__globals__, names_of(value.__code__))
            self.containers += [here, Names(value.__dict__, frozenset(self.looked_for))]
            self.containers += value.__closure__ or ()
        elif isinstance(value, nn.Module) and "_parameters" in vars(value):
            own = vars(value)
            hooks = [*(own[name] for name in HOOKS), *hooks_of_all_modules()]
            self.containers += [own, *hooks]
            for some in hooks:
                self.found.constants.append(len(some))
                self.each(some.values())
            self.attributes(own)  # a hook may leave something there
            self.instance_of(type(value), own)
        elif isinstance(value, type):
            self.containers += [base for base in value.__mro__ if not is_fixed(base)]
        elif type(value) not in (tuple, list, dict):
            self.other(value)
        super().visit_new(value)

    def other(self, value: Any) -> None:
        if isinstance(value, io.IOBase):
            return
        if isinstance(value, collections.abc.Iterator):
            raise Unsupported(
                f"it reaches a {type(value).__name__}, of which every run takes an element"
            )
        if isinstance(value, weakref.ref):
            self.visit(value())
        elif kind_of(value) is not None:
            self.containers.append(value)
        if isinstance(value, dict):
            self.each(value.values())
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            self.each(value)
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            attributes = {}
        self.containers.append(attributes)
        if isinstance(value, types.ModuleType):
            return
        if is_fixed(type(value)):  # a scheduler of PyTorch's, say: what its methods do is not read
            self.each(attributes.values())
            return
        self.class_attributes(type(value))
        self.attributes(attributes)
        self.instance_of(type(value), attributes)
        if has_slots(type(value)):
            slots = Slots(value)
            self.containers.append(slots)
            self.each(SLOTS.save(slots).values())

    def instance_of(self, cls: type, attributes: dict[str, Any]) -> None:
        bases = [base for base in cls.__mro__ if not is_fixed(base)]
        self.containers += bases
        if self.looks_everywhere:
            for some in (attributes, *map(vars, bases)):
                self.each(some.values())

    def each(self, values: Collection[Any]) -> None:
        if len(values) <= LIMIT:
            for value in list(values):
                self.visit(value)
