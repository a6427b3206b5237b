"""What an iteration emits: values appended to lists, and elements written into tensors."""

from __future__ import annotations

import sys
from typing import Any

from ostinato.loops.nostep import NoStep

READ = "an iteration reads a list that iterations append to"


class Fresh(list):  # type: ignore[type-arg]
    """Stands for a list in a step: empty, and it notes what is appended. It cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, Any]] = []

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

    def __iadd__(self, values: Any) -> Any:
        self.extend(values)
        return self

    def _read(self, *arguments: Any, **named: Any) -> Any:
        raise NoStep(READ)

    def __iter__(self) -> Any:
        if str(sys._getframe(1).f_globals.get("__name__")).startswith("ostinato.compiler"):
            return iter(())  # what looks for side effects
        raise NoStep(READ)

    __getitem__ = __setitem__ = __delitem__ = __len__ = __contains__ = _read
    __add__ = __radd__ = __mul__ = __rmul__ = __imul__ = __eq__ = __ne__ = __lt__ = __le__ = _read  # type: ignore[assignment]
    __gt__ = __ge__ = __reversed__ = __reduce_ex__ = __bool__ = _read  # type: ignore[assignment]
    pop = remove = clear = index = count = sort = reverse = copy = _read  # type: ignore[assignment]
    __repr__ = __str__ = object.__repr__
