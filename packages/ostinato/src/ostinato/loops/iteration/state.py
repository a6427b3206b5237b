"""The state that an iteration hands to the next, as tensors and a structure without them.

Structures are lists, tuples, named tuples, dicts, TensorDicts, dataclasses and plain objects.
Everything else in them than tensors is constant: it must be the same after every step.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.guards.code import is_fixed_name
from ostinato.loops.iteration.emitted import Added, Fresh, Growing
from ostinato.loops.iteration.index import Number
from ostinato.loops.iteration.nostep import NoStep
from ostinato.loops.iteration.prefixes import WHY, Prefix

_CONSTANTS = {
    int,
    float,
    bool,
    complex,
    str,
    bytes,
    type(None),
    type(...),
    torch.dtype,
    torch.device,
    torch.Size,
    torch.layout,
    range,
    type,
}
Spec = Any
_OF_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class UNBOUND:
    """Replaces a name that no iteration binds, because a flag is off."""


class Flat:
    """Values taken apart.

    Attributes:
        tensors: their tensors, in order.
        lists: the lists that iterations append to.
        containers: the lists, dicts and objects that may be changed in place.
        specs: the structure of each value, hashable.
    """

    def __init__(self, count: Callable[[Any, Any], Spec | None] | None = None) -> None:
        """count: gives the spec of a number that changes, of its name and value."""
        self.count = count
        self.tensors: list[Tensor] = []
        self.lists: list[list[Any]] = []
        self.containers: list[Any] = []
        self.specs: list[Spec] = []

    def add(self, value: Any, grows: int | None = None, name: Any = "") -> None:
        self.specs.append(self.spec(value, grows, name))

    def let_go(self) -> None:
        """Hold no values any longer, but how many tensors there were."""
        self.tensors, self.containers, self.lists = [None] * len(self.tensors), [], []  # type: ignore[list-item]

    def spec(self, value: Any, grows: int | None = None, name: Any = "") -> Spec:
        """The structure of a value; its parts are recorded.

        Args:
            name: of a variable, or the place of an attribute.
            grows: the depth of the lists that iterations append to; None: there are no such lists.

        Raises:
            NoStep: it holds an object that is not a structure.
        """
        if isinstance(value, Tensor):
            if type(value) is Prefix:
                raise NoStep(WHY)
            self.tensors.append(value)
            return "tensor"
        if value is UNBOUND:
            return ("unbound",)
        kind = type(value)
        if kind in _CONSTANTS:
            count = self.count(name, value) if self.count and kind in (int, float) else None
            if count is not None:
                return count
            return kind, repr(value) if kind in (float, complex) else value
        if isinstance(value, Number):
            return "number", value._key
        if isinstance(value, (Fresh, Growing)) or (grows == 0 and kind is list):
            self.lists.append(value)
            return "grows", getattr(value, "axis", None)
        grows = grows - 1 if grows else None
        if isinstance(value, tuple):
            return kind, self.parts(enumerate(value), grows, name)
        if kind is list or kind is collections.deque:
            self.containers.append(value)
            length = () if kind is list else (value.maxlen,)
            return kind, *length, self.parts(enumerate(value), grows, name)
        if isinstance(value, dict) and kind is not collections.Counter and _is_plain_dict(kind):
            self.containers.append(value)
            return kind, tuple(value), self.parts(value.items(), grows, name)
        if kind is _tensordict():
            if value.is_locked or any(value.names):
                raise NoStep("the state holds a TensorDict that is locked or names its axes")
            self.containers.append(value)
            items, how = dict(value.items()), f"TensorDict of {value.ndim} axes"
            return kind, tuple(items), self.parts(items.items(), grows, name), how
        if _is_plain_object(value):
            self.containers.append(value)
            d = vars(value)
            return kind, tuple(d), self.parts(d.items(), grows, name), "object"
        raise NoStep(f"the state holds a {kind.__name__}, which is not a structure of tensors")

    def parts(
        self, items: Iterable[tuple[Any, Any]], grows: int | None, name: Any
    ) -> tuple[Spec, ...]:
        """The specs of the parts of a structure, whose tensors and lists are added."""
        return tuple([self.spec(v, grows, part_name(name, key)) for key, v in items])


def contents_of(container: Any) -> list[Any]:
    """The values that a container of the state holds."""
    if isinstance(container, (list, collections.deque)):
        return list(container)
    of = container if hasattr(container, "values") else vars(container)
    return list(of.values())


def part_name(name: Any, key: Any) -> str:
    """The name of a part of a structure, of its number, key or attribute."""
    return f"{name}[{key!r}]"


def parts_of(spec: Spec) -> tuple[Any, tuple[Any, ...], tuple[Spec, ...]] | None:
    """What a structure is beside its parts, their keys, and their specs; None of other specs."""
    kind = spec[0]
    if not isinstance(kind, type) or len(spec) < 2 or kind in _CONSTANTS:
        return None
    if issubclass(kind, dict) or len(spec) == 4:
        return (kind, *spec[3:]), spec[1], spec[2]
    return spec[:-1], tuple(range(len(spec[-1]))), spec[-1]


def _tensordict() -> Any:
    """The class of the package tensordict, if that is imported."""
    return getattr(sys.modules.get("tensordict"), "TensorDict", UNBOUND)


def _is_plain_dict(kind: type[dict[Any, Any]]) -> bool:
    """Whether no code of its own runs when items are stored."""
    return kind.__setitem__ in (dict.__setitem__, collections.OrderedDict.__setitem__)


def _is_plain_object(value: Any) -> bool:
    """Whether everything that an object holds is in its `__dict__`."""
    if isinstance(value, (type, torch.nn.Module)) or callable(value):
        return False
    cls = type(value)
    if not all(c is object or c.__flags__ & _OF_PYTHON for c in cls.__mro__):
        return False  # it derives from list, for instance
    plain = dataclasses.is_dataclass(cls) or not is_fixed_name(cls.__module__)
    slots = any("__slots__" in vars(c) and vars(c)["__slots__"] for c in cls.__mro__)
    return plain and hasattr(value, "__dict__") and not slots


class Maker:
    """Puts values together: in new containers, or in the old ones where these persist."""

    def __init__(
        self,
        tensors: Iterator[Tensor],
        lists: Iterator[list[Any]],
        originals: Iterator[Any] | None = None,
        persists: Iterator[bool] | None = None,
        counts: Sequence[Any] = (),
    ):
        self.counts = counts
        self.tensors, self.lists = tensors, lists
        self.originals, self.persists = originals, persists
        self.containers: list[Any] = []

    def make(self, spec: Spec) -> Any:
        """The next value, of this structure."""
        if spec == "tensor":
            return next(self.tensors)
        kind = spec[0]
        if kind == "grows":
            return next(self.lists)
        if kind == "count":
            return self.counts[spec[1]]
        if kind == "sum":
            return Added()
        if kind == "unbound":
            return UNBOUND
        if kind in (float, complex):
            return kind(spec[1])
        if kind in _CONSTANTS:
            return spec[1]
        if issubclass(kind, tuple):
            parts = [self.make(s) for s in spec[1]]
            return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
        at = len(self.containers)
        self.containers.append(None)
        kept = None
        if self.originals is not None and self.persists is not None:
            original, persists = next(self.originals), next(self.persists)
            kept = original if persists else None
        made: Any
        if kind in (list, collections.deque):
            items = [self.make(s) for s in spec[-1]]
            made = items if kind is list else collections.deque(items, spec[1])
            if kept is not None:
                kept.clear()
                kept.extend(items)
                made = kept
        else:
            pairs = [(key, self.make(s)) for key, s in zip(spec[1], spec[2], strict=True)]
            made = self.mapping(spec, pairs, kept)
        self.containers[at] = made
        return made

    def mapping(self, spec: Spec, pairs: list[tuple[Any, Any]], kept: Any) -> Any:
        """A dict or an object; kept: the old one, if it persists."""
        if len(spec) == 4 and spec[0] is _tensordict():
            n_axes = int(spec[3].split()[2])
            made = spec[0]({}) if kept is None else kept
            if kept is None and pairs:
                made.batch_size = pairs[0][1].shape[:n_axes]
            return made.update(dict(pairs))
        if len(spec) == 4:
            made = spec[0].__new__(spec[0]) if kept is None else kept
            vars(made).update(pairs)
            return made
        if kept is not None:
            kept.update(pairs)
            return kept
        if issubclass(spec[0], collections.defaultdict):
            made = spec[0]()
            made.update(pairs)
            return made
        return spec[0](pairs)
