"""The outputs of an iteration: values appended to lists, and elements written into tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ostinato.loops.iteration.nostep import ListRead, NoStep

READ = "an iteration reads a list that iterations append to"


class Fresh(list[Any]):
    """Replaces a list in a step: it is empty, and records what is appended.

    Only its last items can be read, by `[-1]` and the like; they become state.
    """

    def __init__(
        self, past: Callable[[int], Any] | None = None, before: Callable[[], Any] | None = None
    ) -> None:
        """past: gives the k-th last item that the list held before the iteration; before: gives
        its length then, as a number that is another in each iteration."""
        super().__init__()
        self.noted: list[tuple[str, Any]] = []
        self.past, self.before = past, before

    def length(self) -> Any:
        """The number of items of the list, another in each iteration."""
        if self.before is None:
            raise ListRead(READ)
        return self.before() + len(self.noted)

    def __bool__(self) -> bool:
        return bool(self.noted) or self.length() > 0

    def appended(self) -> list[Any]:
        return [value for _, value in self.noted]

    def __getitem__(self, at: Any) -> Any:
        is_end = type(at) is slice and at.stop is None and at.step in (None, 1)
        if is_end and type(at.start) is int and at.start < 0:
            return [self[i] for i in range(at.start, 0)]
        if type(at) is not int or at >= 0 or self.past is None:
            raise ListRead(READ)
        if any(how != "append" for how, _ in self.noted):
            raise ListRead(READ)
        appended = self.appended()
        return appended[at] if -at <= len(appended) else self.past(-at - len(appended))

    def append(self, value: Any) -> None:
        self.noted.append(("append", value))

    def extend(self, values: Any) -> None:
        """Note the values of a list."""
        if not isinstance(values, (list, tuple)):
            raise NoStep("an iteration extends a list by something other than a list")
        self.noted += [("append", v) for v in values]

    def insert(self, at: Any, value: Any) -> None:
        """Note a value that is put first."""
        if type(at) is not int or at != 0:
            raise NoStep("an iteration inserts into a list at another place than 0")
        self.noted.append(("insert", value))

    def __iadd__(self, values: Any) -> Any:  # type: ignore[misc]
        self.extend(values)
        return self

    def _read(self, *arguments: Any, **named: Any) -> Any:
        raise ListRead(READ)

    def __iter__(self) -> Any:
        if str(sys._getframe(1).f_globals.get("__name__")).startswith("ostinato.compiler"):
            return iter(())  # for the check for side effects
        raise ListRead(READ)

    __setitem__ = __delitem__ = __len__ = __contains__ = _read
    __add__ = __radd__ = __mul__ = __rmul__ = __imul__ = __eq__ = __ne__ = __lt__ = __le__ = _read
    __gt__ = __ge__ = __reversed__ = __reduce_ex__ = _read
    pop = remove = clear = index = count = sort = reverse = copy = _read
    __repr__ = __str__ = object.__repr__


class Added:
    """Replaces a scalar that iterations only add to: it records the summands."""

    def __init__(self) -> None:
        self.added: list[Any] = []
