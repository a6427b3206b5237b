"""What is remembered of steps."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any
from weakref import ref

from ostinato.engine import native


class Memory:
    """What is known of a step, until something that it reaches changes.

    It must not keep the step alive. A function remembers it itself, so that a closure that names
    itself is still collected; copies and pickles of the function remember nothing.
    """

    __slots__ = ("owner", "pure", "reach")

    def __init__(self, owner: Callable[[], Any]):
        self.owner = owner
        self.reach: Any = None  # see walk.py; with an object, of closures over it, see closures.py
        self.pure: Any = None  # see purity.py

    def __reduce__(self) -> Any:
        return type(None), ()


REMEMBERED = "__ostinato_memory__"
# Of objects that are no functions, by id: two that are equal reach different tensors. By the method
# that is the step; None where the object is; or the code of functions that are closures over it.
_known: dict[int, tuple[ref[Any], dict[Any, Memory]]] = {}
native.forget_at_full_collections(_known)


def memory_of(step: Any) -> Memory:
    """A new one where nothing is remembered."""
    if isinstance(step, types.FunctionType):
        known = step.__dict__.get(REMEMBERED)
        if not isinstance(known, Memory) or known.owner() is not step:
            # functools.wraps copies attributes.
            known = step.__dict__[REMEMBERED] = Memory(ref(step))
        return known
    if isinstance(step, types.MethodType):
        return memory_with(step.__self__, step.__func__)
    return memory_with(step, None)


def memory_with(owner: Any, key: Any) -> Memory:
    """What is remembered with an object."""
    at = id(owner)
    entry = _known.get(at)
    if entry is None or entry[0]() is not owner:
        try:
            entry = ref(owner, lambda dead: _forget(at, dead)), {}
        except TypeError:  # cannot be weakly referenced: nothing is remembered
            return Memory(lambda: None)
        _known[at] = entry
    known = entry[1].get(key)
    if known is None:
        known = entry[1][key] = Memory(entry[0])
    return known


def _forget(at: int, dead: ref[Any]) -> None:
    known = _known.get(at)
    if known is not None and known[0] is dead:
        del _known[at]
