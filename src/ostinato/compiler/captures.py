"""The tensors and constants that a step function reaches: closures, globals, modules, objects.

A step is recorded once; at later calls its captured tensors are read again by the path on which
they were found, and whatever else it reaches (numbers, flags, functions, attributes of the names
its code mentions) must be as it was. A step that reaches something opaque has no such paths: it is
searched by running it at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ostinato.compiler.closures import as_one_before, leave_to_next
from ostinato.compiler.memory import memory_of
from ostinato.compiler.walk import Reach, Walk


def reach(step: Callable[..., Any]) -> Reach:
    """What `step` reaches now."""
    memory = memory_of(step)
    known = memory.reach or as_one_before(step)
    if known is not None:
        tensors = known.now()
        if tensors is not None:
            known.tensors = tensors
            memory.reach = known
            return known
    fresh, again = _walked(step)
    memory.reach = None if fresh.leads_back else fresh
    leave_to_next(step, fresh, again)
    return fresh


def _walked(step: Callable[..., Any]) -> tuple[Reach, set[int]]:
    """Walk until no code that is met mentions a name that was not looked for.

    Returns what was reached, and the ids of what was met more than once.
    """
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
            return walk.found, walk.again
        names = walk.names
