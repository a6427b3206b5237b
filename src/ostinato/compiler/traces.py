"""What running a step may leave behind in Python, and undoing it.

A step is run a few times more than the loop would run it. All that it can reach and change is saved
before: what the values of a container are, not copies of these, which are containers saved of their
own.
"""

from __future__ import annotations

import array
import collections
import contextlib
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ostinato.compiler.walk import slots_of

_NOTHING = object()


class Kind:
    """How containers of one kind are saved and put back."""

    def __init__(self, save: Callable[[Any], Any], put_back: Callable[[Any, Any], None]):
        self.save, self.put_back = save, put_back


class Traces:
    """What the containers hold that a step reaches; and the state of PyTorch's generator.

    Args:
        containers: None where it is known that the step changes none, nor draws random numbers of
            Python's or NumPy's.
    """

    def __init__(self, containers: list[Any] | None):
        self._torch = torch.get_rng_state()
        self._saved: list[tuple[Kind, Any, Any]] = []
        if containers is not None:
            everything = [*containers, random, np.random]
            kinds = [(kind_of(c), c) for c in everything]
            self._saved = [(kind, c, kind.save(c)) for kind, c in kinds if kind is not None]

    def changed(self) -> list[str]:
        """The names of what is no longer as it was."""
        found = []
        for kind, container, before in self._saved:
            now = kind.save(container)
            if not _same(now, before):
                found.append(_name(container, before, now))
        return found

    def put_back(self) -> None:
        for kind, container, before in self._saved:
            if not _same(kind.save(container), before):
                kind.put_back(container, before)
        # Only where it changed: another thread may draw, too, and would draw the same again.
        if not torch.equal(self._torch, torch.get_rng_state()):
            torch.set_rng_state(self._torch)


def _same(a: Any, b: Any) -> bool:
    """Of two saved values: dicts and lists hold the same objects, in the same order."""
    if type(a) is dict:
        return len(a) == len(b) and all(
            k is j and _is(v, w) for (k, v), (j, w) in zip(a.items(), b.items(), strict=True)
        )
    if type(a) is list:
        return len(a) == len(b) and all(map(_is, a, b))
    return bool(a == b)


def _is(a: Any, b: Any) -> bool:
    numbers = (int, float, complex, bool, str, bytes)
    return a is b or (type(a) is type(b) and isinstance(a, numbers) and (a == b or a != a))


def _name(container: Any, before: Any, now: Any) -> str:
    if type(now) is dict:
        for key in (*now, *before):
            if not _is(now.get(key, _NOTHING), before.get(key, _NOTHING)):
                return str(getattr(key, "__name__", key))
    if isinstance(container, types.ModuleType):
        return container.__name__
    return f"a {type(container).__name__}"


class Names:
    """Some names of a dictionary, as the globals that code mentions."""

    def __init__(self, of: dict[str, Any], names: frozenset[str]):
        self.of, self.names = of, names


class Slots:
    """The attributes of an object that lie in slots."""

    def __init__(self, of: Any):
        self.of = of
        self.slots = slots_of(type(of))


class Own:
    """What an object, or a function, is beside its attributes: its class, say; by name."""

    def __init__(self, of: Any):
        self.of = of
        self.names = _OF_FUNCTIONS if isinstance(of, types.FunctionType) else _OF_OBJECTS


_OF_FUNCTIONS = ("__code__", "__defaults__", "__kwdefaults__")
_OF_OBJECTS = ("__class__", "__dict__")


def _save_own(o: Own) -> dict[str, Any]:
    return {name: getattr(o.of, name, _NOTHING) for name in o.names}


def _put_own(o: Own, before: dict[str, Any]) -> None:
    for name, value in before.items():
        if getattr(o.of, name, _NOTHING) is not value:
            object.__setattr__(o.of, name, value)


def _save_names(g: Names) -> dict[str, Any]:
    return {name: g.of[name] for name in g.names if name in g.of}


def _put_names(g: Names, before: dict[str, Any]) -> None:
    for name in g.names:
        if name in before:
            g.of[name] = before[name]
        else:
            g.of.pop(name, None)


def _save_slots(s: Slots) -> dict[types.MemberDescriptorType, Any]:
    found = {}
    for slot in s.slots:
        with contextlib.suppress(AttributeError):  # there is nothing in it
            found[slot] = slot.__get__(s.of)
    return found


def _put_slots(s: Slots, before: dict[types.MemberDescriptorType, Any]) -> None:
    now = _save_slots(s)
    for slot, value in before.items():
        if not _is(now.get(slot, _NOTHING), value):
            slot.__set__(s.of, value)
    for slot in now.keys() - before.keys():
        slot.__delete__(s.of)


def _put_class(cls: type, before: dict[str, Any]) -> None:
    now = dict(vars(cls))
    for name, value in before.items():
        if now.get(name, _NOTHING) is not value:
            setattr(cls, name, value)
    for name in now.keys() - before.keys():
        delattr(cls, name)


def _save_cell(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # not yet bound
        return []


def _put_cell(cell: types.CellType, before: list[Any]) -> None:
    if before:
        cell.cell_contents = before[0]
    else:
        del cell.cell_contents


def _put_dict(d: dict[Any, Any], before: dict[Any, Any]) -> None:
    # As a dict: a Counter adds where it is updated. An OrderedDict has an order of its own.
    kind: Any = collections.OrderedDict if isinstance(d, collections.OrderedDict) else dict
    if list(before) != [key for key in d if key in before]:  # some are gone, or moved
        kind.clear(d)
    for key in [key for key in d if key not in before]:
        kind.__delitem__(d, key)
    # One by one: another thread, which may read here meanwhile, finds all that did not change.
    for key, value in before.items():
        if dict.get(d, key, _NOTHING) is not value:
            kind.__setitem__(d, key, value)


def _put_set(s: set[Any], before: set[Any]) -> None:
    set.clear(s)
    set.update(s, before)


def _put_deque(d: collections.deque[Any], before: list[Any]) -> None:
    d.clear()
    d.extend(before)


def _save_elements(a: Any) -> tuple[Any, bytes]:
    shape = a.shape if isinstance(a, np.ndarray) else None
    return shape, a.tobytes() if hasattr(a, "tobytes") else bytes(a)


def _put_elements(a: Any, before: tuple[Any, bytes]) -> None:
    shape, content = before
    if isinstance(a, np.ndarray):
        if a.shape != shape:
            a.resize(shape, refcheck=False)
        np.copyto(a, np.frombuffer(content, a.dtype).reshape(shape))
    elif isinstance(a, array.array):
        del a[:]
        a.frombytes(content)
    elif isinstance(a, memoryview):
        a.cast("B")[:] = content
    else:
        a[:] = content


def _put_objects(a: np.ndarray[Any, Any], before: list[Any]) -> None:
    for i, value in enumerate(before):
        a.flat[i] = value


SLOTS = Kind(_save_slots, _put_slots)
_ELEMENTS = Kind(_save_elements, _put_elements)
_OBJECTS = Kind(lambda a: list(a.flat), _put_objects)


def _put_state(r: Any, before: _State) -> None:
    r.set_state(before.of)


def _put_bits(r: Any, before: _State) -> None:
    r.bit_generator.state = before.of


_KINDS: list[tuple[Any, Kind]] = [
    (dict, Kind(dict, _put_dict)),
    (list, Kind(list, lambda a, before: list.__setitem__(a, slice(None), before))),
    (set, Kind(set, _put_set)),
    (collections.deque, Kind(list, _put_deque)),
    ((bytearray, array.array), _ELEMENTS),
    (types.CellType, Kind(_save_cell, _put_cell)),
    (type, Kind(lambda cls: dict(vars(cls)), _put_class)),
    (Names, Kind(_save_names, _put_names)),
    (Slots, SLOTS),
    (Own, Kind(_save_own, _put_own)),
    (random.Random, Kind(lambda r: r.getstate(), lambda r, before: r.setstate(before))),
    (np.random.RandomState, Kind(lambda r: _State(r.get_state()), _put_state)),
    (np.random.Generator, Kind(lambda r: _State(r.bit_generator.state), _put_bits)),
    (torch.Generator, Kind(lambda r: _State(r.get_state()), _put_state)),
]
GENERATORS = (random.Random, np.random.RandomState, np.random.Generator, torch.Generator)
_PYTHON = Kind(lambda m: m.getstate(), lambda m, before: m.setstate(before))
_NUMPY = Kind(lambda m: _State(m.get_state()), lambda m, before: m.set_state(before.of))


class _State:
    """A generator's, with arrays in it, which have truth values of their own."""

    def __init__(self, of: Any):
        self.of = of
        self.key = _hashable(of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _State) and self.key == other.key


def _hashable(state: Any) -> Any:
    if isinstance(state, (np.ndarray, torch.Tensor)):
        return np.asarray(state).tobytes()
    if isinstance(state, dict):
        return tuple((k, _hashable(v)) for k, v in state.items())
    return tuple(map(_hashable, state)) if isinstance(state, tuple) else state


def kind_of(container: Any) -> Kind | None:
    if container is random:
        return _PYTHON
    if container is np.random:
        return _NUMPY
    if isinstance(container, np.ndarray):
        return _OBJECTS if container.dtype.hasobject else _ELEMENTS
    if isinstance(container, memoryview):
        return None if container.readonly or not container.c_contiguous else _ELEMENTS
    return next((kind for of, kind in _KINDS if isinstance(container, of)), None)
