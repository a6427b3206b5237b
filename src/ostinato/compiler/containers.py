"""The containers that a step reaches, watched or not: where a run of it may leave something."""

from __future__ import annotations

import collections
import dis
import functools
import gc
import io
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.names import HIDDEN, globals_of, names_of
from ostinato.compiler.traces import GENERATORS, SLOTS, Names, Own, Slots, kind_of
from ostinato.compiler.walk import (
    CONTAINERS,
    FIELD,
    HOOKS,
    ITEM,
    LENGTH,
    LIMIT,
    Reach,
    Walk,
    attribute_of,
    changeable,
    dict_of,
    hooks_of_all_modules,
    is_fixed,
    slots_of,
)

_MOST_WALKS = 6
# By these code reaches what has nothing to do with what it mentions.
_ANYWHERE = {
    "globals", "locals", "eval", "exec", "__import__", "_getframe", "currentframe", "modules",
    "import_module",
}  # fmt: skip


# Methods of containers that change them; of torch's functions some have these names, too.
_CHANGE = {
    "append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "add", "discard",
    "setdefault", "sort", "reverse", "appendleft", "extendleft", "popleft", "rotate", "fill", "put",
    "resize", "setattr", "delattr", "__setattr__", "__delattr__", "__setitem__", "__delitem__",
    "__dict__", "vars", "next", "send", "set", "difference_update", "intersection_update",
    "symmetric_difference_update", "move_to_end", "subtract", "step",
}  # fmt: skip


class World:
    """All that a step reaches, also where no watch would notice each change.

    Attributes:
        looked_for: names that its code mentions, and whether it may reach attributes by others.
        containers: see `traces`.
        changes: whether any code in it looks as if it changed something.
        unseen: whether something in it has contents that are not seen, or may be anything.
        found: what there is; complete where watches notice each change of it.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        looked_for: tuple[frozenset[str], bool] = (frozenset(), False),
    ):
        """looked_for: of an earlier one of the same code.

        Raises:
            Unsupported: what a run of the step changes could not be undone.
        """
        self.looked_for = looked_for
        for _ in range(_MOST_WALKS):
            walk = _ContainerWalk(*self.looked_for)
            try:
                walk.visit(step)
            except RecursionError:
                raise Unsupported("it reaches containers that are nested too deeply") from None
            found = walk.names, walk.hidden
            if found == self.looked_for:
                break
            self.looked_for = found
        walk.notice_leads_back(step)
        draws = any(isinstance(c, GENERATORS) for c in walk.containers)
        self.containers, self.changes = walk.containers, walk.changes or draws
        self.found: Reach = walk.found
        self.unseen = walk.unseen
        self.found.tensors = []  # they must not be kept alive


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
        self.tensors: set[int] = set()
        self.changes = self.unseen = False

    def opaque(self) -> None:
        super().opaque()
        self.unseen = True

    def endless(self) -> None:
        raise Unsupported(
            "it reaches more than can be watched: give it less to hold, or to mention"
        )

    def unwatched(self) -> None:
        """Seen here, all the same."""

    def look(self, value: Any, how: int, container: Any, key: Any) -> None:
        if isinstance(value, Tensor):
            self.tensor(value)
        super().look(value, how, container, key)

    def tensor(self, value: Tensor) -> None:
        if id(value) in self.tensors:
            return
        self.tensors.add(id(value))  # alive: it is reached from the step
        self.containers.append(vars(value))  # attributes hung on it
        self.each(vars(value))
        if type(value) is not Tensor and type(value) is not nn.Parameter:
            self.visit(type(value))
        if is_lazy(value):
            raise Unsupported("a parameter has no shape yet")

    def visit(self, value: Any) -> None:
        if isinstance(value, Tensor):  # not in a place that is watched
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
            self.unseen |= not _ANYWHERE.isdisjoint(value.__code__.co_names)
            here = Names(value.__globals__, globals_of(value.__code__))
            there = Names(value.__dict__, frozenset(self.looked_for))
            self.containers += [here, there, Own(value)]
            self.containers += value.__closure__ or ()
        elif isinstance(value, type):
            self.containers += changeable(value)
        elif isinstance(value, collections.abc.Iterator) and not isinstance(value, io.IOBase):
            raise Unsupported(
                f"it reaches a {type(value).__name__}, of which every run takes an element"
            )
        elif isinstance(value, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            raise Unsupported("it reaches TorchScript, whose calls are not seen")
        elif isinstance(value, weakref.ref):
            target = value()
            self.found.watches.append((FIELD, value, "__class__", type(target)))
            self.visit(target)
        elif isinstance(value, nn.Module) and "_parameters" in vars(value):
            for hooks in (*(vars(value)[name] for name in HOOKS), *hooks_of_all_modules()):
                self.containers.append(hooks)
                self.each(hooks)
            if is_fixed(type(value)):
                self.own(value)
                self.attributes(vars(value))  # a hook may leave something there
        elif type(value) not in (tuple, list, dict):
            self.contents(value)
        super().visit_new(value)

    def contents(self, value: Any) -> None:
        """What lies in an object, and what it has where `Walk` does not look."""
        if kind_of(value) is not None:
            self.containers.append(value)
        if isinstance(value, (dict, list, tuple, collections.deque)):
            self.each(value)
        elif isinstance(value, (set, frozenset)):
            self.elements(value)
        elif isinstance(value, functools._lru_cache_wrapper):
            self.remembered(value)
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            self.unseen = True
            for element in value.flat[:LIMIT]:
                self.visit(element)
        elif not _is_of_python(value):
            self.unseen = True
        if isinstance(value, types.ModuleType):
            self.containers.append(vars(value))
        elif is_fixed(type(value)):  # a scheduler of PyTorch's, say: its methods are not read
            self.own(value)
            attributes = dict_of(value)
            if attributes is not None:
                self.each(attributes)
        elif isinstance(value, CONTAINERS):
            self.instance(value)

    def remembered(self, f: Any) -> None:
        """What an lru_cache holds: a dictionary that it shows to the collector alone."""
        for held in gc.get_referents(f):
            if type(held) is dict and held is not vars(f):
                self.containers.append(held)
                self.each(held)
                for link in held.values() if len(held) <= LIMIT else ():
                    if type(link).__name__ == "_lru_list_elem":  # where its size is bounded
                        for inside in gc.get_referents(link):
                            self.visit(inside)

    def own(self, value: Any) -> None:
        """An object's attributes, all of them where code may mention any."""
        attributes, slots = dict_of(value), Slots(value)
        if attributes is not None:
            self.containers += [attributes, Own(value)]
        if slots.slots:
            self.containers.append(slots)
        if self.looks_everywhere:
            if attributes is not None:
                self.each(attributes)
            how, at = attribute_of(value)
            for slot, inside in SLOTS.save(slots).items():
                self.look(inside, how, at, slot.__name__)

    def instance(self, value: Any) -> None:
        super().instance(value)
        self.own(value)
        bases = changeable(type(value))
        self.containers += bases
        if self.looks_everywhere:
            for base in bases:
                self.each(base.__dict__)

    def each(self, of: Any) -> None:
        """All that lies in a list, or a dictionary, or one of the kind; watched."""
        if len(of) > LIMIT:
            self.opaque()
            return
        for key, value in list(_places(of)):
            self.look(value, ITEM, of, key)
        self.found.watches.append((LENGTH, of, None, len(of)))

    def elements(self, of: Any) -> None:
        """Of a set: they are in no place that could be watched."""
        if of and not isinstance(of, frozenset):
            self.found.complete = False
        self.found.watches.append((LENGTH, of, None, len(of)))
        if len(of) <= LIMIT:
            for value in list(of):
                self.visit(value)


def _is_of_python(value: Any) -> bool:
    """Whether all that an object holds is seen: not so where C holds it."""
    if isinstance(value, (types.MethodType, property, staticmethod, classmethod, type(None))):
        return True
    return dict_of(value) is not None or bool(slots_of(type(value)))


def _places(of: Any) -> Iterable[tuple[Any, Any]]:
    """Past what a subclass makes of it."""
    if isinstance(of, dict):
        return dict.items(of)
    if isinstance(of, types.MappingProxyType):
        return of.items()
    if isinstance(of, list):
        return enumerate(list.__iter__(of))
    return enumerate(tuple.__iter__(of) if isinstance(of, tuple) else of)
