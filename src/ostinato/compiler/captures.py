"""The tensors and constants that a step function reaches: closures, globals, modules, objects.

A step is recorded once; at later calls its captured tensors are read again by the path on which
they were found, and whatever else it reaches (numbers, flags, functions, attributes of the names
its code mentions) must be as it was. A step that reaches something opaque has no such paths: it is
searched by running it at every call.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any
from weakref import ref

from ostinato.compiler.walk import Reach, Walk
from ostinato.engine import native


class Memory:
    """What is known of a step, until something that it reaches changes.

    It must not keep the step alive. A function remembers it itself, so that a closure that names
    itself is still collected; copies and pickles of the function remember nothing.
    """

    __slots__ = ("owner", "pure", "reach")

    def __init__(self, owner: Callable[[], Any]):
        self.owner = owner
        self.reach: Reach | None = None
        self.pure: Any = None  # see purity.py

    def __reduce__(self) -> Any:
        return type(None), ()


_REMEMBERED = "__ostinato_memory__"
# Of objects that are no functions, by id: two that are equal reach different tensors. By the method
# that is the step, or None.
_known: dict[int, tuple[ref[Any], dict[Any, Memory]]] = {}
native.forget_at_full_collections(_known)


def memory_of(step: Any) -> Memory:
    """A new one where nothing is remembered."""
    if isinstance(step, types.FunctionType):
        known = step.__dict__.get(_REMEMBERED)
        if not isinstance(known, Memory) or known.owner() is not step:
            # functools.wraps copies attributes.
            known = step.__dict__[_REMEMBERED] = Memory(ref(step))
        return known
    method = None
    if isinstance(step, types.MethodType):
        step, method = step.__self__, step.__func__
    at = id(step)
    entry = _known.get(at)
    if entry is None or entry[0]() is not step:
        try:
            entry = ref(step, lambda dead: _forget(at, dead)), {}
        except TypeError:  # cannot be weakly referenced: nothing is remembered
            return Memory(lambda: None)
        _known[at] = entry
    known = entry[1].get(method)
    if known is None:
        known = entry[1][method] = Memory(entry[0])
    return known


def _forget(at: int, dead: ref[Any]) -> None:
    known = _known.get(at)
    if known is not None and known[0] is dead:
        del _known[at]


def reach(step: Callable[..., Any]) -> Reach:
    """What `step` reaches now."""
    memory = memory_of(step)
    known = memory.reach
    if known is not None:
        tensors = known.now()
        if tensors is not None:
            known.tensors = tensors
            return known
    fresh = _walked(step)
    memory.reach = None if fresh.leads_back else fresh
    return fresh


def _walked(step: Callable[..., Any]) -> Reach:
    """Walk until no code that is met mentions a name that was not looked for."""
    names: frozenset[str] = frozenset()
    while True:
        walk = Walk(names)
        try:
            walk.visit(step)
        except RecursionError:  # containers in containers
            walk.opaque()
        walk.notice_leads_back(step)
        if not walk.found.complete or walk.names == names:
            walk.found.names = walk.names
            return walk.found
        names = walk.names
