"""The attributes of an object that are kept in slots, as a mapping like its `__dict__`."""

from __future__ import annotations

import types
from collections.abc import Iterator, MutableMapping
from typing import Any

_OF_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class Slots(MutableMapping[str, Any]):
    """The slots of an object that have values, by name.

    Attributes:
        owner: the object. A mapping is made anew at each look; its owner tells which it is.
    """

    def __init__(self, owner: Any, members: dict[str, types.MemberDescriptorType]):
        self.owner, self._members = owner, members

    def __getitem__(self, name: str) -> Any:
        try:
            return self._members[name].__get__(self.owner)
        except AttributeError:  # it has no value
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._members[name].__set__(self.owner, value)  # past a frozen class's own __setattr__

    def __delitem__(self, name: str) -> None:
        self._members[name].__delete__(self.owner)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._members if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def slots_of(value: Any) -> Slots | None:
    """The slots of an object, or None if its class, written in Python, declares none."""
    members = _members(type(value))
    return Slots(value, members) if members else None


def identity(container: Any) -> int:
    """The id of a container; for slots, whose mapping is made anew at each look, the owner's."""
    return id(container.owner if type(container) is Slots else container)


def _members(cls: type) -> dict[str, types.MemberDescriptorType]:
    found: dict[str, types.MemberDescriptorType] = {}
    for base in reversed(cls.__mro__):
        if base.__flags__ & _OF_PYTHON and "__slots__" in vars(base):
            found |= {
                name: of
                for name, of in vars(base).items()
                if isinstance(of, types.MemberDescriptorType)
            }
    return found
