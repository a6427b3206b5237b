"""Whether steps change what they reach: such ones are played by the loop.

What a step does follows from what it reaches and from the kinds of its arguments: where these are
as they were, it changes nothing if it changed nothing then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.memory import memory_of

if TYPE_CHECKING:
    from ostinato.compiler.containers import World
    from ostinato.compiler.traces import Traces

_MOST = 128  # worlds that are known of one code
_AGAIN = 32  # calls after which a step that may change something is looked at all the same

_known: dict[Any, Purity] = {}  # by code


def purity_of(code: Any) -> Purity:
    known = _known.get(code)
    return known if known is not None else _known.setdefault(code, Purity())


class Purity:
    """What is known of the steps of one code.

    Attributes:
        why: the latest that was looked at changes something, or may.
    """

    def __init__(self) -> None:
        self.why: Unsupported | None = None
        self._times = 0  # of calls since then; of one that looks as if it changed something
        self._looked_for: tuple[frozenset[str], bool] = frozenset(), False  # see World
        self._pure: set[Any] = set()
        self._missing: set[str] = set()

    def first_sees(self, missing: set[str]) -> bool:
        """Whether there are others among modules that are not there yet than before."""
        seen, self._missing = self._missing, self._missing | missing
        return seen != self._missing

    def waits(self) -> bool:
        """Whether the loop plays, unseen: after three times it is looked at ever more rarely."""
        if self.why is None:
            return False
        self._times += 1
        return self._times > 3 and (self._times < 32 or self._times & (self._times - 1) != 0)

    def is_not(self, why: Unsupported) -> None:
        if self.why is None:
            self.why, self._times = why, 0

    def suspects(self, step: Any, inputs: Any) -> World | None:
        """All that a step reaches; None where it is known that it changes nothing of that.

        Raises:
            Unsupported: what a run of the step changes could not be undone.
        """
        if memory_of(step).pure is not None:
            found, changes, its_inputs = memory_of(step).pure
            same = (not changes or its_inputs == inputs) and found.now() is not None
            if same and (not changes or self._is_trusted()):
                return None
        from ostinato.compiler.containers import World

        world = World(step, self._looked_for)
        if _key(world, inputs) not in self._pure or (world.changes and not self._is_trusted()):
            return world
        _remember(step, world, inputs)
        return None

    def is_so(self, step: Any, world: World, inputs: Any) -> None:
        """It changed nothing of this."""
        self._looked_for = world.looked_for
        # Not all that it reaches is seen, and it may change something the next time.
        if world.changes and world.unseen:
            return
        if len(self._pure) < _MOST:
            self._pure.add(_key(world, inputs))
        _remember(step, world, inputs)

    def _is_trusted(self) -> bool:
        """Though its code looks as if it changed something."""
        self._times += 1
        return self._times % _AGAIN != 0


def _key(world: World, inputs: Any) -> Any:
    return world.found.signature, inputs if world.changes else None


def _remember(step: Any, world: World, inputs: Any) -> None:
    if world.found.complete and not world.found.leads_back:
        memory_of(step).pure = world.found, world.changes, inputs


def traces_of(step: Any) -> Traces:
    """Of all that a step reaches, as it is now."""
    from ostinato.compiler.containers import World
    from ostinato.compiler.traces import Traces

    return Traces(World(step).containers)


def changes_of(traces: Traces) -> Unsupported | None:
    changed = traces.changed()
    if not changed:
        return None
    return Unsupported(
        f"the step changes what it reaches ({', '.join(changed[:3])}); let the carry hold it, and "
        "draw random numbers before"
    )
